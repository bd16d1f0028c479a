"""Plan a prune: what each pack still holds, which packs to drop, which to write anew.

`measure` asks the view and the footers, `make_plan` is a pure function of what it found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from packstone.codec.encryption import Sealer
from packstone.repository.layout import pack_name
from packstone.repository.marks import Marks
from packstone.repository.packs import BASE_SIZE, OBJECT, Pack, expected_size, read_pack
from packstone.repository.repository import ObjectRepository

_ROW = 28  # bytes of a record's row in a footer without its objects, keys and bases, about
# Packs below a quarter of the target are merged, from four of one kind on: fewer are not worth
# writing their bytes again.
_SMALL, _MERGED = 4, 4


@dataclass(frozen=True, slots=True)
class PackUse:
    """One pack: objects and those of them that are needed; bytes, and those nobody needs.

    What nobody needs in a record of several objects counts by its share of the decoded bytes.
    `stored` are the bytes of needed records and `rows` those of their rows in a footer, of packs
    that may be written anew.
    """

    pack_id: str
    kind: int
    size: int
    objects: int
    live: int
    unused: int
    stored: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Packs that nobody needs, and packs that are worth writing anew without what nobody needs.

    `packs_written` and `bytes_written` are what the latter will take, as far as that can be told
    before: runs are cut anew, and what a footer takes in a sealed pack is padded.
    """

    delete: list[PackUse] = field(default_factory=list)
    rewrite: list[PackUse] = field(default_factory=list)
    bytes_unused: int = 0  # in all packs
    packs_written: int = 0
    bytes_written: int = 0

    @property
    def bytes_freed(self) -> int:
        """Return the bytes won, as far as they can be told before."""
        return sum(use.size for use in (*self.delete, *self.rewrite)) - self.bytes_written


def measure(repository: ObjectRepository, marks: Marks) -> list[PackUse]:
    """Return what each pack of the view still holds; reads footers of those to be written anew.

    Raises Damaged, StorageError.
    """
    uses: list[PackUse] = []
    small = repository.config.pack_size // _SMALL
    for pack_id, size, kind, count in repository.index.counts():
        live = marks.count(pack_id)
        use = PackUse(pack_id, kind, size, count, live, 0 if live == count else size)
        if 0 < live < count or (live and size < small):
            use = _look(repository, marks, use)
        uses.append(use)
    return uses


def _look(repository: ObjectRepository, marks: Marks, use: PackUse) -> PackUse:
    """Say which bytes of a pack go away with its dead objects, and which stay."""
    pack = read_pack(repository.storage, use.pack_id, use.size, repository.sealer)
    unused = stored = rows = at = 0
    for row in pack.rows:
        dead = dead_count = count = 0
        for _object_id, object_size, _type in row.object_rows():
            if not marks.has(use.pack_id, at):
                dead += object_size
                dead_count += 1
            count += 1
            at += 1
        share = row.stored_size * dead // row.raw_size
        unused += share + 2 * OBJECT.size * dead_count  # a footer is there twice
        stored += row.stored_size - share
        if dead_count < count:
            rows += (count - dead_count) * OBJECT.size + len(row.keys) + _ROW
            rows += len(row.bases) * BASE_SIZE
    return replace(use, unused=min(unused, use.size), stored=stored, rows=rows)


def make_plan(
    uses: Iterable[PackUse], *, sealer: Sealer, pack_size: int, max_unused: float
) -> Plan:
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
        elif use.size < pack_size // _SMALL:
            small.setdefault(use.kind, []).append(use)
    for kind, found in small.items():
        # What is written anyway takes them along.
        taken = sum(use.kind == kind for use in rewrite)
        if len(found) + taken >= _MERGED:
            rewrite += found
    return Plan(delete, rewrite, unused, *_written(rewrite, sealer, pack_size))


def _written(uses: Sequence[PackUse], sealer: Sealer, pack_size: int) -> tuple[int, int]:
    """Return how many packs what is needed of some packs will take, and their bytes."""
    packs = written = 0
    for kind in {use.kind for use in uses}:
        taken_over = [use for use in uses if use.kind == kind]
        records, rows = sum(use.stored for use in taken_over), sum(use.rows for use in taken_over)
        count, size = expected_size(sealer, records, rows, pack_size)
        packs += count
        written += size
    return packs, written


def take_fitting(
    rewrite: Sequence[PackUse], room: int | None, *, sealer: Sealer, pack_size: int
) -> list[PackUse]:
    """Return those packs to be written anew now, so that the new ones take at most `room` bytes.

    All of them if there is room for that, or if nobody knows; else the ones that give back most
    for what they take, one of them in any case. What would only be merged, and with nothing,
    waits for a disk with more room.
    """
    if room is None or _written(rewrite, sealer, pack_size)[1] <= room:
        return list(rewrite)
    first, *others = sorted(
        rewrite, key=lambda use: (not use.unused, (use.stored + 2 * use.rows) / use.size)
    )
    taken = [first]
    for use in others:
        if _written([*taken, use], sealer, pack_size)[1] > room:
            break
        taken.append(use)
    kinds = [use.kind for use in taken]
    return [use for use in taken if use.unused or kinds.count(use.kind) > 1]


def read_listed(repository: ObjectRepository, pack_id: str) -> Pack:
    """Return what a pack that is there holds; raises Damaged, StorageError."""
    size = repository.storage.size(pack_name(pack_id))
    return read_pack(repository.storage, pack_id, size, repository.sealer)
