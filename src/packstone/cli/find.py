"""`packstone find`: where a name is, in which snapshots, and what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render, values
from packstone.cli.session import Session, global_options
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone


@click.command()
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option(
    "-s", "--snapshot", "names", multiple=True, metavar="S", help="Only in this one; repeatable."
)
@click.option("-i", "--ignore-case", is_flag=True, help="Whatever the capitals of a name.")
@click.option(
    "--size",
    "sizes",
    multiple=True,
    type=values.size_bounds,
    metavar="[+-=]N",
    help="Only files of more than (+), less than (-) or just this size; repeatable.",
)
@click.option("--newer", type=values.time_ns, metavar="TIME", help="Modified after that.")
@click.option("--older", type=values.time_ns, metavar="TIME", help="Modified before that.")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(list("fdlpsbc")),
    help="Files, directories, symbolic links, pipes, sockets, devices; repeatable.",
)
@click.option("-0", "--null", is_flag=True, help="Raw paths, each ended by a NUL byte.")
@values.filter_options
@global_options
@click.pass_obj
def find(
    session: Session,
    patterns: tuple[str, ...],
    names: tuple[str, ...],
    ignore_case: bool,
    sizes: tuple[tuple[int | None, int | None], ...],
    newer: int | None,
    older: int | None,
    types: tuple[str, ...],
    null: bool,
    host: str | None,
    paths: tuple[bytes, ...],
    tags: tuple[str, ...],
) -> int:
    """Find paths that fit a PATTERN in all snapshots, and say what became of them.

    \b
    packstone find '*.csv'
    packstone find -i 'letter*' --type f --newer '2026-01-31 12:00'
    packstone find --size +1GiB --snapshot latest

    Patterns are those of --exclude. A path is listed with all its versions if one of them fits:
    when it was new, its content or attributes changed, and when it was gone.
    """
    if null and session.json:
        raise UsageError("--null prints bare names and excludes --json")
    smallest = [low for low, _high in sizes if low is not None]
    largest = [high for _low, high in sizes if high is not None]
    with session.open() as repository:
        found = repository.find(
            patterns,
            snapshots=names,
            host=host,
            paths=paths,
            tags=tags,
            ignore_case=ignore_case,
            min_size=max(smallest, default=None),
            max_size=min(largest, default=None),
            newer_ns=newer,
            older_ns=older,
            types=types,
        )
        if session.json:
            render.document_list(_document(each) for each in found)
        elif null:
            render.null_ended(each.path for each in found)
        else:
            for each in found:
                _show(each)
    return 0


def _document(found: packstone.FoundPath) -> dict[str, Any]:
    return {
        "path": render.json_name(found.path),
        "host": found.host,
        "versions": [
            {
                "snapshot": version.row.id,
                "time": render.rfc3339(version.row.snapshot.time_ns),
                "what": version.what,
                "type": entry and render.file_type(entry.mode),
                "size": entry and entry.size,
                "mtime": entry and render.rfc3339(entry.mtime_ns),
                "mtime_ns": entry and entry.mtime_ns,
            }
            for version in found.versions
            for entry in (version.entry,)
        ],
    }


def _show(found: packstone.FoundPath) -> None:
    render.line(f"{render.printable(found.path)}  ({render.printable(found.host)})")
    for version in found.versions:
        entry = version.entry
        when = render.local_time(version.row.snapshot.time_ns)
        more = ""
        if entry is not None:
            size = render.iec(entry.size) if entry.mode & 0o170000 == 0o100000 else ""
            kind = render.file_type(entry.mode)
            more = f"  {kind:<7} {size:>10}  {render.local_time(entry.mtime_ns)}"
        render.line(f"  {version.row.id[:8]}  {when}  {version.what:<10}{more}".rstrip())
