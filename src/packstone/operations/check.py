"""Verify a repository: packs, index, trees, chunks, and with data every object.

Writes nothing but the dates of what it verified and how fast that was, and goes on after every
finding; each names the pack, record, snapshots and files it hits. Memory grows with the number
of directories and packs, not with chunks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future

from packstone.codec.compression import Compressor
from packstone.errors import ObjectMissing, StorageError, UnsupportedFormat
from packstone.operations.check_choice import Candidate, Choice
from packstone.operations.check_damage import Damage, transient
from packstone.operations.check_packs import Depth, PackReport, check_pack
from packstone.operations.check_trees import TreeChecker
from packstone.operations.measured import keep_check
from packstone.operations.results import CheckResult, Finding, ProgressFunction, Ticker, Verified
from packstone.operations.storing import Workers
from packstone.repository.history import VerifiedDates
from packstone.repository.keyring import check_slots
from packstone.repository.layout import check_features, check_small_objects, pack_name
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow, list_snapshots

ALL = Choice()
_PACK_NAME_SIZE = len(pack_name("0" * 64))


class _Checker:
    def __init__(
        self,
        repository: ObjectRepository,
        *,
        depth: Depth,
        threads: int,
        progress: ProgressFunction | None,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
    ) -> None:
        self.result = CheckResult()
        self.damage = Damage()
        self._repository = repository
        self._depth = depth
        self._threads = threads
        self._tick = Ticker(progress)
        self._now_ns = clock()
        self._monotonic = monotonic
        self._rows: list[SnapshotRow] = []
        self._packs: dict[str, int] = {}  # id → size
        self._whole: list[str] = []  # packs verified in this run
        self._suspect: set[str] = set()  # packs with anything wrong
        self._raw_size = 0  # of the objects that were read, before compression
        self._read_seconds = 0.0

    def small_objects(self) -> None:
        """Check what is small, each twice if need be, and list the snapshots."""
        repository = self._repository
        storage = repository.storage
        self._twice("config", lambda: check_small_objects(storage, repository.sealer))
        if repository.encrypted:
            self._twice("key", lambda: check_slots(storage, repository.repository_id))

        def snapshots() -> list[str]:
            self._rows, damaged = list_snapshots(storage, repository.sealer)
            return [error.message for error in damaged]

        self._twice("snapshot", snapshots)

    def _twice(self, kind: str, look: Callable[[], Iterable[str]]) -> None:
        """Look again if anything is wrong; what is wrong once only is transient."""
        first = list(look())
        again = list(look()) if first else []
        for text in first:
            if text in again:
                self.damage.add(Finding(kind, text))
        for text in first + again:
            if text not in first or text not in again:
                self.damage.add(transient(text))

    def list_packs(self) -> None:
        """List the packs, after the snapshots: what a snapshot needs was there before it."""
        unknown = 0
        for name, size in self._repository.storage.list("packs"):
            pack_id = name.rpartition("/")[2]
            if len(name) == _PACK_NAME_SIZE and name == pack_name(pack_id) and _is_id(pack_id):
                self._packs[pack_id] = size
            else:
                unknown += 1
        if unknown:
            self.result.notes.append(f"{unknown} files in packs/ are no packs; nothing reads them")
        self.result.packs_total = len(self._packs)
        self.result.bytes_total = sum(self._packs.values())

    def packs(self, choice: Choice) -> None:
        """Compare all footers with the view, read the packs that are chosen, date what is whole.

        Where packs are named, others are left out.
        """
        repository = self._repository
        # Listed before the view follows: it knows all of these, others may come meanwhile.
        repository.index.refresh(repository.storage)
        dates = None
        if self._depth == Depth.DATA:
            dates = VerifiedDates(
                repository.storage,
                repository.sealer,
                self._packs,
                self._now_ns,
                repository.warnings.append,
            )
        position = repository.storage.disk_position
        everything = [
            Candidate(
                pack_id,
                size,
                dates.of(pack_id) if dates is not None else 0,
                position(pack_name(pack_id)),
            )
            for pack_id, size in self._packs.items()
        ]
        chosen = choice.order(everything)
        workers = Workers(self._threads)
        reports: dict[str, PackReport] = {}  # of footers with anything wrong
        try:
            for report in self._look(workers, chosen if choice.packs else ALL.order(everything)):
                self.result.objects_checked += report.object_count
                if report.problems or report.transient:
                    reports[report.pack_id] = report
                    self._suspect.add(report.pack_id)
            self._compare_view(reports, whole=not choice.packs)
            for report in self._read(workers, chosen, choice.max_seconds):
                footers = reports.pop(report.pack_id, None)
                if footers is not None:
                    report = _joined(footers, report)
                self.damage.add_report(report)
                if report.problems or report.transient:
                    self._suspect.add(report.pack_id)
                if report.verified:
                    self._whole.append(report.pack_id)
        finally:
            workers.close()
            # What was verified before an interrupt stays verified.
            if dates is not None:
                self._keep(dates)
        for report in reports.values():
            self.damage.add_report(report)

    def _look(
        self,
        workers: Workers,
        packs: Iterable[Candidate],
        depth: Depth = Depth.FOOTERS,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Iterator[PackReport]:
        """Check packs on all workers, as long as it may go on; yield in the order of packs."""
        codec = Compressor(self._repository.config.level)
        waiting: deque[Future[PackReport]] = deque()
        for each in packs:
            if not go_on():
                break
            waiting.append(
                workers.submit(check_pack, self._repository, codec, each.id, each.size, depth)
            )
            while waiting and waiting[0].done():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _read(
        self, workers: Workers, packs: list[Candidate], max_seconds: float | None
    ) -> Iterator[PackReport]:
        """Read packs in their order, at least one, until time is over."""
        result = self.result
        total = sum(each.size for each in packs)
        started = time.monotonic()
        deadline = None if max_seconds is None else self._monotonic() + max_seconds
        begun = False

        def go_on() -> bool:
            nonlocal begun
            is_over = begun and deadline is not None and self._monotonic() >= deadline
            begun = True
            return not is_over

        for report in self._look(workers, packs, self._depth, go_on):
            result.packs_checked += 1
            result.bytes_read += report.bytes_read
            self._raw_size += report.raw_size
            self._read_seconds = time.monotonic() - started
            self._tick(
                result.packs_checked, result.bytes_read, files_total=len(packs), bytes_total=total
            )
            yield report

    def _compare_view(self, reports: dict[str, PackReport], *, whole: bool) -> None:
        """Check that the view knows no packs and objects but those that are there.

        Where it is wrong it is made anew: what it says of chunks is worth nothing then.
        """
        repository = self._repository
        wrong = any(each.kind == "index" for found in reports.values() for each in found.problems)
        for finding in self._surplus() if whole else ():
            self.damage.add(finding)
            wrong = True
        if wrong:
            repository.warnings.append("the index was wrong and is rebuilt from the footers")
            repository.index.reset()
            repository.index.refresh(repository.storage)

    def _surplus(self) -> Iterator[Finding]:
        """Yield what the view knows beyond what is there."""
        repository = self._repository
        known = self.result.objects_checked
        listed = repository.index.count_places(self._packs)
        if listed > known:
            text = f"the index lists {listed} objects, the packs hold {known}"
            yield Finding("index", f"{text}. Delete it: it is rebuilt")
        for pack_id in sorted(set(repository.index.packs.values()) - self._packs.keys()):
            try:
                repository.storage.size(pack_name(pack_id))
                continue  # it came after the listing
            except ObjectMissing:
                pass
            yield Finding("index", f"the index knows pack {pack_id[:12]}…, which is gone", pack_id)

    def _keep(self, dates: VerifiedDates) -> None:
        """Store the dates of what was verified, if the repository can be written to."""
        repository = self._repository
        try:
            check_features(repository.storage, repository.sealer, writing=True)
            try:
                dates.keep(self._whole, repository.random)
            except ObjectMissing:  # somebody removed the folder
                repository.storage.make_directories(["history"])
                dates.keep(self._whole, repository.random)
        except (StorageError, UnsupportedFormat) as error:
            repository.warnings.append(
                f"the date of this verification is not kept: {error.message}"
            )
        fresh = set(self._whole)
        known = {
            pack_id: self._now_ns if pack_id in fresh else dates.of(pack_id)
            for pack_id in self._packs
            if pack_id not in self._suspect
        }
        verified = {pack_id: date for pack_id, date in known.items() if date}
        self.result.verified = Verified(
            len(verified),
            sum(self._packs[pack_id] for pack_id in verified),
            min(verified.values(), default=0),
        )

    def keep_rate(self) -> None:
        """Keep how fast data was read, if all of it was good."""
        if self._depth == Depth.DATA:
            keep_check(self._repository, self.result, self._raw_size, self._read_seconds)

    def snapshots(self) -> None:
        """Check all trees; tell what nothing reaches if all of them could be read."""
        trees = TreeChecker(self._repository, self.damage)
        for row in self._rows:
            self.result.snapshots_checked += 1
            trees.check(row)
        if trees.has_lost:
            # Made anew, the view offers no base that what hangs could not stand on: who stores a
            # lost chunk again stores it whole.
            self._repository.index.reset()
            self._repository.index.refresh(self._repository.storage)
        if not self.damage:
            orphans = self._packs.keys() - trees.reached
            self.result.orphans = len(orphans)
            if orphans:
                size = sum(self._packs[pack_id] for pack_id in orphans)
                self.result.notes.append(
                    f"no snapshot needs anything of {len(orphans)} packs of {size} bytes: prune "
                    "removes them, unless a snapshot is being taken"
                )

    def leftovers(self) -> None:
        """Tell what writers that died have left in tmp/."""
        try:
            sizes = [size for _name, size in self._repository.storage.list("tmp")]
        except ObjectMissing:
            return
        if sizes:
            self.result.notes.append(
                f"{len(sizes)} files of {sum(sizes)} bytes in tmp/, of writers at work or cut off"
            )


def _joined(footers: PackReport, data: PackReport) -> PackReport:
    """Return what two looks at a pack found; the first alone has compared it with the view."""
    problems, transient = list(data.problems), data.transient + footers.transient
    for each in footers.problems:
        if each.kind == "index":
            problems.append(each)
        elif each not in problems:
            transient.append(each)
    return data._replace(problems=problems, transient=transient, verified=False)


def _is_id(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def check_repository(
    repository: ObjectRepository,
    *,
    read_data: bool = False,
    choice: Choice = ALL,
    threads: int = 1,
    progress: ProgressFunction | None = None,
    clock: Callable[[], int] = time.time_ns,
    monotonic: Callable[[], float] = time.monotonic,
) -> CheckResult:
    """Check everything, or as a choice says; see CheckResult.

    A choice reads the data of the packs it takes. With a subset or a time everything else is
    checked as without; with packs that are named, only these, and snapshots only to say what
    damage hits. Raises UsageError, StorageError when a listing fails.
    """
    started = time.monotonic()
    checker = _Checker(
        repository,
        depth=Depth.DATA if read_data or choice.is_partial else Depth.NAME,
        threads=threads,
        progress=progress,
        clock=clock,
        monotonic=monotonic,
    )
    checker.small_objects()
    checker.list_packs()
    checker.packs(choice)
    if not choice.packs or checker.damage:
        checker.snapshots()
    if not choice.packs:
        checker.leftovers()
    result = checker.result
    result.errors = list(checker.damage.findings())
    result.warnings = list(repository.warnings)
    checker.keep_rate()
    result.seconds = time.monotonic() - started
    return result
