"""Ids and the secrets they are keyed with.

Implements docs/format.md §2. Never reads or writes files. Invariant: an id is the keyed
BLAKE3 of an object's bytes under the key of its type, so one type cannot pose as another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from blake3 import blake3

from packstone.model import Buffer, ObjectType

_ID_CONTEXTS = {
    ObjectType.CHUNK: "packstone v1 id chunk",
    ObjectType.TREE: "packstone v1 id tree",
    ObjectType.CHUNK_LIST: "packstone v1 id chunk list",
}
CUTTING_SECRET_SIZE = 64


def derive(context: str, material: bytes, size: int = 32) -> bytes:
    """Derive `size` bytes from `material` with BLAKE3's key-derivation mode."""
    return blake3(material, derive_key_context=context).digest(length=size)


def plain_family() -> bytes:
    """Return the public constant that stands for the family secret of plain repositories."""
    return derive("packstone v1 plain family", b"")


def checksum(data: Buffer) -> bytes:
    """Return the unkeyed BLAKE3 of `data`, 32 bytes."""
    return blake3(data).digest()


class Hasher:
    """Compute the ids of one family; safe to share between threads."""

    def __init__(self, family: bytes) -> None:
        if len(family) != 32:
            raise ValueError(f"family secret: expected 32 bytes, got {len(family)}")
        self._keys = {kind: derive(context, family) for kind, context in _ID_CONTEXTS.items()}
        self.cutting_secret = derive("packstone v1 cutting", family, CUTTING_SECRET_SIZE)
        self.fingerprint = derive("packstone v1 family fingerprint", family)

    def id(self, kind: ObjectType, data: Buffer) -> bytes:
        """Return the id, 32 bytes, of an object's bytes."""
        return blake3(data, key=self._keys[kind]).digest()

    def function(self, kind: ObjectType) -> Callable[[Buffer], bytes]:
        """Return the function from bytes to id for one type: hot loops skip the key's look-up."""
        key = self._keys[kind]
        new: Any = blake3

        def object_id(data: Buffer) -> bytes:
            digest: bytes = new(data, key=key).digest()
            return digest

        return object_id
