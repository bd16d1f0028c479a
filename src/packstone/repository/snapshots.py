"""Snapshots: list, read, resolve what a user calls them.

Implements the snapshot object of docs/format.md §6. Never writes. Invariant: a snapshot's
name is the hash of its file, so one that was altered or renamed is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, ObjectMissing, UsageError
from packstone.model import ID_SIZE, Snapshot
from packstone.repository.layout import MAX_ENVELOPE, decode_payload, list_ids, snapshot_name
from packstone.storage.base import Storage

_LATEST = re.compile(r"latest(?:~(\d{1,6}))?")


class SnapshotRow(NamedTuple):
    """A stored snapshot and its id in hexadecimal."""

    id: str
    snapshot: Snapshot


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the payload of a snapshot's envelope."""
    return msgspec.msgpack.encode(snapshot)


def read_snapshot(storage: Storage, snapshot_id: str, sealer: Sealer) -> Snapshot:
    """Read one snapshot; raises ObjectMissing, Damaged."""
    name = snapshot_name(snapshot_id)
    data = storage.get(name, MAX_ENVELOPE)
    found = checksum(data).hex()
    if found != snapshot_id:
        raise Damaged(
            f"snapshot {snapshot_id[:12]}… is damaged: its bytes hash to {found[:12]}…",
            name=name,
            expected=snapshot_id,
            found=found,
            hint="Other snapshots are unaffected. Run: packstone check",
        )
    payload = open_envelope(data, Kind.SNAPSHOT, name, sealer).payload
    snapshot = decode_payload(payload, Snapshot, name)
    if len(snapshot.tree) != ID_SIZE:
        raise Damaged(f"{name} names no tree", name=name)
    return snapshot


def list_snapshots(storage: Storage, sealer: Sealer) -> tuple[list[SnapshotRow], list[Damaged]]:
    """Return all readable snapshots, oldest first, and the errors of the others.

    One that is forgotten by another process between the listing and its turn is left out.
    Raises ObjectMissing for one that is listed still and not there.
    """
    rows: list[SnapshotRow] = []
    damaged: list[Damaged] = []
    missing: dict[str, ObjectMissing] = {}
    for snapshot_id, _size in list_ids(storage, "snapshots"):
        try:
            rows.append(SnapshotRow(snapshot_id, read_snapshot(storage, snapshot_id, sealer)))
        except Damaged as error:
            damaged.append(error)
        except ObjectMissing as error:
            missing[snapshot_id] = error
    for snapshot_id, _size in list_ids(storage, "snapshots") if missing else ():
        if snapshot_id in missing:
            raise missing[snapshot_id]
    rows.sort(key=lambda row: (row.snapshot.time_ns, row.id))
    return rows, damaged


def select(
    rows: Iterable[SnapshotRow],
    *,
    host: str | None = None,
    paths: Sequence[bytes] = (),
    tags: Sequence[str] = (),
) -> list[SnapshotRow]:
    """Return the rows of a host that hold all of the paths and carry all of the tags."""
    return [
        row
        for row in rows
        if (host is None or row.snapshot.host == host)
        and all(_holds(row.snapshot, path) for path in paths)
        and all(tag in row.snapshot.tags for tag in tags)
    ]


def newest(rows: Sequence[SnapshotRow], count: int) -> Sequence[SnapshotRow]:
    """Return the last so many of snapshots that are sorted by time."""
    return rows[max(len(rows) - count, 0) :]


def _holds(snapshot: Snapshot, path: bytes) -> bool:
    if snapshot.name and path.lstrip(b"/") == snapshot.name:
        return True
    return path in snapshot.paths


def resolve(spec: str, rows: Sequence[SnapshotRow]) -> SnapshotRow:
    """Find the snapshot that `spec` names among `rows`, oldest first.

    `spec` is an id prefix, `latest`, or `latest~N` for the Nth before it. Raises UsageError.
    """
    latest = _LATEST.fullmatch(spec)
    if latest:
        back = int(latest[1] or 0)
        if back >= len(rows):
            raise UsageError(
                f"no snapshot {spec!r} among {len(rows)}",
                hint="Run: packstone snapshots",
            )
        return rows[-1 - back]
    found = [row for row in rows if row.id.startswith(spec.lower())] if spec else []
    if not found:
        raise UsageError(f"no snapshot {spec!r}", hint="Run: packstone snapshots")
    if len(found) > 1:
        ids = ", ".join(row.id[:12] for row in found[:4])
        raise UsageError(
            f"snapshot {spec!r} is ambiguous: {ids}{' …' if len(found) > 4 else ''}",
            hint="Give more digits",
        )
    return found[0]


def find_parent(rows: Sequence[SnapshotRow], like: Snapshot) -> SnapshotRow | None:
    """Return the newest snapshot that a new one continues.

    The same host and paths; for a piped one the same host and name, else the same tags.
    """
    same = [row for row in rows if row.snapshot.host == like.host]
    if not like.name:
        paths = sorted(like.paths)
        fits = [
            row for row in same if not row.snapshot.name and sorted(row.snapshot.paths) == paths
        ]
        return fits[-1] if fits else None
    piped = [row for row in same if row.snapshot.name]
    named = [row for row in piped if row.snapshot.name == like.name]
    tagged = [row for row in piped if like.tags and row.snapshot.tags == like.tags]
    return named[-1] if named else tagged[-1] if tagged else None
