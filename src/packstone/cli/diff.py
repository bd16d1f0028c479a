"""`packstone diff`: what differs between two snapshots, or a snapshot and the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render, values
from packstone.cli.session import Session, global_options
from packstone.cli.values import narrowing_options, split_place
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone
    from packstone.model import Entry

# what → (key of the JSON document, mark for people)
_KINDS = {
    "added": ("added", "+"),
    "removed": ("removed", "-"),
    "content": ("changed", "M"),
    "attributes": ("attributes", "U"),
    "type": ("type", "T"),
    "renamed": ("renamed", "R"),
}
_TOLD = {
    "added": "added",
    "removed": "removed",
    "content": "changed",
    "attributes": "with other attributes",
    "type": "of another type",
    "renamed": "renamed",
}


@click.command()
@click.argument("places", nargs=-1, required=True, metavar="SNAPSHOT[:PATH] [SNAPSHOT[:PATH]]")
@click.option(
    "--against", type=values.name, metavar="PATH", help="Compare with this on the disk instead."
)
@click.option(
    "--read-data", is_flag=True, help="With --against: read every file, whatever its times say."
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="With --against: leave these out, instead of what the snapshot left out.",
)
@narrowing_options
@global_options
@click.pass_obj
def diff(
    session: Session,
    places: tuple[str, ...],
    against: bytes | None,
    read_data: bool,
    exclude: tuple[str, ...],
    host: str | None,
    path: bytes | None,
    tag: str | None,
) -> int:
    """Tell what was added (+), removed (-), changed (M, only attributes U, type T), renamed (R).

    \b
    packstone diff latest~1 latest
    packstone diff latest~7:/srv/crm latest
    packstone diff latest --against /srv/crm --read-data

    A place without a PATH takes that of the other one; `:/` is the root of a snapshot. With
    --against a snapshot without a PATH is looked at where PATH is.
    """
    if len(places) != (2 if against is None else 1):
        raise UsageError(
            "two places are compared, or one with the disk",
            hint="say diff SNAPSHOT SNAPSHOT, or diff SNAPSHOT --against PATH",
        )
    if against is None and (read_data or exclude):
        raise UsageError("--read-data and --exclude belong to --against")
    (old, old_path), (new, new_path) = split_place(places[0]), split_place(places[-1])
    with session.open() as repository:
        first = repository.find_snapshot(old, host=host, path=path, tag=tag).id
        if against is None:
            second = repository.find_snapshot(new, host=host, path=path, tag=tag).id
            result = repository.diff(
                first, second, path=new_path or old_path, old_path=old_path or new_path
            )
        else:
            result = repository.diff_disk(
                first,
                against,
                path=old_path or None,
                exclude=exclude or None,
                read_data=read_data,
            )
    if session.json:
        session.document(_document(result))
    else:
        _show(result, session.quiet)
    render.problems(result.errors)
    return 3 if result.errors else 0


def _document(result: packstone.DiffResult) -> dict[str, Any]:
    document: dict[str, Any] = {key: [] for key, _mark in _KINDS.values()}
    for row in result.differences:
        document[_KINDS[row.what][0]].append(_row(row))
    document["bytes_added"] = result.bytes_added
    document["bytes_removed"] = result.bytes_removed
    document["errors"] = render.problem_rows(result.errors)
    return document


def _row(row: packstone.Difference) -> dict[str, Any]:
    document: dict[str, Any] = {"path": render.json_name(row.path)}
    if row.old_path != row.path:
        document["old_path"] = render.json_name(row.old_path)
    document["old"] = _entry(row.old)
    document["new"] = _entry(row.new)
    return document


def _entry(entry: Entry | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "type": render.file_type(entry.mode),
        "mode": entry.mode & 0o7777,
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": render.rfc3339(entry.mtime_ns),
        "mtime_ns": entry.mtime_ns,
    }


def _show(result: packstone.DiffResult, quiet: bool) -> None:
    for row in result.differences:
        mark = _KINDS[row.what][1]
        old = f"{render.printable(row.old_path)} -> " if row.old_path != row.path else ""
        render.line(f"{mark}  {old}{render.printable(row.path)}")
    if not quiet:
        counts = ", ".join(f"{result.count(what):,} {told}" for what, told in _TOLD.items())
        render.message(
            f"{counts}; {render.iec(result.bytes_added)} new, "
            f"{render.iec(result.bytes_removed)} gone"
        )
