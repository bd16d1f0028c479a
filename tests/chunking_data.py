"""Kinds of data for the chunking tests, each a function of a seed and a size in bytes."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable

Kind = Callable[[random.Random, int], bytes]


def _random(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(size)


def _text(rng: random.Random, size: int) -> bytes:
    words = ["".join(rng.choices("etaoinshrdlucmfwyp", k=rng.randint(2, 9))) for _ in range(2000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    return " ".join(rng.choices(words, weights, k=size // 4)).encode()[:size]


def _csv(rng: random.Random, size: int) -> bytes:
    names = ["".join(rng.choices("aeioulnrst", k=rng.randint(3, 9))) for _ in range(500)]
    rows = (
        f"{100000 + n},{rng.choice(names)} {rng.choice(names)},{rng.randrange(10**5) / 100:.2f},"
        f"2024-{rng.randint(1, 12):02}-{rng.randint(1, 28):02},active,{rng.randrange(1000)}\n"
        for n in range(size // 40)
    )
    return "".join(rows).encode()[:size]


def _decimal_lines(rng: random.Random, size: int) -> bytes:
    return b"".join(b"%d\n" % rng.randrange(10**9) for _ in range(size // 8))[:size]


def _base64(rng: random.Random, size: int) -> bytes:
    return base64.encodebytes(rng.randbytes(size))[:size]


def _utf16(rng: random.Random, size: int) -> bytes:
    return _text(rng, size // 2).decode().encode("utf-16-le")


def _letters(alphabet: bytes) -> Kind:
    def make(rng: random.Random, size: int) -> bytes:
        return bytes(rng.choices(alphabet, k=size))

    return make


def _integers(width: int, limit: int) -> Kind:
    def make(rng: random.Random, size: int) -> bytes:
        count = size // width
        return b"".join(rng.randrange(limit).to_bytes(width, "little") for _ in range(count))

    return make


def records(size: int, variable: int) -> Kind:
    """Return records of which the first `variable` bytes are random and the rest is zero."""

    def make(rng: random.Random, total: int) -> bytes:
        tail = bytes(size - variable)
        return b"".join(rng.randbytes(variable) + tail for _ in range(total // size))

    return make


def periodic(period: int) -> Kind:
    """Return a short random string over and over."""

    def make(rng: random.Random, size: int) -> bytes:
        return (rng.randbytes(period) * (size // period + 1))[:size]

    return make


def constant(byte: int) -> Kind:
    """Return one byte over and over."""

    def make(rng: random.Random, size: int) -> bytes:
        return bytes([byte]) * size

    return make


VARIED: dict[str, Kind] = {
    "random": _random,
    "text": _text,
    "csv": _csv,
    "decimal lines": _decimal_lines,
    "base64": _base64,
    "utf-16": _utf16,
    "hexadecimal": _letters(b"0123456789abcdef"),
    "four letters": _letters(b"ACGT"),
    "two letters": _letters(b"01"),
    "64-bit integers": _integers(8, 1 << 16),
    "32-bit integers": _integers(4, 1 << 12),
}
"""Kinds on which candidates must be about as frequent as on random bytes."""

SPARSE: dict[str, Kind] = {
    f"records {size}, {variable} vary": records(size, variable)
    for size, variables in {
        16: (8,),
        24: (8,),
        32: (8, 16),
        40: (8,),
        48: (8, 24),
        64: (8, 32),
        100: (50,),
    }.items()
    for variable in variables
}
"""Records of fixed size that are mostly zero."""
