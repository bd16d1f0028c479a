"""Change what snapshots are labelled with.

A snapshot's id is the hash of its file, so one with other tags is another object: it is put,
durable, before the old one is deleted. A crash between the two leaves both, of one tree and one
time; running the command again, or forgetting one of them, mends that (docs/format.md §7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from packstone.errors import StorageError, UsageError
from packstone.model import Snapshot
from packstone.repository.layout import snapshot_name
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow


@dataclass(slots=True)
class TagResult:
    """(old, new) of what was changed, oldest first; how many had these tags already."""

    changed: list[tuple[SnapshotRow, SnapshotRow]] = field(default_factory=list)
    unchanged: int = 0


def tag_snapshots(
    repository: ObjectRepository,
    rows: Sequence[SnapshotRow],
    *,
    add: Sequence[str] = (),
    remove: Sequence[str] = (),
    replace: Sequence[str] | None = None,
) -> TagResult:
    """Add and remove tags, or replace them all. Raises UsageError, StorageError."""
    if replace is not None and (add or remove):
        raise UsageError("tags are either replaced, or some are added and removed")
    if replace is None and not add and not remove:
        raise UsageError("no tag is named", hint="Say --add T, --remove T or --set T")
    if not all((*add, *remove, *(replace or ()))):
        raise UsageError("an empty tag is on no snapshot")
    result = TagResult()
    planned: list[tuple[SnapshotRow, Snapshot]] = []
    for row in rows:
        before = row.snapshot.tags
        if replace is not None:
            tags = list(dict.fromkeys(replace))
        else:
            tags = [tag for tag in dict.fromkeys((*before, *add)) if tag not in remove]
        if tags == before:
            result.unchanged += 1
        else:
            changed = msgspec.structs.replace(row.snapshot, tags=tags)
            planned.append((row, with_origin(row, changed)))
    if not planned:
        return result
    writer = repository.writer()
    try:
        for row, changed in planned:
            new_id = writer.commit(changed, like=row.id)
            result.changed.append((row, SnapshotRow(new_id, changed)))
            delete_replaced(repository, row)
    finally:
        writer.abandon()
    return result


def with_origin(row: SnapshotRow, changed: Snapshot) -> Snapshot:
    """Return a changed version of a snapshot that names the one it all began with."""
    origin = row.snapshot.original_id or bytes.fromhex(row.id)
    return msgspec.structs.replace(changed, original_id=origin)


def delete_replaced(repository: ObjectRepository, row: SnapshotRow) -> None:
    """Delete a snapshot whose changed version is durable; raises StorageError."""
    try:
        repository.storage.delete(snapshot_name(row.id))
    except StorageError as error:
        raise type(error)(
            f"{error.message}: the changed version of snapshot {row.id[:12]}… is stored, the old "
            "one may be there as well",
            hint=f"Run: packstone snapshots, and packstone forget {row.id[:12]}",
        ) from error
