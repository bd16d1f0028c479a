"""Copy snapshots to another repository, so that they stand there on their own.

Between repositories of one family that cut alike only missing objects travel, as they are stored;
between others everything is cut anew. Oldest first, each committed when it is whole: a copy that
was interrupted goes on with what is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from packstone.codec.compression import Compressor
from packstone.errors import ObjectMissing, StorageFull, UsageError
from packstone.operations.check_damage import Damage
from packstone.operations.check_packs import Depth, check_pack
from packstone.operations.copy_objects import Missing, ObjectCopier, find_missing
from packstone.operations.recut import Recutter
from packstone.operations.results import Finding
from packstone.repository.marks import Marker, Marks
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow, encode_snapshot
from packstone.repository.writer import ObjectWriter

_SPARE = 16 << 20  # bytes beside the packs: footers, index, snapshots


class _Measured(NamedTuple):
    """What all wanted snapshots reach together, and what the target lacks of it."""

    marks: Marks
    missing: Missing


@dataclass(slots=True)
class CopyResult:
    """What was copied, or with `dry_run` would be; sizes in bytes as they are stored.

    `copied` and `skipped` are ids of the source; `snapshots` are the new ids of those copied.
    `bytes_free` is None where the target cannot tell.
    """

    copied: list[str] = field(default_factory=list)
    snapshots: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # they are there already
    recut: bool = False
    objects_missing: int = 0  # before
    bytes_missing: int = 0
    bytes_free: int | None = None
    bytes_stored: int = 0
    dry_run: bool = False
    errors: list[Finding] = field(default_factory=list)  # that verifying found
    packs_verified: int = 0
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def is_alike(source: ObjectRepository, target: ObjectRepository) -> bool:
    """Return whether two repositories name and cut chunks alike."""
    ours, theirs = source.config, target.config
    return (ours.family, ours.chunker, ours.average) == (
        theirs.family,
        theirs.chunker,
        theirs.average,
    )


def copy_snapshots(
    source: ObjectRepository,
    target: ObjectRepository,
    rows: Sequence[SnapshotRow],
    *,
    threads: int = 1,
    verify: bool = False,
    dry_run: bool = False,
    announce: Callable[[CopyResult], None] = lambda _result: None,
) -> CopyResult:
    """Copy snapshots, oldest first; those that the target has already are skipped.

    `announce` is told what it will take, before anything is written. Raises StorageFull, before
    anything is written, when the target has no room for it, Damaged and
    ObjectMissing where the source cannot be read, StorageError.
    """
    started = time.monotonic()
    if source.storage.url == target.storage.url:
        raise UsageError("the two repositories are one")
    result = CopyResult(dry_run=dry_run, recut=not is_alike(source, target))
    there: dict[bytes, str] = {}  # what a copy is like → its id
    for row in target.snapshots():
        there[_likeness(row, result.recut)] = row.id
    wanted: list[SnapshotRow] = []
    found: set[str] = set()
    for row in rows:
        copied = there.get(_likeness(row, result.recut))
        if copied is None:
            wanted.append(row)
        else:
            result.skipped.append(row.id)
            found.add(copied)
    measured = _measure(source, target, wanted, result)
    announce(result)
    if not dry_run:
        _copy_all(source, target, wanted, measured, result, threads)
        if verify:
            found.update(result.snapshots)
            _verify(target, [row for row in target.snapshots() if row.id in found], result)
    result.warnings = [*source.warnings, *target.warnings]
    result.seconds = time.monotonic() - started
    return result


def _likeness(row: SnapshotRow, recut: bool) -> bytes:
    """Return what a snapshot and its copy have in common, and no other version of it has.

    A version with other tags or fewer paths has the same origin and time. Trees of one that is cut
    anew are named otherwise; then what is counted in them must tell.
    """
    origin = row.snapshot.original_id or bytes.fromhex(row.id)
    tree = b"" if recut else row.snapshot.tree
    return encode_snapshot(
        msgspec.structs.replace(row.snapshot, original_id=origin, parent=b"", tree=tree)
    )


def _measure(
    source: ObjectRepository,
    target: ObjectRepository,
    wanted: Sequence[SnapshotRow],
    result: CopyResult,
) -> _Measured:
    """Say how much is missing and whether it fits; raises StorageFull where it does not."""
    marker = _mark(source, [row.snapshot.tree for row in wanted], None)
    missing = Missing(0, 0, {})
    if result.recut:
        # How it is cut there is not known before; it is not more than it takes here.
        for pack_id, size, _kind, count in source.index.counts():
            live = marker.marks.count(pack_id)
            result.objects_missing += live
            result.bytes_missing += size * live // count
    else:
        missing = find_missing(source, target, marker.marks)
        result.objects_missing, result.bytes_missing = missing.objects, missing.size
    result.bytes_free = target.storage.free()
    needed = result.bytes_missing + _SPARE
    if result.bytes_free is not None and not result.recut and needed > result.bytes_free:
        raise StorageFull(
            f"the copy needs {needed:,} bytes, {target.storage.url} has {result.bytes_free:,} free",
            hint="Nothing was written. Copy fewer snapshots, or free space there",
        )
    return _Measured(marker.marks, missing)


def _mark(source: ObjectRepository, trees: Sequence[bytes], before: Marks | None) -> Marker:
    marker = Marker(source.index, source.reader.get, before)
    marker.add(trees)
    if marker.missing:
        raise ObjectMissing(
            f"{marker.missing} chunks that these snapshots need are in no pack, first "
            f"{marker.missing_ids[0].hex()[:12]}…",
            hint="Copied is what is whole. Run: packstone check",
        )
    return marker


def _copy_all(
    source: ObjectRepository,
    target: ObjectRepository,
    wanted: Sequence[SnapshotRow],
    measured: _Measured,
    result: CopyResult,
    threads: int,
) -> None:
    new_ids: dict[str, str] = {}
    done = Marks()
    recutter = Recutter(source, target, threads) if result.recut else None
    try:
        for row in wanted:
            writer = target.writer()
            try:
                tree = row.snapshot.tree
                if recutter is not None:
                    tree = recutter.copy(tree, writer)
                else:
                    marks, missing = measured
                    if len(wanted) > 1:  # else they are of this one
                        marks = _mark(source, [tree], done).marks
                        missing = find_missing(source, target, marks)
                        done.include(marks)
                    _copy_objects(source, target, writer, marks, missing, threads)
                snapshot = msgspec.structs.replace(
                    row.snapshot,
                    tree=tree,
                    parent=bytes.fromhex(new_ids.get(row.snapshot.parent.hex(), "")),
                    original_id=row.snapshot.original_id or bytes.fromhex(row.id),
                )
                new_ids[row.id] = writer.commit(snapshot)
            finally:
                writer.abandon()
            result.bytes_stored += writer.bytes_stored
            result.copied.append(row.id)
            result.snapshots.append(new_ids[row.id])
    finally:
        if recutter is not None:
            recutter.close()


def _copy_objects(
    source: ObjectRepository,
    target: ObjectRepository,
    writer: ObjectWriter,
    marks: Marks,
    missing: Missing,
    threads: int,
) -> None:
    for depth, uses in sorted(missing.uses.items()):
        copier = ObjectCopier(source, target, writer, marks, depth)
        copier.run(uses, threads)
        if copier.damaged:
            raise ObjectMissing(
                f"the source is damaged: {next(iter(copier.damaged.values()))}",
                hint="Copied is what is whole. Run: packstone check --read-data",
            )
        writer.finish()  # what stands on these finds them


def _verify(target: ObjectRepository, rows: Sequence[SnapshotRow], result: CopyResult) -> None:
    """Read all that the copies reach back from the target's packs."""
    marker = Marker(target.index, target.reader.get)
    marker.add(row.snapshot.tree for row in rows)
    if marker.missing:
        text = f"{marker.missing} chunks are in no pack"
        result.errors.append(Finding("chunk", text, None, tuple(row.id for row in rows)))
    codec = Compressor(target.config.level)
    damage = Damage()
    for pack_id, size, _kind, _count in target.index.counts():
        if marker.marks.count(pack_id):
            damage.add_report(check_pack(target, codec, pack_id, size, Depth.DATA))
            result.packs_verified += 1
    result.errors += damage.findings()
