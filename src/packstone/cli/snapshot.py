"""`packstone snapshot`: of files and directories, of a pipe, or of a command's output."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import progress, render, values
from packstone.cli.session import Session, global_options
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone

# what only makes sense where there are files to walk
FILES_ONLY = (
    "exclude",
    "exclude_from",
    "exclude_caches",
    "exclude_if_present",
    "one_file_system",
    "exclude_larger_than",
    "read_all",
    "ignore_inode",
    "skip_if_unchanged",
)
STANDARD_INPUT = 0


@click.command()
@click.argument("paths", nargs=-1, type=click.UNPROCESSED, metavar="[PATH…]")
@click.option(
    "--stdin", "stdin_name", type=values.name, metavar="NAME", help="Store standard input."
)
@click.option(
    "--from-command",
    "command_name",
    type=values.name,
    metavar="NAME",
    help="Store the output of the command after '--'; it must exit with 0.",
)
@click.option("--tag", "tags", multiple=True, metavar="T", help="Label; may be repeated.")
@click.option("--host", metavar="H", help="Host to file it under (default: this one).")
@click.option("--time", "time_ns", type=values.time_ns, metavar="T", help="Time to file it under.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave out, as gitignore does.")
@click.option(
    "--exclude-from",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=bytes),
    metavar="FILE",
    help="Patterns to leave out, one a line.",
)
@click.option("--exclude-caches", is_flag=True, help="Leave out what CACHEDIR.TAG marks.")
@click.option(
    "--exclude-if-present",
    multiple=True,
    type=values.name,
    metavar="NAME",
    help="Leave out the content of directories that hold NAME.",
)
@click.option("--one-file-system", "-x", is_flag=True, help="Do not cross mount points.")
@click.option(
    "--exclude-larger-than", type=values.size, metavar="SIZE", help="Leave out larger files."
)
@click.option("--read-all", is_flag=True, help="Read every file, even if it looks unchanged.")
@click.option("--ignore-inode", is_flag=True, help="Unchanged files may have a new inode.")
@click.option("--parent", metavar="S", help="Compare with this snapshot.")
@click.option("--level", type=click.IntRange(1, 19), metavar="N", help="zstd level for this run.")
@click.option(
    "--delta/--no-delta",
    default=None,
    help="Store chunks as deltas against older ones (default: against those that are at hand; "
    "--delta fetches others from an object store).",
)
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be stored, store nothing.")
@click.option("--skip-if-unchanged", is_flag=True, help="No snapshot if nothing has changed.")
@global_options
@click.pass_context
def snapshot(
    context: click.Context,
    /,
    paths: tuple[str, ...],
    stdin_name: bytes | None,
    command_name: bytes | None,
    tags: tuple[str, ...],
    host: str | None,
    time_ns: int | None,
    **options: Any,
) -> int:
    """Take a snapshot of every PATH.

    \b
    packstone snapshot /srv/crm
    pg_dump crm | packstone snapshot --stdin crm.sql
    packstone snapshot --from-command crm.sql -- pg_dump crm

    A file that cannot be read is named and the rest is stored; the exit code is then 3.
    """
    session: Session = context.obj
    common: dict[str, Any] = {"tags": tags, "host": host, "time_ns": time_ns}
    common |= {name: options[name] for name in ("parent", "level", "dry_run", "delta")}
    _check_usage(paths, stdin_name, command_name, options)

    # Before the repository is opened: a mistyped file of patterns should not cost a lock.
    rules = None if stdin_name or command_name else _rules(options)
    with (
        session.open() as repository,
        progress.shown(session, "snapshot", json_lines=True) as report,
    ):
        if stdin_name is not None:
            # Whoever left the pipe in non-blocking mode must not make a pause look like its end.
            os.set_blocking(STANDARD_INPUT, True)
            with open(STANDARD_INPUT, "rb", buffering=0, closefd=False) as stream:
                result = repository.snapshot_stream(stream, stdin_name, progress=report, **common)
        elif command_name is not None:
            result = repository.snapshot_command(paths, command_name, progress=report, **common)
        else:
            assert rules is not None
            result = repository.snapshot(
                [os.fsencode(path) for path in paths],
                rules=rules,
                read_all=options["read_all"],
                ignore_inode=options["ignore_inode"],
                skip_if_unchanged=options["skip_if_unchanged"],
                progress=report,
                **common,
            )
    render.problems(result.errors)
    if session.json:
        session.document(document(result))
    elif not session.quiet:
        _tell(result, dry_run=options["dry_run"], verbose=session.verbose)
    return 3 if result.errors else 0


def _check_usage(
    paths: tuple[str, ...],
    stdin_name: bytes | None,
    command_name: bytes | None,
    options: dict[str, Any],
) -> None:
    if stdin_name is not None and command_name is not None:
        raise UsageError("--stdin and --from-command exclude each other")
    if stdin_name is not None and paths:
        raise UsageError("--stdin stores standard input and takes no paths")
    if command_name is not None and not paths:
        raise UsageError(
            "--from-command needs a command",
            hint="packstone snapshot --from-command NAME -- COMMAND ARGUMENT…",
        )
    if stdin_name is None and command_name is None:
        if not paths:
            raise UsageError("nothing to store: name at least one path")
        if "" in paths:
            raise UsageError("an empty path names nothing")
        return
    said = [name for name in FILES_ONLY if options[name]]
    if said:
        source = "--stdin" if stdin_name is not None else "--from-command"
        raise UsageError(f"--{said[0].replace('_', '-')} has no meaning with {source}")


def _rules(options: dict[str, Any]) -> packstone.Rules:
    import packstone

    patterns = list(options["exclude"])
    for name in options["exclude_from"]:
        try:
            with open(name, encoding="utf-8", errors="surrogateescape") as lines:
                patterns += [text.rstrip("\n") for text in lines]
        except OSError as error:
            raise UsageError(
                f"--exclude-from {render.printable(name)}: {error.strerror}"
            ) from error
    return packstone.Rules(
        patterns=tuple(patterns),
        caches=options["exclude_caches"],
        if_present=options["exclude_if_present"],
        one_file_system=options["one_file_system"],
        larger_than=options["exclude_larger_than"],
    )


def document(result: packstone.SnapshotResult) -> dict[str, Any]:
    """Return what a snapshot came to, for JSON."""
    return {
        "snapshot_id": result.snapshot_id,
        "parent_id": result.parent_id,
        "time": render.rfc3339(result.time_ns),
        "files_new": result.files_new,
        "files_changed": result.files_changed,
        "files_unmodified": result.files_unmodified,
        "dirs": result.dirs,
        "errors": render.problem_rows(result.errors),
        "bytes_total": result.bytes_total,
        "bytes_read": result.bytes_read,
        "bytes_added": result.bytes_added,
        "bytes_stored": result.bytes_stored,
        "chunks_total": result.chunks_total,
        "chunks_new": result.chunks_new,
        "chunks_delta": result.chunks_delta,
        "bytes_delta": result.bytes_delta,
        "bytes_delta_stored": result.bytes_delta_stored,
        "seconds": result.seconds,
    }


def _tell(result: packstone.SnapshotResult, *, dry_run: bool, verbose: int) -> None:
    took = render.duration(result.seconds)
    if result.snapshot_id is not None:
        render.line(f"snapshot {result.snapshot_id[:8]} taken in {took}")
    elif dry_run:
        render.line(f"dry run, nothing stored, in {took}")
    else:
        parent = (result.parent_id or "")[:8]
        render.line(f"nothing has changed since snapshot {parent}; none taken, in {took}")
    render.line(
        f"  {render.count(result.files_new, 'file')} new, {result.files_changed:,} changed, "
        f"{result.files_unmodified:,} unmodified, in "
        f"{render.count(result.dirs, 'directory', 'directories')}"
    )
    render.line(
        f"  {render.iec(result.bytes_total)} in all, {render.iec(result.bytes_read)} read, "
        f"{render.iec(result.bytes_added)} new, {render.iec(result.bytes_stored)} stored"
    )
    if result.chunks_delta:
        render.line(
            f"  {render.count(result.chunks_delta, 'chunk')} as deltas: "
            f"{render.iec(result.bytes_delta)} in {render.iec(result.bytes_delta_stored)}"
        )
    if verbose:
        parent = result.parent_id[:8] if result.parent_id else "none"
        render.line(
            f"  {render.count(result.chunks_total, 'chunk')}, {result.chunks_new:,} new; "
            f"parent {parent}"
        )
    if result.errors:
        render.line(f"  {render.count(len(result.errors), 'problem')}, named above")
