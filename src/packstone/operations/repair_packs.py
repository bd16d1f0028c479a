"""Repair packs: save what can be read of damaged ones, put these away, say what is lost.

Marks as damaged only what was wrong at two reads of the same code that check uses. Nothing is
deleted: what can be read is durable in other packs, and proved to be there under the exclusive
lock, before a damaged file is moved to quarantine. It can be killed at any step and run again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS
from packstone.errors import Damaged, ObjectMissing, StorageError, UnsupportedFormat, UsageError
from packstone.model import ID_SIZE, ObjectType
from packstone.operations.check_damage import Damage
from packstone.operations.check_names import hash_file
from packstone.operations.check_packs import Depth, PackReport, check_pack
from packstone.operations.check_trees import TreeChecker
from packstone.operations.prune_plan import read_listed
from packstone.operations.repair_source import MissingFetcher, RepairSource
from packstone.operations.results import Finding, ProgressFunction, Ticker
from packstone.operations.salvage import Salvaged, Salvager, is_at_fault, nowhere
from packstone.operations.storing import Workers
from packstone.repository.carve import carve, is_foreign
from packstone.repository.layout import list_ids, pack_name
from packstone.repository.packs import KEYS, Pack, RecordRow, read_pack
from packstone.repository.places import Place
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow, list_snapshots

_ASKED = 10_000  # ids looked up together

QUARANTINED, PUT_BACK, STAYS = "quarantined", "put back", "stays"


@dataclass(slots=True)
class DamagedPack:
    """A pack that is not what its name says, and what became of it and its objects.

    `outcome` is `quarantined`, `put back` (a whole copy took its place) or `stays`, then with
    the reason. Counts are of objects: those that are whole now, and those that nothing has.
    """

    pack: str
    problems: list[str]
    outcome: str = STAYS
    reason: str = ""
    quarantine: str = ""  # the damaged file's name now
    objects: int = 0
    saved: int = 0
    fetched: int = 0
    lost: int = 0


@dataclass(slots=True)
class RepairPacksResult:
    """What a repair of packs found and did; `losses` are files of snapshots that are lost now."""

    packs_checked: int = 0
    bytes_read: int = 0
    damaged: list[DamagedPack] = field(default_factory=list)
    objects_saved: int = 0
    objects_fetched: int = 0  # from the other repository
    objects_lost: int = 0
    packs_fetched: int = 0  # whole
    bytes_stored: int = 0
    losses: list[Finding] = field(default_factory=list)
    transient: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Return whether nothing is lost and nothing damaged stays."""
        return not self.losses and all(pack.outcome != STAYS for pack in self.damaged)


class _Repair:
    def __init__(
        self, repository: ObjectRepository, source: RepairSource | None, threads: int
    ) -> None:
        self.result = RepairPacksResult()
        self._repository = repository
        self._source = source
        self._threads = threads
        self._salvaged: dict[str, Salvaged] = {}
        self._written: set[str] = set()
        self._recalled: dict[str, Pack] = {}  # packs of which only the view knew what they hold
        self._reports: dict[str, PackReport] = {}  # of damaged packs

    def examine(self, wanted: Sequence[str], progress: ProgressFunction | None) -> None:
        """Read packs, those wanted or all, and note what is damaged in each."""
        repository = self._repository
        packs = sorted(_chosen(dict(list_ids(repository.storage, "packs")), wanted).items())
        repository.index.refresh(repository.storage)
        self._recall(packs)
        tick = Ticker(progress)
        total = sum(size for _pack_id, size in packs)
        codec = Compressor(repository.config.level)
        workers = Workers(self._threads)
        waiting: deque[Future[PackReport]] = deque()

        def take() -> None:
            report = waiting.popleft().result()
            result = self.result
            result.packs_checked += 1
            result.bytes_read += report.bytes_read
            result.transient += [problem.message for problem in report.transient]
            self._note(report)
            tick(result.packs_checked, result.bytes_read, files_total=len(packs), bytes_total=total)

        try:
            for pack_id, size in packs:
                waiting.append(
                    workers.submit(check_pack, repository, codec, pack_id, size, Depth.DATA)
                )
                while waiting and waiting[0].done():
                    take()
            while waiting:
                take()
        finally:
            workers.close()
        self.result.damaged.sort(key=lambda found: found.pack)

    def _recall(self, packs: Sequence[tuple[str, int]]) -> None:
        """Ask the view what is in packs without footers, before anything makes it anew."""
        repository = self._repository
        known = set(repository.index.packs.values())
        for pack_id, size in packs:
            if pack_id not in known:
                continue
            try:
                read_pack(repository.storage, pack_id, size, repository.sealer)
            except (Damaged, StorageError, UnsupportedFormat):
                pack = repository.index.recall(pack_id)
                if pack is not None:
                    self._recalled[pack_id] = pack

    def _note(self, report: PackReport) -> None:
        """Take up a pack with damage of its own, or one that cannot be judged."""
        problems = [each for each in report.problems if each.kind != "index"]
        if not problems:
            return
        verdict = _judge(self._repository, report)
        if verdict is None:
            return
        texts = [problem.message for problem in problems]
        self.result.damaged.append(DamagedPack(report.pack_id, texts, reason=verdict))
        self._reports[report.pack_id] = report

    def _open(self) -> list[DamagedPack]:
        """Return the damaged packs that something is still to be done about."""
        return [each for each in self.result.damaged if each.outcome == STAYS and not each.reason]

    def put_back(self) -> None:
        """Put whole files from a copy of this repository in the place of damaged ones."""
        source = self._source
        found = [each for each in self._open() if source is not None and source.may_have(each.pack)]
        if source is None or not found:
            return
        with self._repository.sweep() as sweep:
            for each in found:
                whole = source.fetch(each.pack)
                if whole is not None:
                    each.quarantine = sweep.replace(each.pack, whole)
                    each.outcome = PUT_BACK
                    self.result.packs_fetched += 1

    def salvage(self) -> None:
        """Write what can be read of damaged packs into new ones, durable and in the view."""
        repository = self._repository
        open_ = {each.pack for each in self._open()}
        packs = [pack for pack_id in sorted(open_) for pack in self._contents(pack_id)]
        elsewhere = self._source.get if self._source is not None else nowhere
        salvager = Salvager(repository, open_, elsewhere)
        lost: int | None = None
        while packs:
            writer = repository.writer()
            try:
                self._salvaged |= salvager.run(packs, writer, self._threads)
                writer.finish()
            except BaseException:
                writer.abandon()
                raise
            self._written |= set(writer.packs_written)
            self.result.bytes_stored += writer.bytes_stored
            still = sum(len(each.lost) for each in self._salvaged.values())
            if not still or still == lost:
                break
            # What was saved may be the base of what could not be read before.
            lost = still
            repository.reader.may_refresh = True  # what failed is tried again
            packs = [pack for pack in packs if self._salvaged[pack.id].lost]

    def save_dependants(self) -> None:
        """Store whole what can still be made of lost bases, before their packs are put away.

        A base may be damaged where a delta against it does not look: the delta's own id tells.
        """
        reader = self._repository.reader
        reader.may_refresh = True
        lost = {object_id for each in self._salvaged.values() for object_id in each.lost}
        tried: set[bytes] = set()
        while lost:
            deeper: set[bytes] = set()
            writer = self._repository.writer()
            try:
                for row in self._standing_on(lost):
                    chunk_id = row.objects[:ID_SIZE]
                    if chunk_id in tried:
                        continue
                    tried.add(chunk_id)
                    try:
                        data = reader.get(ObjectType.CHUNK, chunk_id)
                    except (Damaged, ObjectMissing):
                        deeper.add(chunk_id)
                        continue
                    keys = KEYS.unpack(row.keys) if row.keys else (0, 0)
                    writer.put_whole(ObjectType.CHUNK, chunk_id, data, keys)
                writer.finish()
            except BaseException:
                writer.abandon()
                raise
            self._written |= set(writer.packs_written)
            self.result.bytes_stored += writer.bytes_stored
            lost = deeper

    def _standing_on(self, bases: set[bytes]) -> Iterator[RecordRow]:
        """Yield the deltas against any of these bases in packs that stay."""
        victims = {each.pack for each in self._open()}
        for pack_id, _size, records in list(self._repository.index.records()):
            if pack_id in victims or not any(codec in DELTA_CODECS for _s, _r, codec in records):
                continue
            try:
                rows = read_listed(self._repository, pack_id).rows
            except (Damaged, ObjectMissing):
                continue
            yield from (row for row in rows if not bases.isdisjoint(row.bases))

    def _contents(self, pack_id: str) -> list[Pack]:
        """Return what a pack holds as far as anything says so."""
        repository = self._repository
        storage = repository.storage
        try:
            size = storage.size(pack_name(pack_id))
            try:
                return [read_pack(storage, pack_id, size, repository.sealer)]
            except Damaged:
                found = carve(storage, pack_id, size, repository.sealer)
        except ObjectMissing:
            return []
        if pack_id in self._recalled:
            found.append(self._recalled[pack_id])
        return found

    def quarantine(self) -> None:
        """Move the damaged files away, those of which everything readable is proved to be saved."""
        repository = self._repository
        found = {each.pack: each for each in self._open()}
        if not found:
            return
        with repository.sweep() as sweep:
            repository.index.refresh(repository.storage)
            moving: dict[str, DamagedPack] = {}
            for pack_id, each in found.items():
                each.reason = self._unproved(pack_id, found)
                try:
                    repository.storage.size(pack_name(pack_id))
                except ObjectMissing:
                    each.outcome, each.reason = QUARANTINED, "it is gone: another run was quicker"
                    continue
                if not each.reason:
                    moving[pack_name(pack_id)] = each
            for name, new_name in sweep.quarantine(list(moving)).items():
                moving[name].outcome, moving[name].quarantine = QUARANTINED, new_name

    def _unproved(self, pack_id: str, victims: Collection[str]) -> str:
        """Return what of a pack's readable objects is nowhere else, or an empty text."""
        salvaged = self._salvaged.get(pack_id)
        if salvaged is None:
            return ""
        items = list({**salvaged.fetched, **salvaged.kept}.items())
        for start in range(0, len(items), _ASKED):
            part = items[start : start + _ASKED]
            places = self._repository.index.find_all([object_id for object_id, _ in part])
            for (object_id, (kind, depth)), found in zip(part, places, strict=True):
                others = [p for p in found if p.pack_id not in victims and p.depth <= depth]
                if not any(self._has(kind, object_id, place) for place in others):
                    return f"{kind.name.lower()} {object_id.hex()[:12]}… is nowhere else"
        return ""

    def _has(self, kind: ObjectType, object_id: bytes, place: Place) -> bool:
        if place.pack_id in self._written:  # read back when it was written
            return True
        try:
            self._repository.reader.get_at(kind, object_id, place)
        except (Damaged, ObjectMissing):
            return False
        return True

    def fetch_missing(self) -> None:
        """Get from the other repository what snapshots need and no pack has."""
        if self._source is None:
            return
        repository = self._repository
        rows, _damaged = list_snapshots(repository.storage, repository.sealer)
        writer = repository.writer()
        try:
            fetcher = MissingFetcher(repository, self._source, writer)
            fetcher.run(row.snapshot.tree for row in rows)
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        self.result.packs_fetched += len(fetcher.packs)
        self.result.objects_fetched += fetcher.objects
        self.result.bytes_stored += writer.bytes_stored
        if fetcher.packs or fetcher.objects or self.result.packs_fetched:
            # Deltas that lacked their bases until now have no place in the view yet.
            repository.index.reset()
            repository.index.refresh(repository.storage)

    def conclude(self) -> None:
        """Count, and name every file of every snapshot that is lost."""
        repository, result = self._repository, self.result
        repository.reader.may_refresh = True
        for each in result.damaged:
            salvaged = self._salvaged.get(each.pack)
            if salvaged is not None and each.outcome != PUT_BACK:
                ids = list(salvaged.lost)
                gone = repository.index.present(ids).count(False)
                each.saved = len(salvaged.kept)
                each.fetched = len(salvaged.fetched) + len(ids) - gone
                each.lost = gone
                each.objects = each.saved + each.fetched + each.lost
        result.objects_saved = sum(each.saved for each in result.damaged)
        result.objects_fetched += sum(len(each.fetched) for each in self._salvaged.values())
        result.objects_lost = sum(each.lost for each in result.damaged)
        rows, damaged = list_snapshots(repository.storage, repository.sealer)
        result.warnings += [
            f"{error.message}. Run: packstone repair snapshots" for error in damaged
        ]
        result.losses = find_losses(
            repository,
            rows,
            [self._reports[each.pack] for each in result.damaged if each.outcome == STAYS],
        )


def find_losses(
    repository: ObjectRepository, rows: Sequence[SnapshotRow], reports: Sequence[PackReport] = ()
) -> list[Finding]:
    """Return what snapshots have lost, with their paths; `reports` are of packs with damage."""
    damage = Damage()
    for report in reports:
        damage.add_report(report)
    trees = TreeChecker(repository, damage)
    for row in rows:
        trees.check(row)
    return [found for found in damage.findings() if found.snapshots and not found.transient]


def _chosen(packs: dict[str, int], wanted: Sequence[str]) -> dict[str, int]:
    """Return the packs whose ids begin as wanted, all if nothing is; raises UsageError."""
    if not wanted:
        return packs
    chosen: dict[str, int] = {}
    for prefix in wanted:
        found = {name: size for name, size in packs.items() if name.startswith(prefix.lower())}
        if not found or not prefix:
            raise UsageError(f"no pack {prefix!r}", hint="Run: packstone check --read-data")
        chosen |= found
    return chosen


def _judge(repository: ObjectRepository, report: PackReport) -> str | None:
    """Return an empty text for a pack that is damaged, why another must stay, None for a sound one.

    A pack whose bytes are what its name says was never damaged: it is another repository's, or of
    a newer program, or what it stands on is damaged elsewhere. Only a record that was written
    wrong speaks against it.
    """
    storage = repository.storage
    name = pack_name(report.pack_id)
    try:
        is_named_well = hash_file(storage, name, lambda _data: None) == report.pack_id
    except Damaged:
        is_named_well = False
    except ObjectMissing:
        return None
    except StorageError as error:
        return f"it cannot be judged: {error.message}"
    try:
        pack = read_pack(storage, report.pack_id, storage.size(name), repository.sealer)
    except UnsupportedFormat as error:
        return f"it is not for this program to judge: {error.message}"
    except Damaged as error:
        if is_named_well:
            return f"its bytes are what its name says: {error.message}"
        if is_foreign(storage, name, repository.repository_id):
            return "it belongs to another repository"
        return ""
    if not is_named_well:
        return ""
    records = [each.record for each in report.problems if each.record is not None]
    return "" if is_at_fault(repository, pack, records) else None


def repair_packs(
    repository: ObjectRepository,
    *,
    packs: Sequence[str] = (),
    other: ObjectRepository | None = None,
    threads: int = 1,
    progress: ProgressFunction | None = None,
) -> RepairPacksResult:
    """Repair all packs, or those whose ids begin so; see RepairPacksResult.

    From `other`, a copy of this repository or one of its family, comes what is damaged or missing
    here. Raises UsageError, RepositoryLocked while others work, StorageError: then nothing that
    could be read is gone, and running it again goes on.
    """
    started = time.monotonic()
    source = None if other is None else RepairSource(repository, other)
    repair = _Repair(repository, source, threads)
    repair.examine(packs, progress)
    if any(not each.reason for each in repair.result.damaged):
        repository.end_cut_off_sweep()
        repair.put_back()
        repair.salvage()
        repair.save_dependants()
        repair.quarantine()
    repair.fetch_missing()
    repair.conclude()
    repair.result.warnings += repository.warnings
    repair.result.seconds = time.monotonic() - started
    return repair.result
