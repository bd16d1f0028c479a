"""The envelope of small objects: config, state, snapshots, features, key slots.

Implements docs/format.md §3. Pure: takes bytes, gives bytes. Invariant: `open_envelope`
returns a payload only when every byte of the envelope is what it must be.
"""

from __future__ import annotations

import enum
import hmac
import struct
from typing import NamedTuple

from packstone.codec.encryption import AUTHENTICATED, MAC_SIZE, PLAIN, SEALED, Sealer, padded_size
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
    BUNDLE = 7


# What must be read before there is a passphrase is authenticated, not sealed.
_READABLE = {Kind.CONFIG, Kind.FEATURE}


class Envelope(NamedTuple):
    """An opened envelope; `mode` is plain, sealed or authenticated."""

    repository_id: bytes
    mode: int
    payload: bytes


def mode_of(kind: Kind, sealer: Sealer) -> int:
    """Return how a repository keeps small objects of a kind."""
    if sealer.is_plain or kind == Kind.KEY_SLOT:  # a slot seals its secrets itself
        return PLAIN
    return AUTHENTICATED if kind in _READABLE else SEALED


def seal_envelope(kind: Kind, sealer: Sealer, salt: bytes, payload: bytes) -> bytes:
    """Return the file's bytes for a payload; `salt` is 32 random bytes, new each time."""
    mode = mode_of(kind, sealer)
    size = len(payload)
    if mode == SEALED:
        size = padded_size(size)
    elif mode == AUTHENTICATED:
        size += MAC_SIZE
    if size > MAX_PAYLOAD:
        raise ValueError(f"payload of {size} bytes is above {MAX_PAYLOAD}")
    head = _HEADER.pack(MAGIC, VERSION, kind, mode, size, sealer.repository_id, salt)
    if mode == SEALED:
        body = head + sealer.seal_object(head, salt, payload)
    elif mode == AUTHENTICATED:
        body = head + payload + sealer.authenticate(head + payload)
    else:
        body = head + payload
    return body + checksum(body)


def open_envelope(data: bytes, kind: Kind, name: str, sealer: Sealer | None) -> Envelope:
    """Return the content of an envelope that is whole, ours and of the expected kind.

    `name` is for messages. `sealer` None accepts any repository and authenticates nothing: for
    config, which says what to ask for. Raises Damaged, or UnsupportedFormat for a version or
    mode this program does not know.
    """
    found_id, mode, salt = check_envelope(
        data, kind, name, None if sealer is None else sealer.repository_id
    )
    payload = _open(data[_HEADER.size : -_CHECKSUM_SIZE], data, kind, name, mode, salt, sealer)
    return Envelope(found_id, mode, payload)


def check_envelope(
    data: bytes, kind: Kind, name: str, repository_id: bytes | None
) -> tuple[bytes, int, bytes]:
    """Return repository id, mode and salt of an envelope whose checksum is right.

    This needs no key and proves nothing of who wrote it. Raises as `open_envelope` does.
    """
    if len(data) < _HEADER.size + _CHECKSUM_SIZE:
        raise Damaged(f"{name} is cut off: {len(data)} bytes", name=name)
    magic, version, found_kind, mode, size, found_id, salt = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise Damaged(f"{name} does not start as a Packstone object does", name=name)
    if version != VERSION or mode not in (PLAIN, SEALED, AUTHENTICATED):
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
    return found_id, mode, salt


def _open(
    body: bytes, data: bytes, kind: Kind, name: str, mode: int, salt: bytes, sealer: Sealer | None
) -> bytes:
    """Return the payload in a body whose checksum is right, which anybody can compute."""
    if sealer is not None and mode != mode_of(kind, sealer):
        raise Damaged(
            f"{name} is kept in mode {mode}, expected {mode_of(kind, sealer)}: it was not written "
            "by whoever has the keys of this repository",
            name=name,
        )
    if mode == PLAIN:
        return body
    if mode == AUTHENTICATED:
        if len(body) < MAC_SIZE:
            raise Damaged(f"{name} has no room for its authentication code", name=name)
        payload, code = body[:-MAC_SIZE], body[-MAC_SIZE:]
        if sealer is not None:
            signed = data[: _HEADER.size] + payload
            if not hmac.compare_digest(sealer.authenticate(signed), code):
                raise Damaged(f"{name} was altered: its authentication code is wrong", name=name)
        return payload
    if sealer is None:
        raise Damaged(f"{name} is sealed, which it never is", name=name)
    try:
        return sealer.open_object(data[: _HEADER.size], salt, body)
    except Damaged as error:
        raise Damaged(f"{name} was altered: {error.message}", name=name) from error
