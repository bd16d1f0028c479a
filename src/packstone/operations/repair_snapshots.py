"""Repair snapshots: write those that have lost something again, without it and saying so.

What is lost stays named: files keep their entries, flagged. The old snapshot stays beside the new
one until it is to be forgotten; then it goes to quarantine, as does a snapshot that cannot be
read. Looks for what is in no pack; a damaged record that is still there is for `repair packs`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from packstone.codec.hashing import checksum
from packstone.errors import Damaged
from packstone.model import Problem, Snapshot
from packstone.operations.repair_packs import find_losses
from packstone.operations.repair_trees import TreeRepairer
from packstone.repository.layout import MAX_ENVELOPE, snapshot_name
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow, list_snapshots, resolve
from packstone.repository.writer import ObjectWriter


@dataclass(slots=True)
class RepairedSnapshot:
    """A snapshot that has lost something, and what became of it.

    `snapshot_id` is the new one, `tree` its root; None where nothing is left, or in a dry run.
    """

    original_id: str
    time_ns: int
    host: str
    losses: list[Problem]
    snapshot_id: str | None = None
    quarantine: str = ""  # the old snapshot's name now


@dataclass(slots=True)
class RepairSnapshotsResult:
    """What a repair of snapshots found and did.

    `unreadable` are snapshots whose own file is damaged, by id with the reason; `quarantined`
    where those went that were forgotten.
    """

    snapshots_checked: int = 0
    repaired: list[RepairedSnapshot] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Return whether no snapshot has lost anything."""
        return not self.repaired and not self.unreadable


def repair_snapshots(
    repository: ObjectRepository,
    *,
    snapshots: Sequence[str] = (),
    forget: bool = False,
    dry_run: bool = False,
) -> RepairSnapshotsResult:
    """Repair all snapshots, or those named; see RepairSnapshotsResult.

    With `forget` the old ones go to quarantine, and prune works again. Raises UsageError, Damaged
    with `forget` while there are packs that `repair packs` may get something out of,
    RepositoryLocked while others work, StorageError.
    """
    started = time.monotonic()
    result = RepairSnapshotsResult(dry_run=dry_run)
    rows, damaged = list_snapshots(repository.storage, repository.sealer)
    chosen, unreadable = _chosen(rows, damaged, snapshots)
    result.snapshots_checked = len(chosen) + len(unreadable)
    result.unreadable = unreadable
    hit = _hit(repository, chosen)
    if hit or unreadable:
        if forget and not dry_run:
            _refuse_with_damaged_packs(repository)
        writer = repository.writer(dry_run=dry_run)
        try:
            _write(repository, writer, rows, hit, result)
        finally:
            writer.abandon()
        if forget and not dry_run:
            _forget(repository, result)
    result.warnings += repository.warnings
    result.seconds = time.monotonic() - started
    return result


def _chosen(
    rows: list[SnapshotRow], damaged: list[Damaged], wanted: Sequence[str]
) -> tuple[list[SnapshotRow], dict[str, str]]:
    """Return the snapshots that are named, all if none is, and those of them not readable."""
    unreadable = {error.name.rpartition("/")[2]: error.message for error in damaged}
    if not wanted:
        return rows, unreadable
    chosen: dict[str, SnapshotRow] = {}
    bad: dict[str, str] = {}
    for spec in wanted:
        found = {name: text for name, text in unreadable.items() if name.startswith(spec.lower())}
        bad |= found
        if not found or any(row.id.startswith(spec.lower()) for row in rows):
            row = resolve(spec, rows)
            chosen[row.id] = row
    return [row for row in rows if row.id in chosen], bad


def _hit(repository: ObjectRepository, rows: list[SnapshotRow]) -> list[SnapshotRow]:
    """Return the snapshots that have lost something, by the footers where the view says so."""
    repository.index.refresh(repository.storage)
    lost = {
        snapshot_id for found in find_losses(repository, rows) for snapshot_id in found.snapshots
    }
    if lost:
        # The view may be wrong: nothing is given up on its word.
        repository.reader.rebuild()
        rows = [row for row in rows if row.id in lost]
        losses = find_losses(repository, rows)
        lost = {snapshot_id for found in losses for snapshot_id in found.snapshots}
    return [row for row in rows if row.id in lost]


def _refuse_with_damaged_packs(repository: ObjectRepository) -> None:
    damaged = repository.index.refresh(repository.storage)
    if damaged:
        raise Damaged(
            f"{damaged[0].message}; something in it may still be had, so no snapshot is forgotten",
            name=damaged[0].name,
            hint="Nothing was changed. Run: packstone repair packs, then this again",
        )


def _write(
    repository: ObjectRepository,
    writer: ObjectWriter,
    rows: list[SnapshotRow],
    hit: list[SnapshotRow],
    result: RepairSnapshotsResult,
) -> None:
    """Write each snapshot that is hit again, unless an earlier run has done so."""
    trees = TreeRepairer(repository, writer.put)
    made = {(row.snapshot.original_id, row.snapshot.tree): row.id for row in rows}
    for row in hit:
        tree_id = trees.repair(row.snapshot.tree)
        if not trees.losses:
            continue  # what the view did not know could be read all the same
        found = RepairedSnapshot(row.id, row.snapshot.time_ns, row.snapshot.host, trees.losses)
        result.repaired.append(found)
        if tree_id is None:
            continue
        found.snapshot_id = made.get((bytes.fromhex(row.id), tree_id))
        if found.snapshot_id is None and not result.dry_run:
            found.snapshot_id = writer.commit(_again(row, tree_id, len(trees.losses)))


def _again(row: SnapshotRow, tree_id: bytes, losses: int) -> Snapshot:
    """Return a snapshot like another, with the tree that is left of it."""
    return msgspec.structs.replace(
        row.snapshot,
        tree=tree_id,
        original_id=bytes.fromhex(row.id),
        summary=row.snapshot.summary | {"lost": losses},
    )


def _forget(repository: ObjectRepository, result: RepairSnapshotsResult) -> None:
    """Move what was written again, and what cannot be read, out of use."""
    with repository.sweep() as sweep:
        rows, damaged = list_snapshots(repository.storage, repository.sealer)
        there = {row.id for row in rows}
        going: list[str] = []
        for found in result.repaired:
            if found.snapshot_id is not None and found.snapshot_id not in there:
                result.warnings.append(
                    f"snapshot {found.snapshot_id[:12]}… was forgotten meanwhile: "
                    f"{found.original_id[:12]}…, which it was made of, stays"
                )
            elif found.original_id in there:
                going.append(found.original_id)
        for error in damaged:  # read again: it may have been a fault on the way
            snapshot_id = error.name.rpartition("/")[2]
            if snapshot_id not in result.unreadable:
                continue
            if _is_foreign(repository, snapshot_id):
                result.warnings.append(
                    f"snapshot {snapshot_id[:12]}… is whole and of another repository: it stays. "
                    "Move it away yourself if it does not belong here"
                )
            else:
                going.append(snapshot_id)
        moved = sweep.quarantine([snapshot_name(each) for each in going])
    result.quarantined = {name.rpartition("/")[2]: new for name, new in moved.items()}
    for found in result.repaired:
        found.quarantine = result.quarantined.get(found.original_id, "")


def _is_foreign(repository: ObjectRepository, snapshot_id: str) -> bool:
    """Return whether a snapshot is what its name says, and says it is another repository's.

    A config that was exchanged must not cost all snapshots.
    """
    try:
        data = repository.storage.get(snapshot_name(snapshot_id), MAX_ENVELOPE)
    except Damaged:
        return False
    return checksum(data).hex() == snapshot_id and data[16:32] != repository.repository_id
