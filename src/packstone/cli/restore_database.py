"""The part of `packstone restore` that plays a dump of a job back into a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packstone.cli import progress, render
from packstone.cli.session import Session
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone


def to_database(
    session: Session,
    job: str,
    target: str,
    *,
    snapshot: str,
    part: str,
    source: str,
    before_ns: int | None,
    host: str | None,
    roles: bool,
    overwrite: str | None,
) -> int:
    """Play a dump back and tell of it; return the exit code."""
    import packstone

    if overwrite not in (None, "always"):
        raise UsageError("--to-database knows no --overwrite but 'always'")
    with progress.shown(session, "restore") as report:
        loaded = packstone.restore_job(
            session.strategy(),
            job,
            target,
            source=source,
            threads=session.threads,
            lock_timeout=session.lock_timeout,
            waiting=lambda text: render.message(render.visible(text)),
            warn=lambda text: session.warn([text]),
            snapshot=snapshot,
            part=part,
            before_ns=None if before_ns is None else _last_of(before_ns),
            host=host,
            roles=roles,
            overwrite=overwrite is not None,
            progress=report,
        )
    if session.json:
        session.document(
            {
                "job": job,
                "to_database": target,
                "parts": [_row(each) for each in loaded],
                "bytes": sum(each.bytes_loaded for each in loaded),
                "seconds": sum(each.seconds for each in loaded),
            }
        )
    elif not session.quiet:
        for each in loaded:
            render.line(
                f"{render.printable(each.name)} of {render.local_time(each.time_ns)} "
                f"(snapshot {each.snapshot_id[:8]}) is in {render.printable(target)}: "
                f"{render.iec(each.bytes_loaded)}, in {render.duration(each.seconds)}"
            )
    return 0


def _last_of(time_ns: int) -> int:
    """Return the last moment that is shown as this one: in whole seconds, or microseconds."""
    return time_ns + (999_999_999 if time_ns % 10**9 == 0 else 999)


def _row(loaded: packstone.LoadedPart) -> dict[str, object]:
    return {
        "part": loaded.name,
        "snapshot_id": loaded.snapshot_id,
        "time": render.rfc3339(loaded.time_ns),
        "bytes": loaded.bytes_loaded,
        "seconds": loaded.seconds,
    }
