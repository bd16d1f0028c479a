"""Write trees again without what is lost, and say where it was.

A file whose content cannot be had keeps its name and attributes and is flagged, so that a
restore names it; of a directory the entries are kept that can be read. Whatever is whole keeps
its id. Nothing counts as lost before every place of it was tried.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from packstone.errors import Damaged, ObjectMissing
from packstone.model import Entry, Extras, Flag, ObjectType, Problem
from packstone.repository.contents import iter_content
from packstone.repository.reachable import with_bases
from packstone.repository.repository import ObjectRepository
from packstone.repository.trees import (
    DirectoryWriter,
    Put,
    check_entry,
    is_directory_mode,
    iter_readable,
)

_ASKED = 10_000  # ids looked up together


class _Level:
    """A directory that is being written again."""

    __slots__ = ("changed", "entry", "lossy", "pages", "rows", "tree_id", "writer")

    def __init__(
        self,
        tree_id: bytes,
        entry: Entry | None,
        pages: Iterator[list[Entry] | Damaged | ObjectMissing],
        put: Put,
    ) -> None:
        self.tree_id = tree_id
        self.entry = entry  # in the directory above
        self.pages = pages
        self.rows: Iterator[Entry] = iter(())
        self.writer = DirectoryWriter(put)
        self.changed = False
        self.lossy = False  # some of its own entries are lost


class TreeRepairer:
    """Repair the trees of snapshots, one after the other; `losses` are of the last one."""

    def __init__(self, repository: ObjectRepository, put: Put) -> None:
        self.losses: list[Problem] = []
        self._repository = repository
        self._get = repository.reader.get
        self._put = put
        # Directory → its new id, whether lossy. Those with losses are walked again for each
        # snapshot, which has them too; within one they are named once.
        self._done: dict[bytes, tuple[bytes, bool]] = {}
        self._hit: list[bytes] = []  # of these, those that are not as they were
        self._lost: dict[bytes, str] = {}  # chunk → why it cannot be had

    def repair(self, tree_id: bytes) -> bytes | None:
        """Return the id of a tree without what is lost, None where nothing of it is left."""
        self.losses = []
        for hit in self._hit:
            self._done.pop(hit, None)
        self._hit.clear()
        names: list[bytes] = []
        try:
            stack = [self._enter(tree_id, None)]
        except (Damaged, ObjectMissing) as error:
            self.losses.append(Problem(b"/", error.message))
            return None
        root = b""
        while stack:
            level = stack[-1]
            entry = next(level.rows, None)
            if entry is None:
                if self._next_page(level, names):
                    continue
                new_id = level.writer.finish() if level.changed else level.tree_id
                self._done[level.tree_id] = (new_id, level.lossy)
                if level.changed:
                    self._hit.append(level.tree_id)
                stack.pop()
                if not stack:
                    root = new_id
                    break
                names.pop()
                assert level.entry is not None
                self._add(stack[-1], _with_tree(level.entry, new_id, level.lossy), level.entry)
                continue
            content = entry.content
            if not is_directory_mode(entry.mode) or not isinstance(content, bytes):
                self._add(level, entry, entry)
            elif content in self._done:
                self._add(level, _with_tree(entry, *self._done[content]), entry)
            else:
                try:
                    below = self._enter(content, entry)
                except (Damaged, ObjectMissing) as error:
                    self._lose(names, entry.name, error.message)
                    level.changed = True
                    level.writer.extend([_without_content(entry)])
                    continue
                names.append(entry.name)
                stack.append(below)
        return root

    def _enter(self, tree_id: bytes, entry: Entry | None) -> _Level:
        """Begin a directory; raises Damaged, ObjectMissing where nothing of it can be read."""
        pages = iter_readable(self._get, tree_id)
        level = _Level(tree_id, entry, pages, self._put)
        first = next(pages, [])

        def again() -> Iterator[list[Entry] | Damaged | ObjectMissing]:
            yield first
            yield from pages

        level.pages = again()
        return level

    def _add(self, level: _Level, new: Entry, old: Entry) -> None:
        level.changed = level.changed or new != old
        level.writer.extend([new])

    def _next_page(self, level: _Level, names: list[bytes]) -> bool:
        """Go on to the next page of a directory; return whether there was one."""
        page = next(level.pages, None)
        if page is None:
            return False
        if isinstance(page, list):
            level.rows = iter(self._repaired(level, page, names))
        else:
            self._lose(names, b"", f"entries of this directory are lost: {page.message}")
            level.changed = level.lossy = True
        return True

    def _lose(self, names: list[bytes], name: bytes, message: str) -> None:
        path = b"/" + b"/".join([*names, name] if name else names)
        self.losses.append(Problem(path, message))

    def _repaired(self, level: _Level, page: list[Entry], names: list[bytes]) -> list[Entry]:
        """Return a page's entries, files that are lost flagged, those that are unsound left out."""
        lost: dict[int, str] = {}
        asked: list[tuple[bytes, int, int]] = []  # chunk, its size, number of the entry
        for at, entry in enumerate(page):
            try:
                check_entry(entry)
                if entry.mode & 0o170000 != 0o100000:
                    continue
                for chunk_id, size in iter_content(self._get, entry):
                    if chunk_id:
                        asked.append((chunk_id, size, at))
                    if len(asked) >= _ASKED:
                        self._ask(asked, lost)
            except (Damaged, ObjectMissing) as error:
                lost[at] = error.message
        self._ask(asked, lost)
        kept: list[Entry] = []
        for at, entry in enumerate(page):
            if at not in lost:
                kept.append(entry)
                continue
            self._lose(names, entry.name, lost[at])
            level.changed = True
            without = _without_content(entry)
            try:
                check_entry(without)
            except Damaged:  # its numbers are out of bounds: no reader takes it
                level.lossy = True
                continue
            kept.append(without)
        return kept

    def _ask(self, asked: list[tuple[bytes, int, int]], lost: dict[int, str]) -> None:
        """Look chunks and what they stand on up; note the entries that need one that is lost."""
        index = self._repository.index
        ids = [row[0] for row in asked]
        for (chunk_id, size, at), place in zip(asked, index.find_many(ids), strict=True):
            if place is not None and place.size != size:
                lost[at] = f"chunk {chunk_id.hex()[:12]}… has {place.size} bytes, expected {size}"
        for reached in with_bases(index, ids):
            for position in reached.wanted_by if reached.place is None else ():
                if why := self._why_lost(ids[position]):
                    lost[asked[position][2]] = why
        asked.clear()

    def _why_lost(self, chunk_id: bytes) -> str:
        """Return why a chunk cannot be had, or an empty text: then it can be, all the same."""
        if chunk_id not in self._lost:
            try:
                self._get(ObjectType.CHUNK, chunk_id)
                self._lost[chunk_id] = ""
            except (Damaged, ObjectMissing) as error:
                self._lost[chunk_id] = error.message
        return self._lost[chunk_id]


def _with_tree(entry: Entry, tree_id: bytes, lossy: bool) -> Entry:
    """Return a directory's entry with another content, flagged where entries in it are lost."""
    if lossy:
        entry = _flagged(entry, Flag.LOST)
    return msgspec.structs.replace(entry, content=tree_id)


def _without_content(entry: Entry) -> Entry:
    """Return an entry whose content is lost."""
    flagged = _flagged(entry, Flag.UNREADABLE | Flag.LOST)
    return msgspec.structs.replace(flagged, content=None)


def _flagged(entry: Entry, flags: int) -> Entry:
    extras = entry.extras or Extras()
    return msgspec.structs.replace(
        entry, extras=msgspec.structs.replace(extras, flags=extras.flags | flags)
    )
