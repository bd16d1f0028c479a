"""Give back the space that no snapshot needs.

Marks and plans under the shared lock; what nobody needs goes first, so that it works on a full
disk; packs in partial use are written anew, durable and in the view, before the old ones go,
and where the disk has no room for all of them at once, some at a time.
Each sweep looks again, under the exclusive lock, at what it deletes (prune_proof.py).
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

from packstone.errors import Damaged, IndexWrong, ObjectMissing, RepositoryLocked
from packstone.operations.options import MAX_UNUSED
from packstone.operations.prune_plan import PackUse, Plan, make_plan, measure, take_fitting
from packstone.operations.prune_proof import Proof, compare_with_footers
from packstone.operations.rebase import rebase_chunks
from packstone.operations.repack import Repacker
from packstone.repository.marks import Marker, Marks
from packstone.repository.memory import trim_heap
from packstone.repository.publishing import renew_footers
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow, list_snapshots

_TRIES = 3  # of marking, while packs vanish or the index is found wrong


@dataclass(slots=True)
class PruneResult:
    """What a prune did, or with `dry_run` would do; sizes in bytes.

    `bytes_freed` is what the packs shrank by. Of a dry run it is exact where packs would go whole;
    what is written anew can be foretold to a few per cent, and not what `rebase` makes whole.
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

    `wanted` is what they name themselves, `marks` also what that stands on. `forgotten` changes
    when packs vanish in any other way than by a sweep: then what was marked may be gone.
    """

    snapshots: frozenset[str]
    generation: bytes
    forgotten: bytes
    marks: Marks
    wanted: Marks


class _Prune:
    def __init__(self, repository: ObjectRepository, threads: int) -> None:
        self.result = PruneResult()
        self._repository = repository
        self._threads = threads
        self._rebuilt = False  # the index, by us
        self.overtaken = False  # by another sweep: what was planned is of no use any more

    def mark(self, without: Collection[str] = ()) -> _Known:
        """Walk all snapshots, or all but some; refuses where anything they need cannot be read."""
        repository = self._repository
        index = repository.index
        for _ in range(_TRIES):
            generation = repository.generation()
            index.refresh(repository.storage)
            forgotten = index.forgotten()
            rows = [row for row in self._list() if row.id not in without]
            self.result.snapshots = len(rows)
            marker = Marker(index, repository.reader.get)
            try:
                self._walk(marker, rows)
                compare_with_footers(repository, marker.marks)
            except IndexWrong:
                if not self.rebuild_index():
                    raise
                continue
            # A page that was not where it should be has had the index made anew meanwhile: then
            # a place was marked that is none.
            if index.forgotten() == forgotten:
                names = frozenset(row.id for row in rows)
                self._give_back_memory()
                return _Known(names, generation, forgotten, marker.marks, marker.wanted)
        raise ObjectMissing(
            "packs vanish while it is found out what is needed",
            hint="Nothing was deleted. Run: packstone check",
        )

    def _give_back_memory(self) -> None:
        """Let go of trees that were walked, and of the holes that footers have left."""
        self._repository.reader.release()
        trim_heap()

    def rebuild_index(self) -> bool:
        """Make the index anew from the footers, once; return whether that was done."""
        if self._rebuilt:
            return False
        self._rebuilt = True
        self._repository.warnings.append(
            "the index disagrees with the packs; it is rebuilt from their footers"
        )
        self._repository.index.reset()
        self._repository.index.refresh(self._repository.storage)
        return True

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
            if not self._rebuilt:
                raise IndexWrong(f"the index lacks {marker.missing} chunks")
            raise ObjectMissing(
                f"{marker.missing} chunks that snapshots need are in no pack, first "
                f"{marker.missing_ids[0].hex()[:12]}…; what they stand on is unknown, so nothing "
                "can be pruned",
                hint="Nothing was deleted. Run: packstone repair packs, take a new snapshot of "
                "what you still have, then: packstone repair snapshots --forget",
            )

    def packs(self) -> set[str]:
        """Return the packs that are there, as far as the index knows."""
        return set(self._repository.index.packs.values())

    def plan(self, known: _Known, max_unused: float) -> Plan:
        """Decide what becomes of the packs."""
        uses = measure(self._repository, known.marks)
        repository = self._repository
        return make_plan(
            uses,
            sealer=repository.sealer,
            pack_size=repository.config.pack_size,
            max_unused=max_unused,
        )

    def sweep(
        self, known: _Known, victims: Collection[str], written: Collection[str] = ()
    ) -> tuple[int, _Known]:
        """Delete those packs that are proved unneeded now; return their number."""
        if not victims:
            return 0, known
        repository = self._repository
        index = repository.index
        with repository.sweep() as sweep:
            index.refresh(repository.storage)
            forgotten = index.forgotten()
            rows = self._list()
            # Under one generation snapshots can only have been added, and what was marked stays
            # where it is, unless packs vanished otherwise.
            same = (sweep.generation, forgotten) == (known.generation, known.forgotten)
            self.overtaken = not same
            fresh = [row for row in rows if not (same and row.id in known.snapshots)]
            marker = Marker(index, repository.reader.get, known.marks if same else None)
            self._walk(marker, fresh)
            compare_with_footers(repository, marker.marks)
            marks, wanted = marker.marks, marker.wanted
            if same:
                known.marks.include(marks)
                known.wanted.include(wanted)
                marks, wanted = known.marks, known.wanted
            there = set(index.packs.values())
            proof = Proof(repository, there & set(victims), marks, set(written))
            unneeded = proof.run()
            self.result.kept.update(proof.kept)
            self.result.damaged.update(proof.damaged)
            if index.forgotten() != forgotten:
                raise IndexWrong("the index was made anew while it was asked what is needed")
            sweep.delete(unneeded)
            if unneeded:
                index.refresh(repository.storage)
                if there - unneeded - set(index.packs.values()):
                    raise ObjectMissing(
                        "packs vanished that were not to be deleted",
                        hint="Run: packstone check",
                    )
            forgotten = index.forgotten()
        names = frozenset(row.id for row in rows)
        known = _Known(names, sweep.generation, forgotten, marks, wanted)
        return len(unneeded), known

    def clear_temporary(self, insist: bool) -> None:
        """Delete what killed writers left; while others work it may be theirs, and stays.

        Then `insist` raises RepositoryLocked.
        """
        if not any(self._repository.storage.list("tmp")):
            return
        try:
            with self._repository.sweep():
                pass
        except RepositoryLocked:
            if insist:
                raise

    def rebase(self, known: _Known) -> int:
        """Store whole what stands on chunks that no snapshot names; return how many."""
        writer = self._repository.writer(on_full_disk=True)
        try:
            count = rebase_chunks(
                self._repository, writer, known.marks, known.wanted, self._threads
            )
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        return count

    def take_fitting(self, rewrite: list[PackUse]) -> list[PackUse]:
        """Return as many packs to be written anew as the disk has room for."""
        repository = self._repository
        return take_fitting(
            rewrite,
            repository.room(),
            sealer=repository.sealer,
            pack_size=repository.config.pack_size,
        )

    def rewrite(self, known: _Known, uses: list[PackUse]) -> tuple[set[str], list[str]]:
        """Write what is needed of packs into new ones; return those that may go, and the new."""
        writer = self._repository.writer(on_full_disk=True)
        repacker = Repacker(self._repository, writer, known.marks)
        try:
            repacker.run(uses, self._threads)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        self.result.damaged.update(repacker.damaged)
        rewritten = {use.pack_id for use in uses} - repacker.damaged.keys()
        self.result.bytes_rewritten += writer.bytes_stored
        self._give_back_memory()
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
        repository.release_reserve()
        repository.end_cut_off_sweep()
    known = prune.mark(without if dry_run else ())
    counts = repository.index.counts()
    result.packs_before = len(counts)
    result.bytes_before = sum(size for _id, size, _kind, _count in counts)
    max_unused = 0.0 if rebase else max_unused
    plan = prune.plan(known, max_unused)
    result.bytes_unused = plan.bytes_unused
    if dry_run:
        result.packs_deleted, result.packs_rewritten = len(plan.delete), len(plan.rewrite)
        result.bytes_freed = plan.bytes_freed
        result.bytes_rewritten = plan.bytes_written
        gone = len(plan.delete) + len(plan.rewrite)
        result.packs_after = result.packs_before - gone + plan.packs_written
        result.bytes_after = result.bytes_before - result.bytes_freed
    else:
        try:
            _carry_out(prune, known, plan, max_unused, rebase)
        except IndexWrong:
            if not prune.rebuild_index():
                raise
            known = prune.mark()
            _carry_out(prune, known, prune.plan(known, max_unused), max_unused, rebase)
        prune.clear_temporary(insist=rebase)
        repository.keep_reserve()
        renew_footers(repository)
        if rebase and (result.kept or result.damaged or repository.damaged_packs):
            repository.warnings.append(
                "some packs had to stay: bytes of what no snapshot names may be left in them"
            )
        counts = repository.index.counts()
        result.packs_after = len(counts)
        result.bytes_after = sum(size for _id, size, _kind, _count in counts)
        result.bytes_freed = result.bytes_before - result.bytes_after
    result.warnings = list(repository.warnings)
    result.seconds = time.monotonic() - started
    return result


def _carry_out(prune: _Prune, known: _Known, plan: Plan, max_unused: float, rebase: bool) -> None:
    result = prune.result
    deleted, known = prune.sweep(known, [use.pack_id for use in plan.delete])
    result.packs_deleted += deleted
    if rebase:
        result.chunks_rebased = prune.rebase(known)
        known = prune.mark()
        plan = prune.plan(known, max_unused)
        deleted, known = prune.sweep(known, [use.pack_id for use in plan.delete])
        result.packs_deleted += deleted
    if prune.overtaken:
        plan = prune.plan(known, max_unused)
    waiting = plan.rewrite
    while waiting and (taken := prune.take_fitting(waiting)):
        rewritten, written = prune.rewrite(known, taken)
        swept, _known = prune.sweep(known, rewritten, written)
        result.packs_rewritten += swept
        waiting = [use for use in waiting if use not in taken]
        if waiting:
            # What was marked in the packs that went is somewhere else now, and must be proved
            # to be needed there.
            known = prune.mark()
            there = prune.packs()
            waiting = [use for use in waiting if use.pack_id in there]
