"""Two versions of a directory → the entries that differ, reading only the pages that differ.

Pages are cut by content (docs/format.md §6), so a page whose id stands in both versions holds
the same entries in both, and no other page holds their names. Never goes into subdirectories.
"""

from __future__ import annotations

from collections.abc import Iterator

from packstone.errors import Damaged
from packstone.model import Entry
from packstone.repository.trees import Expected, Get, read_page

Change = tuple[Entry | None, Entry | None]  # old, new; one of them at least


class _Pages:
    """Pages of one level that may hold something else than the other version's."""

    def __init__(self, get: Get, tree_id: bytes | None) -> None:
        self._get = get
        self._top: list[Entry] | None = None
        self.level = 0
        self.refs: list[Expected] = []
        if tree_id is None:
            return
        level, rows = read_page(get, (-1, tree_id, b"", -1))
        if level:
            self._follow(level - 1, rows)  # type: ignore[arg-type]
        else:
            self._top = rows  # type: ignore[assignment]
            self.refs = [(0, tree_id, b"", -1)]

    def _follow(self, level: int, refs: list[tuple[bytes, bytes, int]]) -> None:
        self.level = level
        self.refs += [(level, page_id, first, count) for first, page_id, count in refs]

    def descend(self) -> None:
        """Go one level down."""
        above, self.refs = self.refs, []
        for expected in above:
            self._follow(expected[0] - 1, read_page(self._get, expected)[1])  # type: ignore[arg-type]

    def entries(self) -> Iterator[Entry]:
        """Yield the entries of the pages, ascending; raises Damaged where they are not."""
        last = b""
        for expected in self.refs:
            rows = self._top
            if rows is None:
                rows = read_page(self._get, expected)[1]  # type: ignore[assignment]
            assert rows is not None
            if rows:
                if rows[0].name <= last:
                    raise Damaged("tree pages with names out of order")
                last = rows[-1].name
            yield from rows


def iter_changes(get: Get, old_id: bytes | None, new_id: bytes | None) -> Iterator[Change]:
    """Yield (old, new) for each name that is not the same in two versions of a directory.

    None stands for a directory that is not there. Names ascend. Raises Damaged, ObjectMissing.
    """
    if old_id == new_id:
        return
    old, new = _Pages(get, old_id), _Pages(get, new_id)
    while True:
        if old.level == new.level:
            both = {ref[1] for ref in old.refs} & {ref[1] for ref in new.refs}
            if both:
                old.refs = [ref for ref in old.refs if ref[1] not in both]
                new.refs = [ref for ref in new.refs if ref[1] not in both]
            if old.level == 0:
                break
        level = max(old.level, new.level)
        for pages in (old, new):
            if pages.level == level:
                pages.level = level - 1  # also where nothing is left to read
                pages.descend()
    yield from _merge(old.entries(), new.entries())


def _merge(old: Iterator[Entry], new: Iterator[Entry]) -> Iterator[Change]:
    before, after = next(old, None), next(new, None)
    while before is not None and after is not None:
        if before.name < after.name:
            yield before, None
            before = next(old, None)
        elif after.name < before.name:
            yield None, after
            after = next(new, None)
        else:
            if before != after:
                yield before, after
            before, after = next(old, None), next(new, None)
    while before is not None:
        yield before, None
        before = next(old, None)
    while after is not None:
        yield None, after
        after = next(new, None)
