"""`packstone rehearse`: really restore a job to a scratch place, and measure it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packstone.cli import progress, render
from packstone.cli.session import Session, config_option, global_options
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone


@click.command()
@click.argument("name", metavar="JOB")
@click.option(
    "--target", "-t", type=click.Path(), metavar="DIR", help="Restore in a new directory in DIR."
)
@click.option("--keep", is_flag=True, help="Leave what was restored where it is.")
@click.option(
    "--to-database", "database", metavar="NAME", help="Load a dump into this empty database too."
)
@click.option("--part", metavar="NAME", help="Which dump, where a job stores several.")
@config_option
@global_options
@click.pass_obj
def rehearse(
    session: Session,
    name: str,
    target: str | None,
    keep: bool,
    database: str | None,
    part: str | None,
) -> int:
    """Restore the newest snapshots of JOB to a scratch place, verify them, keep the rates.

    Files go to a new directory, are read back from the disk and removed. Dumps are read to
    their end, and loaded only with --to-database; that database is yours to drop. How long it
    took, and how far off the estimate was, is kept in the repository for packstone plan.

    \b
      packstone rehearse crm
      packstone rehearse attachments --target /scratch
      packstone rehearse crm --to-database crm_rehearsal
    """
    import packstone

    if database == "":
        raise UsageError("--to-database names no database")
    strategy = session.strategy()
    with progress.shown(session, "rehearse") as report:
        result = packstone.rehearse_job(
            strategy,
            name,
            target=target,
            keep=keep,
            database=database or "",
            part=part or "",
            opening=session.opening(),
            progress=report,
        )
    render.problems(result.errors)
    session.warn(result.warnings)
    if session.json:
        session.document(_document(result))
    elif not session.quiet:
        _tell(result)
    return 3 if result.errors else 0


def _tell(result: packstone.Rehearsal) -> None:
    what = "loaded" if result.loaded else "restored"
    if result.verify_seconds:
        what += " and read back"
    render.line(
        f"{render.printable(result.job.name)} {what}: {render.count(result.files, 'file')}, "
        f"{render.iec(result.bytes)}, in {render.duration(result.seconds)}"
    )
    if result.verify_seconds:
        render.line(f"  reading back took {render.duration(result.verify_seconds)} more")
    if result.estimate is None:
        render.line("  nothing was measured before: this is the first rate")
    elif result.off is not None:
        way = "too long" if result.off > 0 else "too short"
        render.line(
            f"  the estimate was {render.duration(result.estimate.seconds)}: "
            f"{100 * abs(result.off):.0f} % {way}"
        )
    if result.judged and result.off_median is not None:
        many = render.count(result.judged, "estimate")
        render.line(f"  {many} so far, off by median {100 * result.off_median:.0f} %")
    if not result.kept_rate and not result.errors:
        render.line("  too quick to tell a rate, or the repository cannot be written: none is kept")
    if result.place:
        render.line(f"  left in {render.printable(result.place)}")
    if result.errors:
        render.line(f"  {render.count(len(result.errors), 'problem')}, named above")


def _document(result: packstone.Rehearsal) -> dict[str, Any]:
    return {
        "job": result.job.name,
        "snapshots": [row.id for row in result.snapshots],
        "files": result.files,
        "files_verified": result.files_verified,
        "bytes": result.bytes,
        "seconds": result.seconds,
        "verify_seconds": result.verify_seconds,
        "loaded": result.loaded,
        "estimate": render.estimate_document(result.estimate),
        "estimate_off": result.off,
        "estimates_off": result.off_median,
        "estimates_judged": result.judged,
        "rate_kept": result.kept_rate,
        "place": result.place or None,
        "errors": render.problem_rows(result.errors),
        "warnings": list(result.warnings),
    }
