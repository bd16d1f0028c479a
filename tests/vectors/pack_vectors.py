"""Vectors of packs, their footers and records (docs/format.md §4), made without the package."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from vector_line import OTHER, OURS, SALT, Vector, checksum, encode, flipped, vector

ID = bytes(range(32, 64))
AT = object()  # in a row: the offset of the records


def object_row(size: int, type_: int = 1, object_id: bytes = ID) -> bytes:
    return struct.pack("<32sIB", object_id, size, type_)


def footer(rows: Any, *, owner: bytes = OURS, body: bytes | None = None) -> bytes:
    body = encode(rows) if body is None else body
    data = struct.pack("<8sI4x16s32s", b"PKSTFOOT", len(body), owner, SALT) + body
    return data + checksum(data)


def pack(
    rows: Any,
    *,
    records: bytes = b"hello",
    kind: int = 1,
    version: int = 1,
    mode: int = 0,
    owner: bytes = OURS,
    footer_owner: bytes = OURS,
    body: bytes | None = None,
    stated: int = 0,
) -> bytes:
    """Build a pack whose records stand between the copies of the footer; AT is where."""
    copy = b""
    for _ in range(4):  # the footer's size depends on the numbers in it
        placed = [
            [each if each is not AT else 128 + len(copy) for each in row]
            if isinstance(row, list)
            else row
            for row in rows
        ]
        copy = footer(placed, owner=footer_owner, body=body)
    head = struct.pack(
        "<8sHBB4x16s32sQQ16x", b"PKSTPACK", version, kind, mode, owner, SALT, 128, len(copy)
    )
    start = head + checksum(head) + copy + records
    tail = struct.pack(
        "<8sQQQ", b"PKSTTAIL", len(start), len(copy), len(start) + len(copy) + 64 + stated
    )
    return start + copy + tail + checksum(tail)


def packs() -> Iterator[Vector]:
    def row(**changes: Any) -> list[Any]:
        fields = {
            "offset": AT, "stored": 5, "raw": 5, "codec": 0, "objects": object_row(5),
            "keys": b"", "bases": [], "depth": 0, "lineage": 0,
        }  # fmt: skip
        return list((fields | changes).values())

    good = pack([row()])
    two = object_row(2) + object_row(3, object_id=bytes(32))
    size = len(good)
    copy_at, copy_size = 128, (size - 128 - 5 - 64) // 2
    second_at = size - 64 - copy_size
    at = 128 + copy_size
    both = flipped(flipped(good, copy_at + 70), second_at + 70)
    rows: list[tuple[str, str, bytes]] = [
        ("one stored record", "ok", good),
        ("metadata", "ok", pack([row(objects=object_row(5, 2))], kind=2)),
        ("chunk-list page", "ok", pack([row(objects=object_row(5, 3))], kind=2)),
        ("keys", "ok", pack([row(keys=bytes(16))])),
        ("an object twice in a record", "ok", pack([row(objects=two)])),
        ("lineage, depth and bases of a delta", "ok",
            pack([row(codec=2, bases=[ID], depth=1, lineage=7)])),
        ("every byte of the header zero", "ok", bytes(128) + good[128:]),
        ("header of another version, damaged", "ok", flipped(good, 8)),
        ("first footer damaged", "ok", flipped(good, copy_at + 70)),
        ("second footer damaged", "ok", flipped(good, second_at + 70)),
        ("trailer damaged", "ok", flipped(good, size - 40)),
        ("both footers damaged", "damaged", both),
        ("header and trailer damaged", "damaged", flipped(flipped(good, 70), size - 40)),
        ("header and second footer damaged", "damaged", flipped(flipped(good, 70), second_at)),
        ("empty file", "damaged", b""),
        ("header alone", "damaged", good[:128]),
        ("cut off before the second footer", "ok", good[:second_at + 64]),
        ("cut off within the record", "damaged", good[: at + 2]),
        ("64 zeros", "damaged", bytes(64)),
        ("version 2", "unsupported", pack([row()], version=2)),
        ("header of mode 1 before footers that are plain", "ok", pack([row()], mode=1)),
        ("mode 1, sealed", "damaged", pack([], mode=1, body=checksum(b"sealed") * 3)),
        ("mode 2", "unsupported", pack([row()], mode=2)),
        ("other repository", "damaged", pack([row()], owner=OTHER, footer_owner=OTHER)),
        ("footers of another repository", "damaged", pack([row()], footer_owner=OTHER)),
        ("both in one pack", "damaged", pack([row(objects=object_row(2) + object_row(3, 2))])),
        ("object of type 0", "damaged", pack([row(objects=object_row(5, 0))])),
        ("object of type 4", "damaged", pack([row(objects=object_row(5, 4))], kind=2)),
        ("record within the header", "damaged", pack([row(offset=127)])),
        ("record behind the end", "damaged", pack([row(offset=1 << 40)])),
        ("record within the trailer", "damaged", pack([row(offset=size - 60)])),
        ("negative offset", "damaged", pack([row(offset=-1)])),
        ("negative stored size", "damaged", pack([row(stored=-1)])),
        ("negative raw size", "damaged", pack([row(raw=-1)])),
        ("records overlap", "damaged", pack([row(), row(offset=at + 4, stored=1)])),
        ("records out of order", "damaged", pack([row(), row(offset=at - 1, stored=1)])),
        ("no objects", "damaged", pack([row(objects=b"", raw=0)])),
        ("objects of 36 bytes", "damaged", pack([row(objects=object_row(5)[:36])])),
        ("sizes do not add up", "damaged", pack([row(objects=object_row(4))])),
        ("raw size above 64 MiB", "damaged",
            pack([row(raw=(64 << 20) + 1, objects=object_row((64 << 20) + 1))])),
        ("keys of 8 bytes", "damaged", pack([row(keys=bytes(8))])),
        ("four bases", "damaged", pack([row(codec=2, bases=[ID] * 4, depth=1)])),
        ("a base of 31 bytes", "damaged", pack([row(codec=2, bases=[ID[:31]], depth=1)])),
        ("bases without depth", "damaged", pack([row(codec=2, bases=[ID])])),
        ("depth without bases", "damaged", pack([row(depth=1)])),
        ("depth of 65", "damaged", pack([row(codec=2, bases=[ID], depth=65)])),
        ("eight fields", "damaged", pack([row()[:8]])),
        ("ten fields", "damaged", pack([[*row(), 0]])),
        ("body is a map", "damaged", pack([], body=encode({}))),
        ("body cut off", "damaged", pack([], body=encode([row(offset=300)])[:-1])),
        ("one byte behind the body", "damaged", pack([], body=encode([row(offset=300)]) + b"\0")),
        ("an array of 2**32 - 1 records", "damaged", pack([], body=b"\xdd\xff\xff\xff\xff")),
        ("a bin of 2**32 - 1 bytes", "damaged",
            pack([], body=b"\x91\x99\0\0\0\0\xc6" + bytes([255] * 4))),
    ]  # fmt: skip
    for name, expect, data in rows:
        yield vector("pack", name, expect, repository_id=OURS, data=data)
    # Who reads one copy of the footer need not know where the other one is, but its own place.
    within = [row(offset=130), row()]
    second = len(pack([*within, row(offset=1000)])) - 64 - 50
    yield vector(
        "pack", "records within both footers", "damaged",
        repository_id=OURS, data=pack([*within, row(offset=second)]),
    )  # fmt: skip


def frame(
    blocks: bytes,
    content_size: int | None,
    *,
    window: int | None = None,
    dictionary: int | None = None,
    flags: int = 0,
) -> bytes:
    """Build a zstd frame (RFC 8878 §3.1.1); `window` is a descriptor byte, else one segment."""
    size = b""
    if content_size is not None:
        code = 3 if content_size >= 1 << 32 else 2
        flags |= code << 6
        size = content_size.to_bytes(8 if code == 3 else 4, "little")
    if window is None:
        flags |= 0x20
    more = b"" if window is None else bytes([window])
    if dictionary is not None:
        flags |= 1
        more += bytes([dictionary])
    return b"\x28\xb5\x2f\xfd" + bytes([flags]) + more + size + blocks


def block(data: bytes, *, repeat: int = 0, last: bool = True) -> bytes:
    """Build a block: raw bytes, or one byte repeated."""
    size, kind = (repeat, 1) if repeat else (len(data), 0)
    return (size << 3 | kind << 1 | last).to_bytes(3, "little") + data


def records() -> Iterator[Vector]:
    hello = block(b"hello")
    good = frame(hello, 5)
    large = (64 << 20) + 1
    rows: list[tuple[str, str, int, bytes, int]] = [
        ("stored", "ok", 0, b"hello", 5),
        ("stored, one byte less", "damaged", 0, b"hell", 5),
        ("stored, one byte more", "damaged", 0, b"hello!", 5),
        ("zstd", "ok", 1, good, 5),
        ("a block of one byte repeated", "ok", 1, frame(block(b"x", repeat=300), 300), 300),
        ("window of 64 MiB", "ok", 1, frame(hello, 5, window=16 << 3), 5),
        ("window above 64 MiB", "damaged", 1, frame(hello, 5, window=16 << 3 | 1), 5),
        ("window of 2 TiB", "damaged", 1, frame(hello, 5, window=31 << 3), 5),
        ("no content size", "damaged", 1, frame(hello, None, window=0), 5),
        ("states one byte more", "damaged", 1, frame(hello, 6), 5),
        ("states one byte more, as does the footer", "damaged", 1, frame(hello, 6), 6),
        ("states one byte less, as does the footer", "damaged", 1, frame(hello, 4), 4),
        ("states 2**63", "damaged", 1, frame(hello, 1 << 63), 5),
        ("above 64 MiB", "damaged", 1, frame(hello, large), large),
        ("dictionary", "damaged", 1, frame(hello, 5, window=0, dictionary=7), 5),
        ("wrong content checksum", "damaged", 1, frame(hello, 5, flags=4) + bytes(4), 5),
        ("one byte behind the frame", "damaged", 1, good + b"\0", 5),
        ("two frames", "damaged", 1, frame(block(b"he"), 2) + frame(block(b"llo"), 3), 5),
        ("an empty frame behind it", "damaged", 1, good + frame(block(b""), 0), 5),
        ("a skippable frame before it", "damaged", 1, b"\x50\x2a\x4d\x18" + bytes(4) + good, 5),
        ("a skippable frame behind it", "damaged", 1, good + b"\x50\x2a\x4d\x18" + bytes(4), 5),
        ("no last block", "damaged", 1, frame(block(b"hello", last=False), 5), 5),
        ("cut off", "damaged", 1, good[:-1], 5),
        ("header alone", "damaged", 1, good[:9], 5),
        ("empty", "damaged", 1, b"", 5),
        ("other magic", "damaged", 1, b"\x27" + good[1:], 5),
        ("delta of later versions", "unsupported", 2, b"hello", 5),
        ("unknown codec", "unsupported", 16, b"hello", 5),
    ]
    for name, expect, codec, data, raw_size in rows:
        yield vector("record", name, expect, codec=codec, raw_size=raw_size, data=data)
