"""Walk what snapshots hold: every directory is sound, every chunk is in a pack.

Reads trees, never chunks, but for those that stand in damaged places. Memory grows with the
number of directories, not with chunks.
"""

from __future__ import annotations

from collections.abc import Iterator

from packstone.errors import Damaged, ObjectMissing
from packstone.model import Entry, ObjectType
from packstone.operations.check_damage import Damage, transient
from packstone.operations.check_packs import Problem
from packstone.operations.results import Finding
from packstone.repository.contents import iter_content
from packstone.repository.reachable import with_bases
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import check_entry, is_directory_mode, iter_entries

_ASKED = 10_000  # ids looked up together

Asked = list[tuple[bytes, int, bytes]]  # chunk, its size, path of a file


class TreeChecker:
    """Check the trees of snapshots, one after the other."""

    def __init__(self, repository: ObjectRepository, damage: Damage) -> None:
        self._repository = repository
        self._damage = damage
        self._sound: set[bytes] = set()  # directories of snapshots without any finding
        self._page = b""  # the last page that was read
        self._pages: list[bytes] = []  # whose packs are not looked up yet
        self._again: set[tuple[str, int | None]] = set()  # records that were read twice
        self.reached: set[str] = set()  # packs that hold something of what was walked

    def check(self, row: SnapshotRow) -> None:
        """Check that a snapshot's trees are sound and every chunk they name is there."""
        before = self._damage.changes
        walked = self._walk(row)
        # What hits one snapshot must be named for every other that it hits.
        if self._damage.changes == before:
            self._sound |= walked

    def _get(self, kind: ObjectType, object_id: bytes) -> bytes:
        """Return a page, read twice if need be."""
        reader = self._repository.reader
        self._page = object_id
        self._pages.append(object_id)
        try:
            return reader.get(kind, object_id)
        except Damaged as error:
            # Once for each record: reading all of it again for each of its pages would take long.
            if not error.name or (error.name, error.record) in self._again:
                raise
            self._again.add((error.name, error.record))
            self._repository.storage.drop_cached(error.name)
            reader.forget()
            data = reader.get(kind, object_id)
            pack = error.name.rpartition("/")[2]
            self._damage.add(transient(error.message, pack, error.record))
            return data

    def _walk(self, row: SnapshotRow) -> set[bytes]:
        """Walk one snapshot, leaving out sound directories; return those it walked."""
        asked: Asked = []
        walked: set[bytes] = set()
        # Names, not paths, for each level: paths of a deep tree would fill the memory.
        names: list[bytes] = []
        stack: list[Iterator[Entry]] = []
        above: bytes | None = None  # path of the directory on top of the stack, and a slash

        def enter(tree_id: bytes, name: bytes) -> None:
            if tree_id not in self._sound and tree_id not in walked:
                walked.add(tree_id)
                names.append(name)
                stack.append(iter_entries(self._get, tree_id))

        def path_of(name: bytes) -> bytes:
            return b"/".join([*names, name])

        enter(row.snapshot.tree, b"")
        while stack:
            self._page = b""
            try:
                entry = next(stack[-1], None)
            except (Damaged, ObjectMissing) as error:
                self._found(error, row.id, b"/".join(names) or b"/")
                entry = None
            if entry is None:
                stack.pop()
                names.pop()
                above = None
                continue
            self._page = b""
            try:
                check_entry(entry)
                if is_directory_mode(entry.mode):
                    if isinstance(entry.content, bytes):
                        enter(entry.content, entry.name)
                        above = None
                elif entry.mode & 0o170000 == 0o100000:
                    if above is None:  # not for each level: a deep tree would take for ever
                        above = path_of(b"")
                    path = above + entry.name
                    asked += [
                        (chunk_id, size, path)
                        for chunk_id, size in iter_content(self._get, entry)
                        if chunk_id
                    ]
            except (Damaged, ObjectMissing) as error:
                self._found(error, row.id, path_of(entry.name))
            if len(asked) >= _ASKED:
                self._ask(asked, row.id)
        self._ask(asked, row.id)
        return walked

    def _found(self, error: Damaged | ObjectMissing, snapshot_id: str, path: bytes) -> None:
        """Name what is hit by a tree that cannot be read, by its place in a pack if it has one."""
        damage = self._damage
        pack, record = None, None
        if isinstance(error, Damaged) and error.record is not None:
            pack, record = error.name.rpartition("/")[2], error.record
        elif isinstance(error, Damaged) and self._page:
            places = self._repository.index.find(self._page)
            if places:
                pack, record = places[0].pack_id, places[0].record
        if pack is None:
            damage.add(Finding("tree", error.message, None, (snapshot_id,), (path,)))
            return
        key = damage.key_of(pack, record)
        if key is None:
            damage.add_problem(pack, Problem("tree", error.message, record))
            key = pack, record
        damage.hit(key, snapshot_id, [path])

    def _ask(self, asked: Asked, snapshot_id: str) -> None:
        """Look chunks up; those that are not simply there are looked at one by one."""
        index = self._repository.index
        reached = self.reached
        for place in index.find_many(self._pages):
            if place is not None:
                reached.add(place.pack_id)
        self._pages.clear()
        key_of = self._damage.key_of if self._damage else None
        odd: Asked = []
        for row, place in zip(asked, index.find_many([row[0] for row in asked]), strict=True):
            if (
                place is None
                or place.depth
                or place.size != row[1]
                or (key_of is not None and key_of(place.pack_id, place.record))
            ):
                odd.append(row)
            else:
                reached.add(place.pack_id)
        if odd:
            self._ask_for_bases(odd, snapshot_id)
        asked.clear()

    def _ask_for_bases(self, asked: Asked, snapshot_id: str) -> None:
        """Look chunks and their bases up; name the files of those missing or unusable."""
        damage = self._damage
        for found in with_bases(self._repository.index, [row[0] for row in asked]):
            place = found.place
            paths = {asked[at][2] for at in found.wanted_by}
            if place is None:
                what = (
                    "chunk" if all(asked[at][0] == found.id for at in found.wanted_by) else "base"
                )
                text = f"{what} {found.id.hex()[:12]}… is in no pack that it could be taken from"
                damage.add(Finding("chunk", text, None, (snapshot_id,), tuple(sorted(paths))))
                continue
            self.reached.add(place.pack_id)
            for at in found.wanted_by:
                chunk_id, size, path = asked[at]
                if chunk_id == found.id and place.size != size:
                    text = f"chunk {chunk_id.hex()[:12]}… has {place.size} bytes, expected {size}"
                    damage.add(Finding("tree", text, place.pack_id, (snapshot_id,), (path,)))
            key = damage.key_of(place.pack_id, place.record)
            if key is not None and not self._is_whole_elsewhere(found.id):
                damage.hit(key, snapshot_id, paths)

    def _is_whole_elsewhere(self, chunk_id: bytes) -> bool:
        places = self._repository.index.find(chunk_id)
        if all(self._damage.is_unopened(place) for place in places):
            return False  # what the view still knows of such a pack is gone with the view
        try:
            self._repository.reader.get(ObjectType.CHUNK, chunk_id)
        except (Damaged, ObjectMissing):
            return False
        return True
