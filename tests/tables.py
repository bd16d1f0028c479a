"""Tables as a database dumps them night after night, and what packs say of their deltas.

What tests of deltas share. Rows are long enough that dumps of a few thousand have several chunks
of 32 KiB; everything follows from the random numbers it is given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from random import Random

import packstone
from packstone.model import ObjectType
from packstone.repository.layout import list_ids
from packstone.repository.packs import OBJECT, RecordRow, read_pack

CHUNK_SIZE = 32 << 10  # smaller chunks share records, and those are never deltas


def table(rng: Random, count: int, first: int = 0) -> list[bytes]:
    """Return rows of about 40 bytes each, numbered from `first`."""
    return [
        b"%08d\t%s\t%d\t%s\n"
        % (
            number,
            rng.randbytes(9).hex().encode(),
            rng.randrange(10**6),
            rng.choice([b"open", b"won", b"lost"]),
        )
        for number in range(first, first + count)
    ]


def next_night(rng: Random, rows: list[bytes]) -> None:
    """Change a table as a day does: 1 % updated where they stand, some deleted, some new."""
    count = len(rows)
    for at in rng.sample(range(count), count // 100):
        rows[at] = rows[at][:9] + rng.randbytes(9).hex().encode() + b"\t1\topen\n"
    for _ in range(count // 1000):
        del rows[rng.randrange(len(rows))]
    rows += table(rng, count // 500, first=10_000_000 + rng.randrange(10_000_000))


def night_in_heap_order(rng: Random, rows: list[bytes]) -> None:
    """Change a table as PostgreSQL does: updated rows move to the end."""
    moved = sorted(rng.sample(range(len(rows)), len(rows) // 100), reverse=True)
    rows += [rows.pop(at)[:-1] + b" changed\n" for at in moved]


def nights(seed: object, rows: int, count: int) -> list[bytes]:
    """Return the dumps of a table of some nights, one behind the other."""
    rng = Random(repr(seed))
    lines = table(rng, rows)
    dumps = []
    for _ in range(count):
        dumps.append(b"".join(lines))
        next_night(rng, lines)
    return dumps


def records(repository: packstone.Repository) -> list[RecordRow]:
    """Return what the footers of all packs say of chunks that are records of their own."""
    objects = repository._objects
    return [
        row
        for pack_id, size in list_ids(objects.storage, "packs")
        for row in read_pack(objects.storage, pack_id, size, objects.sealer).rows
        if len(row.objects) == OBJECT.size and row.objects[-1] == ObjectType.CHUNK
    ]


def deltas(rows: Iterable[RecordRow]) -> list[RecordRow]:
    """Return those that stand on others."""
    return [row for row in rows if row.bases]


def id_of(row: RecordRow) -> bytes:
    """Return the id of a record's one chunk."""
    return row.objects[:32]


def assert_sound_lineage(rows: list[RecordRow], versions: int) -> None:
    """Require of every record what docs/format.md promises of bases, depth and lineage.

    Of packs that one writer after the other has written: nobody stores a chunk a second time.
    """
    depths: dict[bytes, set[int]] = defaultdict(set)
    for row in rows:
        depths[id_of(row)].add(row.depth)
    most = max(1, (versions - 1).bit_length())
    for row in rows:
        assert (row.depth > 0) == bool(row.bases) == (row.codec in (2, 3)) == (row.lineage > 0)
        if not row.bases:
            continue
        assert row.lineage < versions and row.depth <= most
        assert len(set(row.bases)) == len(row.bases) <= 3
        assert id_of(row) not in row.bases
        assert row.depth == 1 + max(min(depths[base]) for base in row.bases)
