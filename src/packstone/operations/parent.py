"""The snapshot that a new one continues: which files are unchanged since.

Reads trees only. Invariant: an entry is called unchanged only when its content is certain to
be in the repository and its times leave no room for a change that kept them.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Sequence

from packstone.errors import Damaged, ObjectMissing
from packstone.model import Entry, ObjectType
from packstone.repository.contents import iter_content
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import iter_pages

# Git's and borg's rule: a change within the same tick of the clock keeps the times.
RACY_NS = 2_000_000_000


class Parent:
    """What the parent snapshot lets a new one skip; without a row, nothing."""

    def __init__(
        self,
        repository: ObjectRepository,
        row: SnapshotRow | None,
        generation: bytes,
        warn: Callable[[str], None],
    ) -> None:
        self.row = row
        self._reader = repository.reader
        self._index = repository.index
        self._warn = warn
        self.trusted_before_ns = 0
        self.pages_met: set[bytes] = set()  # ids of pages read lately: they are present
        self._complete = False
        if row is not None:
            started = row.snapshot.summary.get("started_ns", row.snapshot.time_ns)
            self.trusted_before_ns = started - RACY_NS
            self._complete = self._index.is_complete(row.id, generation)

    def _get(self, kind: ObjectType, page_id: bytes) -> bytes:
        data = self._reader.get(kind, page_id)
        if self._complete:
            if len(self.pages_met) >= _PAGES_MET:
                self.pages_met.clear()
            self.pages_met.add(page_id)
        return data

    def root(self) -> ParentDirectory:
        """Return the parent's root directory, an empty one without a parent."""
        return ParentDirectory(self, self.row.snapshot.tree if self.row else None)

    def pages(self, tree_id: bytes) -> Iterator[list[Entry]]:
        """Yield a directory's pages; what cannot be read is as good as not there."""
        try:
            yield from iter_pages(self._get, tree_id)
        except (Damaged, ObjectMissing) as error:
            self._warn(f"a directory of the parent snapshot is unusable: {error.message}")

    def has_content(self, entry: Entry) -> bool:
        """Return whether all chunks of an entry are in the repository for certain."""
        if self._complete:
            return True
        ids = self.chunk_ids(entry)
        pages = [entry.content[1]] if isinstance(entry.content, list) and entry.content[0] else []
        flat = [page[at : at + 32] for page in pages for at in range(0, len(page), 32)]
        return ids is not None and all(self._index.present([*ids, *flat]))

    def is_known(self, chunk_id: bytes) -> bool:
        """Return whether a chunk that the parent lists needs no look-up."""
        return self._complete

    def chunk_ids(self, entry: Entry) -> list[bytes] | None:
        """Return the ids of an entry's chunks, None where its list cannot be read."""
        try:
            return [row[0] for row in iter_content(self._reader.get, entry) if row[0]]
        except (Damaged, ObjectMissing):
            return None

    def old_version(self, entry: Entry | None) -> OldVersion:
        """Return what is known of the chunks of a file as it was.

        Bounded: of a huge file nothing; the index is asked instead.
        """
        if entry is None or entry.mode & 0o170000 != 0o100000 or entry.size >= _KNOWN_SIZE:
            return NOTHING_OLD
        try:
            return OldVersion(list(iter_content(self._reader.get, entry)), self._complete)
        except (Damaged, ObjectMissing):
            return NOTHING_OLD


class OldVersion:
    """The chunks of a file as it was in the parent snapshot; shared by the workers of a file."""

    __slots__ = ("_certain", "_drift", "_ends", "_ids", "_starts")

    def __init__(self, rows: Sequence[tuple[bytes, int]], certain: bool) -> None:
        """`rows` are (id, size), of a hole without an id; `certain` if all are stored."""
        self._certain = certain
        self._ids = [row[0] for row in rows]
        self._ends = list(itertools.accumulate(row[1] for row in rows))
        self._starts = {
            row[0]: end - row[1] for row, end in zip(rows, self._ends, strict=True) if row[0]
        }
        self._drift = 0  # from a place in the new file to the same place in the old one

    def is_known(self, chunk_id: bytes) -> bool:
        """Return whether a chunk is in the repository for certain."""
        return self._certain and chunk_id in self._starts

    def aligned(self, rows: Sequence[tuple[bytes, int]], position: int) -> list[bytes | None]:
        """Return for each of some chunks in a row what stood at its place before.

        `position` is where the first one begins in the file. A hint: chunks that stayed tell
        how far the others were moved.
        """
        found: list[bytes | None] = []
        drift = self._drift
        for chunk_id, size in rows:
            start = self._starts.get(chunk_id)
            if start is not None:
                drift = start - position
                found.append(chunk_id)
            else:
                # The middle: a cut that moved a little must not lead to the neighbour.
                at = bisect.bisect_right(self._ends, position + drift + size // 2)
                beside = self._ids[at] if at < len(self._ids) else b""
                found.append(beside or None)
            position += size
        self._drift = drift
        return found


NOTHING_OLD = OldVersion((), certain=False)
_PAGES_MET = 10_000
_KNOWN_SIZE = 16 << 30  # bytes of file: at 128 KiB a chunk about 10 MB of ids


class ParentDirectory:
    """The parent's entries of one directory, met in ascending order of names."""

    def __init__(self, parent: Parent, tree_id: bytes | None) -> None:
        self._parent = parent
        self._pages = parent.pages(tree_id) if tree_id else iter(())
        self._entries: dict[bytes, Entry] = {}
        self._last = self._previous = b""
        self._more = tree_id is not None

    def upto(self, last: bytes) -> dict[bytes, Entry]:
        """Return entries by name, all up to `last` among them; ask with ascending names."""
        if self._more and self._last < last:
            previous = self._previous
            self._entries = {
                name: entry for name, entry in self._entries.items() if name > previous
            }
            while self._more and self._last < last:
                page = next(self._pages, None)
                if page is None:
                    self._more = False
                    break
                if page:
                    self._entries.update({entry.name: entry for entry in page})
                    self._last = page[-1].name
        self._previous = last
        return self._entries

    def child(self, entry: Entry | None) -> ParentDirectory:
        """Return the parent's version of a subdirectory."""
        content = entry.content if entry is not None else None
        is_directory = entry is not None and entry.mode & 0o170000 == 0o040000
        tree_id = content if is_directory and isinstance(content, bytes) else None
        return ParentDirectory(self._parent, tree_id)
