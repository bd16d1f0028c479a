"""Make format.json: what a reader must accept, and what it must refuse and as what.

Written from docs/format.md with the standard library, BLAKE3 and MessagePack, and nothing of the
package: vectors made by the code they test would agree with its mistakes. Each vector has a line
`expect`: "ok", "damaged", or "unsupported". Frames of zstd are put together by hand, so they do
not change with the library.

    python tests/vectors/make_format.py > tests/vectors/format.json
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from blake3 import blake3
from delta_vectors import deltas
from pack_vectors import packs, records
from vector_line import OTHER, OURS, SALT, Vector, checksum, derive, encode, flipped, vector

REGULAR, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777
FAMILY = derive("packstone v1 plain family", b"")


# -- §2: derived keys, ids, SipHash ---------------------------------------------------------


def siphash(key: bytes, data: bytes) -> int:
    """SipHash-2-4 as its authors describe it."""
    mask = (1 << 64) - 1
    low, high = struct.unpack("<QQ", key)
    v = [low ^ 0x736F6D6570736575, high ^ 0x646F72616E646F6D]
    v += [low ^ 0x6C7967656E657261, high ^ 0x7465646279746573]

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> (64 - bits)) & mask

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        sip_rounds(v, 2, rotate, mask)
        v[0] ^= word
    v[2] ^= 0xFF
    sip_rounds(v, 4, rotate, mask)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def sip_rounds(v: list[int], count: int, rotate: Any, mask: int) -> None:
    for _ in range(count):
        v[0] = (v[0] + v[1]) & mask
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & mask
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & mask
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & mask
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)


def secrets() -> Iterator[Vector]:
    yield vector("family", "plain family", "ok", value=FAMILY)
    yield vector(
        "fingerprint", "of the plain family", "ok",
        family=FAMILY, value=derive("packstone v1 family fingerprint", FAMILY),
    )  # fmt: skip
    for name, family in (("plain", FAMILY), ("made-up", bytes(range(32)))):
        yield vector(
            "cutting secret", f"of the {name} family", "ok",
            family=family, value=derive("packstone v1 cutting", family, 64),
        )  # fmt: skip
        for number, word in ((1, "chunk"), (2, "tree"), (3, "chunk list")):
            key = derive(f"packstone v1 id {word}", family)
            for size in (0, 1, 1024, 100_001):
                data = (bytes(range(251)) * (size // 251 + 1))[:size]
                yield vector(
                    "id", f"of a {word}, {size} bytes, {name} family", "ok",
                    family=family, type=number, repeat=251, size=size,
                    value=blake3(data, key=key).digest(),
                )  # fmt: skip
    key = bytes(range(16))
    assert siphash(key, bytes(range(15))) == 0xA129CA6149BE45E5, "the paper's own vector"
    for size in (0, 1, 7, 8, 15, 16, 31, 32, 63, 64):
        data = bytes(range(size))
        yield vector(
            "siphash", f"{size} bytes", "ok", key=key, data=data, value=f"{siphash(key, data):016x}"
        )


# -- §3: envelopes --------------------------------------------------------------------------


def envelope(
    kind: int,
    payload: bytes,
    *,
    magic: bytes = b"PKSTNOBJ",
    version: int = 1,
    mode: int = 0,
    size: int | None = None,
    owner: bytes = OURS,
) -> bytes:
    stated = len(payload) if size is None else size
    head = struct.pack("<8sHBBI16s32s", magic, version, kind, mode, stated, owner, SALT)
    return head + payload + checksum(head + payload)


STATE = {"generation": bytes(16), "sweep": None}


def envelopes() -> Iterator[Vector]:
    payload = encode(STATE)
    good = envelope(2, payload)
    rows = [
        ("plain", "ok", good),
        ("empty payload is an envelope", "ok", envelope(2, b"")),
        ("empty file", "damaged", b""),
        ("95 bytes", "damaged", good[:95]),
        ("one byte short", "damaged", good[:-1]),
        ("one byte more", "damaged", good + b"\0"),
        ("other magic", "damaged", envelope(2, payload, magic=b"PKSTPACK")),
        ("other kind", "damaged", envelope(3, payload)),
        ("kind 0", "damaged", envelope(0, payload)),
        ("other repository", "damaged", envelope(2, payload, owner=OTHER)),
        ("states one byte less", "damaged", envelope(2, payload, size=len(payload) - 1)),
        ("states 4 GiB", "damaged", envelope(2, payload, size=(1 << 32) - 1)),
        ("version 2", "unsupported", envelope(2, payload, version=2)),
        ("version 0", "unsupported", envelope(2, payload, version=0)),
        ("mode 1, sealed", "damaged", envelope(2, payload, mode=1)),
        ("mode 2, authenticated", "damaged", envelope(2, payload, mode=2)),
        ("mode 3", "unsupported", envelope(2, payload, mode=3)),
        ("version 2 of another kind", "unsupported", envelope(3, payload, version=2)),
    ]
    for at in (0, 10, 12, 16, 32, 63, 64, len(good) - 33, len(good) - 32, len(good) - 1):
        rows.append((f"byte {at} flipped", "damaged", flipped(good, at)))
    for name, expect, data in rows:
        yield vector("envelope", name, expect, kind=2, repository_id=OURS, data=data)
    config = envelope(1, encode(CONFIG), owner=OTHER)
    yield vector("envelope", "config of any repository", "ok", kind=1, data=config)


CONFIG: dict[str, Any] = {
    "created_ns": 1_700_000_000_000_000_000,
    "family": derive("packstone v1 family fingerprint", FAMILY),
    "chunker": "filter-sip-1",
    "average": 262_144,
    "pack_size": 67_108_864,
    "level": 3,
}


def payloads() -> Iterator[Vector]:
    def config(name: str, expect: str, **changes: Any) -> Vector:
        value = {k: v for k, v in (CONFIG | changes).items() if v != "absent"}
        return vector("config", name, expect, data=envelope(1, encode(value)))

    yield config("plain", "ok")
    yield config("a key of a later version", "ok", colour="red")
    yield config("average of 4 KiB", "ok", average=4096)
    yield config("average of 8 MiB", "ok", average=8 << 20)
    yield config("no family", "damaged", family="absent")
    yield config("no time", "damaged", created_ns="absent")
    yield config("average of 2 KiB", "damaged", average=2048)
    yield config("average of 16 MiB", "damaged", average=16 << 20)
    yield config("average no power of two", "damaged", average=262_145)
    yield config("average a text", "damaged", average="262144")
    yield config("average negative", "damaged", average=-4096)
    yield config("level of 20", "damaged", level=20)
    yield config("other chunker", "unsupported", chunker="gear-1")
    yield vector("config", "no map", "damaged", data=envelope(1, encode([1, 2])))
    yield vector("config", "no MessagePack", "damaged", data=envelope(1, b"\xc1"))
    yield vector("config", "empty", "damaged", data=envelope(1, b""))

    def state(name: str, expect: str, value: Any) -> Vector:
        return vector("state", name, expect, repository_id=OURS, data=envelope(2, encode(value)))

    yield state("plain", "ok", STATE)
    yield state("sweep marker", "ok", STATE | {"sweep": b"\x01"})
    yield state("no generation", "damaged", {"sweep": None})
    yield state("generation a text", "damaged", STATE | {"generation": "0" * 16})
    yield vector(
        "state", "one byte behind the map", "damaged",
        repository_id=OURS, data=envelope(2, encode(STATE) + b"\0"),
    )  # fmt: skip
    first = {"time_ns": 1, "host": "h", "paths": [b"/a"], "tree": bytes(32)}
    full = first | {
        "user": "u", "name": b"n", "tags": ["t"], "parent": bytes(32), "original_id": bytes(32),
        "program": "p", "excludes": ["*"], "users": {0: "root"}, "groups": {0: "root"},
        "summary": {"files": 1},
    }  # fmt: skip

    def snapshot(name: str, expect: str, value: Any, **more: Any) -> Vector:
        data = envelope(3, encode(value))
        more = {"name_of_file": checksum(data)} | more
        return vector("snapshot", name, expect, repository_id=OURS, data=data, **more)

    yield snapshot("only what must be there", "ok", first)
    yield snapshot("every field", "ok", full)
    yield snapshot("under another name", "damaged", first, name_of_file=bytes(32))
    for key in first:
        less = {k: v for k, v in first.items() if k != key}
        yield snapshot(f"without {key}", "damaged", less)
    yield snapshot("tree of 31 bytes", "damaged", first | {"tree": bytes(31)})
    yield snapshot("tree a text", "damaged", first | {"tree": "0" * 32})
    yield snapshot("users by name", "damaged", full | {"users": {"root": 0}})
    for need, reading, writing in (
        ("ignore", "ok", "ok"),
        ("write", "ok", "unsupported"),
        ("read", "unsupported", "unsupported"),
        ("something else", "unsupported", "unsupported"),
    ):
        data = envelope(4, encode({"need": need}))
        for way, expect in (("reading", reading), ("writing", writing)):
            yield vector(
                "feature", f"need {need!r}, {way}", expect,
                repository_id=OURS, writing=way == "writing", data=data,
            )  # fmt: skip
    damaged = flipped(envelope(4, encode({"need": "ignore"})), 70)
    yield vector("feature", "damaged", "damaged", repository_id=OURS, writing=False, data=damaged)


# -- §6: pages ------------------------------------------------------------------------------


def entry(name: bytes, **changes: Any) -> list[Any]:
    fields = {
        "name": name, "mode": REGULAR, "uid": 0, "gid": 0, "size": 0, "mtime_ns": 0,
        "ctime_ns": 0, "inode": 0, "content": b"", "extras": None,
    }  # fmt: skip
    return list((fields | changes).values())


def trees() -> Iterator[Vector]:
    def page(name: str, expect: str, value: Any) -> Vector:
        data = value if isinstance(value, bytes) else encode(value)
        return vector("tree page", name, expect, data=data)

    def names(*each: bytes) -> list[Any]:
        return [0, [entry(name) for name in each]]

    yield page("empty directory", "ok", [0, []])
    yield page("two entries", "ok", names(b"a", b"b"))
    yield page("compared as unsigned bytes", "ok", names(b"a", b"\x80", b"\xff"))
    yield page("a prefix goes first", "ok", names(b"a", b"a\x01", b"ab"))
    yield page("255 bytes, newline, three dots", "ok", names(b"\n", b"...", b"n" * 255))
    yield page("the same name twice", "damaged", names(b"a", b"a"))
    yield page("out of order", "damaged", names(b"b", b"a"))
    for name in (b"", b".", b"..", b"a/b", b"/", b"a\0", b"n" * 256, b"../a"):
        yield page(f"the name {name[:8]!r}", "damaged", names(name))
    yield page("the name '.' among others", "damaged", names(b"-", b".", b"a"))
    yield page("the name '..' among others", "damaged", names(b"-", b"..", b"a"))
    yield page("level 1", "ok", [1, [[b"a", bytes(32), 32], [b"b", bytes(32), 1]]])
    yield page("level 8", "ok", [8, [[b"a", bytes(32), 32]]])
    yield page("level 9", "damaged", [9, [[b"a", bytes(32), 32]]])
    yield page("level -1", "damaged", [-1, []])
    yield page("level 1 without rows", "damaged", [1, []])
    yield page("level 1 out of order", "damaged", [1, [[b"b", bytes(32), 1], [b"a", bytes(32), 1]]])
    yield page("level 1, id of 31 bytes", "damaged", [1, [[b"a", bytes(31), 1]]])
    yield page("level 1 with entries", "damaged", [1, [entry(b"a")]])
    yield page("level 0 with references", "damaged", [0, [[b"a", bytes(32), 1]]])
    yield page("nine fields", "damaged", [0, [entry(b"a")[:9]]])
    yield page("eleven fields", "damaged", [0, [[*entry(b"a"), None]]])
    yield page("name a text", "damaged", [0, [entry("a")]])
    yield page("size a text", "damaged", [0, [entry(b"a", size="0")]])
    yield page("unknown extra", "damaged", [0, [entry(b"a", extras={"recipe": b""})]])
    yield page("three fields in the page", "damaged", [0, [], 0])
    yield page("one byte behind the page", "damaged", encode([0, []]) + b"\0")
    yield page("cut off", "damaged", encode(names(b"a"))[:-1])
    yield page("empty", "damaged", b"")
    yield page("2**32 - 1 entries", "damaged", b"\x92\0\xdd\xff\xff\xff\xff")
    yield page("arrays within arrays", "damaged", b"\x91" * 5000 + b"\0")

    def one(name: str, expect: str, **fields: Any) -> Vector:
        return vector("entry", name, expect, data=encode([0, [entry(b"a", **fields)]]))

    unread = {"flags": 2}
    listed = [0, bytes(64), [3, -4, 2]]
    yield one("empty file", "ok")
    yield one("empty file with an id", "damaged", content=bytes(32))
    yield one("file of one chunk", "ok", size=9, content=bytes(32))
    yield one("file without content", "damaged", size=9, content=b"")
    yield one("file with an id of 31 bytes", "damaged", size=9, content=bytes(31))
    yield one("file of chunks and a hole", "ok", size=9, content=listed)
    yield one("file of a hole", "ok", size=9, content=[0, b"", [-9]])
    yield one("file with nothing", "damaged", size=9, content=None)
    yield one("list of other sizes", "damaged", size=10, content=listed)
    yield one("list without an id", "damaged", size=9, content=[0, bytes(32), [3, -4, 2]])
    yield one("list with a size of 0", "damaged", size=9, content=[0, bytes(96), [3, -4, 2, 0]])
    yield one("list of level 9", "damaged", size=9, content=[9, bytes(32), [9]])
    yield one("list with a text", "damaged", size=9, content=[0, "0" * 32, [9]])
    yield one("list of two", "damaged", size=9, content=[0, bytes(32)])
    yield one("negative size", "damaged", size=-1)
    yield one("mode above 16 bits", "damaged", mode=REGULAR | 1 << 16)
    yield one("mode without a type", "damaged", mode=0o644)
    yield one("directory", "ok", mode=DIRECTORY, content=bytes(32))
    yield one("directory without an id", "damaged", mode=DIRECTORY, content=None)
    yield one("directory with a list", "damaged", mode=DIRECTORY, content=listed)
    yield one("link", "ok", mode=LINK, content=b"to")
    yield one("link to nothing", "damaged", mode=LINK, content=b"")
    yield one("link with NUL", "damaged", mode=LINK, content=b"a\0b")
    yield one("link of 5,000 bytes", "damaged", mode=LINK, content=bytes([65]) * 5000)
    yield one("character device", "ok", mode=0o020600, content=[1, 3])
    yield one("block device", "ok", mode=0o060600, content=[259, 70_000])
    yield one("device with one number", "damaged", mode=0o060600, content=[259])
    yield one("device with a negative number", "damaged", mode=0o060600, content=[-1, 0])
    yield one("device with a text", "damaged", mode=0o060600, content=["1", "3"])
    yield one("fifo", "ok", mode=0o010600, content=None)
    yield one("fifo with content", "damaged", mode=0o010600, content=b"")
    yield one("socket", "ok", mode=0o140600, content=None)
    yield one("unreadable file", "ok", size=9, content=None, extras=unread)
    yield one("unreadable directory", "ok", mode=DIRECTORY, content=None, extras=unread)
    yield one("unreadable with content", "damaged", size=9, content=bytes(32), extras=unread)
    yield one("all extras", "ok", extras={"flags": 1, "link": b"x/a", "xattrs": [[b"n", b"v"]]})


def lists() -> Iterator[Vector]:
    def page(name: str, expect: str, level: int, value: Any) -> Vector:
        data = value if isinstance(value, bytes) else encode(value)
        return vector("chunk-list page", name, expect, level=level, data=data)

    yield page("chunks and holes", "ok", 0, [0, bytes(64), [1, -(1 << 40), 2, -3]])
    yield page("a hole", "ok", 0, [0, b"", [-1]])
    yield page("level 1", "ok", 1, [1, bytes(64), [100, 200]])
    yield page("another level", "damaged", 0, [1, bytes(64), [100, 200]])
    yield page("a level below", "damaged", 1, [0, bytes(64), [100, 200]])
    yield page("level 9", "damaged", 9, [9, bytes(64), [100, 200]])
    yield page("hole on level 1", "damaged", 1, [1, bytes(32), [100, -200]])
    yield page("an id too few", "damaged", 0, [0, bytes(32), [1, 2]])
    yield page("an id too many", "damaged", 0, [0, bytes(96), [1, 2]])
    yield page("half an id", "damaged", 0, [0, bytes(48), [1, 2]])
    yield page("size of 0", "damaged", 0, [0, bytes(32), [1, 0]])
    yield page("size a text", "damaged", 0, [0, bytes(32), ["1"]])
    yield page("ids a text", "damaged", 0, [0, "0" * 32, [1]])
    yield page("two fields", "damaged", 0, [0, bytes(32)])
    yield page("four fields", "damaged", 0, [0, bytes(32), [1], 0])
    yield page("one byte behind the page", "damaged", 0, encode([0, bytes(32), [1]]) + b"\0")
    yield page("cut off", "damaged", 0, encode([0, bytes(32), [1]])[:-1])
    yield page("empty", "damaged", 0, b"")
    yield page("2**32 - 1 sizes", "damaged", 0, b"\x93\0\xc4\0\xdd\xff\xff\xff\xff")


def make() -> list[Vector]:
    """Return all vectors."""
    parts = (secrets, envelopes, payloads, packs, records, deltas, trees, lists)
    return [each for part in parts for each in part()]


def text() -> str:
    """Return format.json, a vector a line."""
    return "[\n" + ",\n".join(json.dumps(each) for each in make()) + "\n]\n"


if __name__ == "__main__":
    print(text(), end="")
