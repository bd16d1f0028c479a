"""Cut-point keys in the view: which chunks end and start at a cut, and what deltas stand on.

Hints and no more: a wrong answer costs room, never bytes. Works on transactions that the index
hands out. Of several chunks at one cut the newest is kept.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any

from packstone.repository.packs import KEYS, RecordRow
from packstone.repository.places import NUMBER, RECORD, Cut, keys_of, places_in

CUTS, BASES = b"cuts", b"bases"
# the chunk that ends at the cut, the one that starts there: pack number, record number each
_SIDES = struct.Struct("<IIII")
_KEY = struct.Struct(">Q")
# Whether the chunk starts there, its lineage, pack number, record number. Packs that are taken up
# together come in no order: there the later version of a chunk counts as the newer one.
_SIDE = struct.Struct(">?III")
CUT_KEY, CUT_SIDE = _KEY.size, _SIDE.size
_NOBODY = (0, 0)  # numbers of packs start at 1


def cut_rows(number: int, rows: Iterable[RecordRow]) -> Iterator[tuple[bytes, bytes]]:
    """Yield (key, side) for both cuts of each chunk of a pack."""
    for record, row in enumerate(rows):
        if row.keys:
            start, end = KEYS.unpack(row.keys)
            yield _KEY.pack(start), _SIDE.pack(True, row.lineage, number, record)
            yield _KEY.pack(end), _SIDE.pack(False, row.lineage, number, record)


def put_cuts(transaction: Any, database: Any, rows: Iterable[tuple[bytes, bytes]]) -> None:
    """File the cuts of chunks, ascending by key; later packs replace earlier ones."""
    put = transaction.put
    for key, group in itertools.groupby(rows, key=itemgetter(0)):
        left, right = _NOBODY, _NOBODY
        for _key, side in group:
            starts, _lineage, number, record = _SIDE.unpack(side)
            if starts:
                right = (number, record)
            else:
                left = (number, record)
        if not put(key, _SIDES.pack(*left, *right), overwrite=False, db=database):
            old_left, old_right = _sides(transaction.get(key, db=database))
            left = old_left if left == _NOBODY else left
            right = old_right if right == _NOBODY else right
            put(key, _SIDES.pack(*left, *right), db=database)


def _sides(value: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    if value is None or len(value) != _SIDES.size:
        return _NOBODY, _NOBODY
    first, its_record, second, second_record = _SIDES.unpack(value)
    return (first, its_record), (second, second_record)


def put_bases(transaction: Any, database: Any, number: int, rows: Iterable[RecordRow]) -> None:
    """File what the deltas of a pack stand on."""
    for record, row in enumerate(rows):
        if row.bases:
            transaction.put(RECORD.pack(number, record), b"".join(row.bases), db=database)


def drop_bases(transaction: Any, database: Any, number: int) -> None:
    """Drop what the deltas of a pack stand on."""
    with transaction.cursor(db=database) as cursor:
        found = cursor.set_range(RECORD.pack(number, 0))
        while found and bytes(cursor.key()[: NUMBER.size]) == NUMBER.pack(number):
            found = cursor.delete()  # and stands on the next


def bases_in(transaction: Any, database: Any, number: int) -> set[bytes]:
    """Return the ids of what the deltas of a pack stand on."""
    ids: set[bytes] = set()
    cursor = transaction.cursor(db=database)
    found = cursor.set_range(RECORD.pack(number, 0))
    while found and bytes(cursor.key()[: NUMBER.size]) == NUMBER.pack(number):
        ids.update(split_ids(bytes(cursor.value())))
        found = cursor.next()
    return ids


def drop_cuts(transaction: Any, database: Any, number: int, rows: bytes) -> int:
    """Drop the chunks of a pack from their cuts, where no later ones have come; count the cuts."""
    keys = sorted(keys_of(rows))
    for key in map(_KEY.pack, keys):
        left, right = sides = _sides(transaction.get(key, db=database))
        left = _NOBODY if left[0] == number else left
        right = _NOBODY if right[0] == number else right
        if (left, right) == (_NOBODY, _NOBODY):
            transaction.delete(key, db=database)
        elif (left, right) != sides:
            transaction.put(key, _SIDES.pack(*left, *right), db=database)
    return len(keys)


def find_hanging(
    transaction: Any,
    databases: dict[bytes, Any],
    depth_of: Callable[[int, int], int | None],
) -> tuple[set[tuple[int, int]], set[bytes]]:
    """Return (pack number, record) of deltas that lack a base at a place of less depth, and it.

    `depth_of` gives the depth of a record, None if its pack is gone.
    """
    by_depth: dict[int, list[tuple[int, int]]] = {}
    for key, _ids in transaction.cursor(db=databases[BASES]):
        if len(key) != RECORD.size:
            continue
        place = RECORD.unpack(key)
        depth = depth_of(*place)
        if depth is not None:
            by_depth.setdefault(depth, []).append(place)
    dead: set[tuple[int, int]] = set()
    lost: set[bytes] = set()
    for depth in sorted(by_depth):  # bases are of less depth: they are settled before
        for place in by_depth[depth]:
            ids = split_ids(bytes(transaction.get(RECORD.pack(*place), db=databases[BASES])))
            for base_id in ids:
                value = transaction.get(base_id, b"", db=databases[b"objects"])
                found = [each[:2] for each in places_in(value)]
                depths = [depth_of(*each) for each in found if each not in dead]
                if not any(each is not None and each < depth for each in depths):
                    dead.add(place)
                    lost.add(base_id)
                    break
    return dead, lost


class CutReader:
    """Find chunks by their cuts, inside one read transaction."""

    def __init__(
        self,
        transaction: Any,
        databases: dict[bytes, Any],
        chunk: Callable[[int, int], Cut | None],
        find: Callable[[bytes], Cut | None],
    ) -> None:
        """`chunk` gives the chunk in a record of a pack, `find` that of an id; None if gone."""
        self._get = transaction.get
        self._cuts = databases[CUTS]
        self._bases = databases[BASES]
        self._objects = databases[b"objects"]
        self._chunk = chunk
        self.find = find

    def is_known(self, chunk_id: bytes) -> bool:
        """Return whether a chunk is, or was once, in a pack."""
        return self._get(chunk_id, db=self._objects) is not None

    def at(self, key: int) -> tuple[Cut | None, Cut | None]:
        """Return the chunks that end and that start at a cut."""
        left, right = _sides(self._get(_KEY.pack(key), db=self._cuts))
        return self._one(left), self._one(right)

    def _one(self, side: tuple[int, int]) -> Cut | None:
        return None if side == _NOBODY else self._chunk(*side)

    def bases(self, chunk: Cut) -> list[bytes]:
        """Return the ids of the chunks that a stored chunk is a delta against."""
        value = self._get(RECORD.pack(chunk.number, chunk.record), db=self._bases)
        return [] if value is None else split_ids(bytes(value))


def split_ids(ids: bytes) -> list[bytes]:
    """Return the ids that stand one behind the other."""
    return [ids[start : start + 32] for start in range(0, len(ids), 32)]
