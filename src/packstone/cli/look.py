"""`packstone snapshots` and `packstone ls`: what there is, without touching it."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render, values
from packstone.cli.session import Session, global_options
from packstone.cli.values import narrowing_options, split_place
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone
    from packstone.model import Entry


@click.command()
@click.option(
    "--group-by",
    "-g",
    metavar="KEYS",
    help="A table for each that differ in host, paths, tags, name: --group-by host,paths.",
)
@click.option(
    "--latest",
    type=click.IntRange(1),
    metavar="N",
    help="Only the N newest of each group, or of each host and source.",
)
@values.filter_options
@global_options
@click.pass_obj
def snapshots(
    session: Session,
    group_by: str | None,
    latest: int | None,
    host: str | None,
    paths: tuple[bytes, ...],
    tags: tuple[str, ...],
) -> int:
    """List the snapshots, oldest first.

    \b
    packstone snapshots
    packstone snapshots --tag nightly --latest 3
    packstone snapshots --group-by host,paths
    """
    with session.open() as repository:
        if group_by is not None:
            keys = [key.strip() for key in group_by.split(",") if key.strip()]
            groups = repository.snapshot_groups(
                keys, host=host, paths=paths, tags=tags, latest=latest
            )
        else:
            rows = repository.snapshots(host=host, paths=paths, tags=tags, latest=latest)
    if group_by is not None:
        _show_groups(session, groups)
    elif session.json:
        render.document([_snapshot_document(row) for row in rows])
    elif rows:
        _snapshot_table(rows)
    elif not session.quiet:
        render.message("no snapshots")
    return 0


def _show_groups(
    session: Session,
    groups: Sequence[tuple[packstone.RetentionGroup, Sequence[packstone.SnapshotRow]]],
) -> None:
    if session.json:
        render.document(
            [
                {
                    **render.group_document(group),
                    "snapshots": [_snapshot_document(row) for row in rows],
                }
                for group, rows in groups
            ]
        )
        return
    for group, rows in groups:
        render.line(render.group_heading(group))
        _snapshot_table(rows)
        render.line()


def _snapshot_table(rows: Sequence[packstone.SnapshotRow]) -> None:
    header = ("id", "time", "host", "tags", "files", "size", "what")
    render.table(header, [_snapshot_row(row) for row in rows], right=frozenset((4, 5)))


def _snapshot_document(row: packstone.SnapshotRow) -> dict[str, Any]:
    snapshot = row.snapshot
    return {
        "id": row.id,
        "time": render.rfc3339(snapshot.time_ns),
        "host": snapshot.host,
        "user": snapshot.user,
        "paths": [render.json_name(path) for path in snapshot.paths],
        "name": render.json_name(snapshot.name) if snapshot.name else None,
        "tags": list(snapshot.tags),
        "tree": snapshot.tree.hex(),
        "parent": snapshot.parent.hex() or None,
        "files": snapshot.summary.get("files"),
        "bytes_total": snapshot.summary.get("bytes_total"),
        "original_id": snapshot.original_id.hex() or None,
        "program": snapshot.program,
    }


def _snapshot_row(row: packstone.SnapshotRow) -> tuple[str, ...]:
    snapshot = row.snapshot
    files = snapshot.summary.get("files")
    size = snapshot.summary.get("bytes_total")
    what = [snapshot.name] if snapshot.name else snapshot.paths
    return (
        row.id[:8],
        render.local_time(snapshot.time_ns),
        render.printable(snapshot.host),
        ",".join(render.printable(tag) for tag in snapshot.tags),
        "" if files is None else f"{files:,}",
        "" if size is None else render.iec(size),
        " ".join(render.printable(name) for name in what),
    )


@click.command()
@click.argument("place", metavar="SNAPSHOT[:PATH]")
@click.option("-l", "--long", "long", is_flag=True, help="Mode, owner, size and time as well.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, too.")
@click.option("-0", "--null", is_flag=True, help="Raw names, each ended by a NUL byte.")
@narrowing_options
@global_options
@click.pass_obj
def ls(
    session: Session,
    place: str,
    long: bool,
    recursive: bool,
    null: bool,
    host: str | None,
    path: bytes | None,
    tag: str | None,
) -> int:
    """List what is in SNAPSHOT, or at PATH in it.

    \b
    packstone ls latest
    packstone ls -l -R latest:/srv/crm
    packstone ls -R --null 3f2a91c4 | xargs -0 -n 1 echo
    """
    if null and (long or session.json):
        raise UsageError("--null prints bare names and excludes -l and --json")
    name, inside = split_place(place)
    with session.open() as repository:
        row = repository.find_snapshot(name, host=host, path=path, tag=tag)
        entries = repository.ls(row.id, inside, recursive=recursive)
        if session.json:
            render.document_list(_entry_document(listed) for listed in entries)
        elif null:
            render.null_ended(listed.path for listed in entries)
        elif long:
            for listed in entries:
                render.line(_long_line(listed))
        else:
            for listed in entries:
                render.line(render.printable(listed.path))
    return 0


def _target(entry: Entry) -> bytes | None:
    if stat.S_ISLNK(entry.mode) and isinstance(entry.content, bytes):
        return entry.content
    return None


def _entry_document(listed: packstone.ListedEntry) -> dict[str, Any]:
    entry = listed.entry
    target = _target(entry)
    extras = entry.extras
    document: dict[str, Any] = {
        "path": render.json_name(listed.path),
        "type": render.file_type(entry.mode),
        "mode": stat.S_IMODE(entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "user": listed.user,
        "group": listed.group,
        "size": entry.size,
        "mtime": render.rfc3339(entry.mtime_ns),
        "mtime_ns": entry.mtime_ns,
        "target": None if target is None else render.json_name(target),
        "link": render.json_name(b"/" + extras.link) if extras and extras.link else None,
        "flags": extras.flags if extras else 0,
    }
    if (stat.S_ISBLK(entry.mode) or stat.S_ISCHR(entry.mode)) and isinstance(entry.content, list):
        document["major"], document["minor"] = entry.content
    return document


def _long_line(listed: packstone.ListedEntry) -> str:
    entry = listed.entry
    target = _target(entry)
    arrow = "" if target is None else f" -> {render.printable(target)}"
    user = render.printable(listed.user) or str(entry.uid)
    group = render.printable(listed.group) or str(entry.gid)
    return (
        f"{stat.filemode(entry.mode)} {user:<8} {group:<8} {render.iec(entry.size):>10} "
        f"{render.local_time(entry.mtime_ns)} {render.printable(listed.path)}{arrow}"
    )
