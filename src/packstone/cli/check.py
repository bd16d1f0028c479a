"""`packstone check`: is everything that was acknowledged still whole?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packstone.cli import progress, render
from packstone.cli.session import Session, global_options
from packstone.errors import Damaged, UsageError

if TYPE_CHECKING:
    import packstone

# Paths that one damaged record hits may be thousands; --json names them all.
PATHS_SHOWN = 10


@click.command()
@click.option("--read-data", is_flag=True, help="Also decode and hash every object.")
@click.option(
    "--names-only", is_flag=True, help="Only compare files with the hashes they are named by."
)
@global_options
@click.pass_obj
def check(session: Session, read_data: bool, names_only: bool) -> int:
    """Check that packs, index, trees and snapshots agree.

    Every pack is read and compared with its name; --read-data decodes every object too.
    --names-only needs no passphrase: it tells accidents, not forgeries. Exit code 14 means
    that damage was found.
    """
    if names_only:
        result = _names_only(session, read_data)
    else:
        with (
            session.open() as repository,
            progress.shown(session, "check", "packs") as report,
        ):
            result = repository.check(read_data=read_data, progress=report)
    session.warn(result.warnings)
    if session.json:
        session.document(_document(result))
    else:
        for finding in result.errors:
            _tell(finding, session.verbose)
        if not session.quiet:
            _summarise(result, names_only)
    return Damaged.exit_code if result.errors else 0


def _names_only(session: Session, read_data: bool) -> packstone.CheckResult:
    import packstone

    if read_data:
        raise UsageError("--names-only opens nothing: it excludes --read-data")
    with progress.shown(session, "check", "packs") as report:
        return packstone.check_names(session.location(), threads=session.threads, progress=report)


def _document(result: packstone.CheckResult) -> dict[str, Any]:
    return {
        "errors": [
            {
                "kind": finding.kind,
                "message": finding.message,
                "pack": finding.pack,
                "snapshots": list(finding.snapshots),
                "paths": [render.json_name(path) for path in finding.paths],
            }
            for finding in result.errors
        ],
        "warnings": list(result.warnings),
        "packs_checked": result.packs_checked,
        "snapshots_checked": result.snapshots_checked,
        "objects_checked": result.objects_checked,
        "bytes_read": result.bytes_read,
        "seconds": result.seconds,
    }


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
    found = render.count(len(result.errors), "error") if result.errors else "no errors"
    render.line(
        f"{found}: {render.count(result.packs_checked, 'pack')}, "
        f"{render.count(result.snapshots_checked, 'snapshot')}, "
        f"{render.count(result.objects_checked, 'object')}, "
        f"{render.iec(result.bytes_read)} read, in {render.duration(result.seconds)}"
    )
