"""`packstone restore`: a snapshot, or what is inside it, into a directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from packstone.cli import progress, render, values
from packstone.cli.restore_database import to_database
from packstone.cli.session import Session, config_option, global_options
from packstone.cli.values import narrowing_options, split_place
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone
    from packstone import Change


@click.command()
@click.argument("place", metavar="SNAPSHOT[:PATH]", required=False)
@click.option("--target", "-t", type=values.name, metavar="DIR", help="Where to.")
@click.option("--in-place", is_flag=True, help="Everything to where it was, instead of --target.")
@click.option("--include", multiple=True, metavar="P", help="Only what matches.")
@click.option("--exclude", multiple=True, metavar="P", help="Not what matches.")
@click.option(
    "--overwrite",
    type=click.Choice(["changed", "never", "always"]),
    help="What to do with files that exist; without it a target that is not empty is an error.",
)
@click.option(
    "--read-data",
    is_flag=True,
    help="With --overwrite changed: compare also files of the same size and time.",
)
@click.option(
    "--delete",
    is_flag=True,
    help="Delete what the snapshot has not, but for what patterns leave out. Try it with -n.",
)
@click.option("--verify", is_flag=True, help="Read every restored file back from the disk.")
@click.option(
    "--dry-run", "-n", is_flag=True, help="List what would change, write nothing; -v: all."
)
@click.option(
    "--sparse/--no-sparse", default=False, help="Write long runs of zeros as holes; holes stay."
)
@click.option("--no-owner", is_flag=True, help="Leave owner and group as they come.")
@click.option("--job", metavar="NAME", help="A job of the strategy, for --to-database.")
@click.option(
    "--to-database",
    "database",
    metavar="TARGET",
    help="Play a dump of the job back: a database's name or URL, a file for SQLite; it must be "
    "empty unless you say --overwrite always.",
)
@click.option("--part", metavar="NAME", help="Which dump, where a job stores several: crm.sql.")
@click.option("--roles", is_flag=True, help="Make the roles first that the server lacks.")
@click.option("--at", type=values.time_ns, metavar="TIME", help="The newest dump until then.")
@click.option(
    "--from", "source", metavar="NAME", help="The repository that has the job's copies, by name."
)
@narrowing_options
@config_option
@global_options
@click.pass_obj
def restore(
    session: Session,
    place: str | None,
    target: bytes | None,
    in_place: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    overwrite: str | None,
    read_data: bool,
    delete: bool,
    verify: bool,
    dry_run: bool,
    sparse: bool,
    no_owner: bool,
    job: str | None,
    database: str | None,
    part: str | None,
    roles: bool,
    at: int | None,
    source: str | None,
    host: str | None,
    path: bytes | None,
    tag: str | None,
) -> int:
    """Restore SNAPSHOT below DIR, or what is at PATH in it directly into DIR.

    \b
    packstone restore latest --target /tmp/all
    packstone restore latest:/srv/crm --target /tmp/crm
    packstone restore 3f2a91c4 --target /tmp/some --include '*.csv'
    packstone restore latest --in-place --overwrite changed --delete --dry-run
    packstone restore --job crm --to-database crm_restored

    SNAPSHOT is the beginning of an id, `latest`, or `latest~2` for the one two before it. A
    restore that was interrupted goes on when it is run again with --overwrite changed.
    """
    files = (target, in_place, include, exclude, read_data, delete, verify, dry_run, sparse)
    if database is not None or job is not None:
        if not database or not job:
            raise UsageError(
                "--job and --to-database go together",
                hint="Files of a job: packstone restore latest --tag job:NAME --target DIR",
            )
        if any(files) or no_owner or path or tag:
            raise UsageError("--to-database plays back all of one dump: it has no options of files")
        return to_database(
            session,
            job,
            database,
            snapshot=place or "latest",
            part=part or "",
            source=source or "",
            before_ns=at,
            host=host,
            roles=roles,
            overwrite=overwrite,
        )
    if part or roles or source or at is not None:
        raise UsageError("--part, --roles, --at and --from go with --job and --to-database")
    if place is None:
        raise UsageError("no snapshot is named", hint="Say SNAPSHOT, for example latest")
    if in_place == (target is not None):
        raise UsageError("say where to: --target DIR, or --in-place")
    if read_data and overwrite != "changed":
        raise UsageError("--read-data says how to compare: it goes with --overwrite changed")
    name, inside = split_place(place)
    listing = _Listing(session, dry_run)
    with session.open() as repository:
        row = repository.find_snapshot(name, host=host, path=path, tag=tag)
        estimate = None
        if not dry_run:
            estimate = repository.estimate_restore(
                row.id, path=inside, include=include, exclude=exclude, verify=verify
            )
            if estimate is not None and not (session.json or session.quiet):
                most = "at most " if overwrite else ""  # what is there already may be right
                render.message(f"this takes {most}{render.estimate(estimate)}")
        with progress.shown(session, "restore") as report:
            result = repository.restore(
                row.id,
                target,
                path=inside,
                include=include,
                exclude=exclude,
                overwrite=overwrite,
                read_data=read_data,
                delete=delete,
                verify=verify,
                dry_run=dry_run,
                sparse=sparse,
                owner=not no_owner,
                estimated_seconds=estimate.seconds if estimate is not None else 0.0,
                progress=report,
                report=listing.add if listing.wanted else None,
            )
        if dry_run:
            estimate = repository.estimate_restore(
                row.id, verify=verify, content=(result.bytes_written, result.files_restored)
            )
    render.problems(result.errors)
    session.warn(result.warnings)
    if session.json:
        found = {
            "snapshot_id": row.id,
            "dry_run": dry_run,
            "files_restored": result.files_restored,
            "files_changed": result.files_changed,
            "files_skipped": result.files_skipped,
            "files_deleted": result.files_deleted,
            "files_verified": result.files_verified,
            "bytes_written": result.bytes_written,
            "bytes_reused": result.bytes_reused,
            "bytes_deleted": result.bytes_deleted,
            "errors": render.problem_rows(result.errors),
            "warnings": list(result.warnings),
            "seconds": result.seconds,
            "estimate": render.estimate_document(estimate),
        }
        if listing.wanted:
            found["changes"] = listing.rows
        session.document(found)
    elif not session.quiet:
        _tell(result, row.id, target, dry_run)
        if dry_run and estimate is not None:
            render.line(f"  it would take {render.estimate(estimate)}")
    return 3 if result.errors else 0


class _Listing:
    """What is done to each path, one line or one row of JSON each; what stays only with -v."""

    def __init__(self, session: Session, dry_run: bool) -> None:
        self.wanted = (dry_run and not session.quiet) or session.verbose > 0
        self.rows: list[dict[str, object]] = []
        self._json = session.json
        self._all = session.verbose > 0

    def add(self, change: Change) -> None:
        """Tell one change."""
        action, path, size = change
        if action == "keep" and not self._all:
            return
        if self._json:
            self.rows.append({"action": action, "path": render.json_name(path), "bytes": size})
        else:
            shown = render.iec(size) if size else ""
            render.line(f"{action:10}  {shown:>10}  {render.printable(path)}")


def _tell(
    result: packstone.RestoreResult, snapshot_id: str, target: bytes | None, dry_run: bool
) -> None:
    files = render.count(result.files_restored, "file")
    size = render.iec(result.bytes_written)
    rest = ""
    if result.bytes_reused:
        rest += f", {render.iec(result.bytes_reused)} that were there already"
    if result.files_skipped:
        rest += f", {result.files_skipped:,} left as they were"
    if result.files_deleted:
        rest += f", {result.files_deleted:,} deleted with {render.iec(result.bytes_deleted)}"
    if dry_run:
        render.line(f"dry run: {files} with {size} would be written{rest}")
        return
    if result.files_verified:
        rest += f", {result.files_verified:,} read back"
    where = "in place" if target is None else f"to {render.printable(target)}"
    render.line(
        f"snapshot {snapshot_id[:8]} restored {where}: {files}, {size}"
        f"{rest}, in {render.duration(result.seconds)}"
    )
    if result.errors:
        render.line(f"  {render.count(len(result.errors), 'problem')}, named above")
