"""Another repository as a source for what is damaged or missing in this one.

A copy of this very repository gives whole packs, bit for bit; one of the same family gives
objects by id, which are verified as they are read and stored whole. Only reads from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from blake3 import blake3

from packstone.codec.delta import DELTA_CODECS
from packstone.errors import Damaged, ObjectMissing, StorageError, UsageError
from packstone.model import ID_SIZE, MIB, Entry, ObjectType
from packstone.repository.contents import decode_list_page, list_chunks
from packstone.repository.layout import DELTA_FEATURE, pack_name, write_feature
from packstone.repository.packs import read_pack
from packstone.repository.reachable import with_bases
from packstone.repository.repository import ObjectRepository
from packstone.repository.trees import check_entry, decode_page, is_directory_mode
from packstone.repository.writer import ObjectWriter
from packstone.storage.base import Spool

_READ = 4 * MIB
_CHUNKS = 10_000  # looked up together

_Page = tuple[ObjectType, bytes, int]  # type, id, level of a list's page


class RepairSource:
    """What another repository can give to this one."""

    def __init__(self, repository: ObjectRepository, other: ObjectRepository) -> None:
        """Raises UsageError where the other is this one, or names objects otherwise."""
        if other.storage.place == repository.storage.place:
            raise UsageError("a repository cannot be repaired from itself")
        if other.config.family != repository.config.family:
            raise UsageError(
                "the other repository is of another family: the same content has other ids there",
                hint="Name a copy of this repository, or one made with init --like",
            )
        self._repository = repository
        self._other = other
        self._is_copy = other.repository_id == repository.repository_id

    def get(self, kind: ObjectType, object_id: bytes) -> bytes:
        """Return an object, verified; raises Damaged, ObjectMissing."""
        return self._other.reader.get(kind, object_id)

    def may_have(self, pack_id: str) -> bool:
        """Return whether there is a file of the name of a pack of this very repository."""
        if not self._is_copy:
            return False
        try:
            return self._other.storage.size(pack_name(pack_id)) > 0
        except (Damaged, StorageError):
            return False

    def fetch(self, pack_id: str) -> Spool | None:
        """Return a pack's whole bytes, not yet under its name; None where they are not whole."""
        storage = self._repository.storage
        theirs = self._other.storage
        name = pack_name(pack_id)
        spool = storage.spool()
        try:
            offset = 0
            while data := _read(self._other, name, offset):
                spool.write(data)
                offset += len(data)
            hasher = blake3()
            offset = 0
            while data := spool.read_at(offset, _READ):
                hasher.update(data)
                offset += len(data)
            if hasher.hexdigest() != pack_id:
                spool.abandon()
                return None
            rows = read_pack(theirs, pack_id, offset, self._other.sealer).rows
            if any(row.codec in DELTA_CODECS for row in rows):
                # Before there is a pack with deltas, as a writer has it.
                sealer, random = self._repository.sealer, self._repository.random
                write_feature(storage, sealer, DELTA_FEATURE, "read", random(32))
        except Damaged:
            spool.abandon()
            return None
        except BaseException:
            spool.abandon()
            raise
        return spool

    def pack_of(self, object_id: bytes) -> str | None:
        """Return a pack of this very repository that the other one has an object in."""
        if not self._is_copy:
            return None
        place = self._other.index.find_many([object_id])[0]
        return None if place is None else place.pack_id


def _read(repository: ObjectRepository, name: str, offset: int) -> bytes:
    """Read from the other repository; what goes wrong there is no fault of this one's storage."""
    try:
        return repository.storage.get_range(name, offset, _READ)
    except StorageError as error:
        raise Damaged(f"the other repository: {error.message}") from error


class MissingFetcher:
    """Walk what snapshots reach and fetch what no pack of this repository gives."""

    def __init__(
        self, repository: ObjectRepository, source: RepairSource, writer: ObjectWriter
    ) -> None:
        self.packs: list[str] = []  # fetched whole
        self.objects = 0  # fetched one by one
        self._repository = repository
        self._source = source
        self._writer = writer
        self._fetched: set[bytes] = set()
        self._seen: set[bytes] = set()  # pages
        self._pages: list[_Page] = []
        self._chunks: set[bytes] = set()

    def run(self, trees: Iterable[bytes]) -> None:
        """Fetch what these trees reach and is missing; raises StorageError."""
        self._pages += [(ObjectType.TREE, tree_id, 0) for tree_id in trees]
        while self._pages:
            kind, page_id, level = self._pages.pop()
            if page_id in self._seen:
                continue
            self._seen.add(page_id)
            try:
                data = self._page(kind, page_id)
                if kind == ObjectType.TREE:
                    self._note_tree(data)
                else:
                    self._note_list(level, decode_list_page(data, level)[0])
            except (Damaged, ObjectMissing):
                continue  # it is lost: who looks for losses names it
            if len(self._chunks) >= _CHUNKS:
                self._settle()
        self._settle()

    def _page(self, kind: ObjectType, page_id: bytes) -> bytes:
        try:
            return self._repository.reader.get(kind, page_id)
        except (Damaged, ObjectMissing):
            pass
        if self._fetch_pack(page_id):
            try:
                return self._repository.reader.get(kind, page_id)
            except (Damaged, ObjectMissing):
                pass
        data = self._source.get(kind, page_id)
        self._store(kind, page_id, data)
        return data

    def _note_tree(self, data: bytes) -> None:
        for row in decode_page(data)[1]:
            if not isinstance(row, Entry):
                self._pages.append((ObjectType.TREE, row[1], 0))
                continue
            try:
                check_entry(row)
                if is_directory_mode(row.mode):
                    if isinstance(row.content, bytes):
                        self._pages.append((ObjectType.TREE, row.content, 0))
                elif row.mode & 0o170000 == 0o100000 and row.content:
                    self._note_list(*list_chunks(row))
            except Damaged:
                continue

    def _note_list(self, level: int, ids: bytes) -> None:
        split = [ids[start : start + ID_SIZE] for start in range(0, len(ids), ID_SIZE)]
        if level:
            self._pages += [(ObjectType.CHUNK_LIST, page_id, level - 1) for page_id in split]
        else:
            self._chunks.update(split)

    def _settle(self) -> None:
        asked = sorted(self._chunks)
        self._chunks.clear()
        while missing := self._missing(asked):
            # A whole pack may hold many of them, and as they were: look again after each.
            if any(self._fetch_pack(chunk_id) for chunk_id, _wanted_by in missing):
                continue
            came = [self._fetch_chunk(chunk_id, wanted_by) for chunk_id, wanted_by in missing]
            if not any(came):
                return

    def _missing(self, asked: Sequence[bytes]) -> list[tuple[bytes, list[bytes]]]:
        """Return chunks and bases without a place, each with the chunks that need it."""
        return [
            (reached.id, [asked[at] for at in sorted(reached.wanted_by)])
            for reached in with_bases(self._repository.index, asked)
            if reached.place is None
            and not self._fetched >= {asked[at] for at in reached.wanted_by}
        ]

    def _fetch_chunk(self, chunk_id: bytes, wanted_by: Sequence[bytes]) -> bool:
        """Fetch a chunk, or else those that need it; return whether anything came."""
        if chunk_id in self._fetched:
            return False
        came = False
        for each in [chunk_id] if chunk_id in wanted_by else [chunk_id, *wanted_by]:
            if each in self._fetched:
                continue
            try:
                data = self._source.get(ObjectType.CHUNK, each)
            except (Damaged, ObjectMissing):
                continue
            self._store(ObjectType.CHUNK, each, data)
            came = True
            if each == chunk_id:
                break
        return came

    def _store(self, kind: ObjectType, object_id: bytes, data: bytes) -> None:
        self._writer.put_whole(kind, object_id, data)
        self._fetched.add(object_id)
        self.objects += 1

    def _fetch_pack(self, object_id: bytes) -> bool:
        """Put back the whole pack that an object was in; return whether it is there now."""
        repository = self._repository
        pack_id = self._source.pack_of(object_id)
        if pack_id is None or pack_id in self.packs:
            return False
        try:
            repository.storage.size(pack_name(pack_id))
            return False  # it is there, and bad: whoever quarantines it comes first
        except ObjectMissing:
            pass
        spool = self._source.fetch(pack_id)
        if spool is None:
            return False
        spool.commit(pack_name(pack_id))
        self.packs.append(pack_id)
        repository.index.refresh(repository.storage)
        return True
