"""Plan a prune: what each pack still holds, which packs to drop, which to write anew.

`measure` asks the view and the footers, `make_plan` is a pure function of what it found.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from packstone.repository.layout import pack_name
from packstone.repository.marks import Marks
from packstone.repository.packs import OBJECT, Pack, read_pack
from packstone.repository.repository import ObjectRepository

# Two rows of the footer, one in each copy.
_ROWS = 2 * OBJECT.size
# Packs below a quarter of the target are merged, from this many of one kind on: fewer are not
# worth writing their bytes again.
_MERGED = 4


@dataclass(frozen=True, slots=True)
class PackUse:
    """One pack: objects and those of them that are needed; bytes, and those nobody needs.

    What nobody needs in a record of several objects counts by its share of the decoded bytes.
    """

    pack_id: str
    kind: int
    size: int
    objects: int
    live: int
    unused: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Packs that nobody needs, and packs that are worth writing anew without what nobody needs."""

    delete: list[PackUse] = field(default_factory=list)
    rewrite: list[PackUse] = field(default_factory=list)
    bytes_unused: int = 0  # in all packs

    @property
    def bytes_freed(self) -> int:
        """Return the bytes won, as far as they can be told before."""
        return sum(use.unused for use in (*self.delete, *self.rewrite))


def measure(repository: ObjectRepository, marks: Marks) -> list[PackUse]:
    """Return what each pack of the view still holds; reads footers of packs in partial use.

    Raises Damaged where view and footer disagree on how many objects a pack has, StorageError.
    """
    uses: list[PackUse] = []
    for pack_id, size, kind, count in repository.index.counts():
        live = marks.count(pack_id)
        unused = 0 if live == count else size
        if 0 < live < count:
            unused = _unused(repository, marks, pack_id, size)
        uses.append(PackUse(pack_id, kind, size, count, live, unused))
    return uses


def _unused(repository: ObjectRepository, marks: Marks, pack_id: str, size: int) -> int:
    """Return the bytes of a pack that go away with its dead objects."""
    pack = read_pack(repository.storage, pack_id, size, repository.sealer)
    unused = at = 0
    for row in pack.rows:
        dead = 0
        for _object_id, object_size, _type in row.object_rows():
            if not marks.has(pack_id, at):
                dead += object_size
                unused += _ROWS
            at += 1
        if dead:
            unused += row.stored_size * dead // row.raw_size
    return min(unused, size)


def make_plan(uses: Iterable[PackUse], *, pack_size: int, max_unused: float) -> Plan:
    """Decide what becomes of each pack; `max_unused` is the part of one that may be wasted."""
    delete: list[PackUse] = []
    rewrite: list[PackUse] = []
    small: dict[int, list[PackUse]] = {}
    unused = 0
    for use in uses:
        unused += use.unused
        if not use.live:
            delete.append(use)
        elif use.unused > max_unused * use.size:
            rewrite.append(use)
        elif use.size < pack_size // 4:
            small.setdefault(use.kind, []).append(use)
    for kind, found in small.items():
        # What is written anyway takes them along.
        taken = sum(use.kind == kind for use in rewrite)
        if len(found) + taken >= _MERGED:
            rewrite += found
    return Plan(delete, rewrite, unused)


def read_listed(repository: ObjectRepository, pack_id: str) -> Pack:
    """Return what a pack that is there holds; raises Damaged, StorageError."""
    size = repository.storage.size(pack_name(pack_id))
    return read_pack(repository.storage, pack_id, size, repository.sealer)
