"""Seal and open bytes: records and footers of packs, small objects.

Implements docs/format.md §10. Pure: no files, no passphrases. Invariants: a key seals one
message under one nonce, for keys come from salts that are never used twice; nothing is
returned by an `open` whose every byte was not authenticated. `cryptography` is imported when
the first key is needed, so that plain repositories do not pay for it.
"""

from __future__ import annotations

import struct
from typing import Any, NoReturn

from blake3 import blake3

from packstone.codec.hashing import derive
from packstone.errors import Damaged
from packstone.model import Buffer

PLAIN, SEALED, AUTHENTICATED = 0, 1, 2
TAG_SIZE = 16
MAC_SIZE = 32
MAX_RECORDS = 1 << 32  # of one pack: far above what a footer can list, far below GCM's bound

_PREFIX = struct.Struct("<8sHBB4x16s32s")  # how a pack's header begins
_RECORD = struct.Struct("<QIIB")  # number, raw size, stored size, codec
_LENGTH = struct.Struct("<I")
_PACK_MAGIC, _PACK_VERSION = b"PKSTPACK", 1
_ZERO_NONCE = bytes(12)


def padme(size: int) -> int:
    """Return the size in bytes to pad `size` to: at most 12 % above it.

    Padmé, algorithm 1 of Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
    Communication with PURBs", PETS 2019: of the size's bits only about log log remain.
    """
    if size < 2:
        return size
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def _pad(data: Buffer) -> bytes:
    """Return data with its length before it and zeros behind it."""
    size = padme(_LENGTH.size + len(data))
    return _LENGTH.pack(len(data)) + data + bytes(size - _LENGTH.size - len(data))


def _unpad(padded: bytes) -> bytes:
    if len(padded) < _LENGTH.size:
        raise Damaged("sealed bytes without a length")
    (size,) = _LENGTH.unpack_from(padded)
    end = _LENGTH.size + size
    if len(padded) != padme(end) or any(padded[end:]):
        raise Damaged(f"sealed bytes are padded to {len(padded)}, which {size} bytes are not")
    return padded[_LENGTH.size : end]


def padded_size(size: int) -> int:
    """Return how many bytes `size` bytes take when they are padded and sealed."""
    return padme(_LENGTH.size + size) + TAG_SIZE


class Sealer:
    """Whose bytes they are and how they are sealed: of one repository; safe between threads.

    Without a sealing secret the repository is plain, and nothing is sealed.
    """

    __slots__ = ("_authentication", "_sealing", "is_plain", "repository_id")

    def __init__(self, repository_id: bytes, sealing: bytes | None = None) -> None:
        if sealing is not None and len(sealing) != 32:
            raise ValueError(f"sealing secret: expected 32 bytes, got {len(sealing)}")
        self.repository_id = repository_id
        self.is_plain = sealing is None
        self._sealing = sealing or b""
        if sealing is not None:
            self._authentication = derive("packstone v1 object authentication", sealing)

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")

    def _key(self, context: str, salt: bytes) -> Any:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(derive(context, self._sealing + salt))

    def seal_object(self, head: bytes, salt: bytes, payload: bytes) -> bytes:
        """Return a small object's payload, padded and sealed under the salt of this write."""
        key = self._key("packstone v1 object key", salt)
        sealed: bytes = key.encrypt(_ZERO_NONCE, _pad(payload), head)
        return sealed

    def open_object(self, head: bytes, salt: bytes, sealed: bytes) -> bytes:
        """Return the payload of a small object; raises Damaged unless it is ours, unaltered."""
        return _unpad(_open(self._key("packstone v1 object key", salt), _ZERO_NONCE, sealed, head))

    def authenticate(self, data: bytes) -> bytes:
        """Return the authentication code, 32 bytes, of what may be read without a passphrase."""
        return blake3(data, key=self._authentication).digest()

    def pack(self, kind: int, salt: bytes) -> PackSealer:
        """Return what seals and opens the parts of one pack."""
        if self.is_plain:
            return PackSealer(b"", None, None, b"")
        # The kind is not bound to the footer: who has only the second copy must open it first.
        record, footer = (
            _PREFIX.pack(_PACK_MAGIC, _PACK_VERSION, bound, SEALED, self.repository_id, salt)
            for bound in (kind, 0)
        )
        return PackSealer(
            record,
            self._key("packstone v1 record key", salt),
            self._key("packstone v1 footer key", salt),
            footer,
            derive("packstone v1 padding", self._sealing + salt),
        )


class PackSealer:
    """The keys of one pack; of a plain pack, none: then bytes pass as they are."""

    __slots__ = ("_footer", "_footer_prefix", "_padding", "_record", "_record_prefix", "overhead")

    def __init__(
        self,
        record_prefix: bytes,
        record: Any,
        footer: Any,
        footer_prefix: bytes,
        padding: bytes = b"",
    ) -> None:
        self._record_prefix = record_prefix
        self._footer_prefix = footer_prefix
        self._record = record
        self._footer = footer
        self._padding = padding
        self.overhead = 0 if record is None else TAG_SIZE

    def _bound(self, number: int, raw_size: int, stored_size: int, codec: int) -> bytes:
        return self._record_prefix + _RECORD.pack(number, raw_size, stored_size, codec)

    def seal(self, number: int, raw_size: int, codec: int, payload: Buffer) -> Buffer:
        """Return the stored bytes of a record; a number is given once in the life of a pack."""
        if self._record is None:
            return payload
        bound = self._bound(number, raw_size, len(payload) + TAG_SIZE, codec)
        sealed: bytes = self._record.encrypt(number.to_bytes(12, "little"), payload, bound)
        return sealed

    def open(self, number: int, raw_size: int, codec: int, stored: Buffer) -> Buffer:
        """Return a record's payload; raises Damaged unless it is this record, unaltered."""
        if self._record is None:
            return stored
        bound = self._bound(number, raw_size, len(stored), codec)
        return _open(self._record, number.to_bytes(12, "little"), stored, bound)

    def footer_size(self, body_size: int) -> int:
        """Return how many bytes a footer's body takes in the pack."""
        return body_size if self._footer is None else padded_size(body_size)

    def seal_footer(self, head: bytes, body: bytes) -> bytes:
        """Return the stored bytes of a footer's body; call it once for each pack."""
        if self._footer is None:
            return body
        sealed: bytes = self._footer.encrypt(_ZERO_NONCE, _pad(body), self._footer_prefix + head)
        return sealed

    def open_footer(self, head: bytes, stored: Buffer) -> Buffer:
        """Return a footer's body; raises Damaged unless it is of this pack, unaltered."""
        if self._footer is None:
            return stored
        return _unpad(_open(self._footer, _ZERO_NONCE, stored, self._footer_prefix + head))

    def padding(self, offset: int, size: int) -> bytes:
        """Return what fills a pack at an offset: in a sealed pack, nothing to tell from records."""
        if not self._padding:
            return bytes(size)
        return blake3(b"", key=self._padding).digest(length=size, seek=offset)


def _open(key: Any, nonce: bytes, sealed: Buffer, bound: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag

    if len(sealed) < TAG_SIZE:
        raise Damaged(f"{len(sealed)} sealed bytes, expected at least {TAG_SIZE}")
    try:
        opened: bytes = key.decrypt(nonce, sealed, bound)
    except InvalidTag as error:
        raise Damaged("sealed bytes are not what was sealed") from error
    return opened
