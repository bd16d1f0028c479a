"""Change sound encodings a little: bytes, MessagePack values, and parts of other inputs.

For runs without atheris, and beside libFuzzer's own changes in runs with it: most of what is
decoded here is MessagePack, of which a change of bytes alone seldom leaves sound pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

EDGES = [0, 1, 2, 7, 8, 9, 15, 16, 31, 32, 63, 64, 127, 128, 255, 256, 4096, 65535, 65536]
EDGES += [power + by for power in (1 << 31, 1 << 32, 1 << 63) for by in (-1, 0, 1)]
EDGES += [(1 << 64) - 1, 16 << 20, 64 << 20, 256 << 20]
_FIXED = [b"", b".", b"..", b"/", b"a/b", b"\0", bytes(32), b"\xff" * 32, bytes(range(33))]
_DEEP = 1200  # levels: above what Python calls nest


def mutate(data: bytes, chance: Random, others: Sequence[bytes], most: int = 1 << 16) -> bytes:
    """Return `data` changed at one to four places, of at most so many bytes."""
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        if chance.random() < 0.5:
            data = _mutate_value(data, chance)
        else:
            data = _mutate_bytes(data, chance, others)
    return data[:most]


def _mutate_bytes(data: bytes, chance: Random, others: Sequence[bytes]) -> bytes:
    changed = bytearray(data)
    # Heads are where sizes and kinds stand.
    at = chance.randrange((min(len(changed), 40) if chance.random() < 0.4 else len(changed)) + 1)
    size = chance.choice((1, 1, 2, 4, 8, 32, chance.randrange(1, 200)))
    verb = chance.randrange(8)
    if verb == 0 and changed:
        changed[at % len(changed)] ^= 1 << chance.randrange(8)
    elif verb == 1:
        changed[at : at + size] = chance.randbytes(min(size, 64))
    elif verb == 2:
        changed[at:at] = chance.randbytes(min(size, 64))
    elif verb == 3:
        del changed[at : at + size]
    elif verb == 4:
        width = chance.choice((1, 2, 4, 8))
        number = chance.choice(EDGES) & ((1 << 8 * width) - 1)
        changed[at : at + width] = number.to_bytes(width, chance.choice(("little", "big")))
    elif verb == 5:
        changed[at:at] = changed[at : at + size] * chance.choice((1, 2, 30))
    elif verb == 6:
        del changed[at:]
    elif others:
        other = chance.choice(others)
        start = chance.randrange(len(other) + 1)
        changed[at : at + size] = other[start : start + size]
    return bytes(changed)


def _mutate_value(data: bytes, chance: Random) -> bytes:
    """Change something in the first MessagePack value that a prefix of up to four bytes leaves."""
    for skipped in range(min(5, len(data) + 1)):
        try:
            value = msgspec.msgpack.decode(data[skipped:])
            return data[:skipped] + msgspec.msgpack.encode(_change(value, chance))
        except (msgspec.MsgspecError, ValueError, RecursionError, TypeError, OverflowError):
            continue
    return data


def _change(value: Any, chance: Random) -> Any:
    if isinstance(value, list) and value and chance.random() < 0.85:
        return _change_list(list(value), chance)
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        changed = dict(value)
        verb = chance.randrange(8)
        if verb == 0:
            del changed[key]
        elif verb == 1:
            changed[chance.choice(("flags", "link", "more", 7))] = _anything(chance)
        else:
            changed[key] = _change(value[key], chance)
        return changed
    if isinstance(value, bytes) and chance.random() < 0.8:
        return _mutate_bytes(value, chance, _FIXED)
    if isinstance(value, int) and chance.random() < 0.8:
        near = value + chance.choice((-1, 1, -value, -2 * value))
        return chance.choice((near, chance.choice(EDGES), -chance.choice(EDGES[:-5])))
    return _anything(chance)


def _change_list(rows: list[Any], chance: Random) -> list[Any]:
    at = chance.randrange(len(rows))
    verb = chance.randrange(12)
    if verb == 0:
        del rows[at]
    elif verb == 1:
        rows.insert(at, rows[at])
    elif verb == 2:
        other = chance.randrange(len(rows))
        rows[at], rows[other] = rows[other], rows[at]
    elif verb == 3:
        rows.insert(at, _anything(chance))
    elif verb == 4:
        rows[at:at] = rows[at : at + 1] * chance.choice((10, 100))
    else:
        rows[at] = _change(rows[at], chance)
    return rows


def _anything(chance: Random) -> Any:
    verb = chance.randrange(9)
    if verb == 8 and chance.random() < 0.1:
        return msgspec.Raw(b"\x91" * _DEEP + b"\x90")
    found: list[Any] = [
        None, chance.choice(EDGES), -chance.choice(EDGES[:20]), chance.choice(_FIXED),
        chance.randbytes(32), "text", 1.5, [], {},
    ]  # fmt: skip
    return found[verb]
