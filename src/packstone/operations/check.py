"""Verify a repository: packs, index, trees, chunks, and with data every object.

Reads only, and goes on after every finding; each names the pack, snapshots and files it
hits. Memory grows with the number of directories, not with chunks.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future

from packstone.errors import Damaged, ObjectMissing
from packstone.model import Entry, ObjectType
from packstone.operations.check_packs import PackReport, check_pack
from packstone.operations.results import CheckResult, Finding, ProgressFunction, Ticker
from packstone.operations.storing import Workers
from packstone.repository.contents import iter_content
from packstone.repository.keyring import check_slots
from packstone.repository.layout import check_small_objects, list_ids, pack_name
from packstone.repository.reachable import with_bases
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow, list_snapshots
from packstone.repository.trees import check_entry, iter_entries

_ASKED = 10_000  # ids looked up together


class _Checker:
    def __init__(
        self,
        repository: ObjectRepository,
        *,
        read_data: bool,
        threads: int,
        progress: ProgressFunction | None,
    ) -> None:
        self.result = CheckResult()
        self._repository = repository
        self._read_data = read_data
        self._threads = threads
        self._tick = Ticker(progress)
        self._rows: list[SnapshotRow] = []
        self._bad: dict[bytes, str] = {}  # object id → pack it is damaged in

    def packs(self) -> None:
        """Check every pack that is there, and that the view knows no others.

        Snapshots are listed before packs: what a snapshot needs was there before it.
        """
        repository = self._repository
        for text in check_small_objects(repository.storage, repository.sealer):
            self.result.errors.append(Finding("config", text))
        if repository.encrypted:
            for text in check_slots(repository.storage, repository.repository_id):
                self.result.errors.append(Finding("key", text))
        self._rows, damaged = list_snapshots(repository.storage, repository.sealer)
        self.result.errors += [Finding("snapshot", error.message) for error in damaged]
        # Listed before the view follows: it knows all of these, others may come meanwhile.
        packs = sorted(list_ids(repository.storage, "packs"))
        repository.index.refresh(repository.storage)
        total = sum(size for _, size in packs)
        workers = Workers(self._threads)
        waiting: deque[Future[PackReport]] = deque()

        def take() -> None:
            report = waiting.popleft().result()
            result = self.result
            result.packs_checked += 1
            result.bytes_read += report.bytes_read
            result.objects_checked += report.object_count
            result.errors += report.findings
            self._bad.update(dict.fromkeys(report.bad_ids, report.pack_id))
            self._tick(
                result.packs_checked, result.bytes_read, files_total=len(packs), bytes_total=total
            )

        try:
            for pack_id, size in packs:
                waiting.append(
                    workers.submit(
                        lambda pack_id=pack_id, size=size: check_pack(
                            repository, pack_id, size, read_data=self._read_data
                        )
                    )
                )
                while waiting and waiting[0].done():
                    take()
            while waiting:
                take()
        finally:
            workers.close()
        known = self.result.objects_checked
        listed = repository.index.count_places({pack_id for pack_id, _ in packs})
        if listed > known:
            text = f"the index lists {listed} objects, the packs hold {known}"
            self.result.errors.append(Finding("index", f"{text}. Delete it: it is rebuilt"))
        gone = set(repository.index.packs.values()) - {pack_id for pack_id, _ in packs}
        for pack_id in sorted(gone):
            try:
                repository.storage.size(pack_name(pack_id))
                continue  # it came after the listing
            except ObjectMissing:
                pass
            text = f"the index knows pack {pack_id[:12]}…, which is gone"
            self.result.errors.append(Finding("index", text, pack_id))
        if any(finding.kind == "index" for finding in self.result.errors):
            # What it says of chunks is worth nothing now; footers say it below.
            repository.warnings.append("the index was wrong and is rebuilt from the footers")
            repository.index.reset()
            repository.index.refresh(repository.storage)

    def snapshots(self) -> None:
        """Check that every snapshot's trees are sound and every chunk they name is there."""
        sound: set[bytes] = set()  # directories of snapshots without any finding
        for row in self._rows:
            self.result.snapshots_checked += 1
            before = len(self.result.errors)
            found = self._snapshot(row, sound)
            # What hits one snapshot must be named for every other that it hits.
            if len(self.result.errors) == before:
                sound |= found

    def _snapshot(self, row: SnapshotRow, sound: set[bytes]) -> set[bytes]:
        """Walk one snapshot, leaving out sound directories; return those it walked."""
        get = self._repository.reader.get
        asked: list[tuple[bytes, int, bytes]] = []
        walked: set[bytes] = set()
        # Names, not paths, for each level: paths of a deep tree would fill the memory.
        names: list[bytes] = []
        stack: list[Iterator[Entry]] = []

        def enter(tree_id: bytes, name: bytes) -> None:
            if tree_id not in sound and tree_id not in walked:
                walked.add(tree_id)
                names.append(name)
                stack.append(iter_entries(get, tree_id))

        def found(error: Damaged | ObjectMissing, *below: bytes) -> None:
            path = b"/".join([*names, *below]) or b"/"
            finding = Finding("tree", error.message, None, (row.id,), (path,))
            self.result.errors.append(finding)

        enter(row.snapshot.tree, b"")
        while stack:
            try:
                entry = next(stack[-1], None)
            except (Damaged, ObjectMissing) as error:
                found(error)
                entry = None
            if entry is None:
                stack.pop()
                names.pop()
                continue
            try:
                check_entry(entry)
                if entry.mode & 0o170000 == 0o040000:
                    if isinstance(entry.content, bytes):
                        enter(entry.content, entry.name)
                elif entry.mode & 0o170000 == 0o100000:
                    path = b"/".join([*names, entry.name])
                    asked += [(*item, path) for item in iter_content(get, entry) if item[0]]
            except (Damaged, ObjectMissing) as error:
                found(error, entry.name)
            if len(asked) >= _ASKED:
                self._ask(asked, row.id)
        self._ask(asked, row.id)
        return walked

    def _ask(self, asked: list[tuple[bytes, int, bytes]], snapshot_id: str) -> None:
        """Look chunks and their bases up; name the files of those missing or unusable."""
        ids = [chunk_id for chunk_id, _, _ in asked]
        for reached in with_bases(self._repository.index, ids):
            for at in reached.wanted_by:
                chunk_id, size, path = asked[at]
                place = reached.place
                if chunk_id == reached.id and place is not None and place.size != size:
                    text = f"chunk {chunk_id.hex()[:12]}… has {place.size} bytes, expected {size}"
                    self.result.errors.append(Finding("tree", text, None, (snapshot_id,), (path,)))
            if reached.place is not None and reached.id not in self._bad:
                continue
            pack = self._bad.get(reached.id)
            if pack is not None and self._whole_elsewhere(reached.id):
                continue
            paths = {asked[at][2] for at in reached.wanted_by}
            what = (
                "chunk" if all(asked[at][0] == reached.id for at in reached.wanted_by) else "base"
            )
            wrong = "damaged" if pack else "in no pack that it could be taken from"
            text = f"{what} {reached.id.hex()[:12]}… is {wrong}"
            self.result.errors.append(
                Finding("chunk", text, pack, (snapshot_id,), tuple(sorted(paths)))
            )
        asked.clear()

    def _whole_elsewhere(self, chunk_id: bytes) -> bool:
        try:
            self._repository.reader.get(ObjectType.CHUNK, chunk_id)
        except (Damaged, ObjectMissing):
            return False
        return True


def check_repository(
    repository: ObjectRepository,
    *,
    read_data: bool = False,
    threads: int = 1,
    progress: ProgressFunction | None = None,
) -> CheckResult:
    """Check everything; see CheckResult. Raises StorageError when a listing fails."""
    started = time.monotonic()
    checker = _Checker(repository, read_data=read_data, threads=threads, progress=progress)
    checker.packs()
    checker.snapshots()
    result = checker.result
    result.warnings = list(repository.warnings)
    result.seconds = time.monotonic() - started
    return result
