"""Give back the space that no snapshot needs.

Marks and plans under the shared lock; what nobody needs goes first, so that it works on a full
disk; packs in partial use are written anew, durable and in the view, before the old ones go.
Each sweep looks again, under the exclusive lock, at what it deletes (prune_proof.py).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from packstone.errors import Damaged, ObjectMissing
from packstone.operations.prune_plan import Plan, make_plan, measure
from packstone.operations.prune_proof import Proof
from packstone.operations.rebase import rebase_chunks
from packstone.operations.repack import Repacker
from packstone.repository.marks import Marker, Marks
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow, list_snapshots

MAX_UNUSED = 0.05  # of a pack, before it is written anew


@dataclass(slots=True)
class PruneResult:
    """What a prune did, or with `dry_run` would do; sizes in bytes.

    `bytes_freed` is what the packs shrank by; of a dry run, what nobody needs in packs that would
    go or be written anew.
    """

    snapshots: int = 0
    packs_before: int = 0
    packs_deleted: int = 0
    packs_rewritten: int = 0
    packs_after: int = 0
    bytes_before: int = 0
    bytes_unused: int = 0  # before
    bytes_rewritten: int = 0
    bytes_freed: int = 0
    bytes_after: int = 0
    chunks_rebased: int = 0
    dry_run: bool = False
    kept: dict[str, str] = field(default_factory=dict)  # pack id → why it is needed after all
    damaged: dict[str, str] = field(default_factory=dict)  # pack id → what cannot be read in it
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Known:
    """What snapshots were there under which generation, and what they reach.

    `wanted` is what they name themselves, `marks` also what that stands on.
    """

    snapshots: frozenset[str]
    generation: bytes
    marks: Marks
    wanted: Marks


class _Prune:
    def __init__(self, repository: ObjectRepository, threads: int) -> None:
        self.result = PruneResult()
        self._repository = repository
        self._threads = threads

    def mark(self, without: Collection[str] = ()) -> _Known:
        """Walk all snapshots, or all but some; refuses where anything they need cannot be read."""
        repository = self._repository
        generation = repository.generation()
        repository.index.refresh(repository.storage)
        rows = [row for row in self._list() if row.id not in without]
        self.result.snapshots = len(rows)
        marker = Marker(repository.index, repository.reader.get)
        self._walk(marker, rows)
        names = frozenset(row.id for row in rows)
        return _Known(names, generation, marker.marks, marker.wanted)

    def _list(self) -> list[SnapshotRow]:
        """Return all snapshots, or raise: what an unreadable one needs is unknown."""
        rows, damaged = list_snapshots(self._repository.storage, self._repository.sealer)
        if damaged:
            raise Damaged(
                f"{damaged[0].message}; what it needs is unknown, so nothing can be pruned",
                name=damaged[0].name,
                hint="Nothing was deleted. Run: packstone repair snapshots --forget",
            )
        return rows

    def _walk(self, marker: Marker, rows: list[SnapshotRow]) -> None:
        marker.add(row.snapshot.tree for row in rows)
        if marker.missing:
            raise ObjectMissing(
                f"{marker.missing} chunks that snapshots need are in no pack, first "
                f"{marker.missing_ids[0].hex()[:12]}…; what they stand on is unknown, so nothing "
                "can be pruned",
                hint="Nothing was deleted. Run: packstone repair packs, take a new snapshot of "
                "what you still have, then: packstone repair snapshots --forget",
            )

    def plan(self, known: _Known, max_unused: float) -> Plan:
        """Decide what becomes of the packs."""
        uses = measure(self._repository, known.marks)
        return make_plan(uses, pack_size=self._repository.config.pack_size, max_unused=max_unused)

    def sweep(
        self, known: _Known, victims: Collection[str], written: Collection[str] = ()
    ) -> tuple[int, _Known]:
        """Delete those packs that are proved unneeded now; return their number."""
        if not victims:
            return 0, known
        repository = self._repository
        with repository.sweep() as sweep:
            repository.index.refresh(repository.storage)
            rows = self._list()
            # Under one generation snapshots can only have been added, and what was marked stays.
            same = sweep.generation == known.generation
            fresh = [row for row in rows if not (same and row.id in known.snapshots)]
            marker = Marker(repository.index, repository.reader.get, known.marks if same else None)
            self._walk(marker, fresh)
            if same:
                marker.marks.include(known.marks)
                marker.wanted.include(known.wanted)
            there = set(repository.index.packs.values())
            proof = Proof(repository, there & set(victims), marker.marks, set(written))
            unneeded = proof.run()
            self.result.kept.update(proof.kept)
            sweep.delete(unneeded)
        names = frozenset(row.id for row in rows)
        return len(unneeded), _Known(names, sweep.generation, marker.marks, marker.wanted)

    def rebase(self, known: _Known) -> int:
        """Store whole what stands on chunks that no snapshot names; return how many."""
        writer = self._repository.writer()
        try:
            count = rebase_chunks(
                self._repository, writer, known.marks, known.wanted, self._threads
            )
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        return count

    def rewrite(self, known: _Known, plan: Plan) -> tuple[set[str], list[str]]:
        """Write what is needed of packs into new ones; return those that may go, and the new."""
        writer = self._repository.writer()
        repacker = Repacker(self._repository, writer, known.marks)
        try:
            repacker.run(plan.rewrite, self._threads)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        self.result.damaged.update(repacker.damaged)
        rewritten = {use.pack_id for use in plan.rewrite} - repacker.damaged.keys()
        self.result.bytes_rewritten += writer.bytes_stored
        return rewritten, writer.packs_written


def prune_repository(
    repository: ObjectRepository,
    *,
    max_unused: float = MAX_UNUSED,
    rebase: bool = False,
    dry_run: bool = False,
    without: Collection[str] = (),
    threads: int = 1,
) -> PruneResult:
    """Delete what no snapshot needs; see PruneResult.

    `max_unused` is the part of a pack that may be wasted before it is written anew. With `rebase`
    no byte stays of what no snapshot names, not even as the base of a delta. A dry run may look
    at what would be were some snapshots, `without`, forgotten. Raises Damaged and
    ObjectMissing when it is not known what is needed, RepositoryLocked while others work,
    StorageError: then nothing that is needed was deleted, and running it again goes on.
    """
    started = time.monotonic()
    prune = _Prune(repository, threads)
    result = prune.result
    result.dry_run = dry_run
    if not dry_run:
        repository.end_cut_off_sweep()
    known = prune.mark(without if dry_run else ())
    counts = repository.index.counts()
    result.packs_before = len(counts)
    result.bytes_before = sum(size for _id, size, _kind, _count in counts)
    plan = prune.plan(known, 0.0 if rebase else max_unused)
    result.bytes_unused = plan.bytes_unused
    if dry_run:
        result.packs_deleted, result.packs_rewritten = len(plan.delete), len(plan.rewrite)
        result.bytes_freed = plan.bytes_freed
        result.packs_after = result.packs_before - len(plan.delete)
        result.bytes_after = result.bytes_before - result.bytes_freed
    else:
        _carry_out(prune, known, plan, rebase)
        counts = repository.index.counts()
        result.packs_after = len(counts)
        result.bytes_after = sum(size for _id, size, _kind, _count in counts)
        result.bytes_freed = result.bytes_before - result.bytes_after
    result.warnings = list(repository.warnings)
    result.seconds = time.monotonic() - started
    return result


def _carry_out(prune: _Prune, known: _Known, plan: Plan, rebase: bool) -> None:
    result = prune.result
    deleted, known = prune.sweep(known, [use.pack_id for use in plan.delete])
    result.packs_deleted += deleted
    if rebase:
        result.chunks_rebased = prune.rebase(known)
        known = prune.mark()
        plan = prune.plan(known, 0.0)
        deleted, known = prune.sweep(known, [use.pack_id for use in plan.delete])
        result.packs_deleted += deleted
    if plan.rewrite:
        rewritten, written = prune.rewrite(known, plan)
        swept, _known = prune.sweep(known, rewritten, written)
        result.packs_rewritten += swept
