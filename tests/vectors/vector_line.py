"""One test vector of the format, and the few functions that all of them are made with.

Independent of the package, as the vectors are.
"""

from __future__ import annotations

from typing import Any

import msgspec
from blake3 import blake3

OURS, OTHER = bytes(range(16)), bytes(range(16, 32))
SALT = bytes(range(100, 132))
Vector = dict[str, Any]
encode = msgspec.msgpack.encode


def checksum(data: bytes) -> bytes:
    return blake3(data).digest()


def derive(context: str, material: bytes, size: int = 32) -> bytes:
    return blake3(material, derive_key_context=context).digest(length=size)


def vector(what: str, name: str, expect: str, **more: Any) -> Vector:
    fields = {key: each.hex() if isinstance(each, bytes) else each for key, each in more.items()}
    return {"what": what, "name": name, "expect": expect, **fields}


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= bit
    return bytes(changed)
