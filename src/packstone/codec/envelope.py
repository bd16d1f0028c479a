"""The envelope of small objects: config, state, snapshots, features.

Implements docs/format.md §3. Pure: takes bytes, gives bytes. Invariant: `open_envelope`
returns a payload only when every byte of the envelope is what it must be.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

from packstone.codec.hashing import checksum
from packstone.errors import Damaged, UnsupportedFormat
from packstone.model import MIB

MAGIC = b"PKSTNOBJ"
VERSION = 1
MAX_PAYLOAD = 16 * MIB
_HEADER = struct.Struct("<8sHBBI16s32s")
_CHECKSUM_SIZE = 32


class Kind(enum.IntEnum):
    """What an envelope holds."""

    CONFIG = 1
    STATE = 2
    SNAPSHOT = 3
    FEATURE = 4
    HISTORY = 5
    KEY_SLOT = 6


class Envelope(NamedTuple):
    """An opened envelope."""

    repository_id: bytes
    payload: bytes


def seal_envelope(kind: Kind, repository_id: bytes, salt: bytes, payload: bytes) -> bytes:
    """Return the file's bytes for a payload; `salt` is 32 random bytes, new each time."""
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(f"payload of {len(payload)} bytes is above {MAX_PAYLOAD}")
    head = _HEADER.pack(MAGIC, VERSION, kind, 0, len(payload), repository_id, salt)
    body = head + payload
    return body + checksum(body)


def open_envelope(data: bytes, kind: Kind, name: str, repository_id: bytes | None) -> Envelope:
    """Return the content of an envelope that is whole and of the expected kind.

    `name` is for messages; `repository_id` None accepts any repository (config states it).
    Raises Damaged, or UnsupportedFormat for a version or mode this program does not know.
    """
    if len(data) < _HEADER.size + _CHECKSUM_SIZE:
        raise Damaged(f"{name} is cut off: {len(data)} bytes", name=name)
    magic, version, found_kind, mode, size, found_id, _salt = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Damaged(f"{name} does not start as a Packstone object does", name=name)
    if version != VERSION or mode != 0:
        # A flipped bit there must not read as a newer format: only a whole file may say so.
        if checksum(data[:-_CHECKSUM_SIZE]) == data[-_CHECKSUM_SIZE:]:
            raise UnsupportedFormat(f"{name} has format version {version}, mode {mode}")
        raise Damaged(f"{name} is damaged in its header", name=name)
    if len(data) != _HEADER.size + size + _CHECKSUM_SIZE or size > MAX_PAYLOAD:
        raise Damaged(
            f"{name} has {len(data)} bytes, expected {_HEADER.size + size + _CHECKSUM_SIZE}",
            name=name,
        )
    expected, found = data[-_CHECKSUM_SIZE:], checksum(data[:-_CHECKSUM_SIZE])
    if expected != found:
        raise Damaged(
            f"{name} is damaged: checksum {found.hex()[:12]}…, expected {expected.hex()[:12]}…",
            name=name,
            expected=expected.hex(),
            found=found.hex(),
        )
    if found_kind != kind:
        raise Damaged(f"{name} holds kind {found_kind}, expected {int(kind)}", name=name)
    if repository_id is not None and found_id != repository_id:
        raise Damaged(
            f"{name} belongs to repository {found_id.hex()[:12]}…, "
            f"not to {repository_id.hex()[:12]}…",
            name=name,
        )
    return Envelope(found_id, data[_HEADER.size : -_CHECKSUM_SIZE])
