"""`packstone restore`: a snapshot, or what is inside it, into a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packstone.cli import progress, render, values
from packstone.cli.session import Session, global_options
from packstone.cli.values import narrowing_options, split_place

if TYPE_CHECKING:
    import packstone


@click.command()
@click.argument("place", metavar="SNAPSHOT[:PATH]")
@click.option("--target", "-t", type=values.name, required=True, metavar="DIR", help="Where to.")
@click.option("--include", multiple=True, metavar="P", help="Only what matches.")
@click.option("--exclude", multiple=True, metavar="P", help="Not what matches.")
@click.option(
    "--overwrite",
    type=click.Choice(["changed", "never", "always"]),
    help="What to do with files that exist; without it a target that is not empty is an error.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be restored, write nothing.")
@click.option(
    "--sparse/--no-sparse", default=False, help="Write long runs of zeros as holes; holes stay."
)
@click.option("--no-owner", is_flag=True, help="Leave owner and group as they come.")
@narrowing_options
@global_options
@click.pass_obj
def restore(
    session: Session,
    place: str,
    target: bytes,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    overwrite: str | None,
    dry_run: bool,
    sparse: bool,
    no_owner: bool,
    host: str | None,
    path: bytes | None,
    tag: str | None,
) -> int:
    """Restore SNAPSHOT below DIR, or what is at PATH in it directly into DIR.

    SNAPSHOT is the beginning of an id, `latest`, or `latest~2` for the one two before it.
    """
    name, inside = split_place(place)
    with session.open() as repository:
        row = repository.find_snapshot(name, host=host, path=path, tag=tag)
        with progress.shown(session, "restore") as report:
            result = repository.restore(
                row.id,
                target,
                path=inside,
                include=include,
                exclude=exclude,
                overwrite=overwrite,
                dry_run=dry_run,
                sparse=sparse,
                owner=not no_owner,
                progress=report,
            )
    render.problems(result.errors)
    session.warn(result.warnings)
    if session.json:
        session.document(
            {
                "snapshot_id": row.id,
                "files_restored": result.files_restored,
                "files_skipped": result.files_skipped,
                "bytes_written": result.bytes_written,
                "errors": render.problem_rows(result.errors),
                "warnings": list(result.warnings),
                "seconds": result.seconds,
            }
        )
    elif not session.quiet:
        _tell(result, row.id, target, dry_run)
    return 3 if result.errors else 0


def _tell(result: packstone.RestoreResult, snapshot_id: str, target: bytes, dry_run: bool) -> None:
    files = render.count(result.files_restored, "file")
    size = render.iec(result.bytes_written)
    skipped = f", {result.files_skipped:,} left as they were" if result.files_skipped else ""
    if dry_run:
        render.line(f"dry run: {files} with {size} would be written{skipped}")
        return
    render.line(
        f"snapshot {snapshot_id[:8]} restored to {render.printable(target)}: {files}, {size}"
        f"{skipped}, in {render.duration(result.seconds)}"
    )
    if result.errors:
        render.line(f"  {render.count(len(result.errors), 'problem')}, named above")
