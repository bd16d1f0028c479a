"""Vectors of deltas (docs/format.md §4), made without the package: a chunk of 10 bytes."""

from __future__ import annotations

from collections.abc import Iterator

from pack_vectors import block, frame
from vector_line import Vector, vector

BASE = bytes(range(100))
TOP = (1 << 32) - 1


def number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def body(*instructions: int, literals: bytes = b"") -> bytes:
    data = b"".join(map(number, instructions))
    return number(len(data)) + data + literals


def deltas() -> Iterator[Vector]:
    copy = body(0, 10, 0)
    framed = frame(block(copy), len(copy))
    start = BASE[:10]
    good: list[tuple[str, int, bytes, bytes]] = [
        ("a copy", 2, copy, start),
        ("a copy, in zstd", 3, framed, start),
        ("the last bytes", 2, body(0, 10, 2 * 90), BASE[90:]),
        ("over the end of a base", 2, body(0, 10, 2 * 45), BASE[45:55]),
        ("from all three bases", 2, body(0, 8, 2 * 37, 1, 1, 0, literals=b"x"),
            BASE[37:45] + b"x" + BASE[45:46]),
        ("back", 2, body(0, 5, 2 * 5, 0, 5, 2 * 10 - 1), BASE[5:10] + BASE[:5]),
        ("literals around a copy", 2, body(2, 6, 2, 2, literals=b"1234"),
            b"12" + BASE[1:7] + b"34"),
        ("longer numbers than needed", 2, b"\x84\x00" + b"\x00\x8a\x00\x00", start),
    ]  # fmt: skip
    bad: list[tuple[str, int, bytes]] = [
        ("empty", 2, b""),
        ("instructions cut off", 2, number(5) + b"\x00\x01"),
        ("number of six bytes", 2, b"\x08\x80\x80\x80\x80\x80\x00\x0a\x00"),
        ("count above 32 bits", 2, b"\x07\x00\xff\xff\xff\xff\x1f\x00"),
        ("number cut off", 2, b"\x02\x00\x80"),
        ("no instructions", 2, body()),
        ("no copy after the literals", 2, body(4, literals=b"abcd")),
        ("no distance", 2, body(0, 10)),
        ("stops early", 2, body(0, 9, 0)),
        ("literals missing", 2, body(9, 1, 0, literals=b"12345")),
        ("literals left over", 2, body(0, 10, 0, literals=b"1")),
        ("instructions left over", 2, body(0, 10, 0, 0)),
        ("literals beyond the chunk", 2, body(0, 8, 0, 3, literals=b"123")),
        ("copies beyond the chunk", 2, body(0, 11, 0)),
        ("copies no byte", 2, body(0, 0, 0, 0, 10, 0)),
        ("copies before the base text", 2, body(0, 10, 1)),
        ("copies far before the base text", 2, body(0, 10, TOP)),
        ("copies behind the base text", 2, body(0, 10, 2 * 91)),
        ("copies far behind the base text", 2, body(0, 10, TOP - 1)),
        ("copies 2**32 - 1 bytes", 2, body(0, TOP, 0)),
        ("inserts 2**32 - 1 bytes", 2, body(TOP)),
        ("body longer than the chunk", 2, body(8, 2, 0, literals=b"12345678")),
        ("body longer than the chunk, in zstd", 3,
            frame(block(body(8, 2, 0, literals=b"12345678")), 12)),
        ("frame states one byte more", 3, frame(block(copy), len(copy) + 1)),
        ("frame states 2**63 bytes", 3, frame(block(copy), 1 << 63)),
        ("frame without content size", 3, frame(block(copy), None, window=0)),
        ("frame of a dictionary", 3, frame(block(copy), len(copy), window=0, dictionary=7)),
        ("window above 64 MiB", 3, frame(block(copy), len(copy), window=16 << 3 | 1)),
        ("one byte behind the frame", 3, framed + b"\0"),
        ("frame cut off", 3, framed[:-1]),
        ("no frame", 3, copy),
        ("a frame as a body", 2, framed),
    ]  # fmt: skip
    bases = [each.hex() for each in (BASE[:45], b"", BASE[45:])]
    for name, codec, data, chunk in good:
        yield vector(
            "delta", name, "ok", codec=codec, raw_size=10, bases=bases, data=data, chunk=chunk
        )
    for name, codec, data in bad:
        yield vector("delta", name, "damaged", codec=codec, raw_size=10, bases=bases, data=data)
    yield vector("delta", "no bases", "damaged", codec=2, raw_size=10, bases=[], data=copy)
    yield vector(
        "delta", "four bases", "damaged", codec=2, raw_size=10, bases=bases + [""], data=copy
    )
    yield vector(
        "delta", "above 64 MiB", "damaged",
        codec=2, raw_size=(64 << 20) + 1, bases=bases, data=copy,
    )  # fmt: skip
