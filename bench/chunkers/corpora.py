"""Two versions each of files that change a little, made from a seed.

What lives here: generators of (first, second) bytes. Never here: cutting. Invariant: the same
seed and size give the same bytes, with the standard library alone.
"""

from __future__ import annotations

import random
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

Versions = tuple[bytes, bytes]


def random_bytes(rng: random.Random, size: int) -> bytes:
    """Return `size` random bytes; randbytes alone is limited to 256 MiB."""
    piece = 1 << 20
    return b"".join(rng.randbytes(min(piece, size - at)) for at in range(0, size, piece))


def insertions(rng: random.Random, size: int) -> Versions:
    """Random bytes; 200 insertions of 1 to 100 bytes per 256 MiB, at least 50."""
    first = random_bytes(rng, size)
    count = max(50, 200 * size >> 28)
    return first, _insert(rng, first, count)


def _insert(rng: random.Random, first: bytes, count: int) -> bytes:
    pieces = []
    at = 0
    for position in sorted(rng.randrange(len(first)) for _ in range(count)):
        pieces += [first[at:position], rng.randbytes(rng.randint(1, 100))]
        at = position
    return b"".join([*pieces, first[at:]])


def _edit_lines(
    rng: random.Random, lines: list[bytes], events: int, new: Callable[[], bytes]
) -> list[bytes]:
    """Return the lines after `events` replacements, insertions and deletions in equal parts."""
    result = list(lines)
    for at in sorted(rng.sample(range(len(lines)), events), reverse=True):
        kind = rng.randrange(3)
        if kind == 0:
            result[at] = new()
        elif kind == 1:
            result.insert(at, new())
        else:
            del result[at]
    return result


def csv(rng: random.Random, size: int) -> Versions:
    """A CSV export of people; 800 row events per 500 MB."""
    names = ["".join(rng.choices("aeioulnrst", k=rng.randint(3, 9))).title() for _ in range(4000)]
    towns = ["".join(rng.choices("abdeiklmort", k=rng.randint(4, 12))) for _ in range(300)]

    def row(number: int) -> bytes:
        return (
            f"{number},{rng.choice(names)} {rng.choice(names)},{rng.choice(towns)},"
            f"20{rng.randrange(25):02}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02},"
            f"{rng.randrange(100000) / 100:.2f},active,{rng.randrange(1000)}\n"
        ).encode()

    lines = [row(100000 + n) for n in range(size // 58)]
    events = max(100, 800 * size // 500_000_000)
    second = _edit_lines(rng, lines, events, lambda: row(rng.randrange(10**6)))
    return b"".join(lines), b"".join(second)


def decimal_lines(rng: random.Random, size: int) -> Versions:
    """One number per line; an event per 300 KB."""
    lines = [b"%d\n" % rng.randrange(10**9) for _ in range(size // 10)]
    second = _edit_lines(rng, lines, size // 300_000, lambda: b"%d\n" % rng.randrange(10**9))
    return b"".join(lines), b"".join(second)


def source_text(rng: random.Random, size: int) -> Versions:
    """Lines of words with indentation, words as frequent as in a language; an event per 500 KB."""
    words = ["".join(rng.choices("etaoinshrdlu_cm", k=rng.randint(2, 10))) for _ in range(5000)]
    weights = [1 / (rank + 3) for rank in range(5000)]
    stock = rng.choices(words, weights, k=400_000)

    def line() -> bytes:
        at = rng.randrange(len(stock) - 12)
        return (" " * 4 * rng.randrange(4) + " ".join(stock[at : at + rng.randint(1, 11)])).encode()

    lines = [line() + b"\n" for _ in range(size // 40)]
    second = _edit_lines(rng, lines, size // 500_000, lambda: line() + b"\n")
    return b"".join(lines), b"".join(second)


def database(rng: random.Random, size: int) -> Versions:
    """A real SQLite file with an index; a row updated per 1.2 MB, some to another length."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "db"
        connection = sqlite3.connect(path)
        connection.execute("pragma journal_mode = off")
        connection.execute(
            "create table t (id integer primary key, name text, v real, n int, b blob)"
        )
        count = size // 130
        rows = (
            (f"name {rng.randrange(10**6)}", rng.random(), rng.randrange(10**4), rng.randbytes(60))
            for _ in range(count)
        )
        connection.executemany("insert into t (name, v, n, b) values (?, ?, ?, ?)", rows)
        connection.execute("create index by_name on t (name)")
        connection.commit()
        first = path.read_bytes()
        for _ in range(max(100, size // 1_200_000)):
            connection.execute(
                "update t set b = ?, v = ? where id = ?",
                (rng.randbytes(rng.randint(40, 90)), rng.random(), rng.randint(1, count)),
            )
        connection.commit()
        connection.close()
        return first, path.read_bytes()


def records(record_size: int, variable: int, fill: int | None = 0) -> Callable[..., Versions]:
    """Return a generator of records: `variable` random bytes, the rest the same in each.

    The rest is `fill`, or random if None. A record is inserted per 500 KB.
    """

    def make(rng: random.Random, size: int) -> Versions:
        rest = record_size - variable
        tail = rng.randbytes(rest) if fill is None else bytes([fill]) * rest
        count = size // record_size
        body = random_bytes(rng, count * variable)
        rows = [body[i : i + variable] + tail for i in range(0, len(body), variable)]
        second = list(rows)
        for at in sorted(rng.sample(range(count), max(50, size // 500_000)), reverse=True):
            second.insert(at, rng.randbytes(variable) + tail)
        return b"".join(rows), b"".join(second)

    return make


CORPORA: dict[str, Callable[[random.Random, int], Versions]] = {
    "random + insertions": insertions,
    "CSV, row events": csv,
    "decimal lines": decimal_lines,
    "source text": source_text,
    "SQLite, row updates": database,
    "records 100, all vary": records(100, 100),
    "records 16, 8 vary": records(16, 8),
    "records 24, 12 vary": records(24, 12),
    "records 32, 8 vary": records(32, 8),
    "records 32, 16 vary": records(32, 16),
    "records 48, 24 vary": records(48, 24),
    "records 64, 8 vary": records(64, 8),
    "records 96, 48 vary": records(96, 48),
    "records 128, 32 vary": records(128, 32, None),
    "records 256, 16 vary": records(256, 16),
}
