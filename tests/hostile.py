"""A test-only writer of snapshots that no honest program would write.

Uses the real object writer for bytes it never made itself, so ids, packs and envelopes are
sound and only the content lies; or writes packs whose footers lie.
"""

from __future__ import annotations

import json
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3

import packstone
from packstone.codec.compression import Compressor
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import Hasher, plain_family
from packstone.model import ObjectType, Snapshot
from packstone.repository import packs
from packstone.repository.layout import pack_name, snapshot_name
from packstone.repository.packs import DATA, METADATA, OBJECT, PackWriter, RecordRow
from packstone.repository.repository import ObjectRepository

REGULAR, DIRECTORY, SYMLINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
TIME_NS = 1_700_000_000_000_000_000
encode = msgspec.msgpack.encode


def row(
    name: Any,
    mode: Any = REGULAR,
    content: Any = b"",
    *,
    size: Any = 0,
    extras: Any = None,
    uid: Any = None,
    gid: Any = None,
    mtime_ns: Any = TIME_NS,
) -> list[Any]:
    """Return an entry as the plain array it is stored as; nothing is checked."""
    owner = (os.geteuid() if uid is None else uid, os.getegid() if gid is None else gid)
    return [name, mode, *owner, size, mtime_ns, TIME_NS, 1, content, extras]


class Forger:
    """Writes hostile objects into a repository; ends with `commit` or `write_snapshot`."""

    def __init__(self, location: Path) -> None:
        self._objects = ObjectRepository(str(location))
        self._writer = self._objects.writer()
        self._hasher = Hasher(plain_family())
        self.sealer = self._objects.sealer

    def page(self, rows: list[Any], level: Any = 0) -> bytes:
        """Store a tree page of any rows and return its id."""
        return self.put(ObjectType.TREE, encode([level, rows]))

    def put(self, kind: ObjectType, data: bytes) -> bytes:
        """Store any bytes as an object of any type of metadata."""
        return self._writer.put(kind, data)

    def chunk(self, data: bytes) -> bytes:
        """Store a chunk."""
        chunk_id = self._hasher.id(ObjectType.CHUNK, data)
        if self._writer.reserve([chunk_id])[0]:
            self._writer.put_chunk(chunk_id, data, (0, 0))
        return chunk_id

    def file(self, name: bytes, data: bytes, *, mode: int = REGULAR, **fields: Any) -> list[Any]:
        """Return the entry of a sound small file."""
        return row(name, mode, self.chunk(data), size=len(data), **fields)

    def below(self, name: bytes, rows: list[Any], **fields: Any) -> list[Any]:
        """Return the entry of a directory with these rows."""
        return row(name, DIRECTORY, self.page(rows), **fields)

    def commit(self, tree: bytes | list[Any], **fields: Any) -> str:
        """Commit a snapshot of a tree, or of rows that make its root; return its id."""
        tree_id = tree if isinstance(tree, bytes) else self.page(tree)
        snapshot = Snapshot(time_ns=TIME_NS, host="evil", paths=[b"/"], tree=tree_id, **fields)
        snapshot_id = self._writer.commit(snapshot)
        self.close()
        return snapshot_id

    def write_snapshot(self, payload: bytes, repository_id: bytes | None = None) -> str:
        """Store any payload as a snapshot, of this or another repository."""
        self._writer.finish()
        owner = self.sealer if repository_id is None else Sealer(repository_id)
        data = seal_envelope(Kind.SNAPSHOT, owner, os.urandom(32), payload)
        snapshot_id = blake3(data).hexdigest()
        self._objects.storage.put(snapshot_name(snapshot_id), data)
        self.close()
        return snapshot_id

    def write_pack(
        self,
        records: list[tuple[bytes, int, int, list[tuple[bytes, int, int]]]],
        *,
        kind: int = DATA,
        change: Callable[[list[RecordRow]], object] = lambda rows: None,
        body: bytes | None = None,
    ) -> str:
        """Write a pack of records (payload, raw size, codec, objects); `change` spoils its rows.

        `body` takes the footer body's place. Checksums and the pack's name are right.
        """
        pack = _LyingPack(self._objects.storage, kind, self.sealer, os.urandom(32))
        for payload, raw_size, codec, objects in records:
            packed = b"".join(OBJECT.pack(*each) for each in objects)
            pack.add(payload, raw_size, codec, packed, b"")
        pack.change, pack.body = change, body
        return pack.finish().id

    def write_deltas(self, *deltas: Delta) -> str:
        """Write a pack of one record for each delta, whatever they say of their bases."""

        def lie(rows: list[RecordRow]) -> None:
            for found, said in zip(rows, deltas, strict=True):
                found.bases, found.depth, found.lineage = said.bases, said.depth, said.lineage

        return self.write_pack(
            [
                (
                    each.body,
                    len(each.data) if each.raw_size is None else each.raw_size,
                    each.codec,
                    [
                        (
                            self.id_of(ObjectType.CHUNK, each.data),
                            len(each.data) if each.raw_size is None else each.raw_size,
                            1,
                        )
                    ],
                )
                for each in deltas
            ],
            change=lie,
        )

    def id_of(self, kind: ObjectType, data: bytes) -> bytes:
        """Return the id that an object of these bytes has."""
        return self._hasher.id(kind, data)

    def stored_record(self, kind: ObjectType, data: bytes, **changes: Any) -> str:
        """Write a pack of one honest record, spoiled by setting attributes of its row."""
        codec, payload = Compressor(3).encode(data)
        objects = [(self.id_of(kind, data), len(data), int(kind))]

        def change(rows: list[RecordRow]) -> None:
            for name, value in changes.items():
                setattr(rows[0], name, value)

        where = DATA if kind == ObjectType.CHUNK else METADATA
        return self.write_pack(
            [(bytes(payload), len(data), codec, objects)], kind=where, change=change
        )

    def close(self) -> None:
        """Release the repository."""
        self._writer.abandon()
        self._objects.close()


def number(value: int) -> bytes:
    """Return a number as it stands in the body of a delta (docs/format.md §4)."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def body(*instructions: int, literals: bytes = b"") -> bytes:
    """Return the body of a delta: L, C, D, L, C, D … and then literals."""
    packed = b"".join(map(number, instructions))
    return number(len(packed)) + packed + literals


def counted(size: int, count: int) -> bytes:
    """Return a chunk that differs from others of its size in its first eight bytes alone."""
    return count.to_bytes(8, "big") + bytes(size - 8)


def step(size: int, count: int) -> bytes:
    """Return the body that makes such a chunk from any other."""
    return body(8, size - 8, 16, literals=count.to_bytes(8, "big"))


class Delta(NamedTuple):
    """A delta to be written: what it claims to be, how, and what it claims to stand on."""

    data: bytes  # of which it has the id
    body: bytes
    bases: list[bytes]
    depth: int = 1
    codec: int = 2
    lineage: int = 1
    raw_size: int | None = None


class _LyingPack(PackWriter):
    change: Callable[[list[RecordRow]], object]
    body: bytes | None

    def _footer(self) -> bytes:
        encode_rows = packs._encode_rows

        def lie(rows: list[RecordRow]) -> bytes:
            if self.body is not None:
                return self.body
            copies = [msgspec.structs.replace(each) for each in rows]
            self.change(copies)
            return encode_rows(copies)

        packs._encode_rows = lie
        try:
            return super()._footer()
        finally:
            packs._encode_rows = encode_rows


def new_repository(location: Path) -> Path:
    """Create a repository to attack."""
    packstone.init(location).close()
    return location


def pack_path(location: Path, pack_id: str) -> Path:
    """Return where a pack is."""
    return location / pack_name(pack_id)


# -- in a child process ---------------------------------------------------------------------


def run_limited(verb: str, location: str, target: str, out: str) -> None:
    """Do one thing with a repository under limits of time and memory; write what it said."""
    idle = _size("VmRSS")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (2, 4))
    address_space = _size("VmSize") + (640 << 20)  # the index maps 64 MiB, threads have stacks
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    said: dict[str, Any] = {"family": True, "error": "", "errors": [], "warnings": [], "files": 0}
    try:
        with packstone.open(location, threads=2) as repository:
            _do(verb, repository, target, said)
            said["warnings"] = list(repository.warnings)
    except packstone.PackstoneError as error:
        said["error"] = f"{type(error).__name__}: {error}"
    except BaseException as error:
        said["error"] = f"{type(error).__name__}: {error}"
        said["family"] = False
    said["peak"] = _size("VmHWM") - idle
    Path(out).write_text(json.dumps(said))


def _do(verb: str, repository: packstone.Repository, target: str, said: dict[str, Any]) -> None:
    if verb == "restore":
        result = repository.restore("latest", target)
        said["errors"] = [os.fsdecode(problem.path) for problem in result.errors]
        said["files"] = result.files_restored
    elif verb == "check":
        said["errors"] = [finding.message for finding in repository.check(read_data=True).errors]
    elif verb == "quick check":
        said["errors"] = [finding.message for finding in repository.check().errors]
    elif verb == "open":
        with repository.open_file("latest", "evil") as file:
            file.read()
    else:
        said["files"] = sum(1 for _ in repository.ls("latest", recursive=True))


def _size(field: str) -> int:
    """Return a size from /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise AssertionError(field)
