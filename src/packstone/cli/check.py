"""`packstone check`: is everything that was acknowledged still whole?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packstone.cli import progress, render, values
from packstone.cli.session import Session, global_options
from packstone.errors import Damaged, PackstoneError, UsageError

if TYPE_CHECKING:
    import packstone

# Paths that one damaged record hits may be thousands; --json names them all.
PATHS_SHOWN = 10


@click.command()
@click.option("--read-data", is_flag=True, help="Also decode and hash every object.")
@click.option(
    "--subset",
    type=values.subset,
    metavar="5%|SIZE|N/M",
    help="Read the data of a part only: a share or a size, what was verified longest ago first; "
    "or the Nth of M fixed parts.",
)
@click.option(
    "--max-time",
    type=values.seconds,
    metavar="TIME",
    help="Read data for so long (2h, 30m), what was verified longest ago first.",
)
@click.option(
    "--pack",
    "packs",
    multiple=True,
    metavar="ID",
    help="Check only the pack whose id begins so; may be repeated.",
)
@click.option(
    "--names-only", is_flag=True, help="Only compare files with the hashes they are named by."
)
@global_options
@click.pass_obj
def check(
    session: Session,
    read_data: bool,
    subset: str | int | None,
    max_time: float | None,
    packs: tuple[str, ...],
    names_only: bool,
) -> int:
    """Check that packs, index, trees and snapshots agree.

    \b
    packstone check
    packstone check --read-data
    packstone check --subset 5%
    packstone check --max-time 2h
    packstone check --names-only

    Every pack is read and compared with its name; --read-data decodes every object too.
    --subset, --max-time and --pack read the data of some packs; of the others the footers are
    read, and with --pack nothing. When a pack was verified is kept in the repository.
    --names-only needs no passphrase: it tells accidents, not forgeries.

    Exit code 14 means that damage was found, 1 that something did not read the first time and
    was good the second.
    """
    if names_only:
        if read_data or packs or subset is not None or max_time is not None:
            raise UsageError("--names-only opens nothing: it excludes what reads data")
        result = _names_only(session)
    else:
        with (
            session.open() as repository,
            progress.shown(session, "check", "packs") as report,
        ):
            result = repository.check(
                read_data=read_data,
                subset=subset,
                max_seconds=max_time,
                packs=packs,
                progress=report,
            )
    session.warn(result.warnings)
    if session.json:
        session.document(_document(result))
    else:
        for finding in result.errors:
            _tell(finding, session.verbose)
        if session.verbose:
            for note in result.notes:
                render.line(f"note: {note}")
        if not session.quiet:
            _summarise(result, names_only)
        if any(finding.pack and not finding.transient for finding in result.errors):
            render.message("hint: save what can be read of damaged packs: packstone repair packs")
    return _exit_code(result)


def _names_only(session: Session) -> packstone.CheckResult:
    import packstone

    with progress.shown(session, "check", "packs") as report:
        return packstone.check_names(session.location(), threads=session.threads, progress=report)


def _exit_code(result: packstone.CheckResult) -> int:
    """Return 14 for damage. What was good when read again is none, but nothing to be silent of."""
    if not result.errors:
        return 0
    if all(finding.transient for finding in result.errors):
        return PackstoneError.exit_code
    return Damaged.exit_code


def _document(result: packstone.CheckResult) -> dict[str, Any]:
    return {
        "errors": [
            {
                "kind": finding.kind,
                "message": finding.message,
                "pack": finding.pack,
                "snapshots": list(finding.snapshots),
                "paths": [render.json_name(path) for path in finding.paths],
                "record": finding.record,
                "transient": finding.transient,
            }
            for finding in result.errors
        ],
        "warnings": list(result.warnings),
        "notes": list(result.notes),
        "packs_checked": result.packs_checked,
        "packs_total": result.packs_total,
        "bytes_total": result.bytes_total,
        "snapshots_checked": result.snapshots_checked,
        "objects_checked": result.objects_checked,
        "bytes_read": result.bytes_read,
        "orphans": result.orphans,
        "verified": _verified(result),
        "seconds": result.seconds,
    }


def _verified(result: packstone.CheckResult) -> dict[str, Any] | None:
    verified = result.verified
    if verified is None:
        return None
    oldest = render.rfc3339(verified.oldest_ns) if verified.oldest_ns else None
    return {"packs": verified.packs, "bytes": verified.bytes, "oldest": oldest}


def _tell(finding: packstone.Finding, verbose: int) -> None:
    render.line(f"{finding.kind}: {render.visible(finding.message)}")
    if finding.snapshots:
        render.line("  in snapshots " + " ".join(name[:8] for name in finding.snapshots))
    shown = list(finding.paths) if verbose else list(finding.paths)[:PATHS_SHOWN]
    for path in shown:
        render.line(f"  {render.printable(path)}")
    if len(shown) < len(finding.paths):
        render.line(f"  and {len(finding.paths) - len(shown):,} more (-v names all)")


def _summarise(result: packstone.CheckResult, names_only: bool) -> None:
    if names_only:
        render.line("only names were checked: what the files hold was not opened")
    transient = sum(finding.transient for finding in result.errors)
    lasting = len(result.errors) - transient
    found = render.count(lasting, "error") if lasting else "no errors"
    if transient:
        found += f", {render.count(transient, 'transient fault')}"
    packs = render.count(result.packs_checked, "pack")
    if result.packs_checked < result.packs_total:
        packs += f" of {result.packs_total:,}"
    render.line(
        f"{found}: {packs}, "
        f"{render.count(result.snapshots_checked, 'snapshot')}, "
        f"{render.count(result.objects_checked, 'object')}, "
        f"{render.iec(result.bytes_read)} read, in {render.duration(result.seconds)}"
    )
    verified = result.verified
    if verified is None:
        return
    share = 100 * verified.bytes / result.bytes_total if result.bytes_total else 100.0
    line = f"verified so far: {render.iec(verified.bytes)} of {render.iec(result.bytes_total)}"
    line += f" ({share:.0f} %)"
    if verified.oldest_ns:
        line += f", the oldest on {render.local_time(verified.oldest_ns)}"
    render.line(line)
