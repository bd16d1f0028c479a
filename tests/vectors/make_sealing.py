"""Make sealing.json: what stands in an encrypted repository, what opens it, and what must not.

Written from docs/format.md §10 and §11 with the standard library, BLAKE3, MessagePack and
`cryptography`, and nothing of the package. Each vector has a line `expect`: "ok", "damaged",
"unsupported", "wrong passphrase", or "usage" for what a user typed.

    python tests/vectors/make_sealing.py > tests/vectors/sealing.json
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from key_vectors import (
    ANOTHER,
    SEALING,
    ZERO,
    envelope,
    exports,
    padded,
    padme,
    passphrases,
    slots,
)
from vector_line import OTHER, OURS, SALT, Vector, checksum, derive, encode, flipped, vector

ID = bytes(range(32, 64))


def check_primitives() -> None:
    """Compare the primitives with the vectors of those who specified them."""
    # McGrew and Viega, "The Galois/Counter Mode of Operation", test case 13
    tag = "530f8afbc74536b9a963b4f1c4cb738b"
    assert AESGCM(bytes(32)).encrypt(ZERO, b"", b"").hex() == tag
    # RFC 8452, C.2
    key, nonce = b"\1" + bytes(31), b"\3" + bytes(11)
    assert AESGCMSIV(key).encrypt(nonce, b"", b"").hex() == "07f5f4169bbf55a8400cd47ea6fd400f"
    # RFC 9106, 5.3
    argon2 = Argon2id(
        salt=b"\2" * 16, length=32, iterations=3, lanes=4, memory_cost=32,
        ad=b"\4" * 12, secret=b"\3" * 8,
    )  # fmt: skip
    tag = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"
    assert argon2.derive(b"\1" * 32).hex() == tag


# -- keys and padding -----------------------------------------------------------------------


def keys() -> Iterator[Vector]:
    names = {"record key": "record key", "footer key": "footer key", "object key": "object key"}
    for what, context in (names | {"padding key": "padding"}).items():
        for sealing, salt in ((SEALING, SALT), (bytes(32), bytes(32)), (ANOTHER, SALT)):
            value = derive(f"packstone v1 {context}", sealing + salt)
            yield vector(what, f"of {sealing[:2].hex()}… and {salt[:2].hex()}…", "ok",
                sealing=sealing, salt=salt, value=value)  # fmt: skip
    for sealing in (SEALING, bytes(32)):
        yield vector(
            "authentication key", f"of {sealing[:2].hex()}…", "ok", sealing=sealing,
            value=derive("packstone v1 object authentication", sealing),
        )  # fmt: skip


def padding(offset: int, size: int, sealing: bytes = SEALING, salt: bytes = SALT) -> bytes:
    key = derive("packstone v1 padding", sealing + salt)
    return blake3(b"", key=key).digest(length=offset + size)[offset:]


def sizes() -> Iterator[Vector]:
    for offset, size in ((0, 64), (1, 63), (63, 2), (64, 64), (65_000, 1), (1 << 20, 33), (5, 0)):
        yield vector("padding", f"{size} bytes at {offset}", "ok",
            sealing=SEALING, salt=SALT, offset=offset, size=size,
            value=padding(offset, size))  # fmt: skip
    yield vector("padding", "of another pack", "ok",
        sealing=SEALING, salt=ANOTHER, offset=0, size=32,
        value=padding(0, 32, salt=ANOTHER))  # fmt: skip
    for size in (
        2, 3, 4, 5, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256,
        257, 1000, 1023, 1024, 1025, 65_535, 65_536, 65_537, 100_000, (1 << 20) - 1, 1 << 20,
        (1 << 20) + 1, 16 << 20, 64 << 20, (64 << 20) + 1, (1 << 30) + 12_345, (8 << 30) - 1,
    ):  # fmt: skip
        yield vector("padme", f"of {size}", "ok", size=size, value=padme(size))


def seal(key: str, salt: bytes, data: bytes, about: bytes, number: int = 0) -> bytes:
    cipher = AESGCM(derive(f"packstone v1 {key} key", SEALING + salt))
    return cipher.encrypt(number.to_bytes(12, "little"), data, about)


# -- small objects --------------------------------------------------------------------------


def rehashed(data: bytes, at: int) -> bytes:
    """Flip a bit and make the checksum right, as whoever has no keys can."""
    changed = flipped(data, at)[:-32]
    return changed + checksum(changed)


def envelopes() -> Iterator[Vector]:
    def line(name: str, expect: str, kind: int, data: bytes, payload: bytes = b"") -> Vector:
        return vector("envelope", name, expect, repository_id=OURS, sealing=SEALING,
            kind=kind, payload=payload, data=data)  # fmt: skip

    state = encode({"generation": bytes(16), "sweep": None, "serial": 3})
    for size in (0, 1, 4, 5, 27, 28, 29, 1000):
        payload = encode({"text": "x" * size})
        yield line(f"sealed, {len(payload)} bytes", "ok", 2, envelope(2, 1, payload), payload)
    sealed = envelope(2, 1, state)
    yield line("a state", "ok", 2, sealed, state)
    yield line("history", "ok", 5, envelope(5, 1, state), state)
    for at in (8, 10, 11, 12, 16, 32, 63, 64, 70, len(sealed) - 33, len(sealed) - 1):
        yield line(f"byte {at} flipped", "damaged", 2, flipped(sealed, at))
    for at in (10, 11, 16, 32, 63, 64, 70, len(sealed) - 33):
        yield line(f"byte {at} flipped, checksum right", "damaged", 2, rehashed(sealed, at))
    yield line("of version 2", "unsupported", 2, envelope(2, 1, state, version=2))
    yield line("of mode 3", "unsupported", 2, envelope(2, 3, state, field=state))
    yield line("a plain state", "damaged", 2, envelope(2, 0, state))
    yield line("an authenticated state", "damaged", 2, envelope(2, 2, state))
    yield line("under another secret", "damaged", 2, envelope(2, 1, state, sealing=ANOTHER))
    yield line("without associated data", "damaged", 2, envelope(2, 1, state, about=b""))
    yield line("another repository's", "damaged", 2, envelope(2, 1, state, owner=OTHER))
    whole = sealed[64:-32]
    yield line("cut off within the tag", "damaged", 2, envelope(2, 1, b"", field=whole[:-1]))
    yield line("less than a tag", "damaged", 2, envelope(2, 1, b"", field=whole[:15]))
    yield line("nothing sealed", "damaged", 2, envelope(2, 1, b"", field=b""))
    bad = {
        "not padded": lambda data: struct.pack("<I", len(data)) + data,
        "padded with ones": lambda data: padded(data)[:-1] + b"\1",
        "padded to 64 more": lambda data: padded(data) + bytes(64),
        "without a length": lambda data: data,
        "a length above what is there": lambda data: b"\xff" + padded(data)[1:],
        "a length of 4 GiB": lambda data: b"\xff" * 4 + padded(data)[4:],
        "three bytes": lambda data: data[:3],
        "empty": lambda data: b"",
    }
    for name, pad in bad.items():
        long = encode({"generation": bytes(16), "sweep": bytes(29)})
        yield line(f"padding: {name}", "damaged", 2, envelope(2, 1, long, pad=pad))

    config = encode({"need": "ignore"})
    for kind, word in ((1, "config"), (4, "feature")):
        good = envelope(kind, 2, config)
        yield line(f"an authenticated {word}", "ok", kind, good, config)
        yield line(f"a plain {word}", "damaged", kind, envelope(kind, 0, config))
        yield line(f"a sealed {word}", "damaged", kind, envelope(kind, 1, config))
        other = envelope(kind, 2, config, sealing=ANOTHER)
        yield line(f"{word}, under another secret", "damaged", kind, other)
        for at in (10, 16, 32, 64, len(good) - 65, len(good) - 64, len(good) - 33):
            name = f"{word}, byte {at} flipped, checksum right"
            yield line(name, "damaged", kind, rehashed(good, at))
        short = envelope(kind, 2, b"", field=bytes(31))
        yield line(f"{word} without room for the code", "damaged", kind, short)
    as_feature = bytearray(envelope(1, 2, config))
    as_feature[10] = 4
    data = bytes(as_feature[:-32])
    yield line("a config as a feature", "damaged", 4, data + checksum(data))
    slot = encode({"kdf": "argon2id"})
    yield line("a plain key slot", "ok", 6, envelope(6, 0, slot), slot)
    yield line("a sealed key slot", "damaged", 6, envelope(6, 1, slot))
    yield line("an authenticated key slot", "damaged", 6, envelope(6, 2, slot))


# -- records and packs ----------------------------------------------------------------------


def prefix(kind: int, owner: bytes = OURS, salt: bytes = SALT) -> bytes:
    return struct.pack("<8sHBB4x16s32s", b"PKSTPACK", 1, kind, 1, owner, salt)


def bound(kind: int, number: int, raw_size: int, stored_size: int, codec: int) -> bytes:
    return prefix(kind) + struct.pack("<QIIB", number, raw_size, stored_size, codec)


def records() -> Iterator[Vector]:
    good: dict[str, Any] = {"kind": 1, "number": 3, "raw_size": 5, "codec": 0}

    def line(name: str, expect: str, stored: bytes, payload: bytes = b"hello", **more: Any):
        fields = {"repository_id": OURS, "sealing": SEALING, "salt": SALT} | good | more
        return vector("sealed record", name, expect, payload=payload, stored=stored, **fields)

    def sealed(payload: bytes, **more: Any) -> bytes:
        at = good | more
        about = bound(at["kind"], at["number"], at["raw_size"], len(payload) + 16, at["codec"])
        return seal("record", SALT, payload, about, at["number"])

    stored = sealed(b"hello")
    yield line("stored", "ok", stored)
    for more in ({"kind": 2}, {"number": 0}, {"number": 256}, {"number": (1 << 32) - 1}):
        yield line(f"of {more}", "ok", sealed(b"hello", **more), **more)
        yield line(f"claims {more}", "damaged", stored, **more)
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", 5) + b"\x29\0\0hello"
    yield line("zstd", "ok", sealed(frame, codec=1), frame, codec=1)
    for name, more in {
        "another raw size": {"raw_size": 6},
        "another codec": {"codec": 1},
        "another salt": {"salt": ANOTHER},
        "another secret": {"sealing": ANOTHER},
        "another repository": {"repository_id": OTHER},
    }.items():
        yield line(name, "damaged", stored, **more)
    for at in (0, 4, 5, len(stored) - 1):
        yield line(f"byte {at} flipped", "damaged", flipped(stored, at))
    for size in (0, 15, 16, len(stored) - 1):
        yield line(f"cut to {size} bytes", "damaged", stored[:size])
    yield line("one byte more", "damaged", stored + b"\0")
    yield line("not sealed", "damaged", b"hello")
    about = bound(1, 3, 5, 21, 0)
    yield line("nonce zero", "damaged", seal("record", SALT, b"hello", about))
    nonce = (3).to_bytes(12, "big")
    key = derive("packstone v1 record key", SEALING + SALT)
    yield line("nonce big-endian", "damaged", AESGCM(key).encrypt(nonce, b"hello", about))
    yield line("no associated data", "damaged", seal("record", SALT, b"hello", b"", 3))
    no_tag = seal("record", SALT, b"hello", bound(1, 3, 5, 5, 0), 3)
    yield line("stored size without the tag", "damaged", no_tag)
    no_kind = seal("record", SALT, b"hello", prefix(0) + about[64:], 3)
    yield line("prefix without the kind", "damaged", no_kind)
    yield line("under the footer's key", "damaged", seal("footer", SALT, b"hello", about, 3))
    yield line("under an object's key", "damaged", seal("object", SALT, b"hello", about, 3))


def pack(
    *,
    kind: int = 1,
    type_: int = 1,
    salt: bytes = SALT,
    owner: bytes = OURS,
    mode: int = 1,
    about: bytes | None = None,
    pad: Any = padded,
    number: int = 0,
    seal_footer: bool = True,
    footer_salt: bytes | None = None,
    header_salt: bytes | None = None,
    reserved: bytes = bytes(16),
    zero: int = 0,
    apart: int = 64,
) -> bytes:
    """Build a sealed pack of one record between its footers, of the size that Padmé gives it."""
    stored = seal("record", salt, b"hello", bound(kind, number, 5, 21, 0), number)
    body_salt = footer_salt or salt
    offset, footer = 128, b""
    for _ in range(4):
        objects = struct.pack("<32sIB", ID, 5, type_)
        body = encode([[128 + len(footer), 21, 5, 0, objects, b"", [], 0, 0]])
        size = len(pad(body)) + 16 if seal_footer else len(body)
        head = struct.pack("<8sI4x16s32s", b"PKSTFOOT", size, owner, body_salt)
        if seal_footer:
            bound_to = prefix(0, owner, body_salt) + head if about is None else about
            body = seal("footer", body_salt, pad(body), bound_to)
        footer = head + body + checksum(head + body)
    end = len(footer) + 64
    second = padme(offset + len(footer) + apart + end) - end
    header = struct.pack(
        "<8sHBBI16s32sQQ16s", b"PKSTPACK", 1, kind, mode, zero, owner, header_salt or salt,
        offset, len(footer), reserved,
    )  # fmt: skip
    data = header + checksum(header) + footer + stored
    data += padding(len(data), second - len(data), salt=salt) + footer
    trailer = struct.pack("<8sQQQ", b"PKSTTAIL", second, len(footer), len(data) + 64)
    return data + trailer + checksum(trailer)


def no_trailer(data: bytes) -> bytes:
    return flipped(data, len(data) - 40)


def no_header(data: bytes) -> bytes:
    return bytes(128) + data[128:]


def packs() -> Iterator[Vector]:
    def line(name: str, expect: str, data: bytes) -> Vector:
        return vector("sealed pack", name, expect, repository_id=OURS, sealing=SEALING,
            data=data)  # fmt: skip

    good = pack()
    yield line("data", "ok", good)
    yield line("footers as far apart as they are written", "ok", pack(apart=4096))
    yield line("metadata, tree pages", "ok", pack(kind=2, type_=2))
    yield line("metadata, chunk-list pages", "ok", pack(kind=2, type_=3))
    yield line("header unreadable", "ok", no_header(good))
    yield line("trailer unreadable", "ok", no_trailer(good))
    yield line("header and trailer unreadable", "damaged", no_header(no_trailer(good)))
    yield line("metadata, header unreadable", "ok", no_header(pack(kind=2, type_=2)))
    first = flipped(good, 200)
    yield line("first footer damaged", "ok", first)
    second = struct.unpack_from("<Q", good, len(good) - 56)[0]
    yield line("both footers damaged", "damaged", flipped(first, second + 72))
    yield line("padding flipped", "ok", flipped(good, second - 1))
    yield line("another kind than its objects", "damaged", no_trailer(pack(kind=2)))
    yield line("plain header, the trailer leads on", "ok", pack(mode=0))
    yield line("plain header and no trailer", "damaged", no_trailer(pack(mode=0)))
    yield line("mode 2", "unsupported", no_trailer(pack(mode=2)))
    yield line("plain footers", "damaged", pack(seal_footer=False))
    yield line("a plain pack", "damaged", pack(mode=0, seal_footer=False))
    yield line("another repository's", "damaged", pack(owner=OTHER))
    yield line("footers without associated data", "damaged", pack(about=b""))
    kind_bound = prefix(1) + good[128:192]
    yield line("footers bound to the kind", "damaged", pack(about=kind_bound))
    yield line("footers bound to the prefix alone", "damaged", pack(about=prefix(0)))
    yield line("footers not padded", "damaged", pack(pad=lambda data: data))
    for at in (16, 63, 64, 100):  # repository id, salt, body, body
        data = bytearray(good)
        for start in (128, second):
            data[start + at] ^= 1
            whole = data[start : start + (len(good) - second - 64)]
            data[start : start + len(whole)] = whole[:-32] + checksum(bytes(whole[:-32]))
        yield line(f"byte {at} of both footers, checksums right", "damaged", bytes(data))
    yield line("footers of another salt, no trailer", "damaged",
        no_trailer(pack(footer_salt=ANOTHER)))  # fmt: skip
    other_salt = pack(header_salt=ANOTHER)
    yield line("header of another salt, the trailer leads on", "ok", other_salt)
    yield line("header of another salt, no trailer", "damaged", no_trailer(other_salt))
    yield line("header not zero at 12, no trailer", "damaged", no_trailer(pack(zero=1)))
    yield line("header not zero at 80, no trailer", "damaged",
        no_trailer(pack(reserved=b"\1" * 16)))  # fmt: skip


def make() -> list[Vector]:
    """Return all vectors."""
    check_primitives()
    parts = (keys, sizes, envelopes, records, packs, passphrases, slots, exports)
    return [each for part in parts for each in part()]


def text() -> str:
    """Return sealing.json, a vector a line."""
    return "[\n" + ",\n".join(json.dumps(each) for each in make()) + "\n]\n"


if __name__ == "__main__":
    print(text(), end="")
