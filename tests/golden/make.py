"""Make the golden repository: every feature of the format in less than 100 KB.

Deterministic: entries are made up and not read from a disk, the clock stands still, randomness
is seeded, one thread. What stands in git was made once, by the first release of the format;
it is never made again, because it says what old repositories look like.

    python tests/golden/make.py DIRECTORY     writes DIRECTORY/plain-v1.tar.gz and plain-v1.json
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from random import Random
from stat import S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFREG, S_IFSOCK
from typing import Any

import zstandard

from packstone.chunking.chunker import Chunker, ChunkerParams
from packstone.model import Entry, Extras, Flag, ObjectType, Snapshot
from packstone.repository import packs
from packstone.repository import repository as objects
from packstone.repository.contents import ContentWriter
from packstone.repository.trees import DirectoryWriter
from packstone.repository.writer import ObjectWriter

HERE = Path(__file__).parent
NAME = "plain-v1"
NOW = 1_700_000_000_123_456_789
OWNER, GROUP = 1000, 100

# What libzstd makes of the same bytes may change from version to version; ids never do.
ZSTD_VERSION = ".".join(map(str, zstandard.ZSTD_VERSION))


class Session:
    """One writing session, and the entries it makes."""

    def __init__(self, repository: objects.ObjectRepository) -> None:
        self.repository = repository
        self.writer: ObjectWriter = repository.writer()
        params = ChunkerParams(repository.config.average, repository.hasher.cutting_secret)
        self.chunker = Chunker(params)
        self.digests: dict[str, str] = {}  # name (Latin-1) → SHA-256 of a file's content

    def chunk(self, data: bytes) -> bytes:
        """Store one chunk unless it is there, and return its id."""
        chunk_id = self.repository.hasher.id(ObjectType.CHUNK, data)
        if self.writer.reserve([chunk_id])[0]:
            first, last = self.chunker.keys(data, (0, len(data)), 0, len(data))
            self.writer.put_chunk(chunk_id, data, (first, last))
        return chunk_id

    def content(self, rows: list[bytes | int]) -> tuple[int, Any]:
        """Store rows, bytes for a chunk and a number for a hole; return (size, content)."""
        content = ContentWriter(self.writer.put)
        for row in rows:
            if isinstance(row, int):
                content.add_hole(row)
            else:
                content.add(self.chunk(row), len(row))
        return content.size, content.finish()

    def cut(self, data: bytes) -> list[bytes | int]:
        ends = self.chunker.cut(data, 0, len(data), True)
        return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]

    def file(
        self, name: bytes, rows: list[bytes | int], *, mode: int = 0o644, **more: Any
    ) -> Entry:
        size, content = self.content(rows)
        hasher = hashlib.sha256()
        for row in rows:
            hasher.update(bytes(row) if isinstance(row, int) else row)
        self.digests[name.decode("latin-1")] = hasher.hexdigest()
        return entry(name, S_IFREG | mode, content, size=size, **more)

    def directory(self, name: bytes, entries: list[Entry], **more: Any) -> Entry:
        return entry(name, S_IFDIR | 0o755, self.tree(entries), **more)

    def tree(self, entries: list[Entry]) -> bytes:
        writer = DirectoryWriter(self.writer.put)
        writer.extend(sorted(entries, key=lambda each: each.name))
        return writer.finish()


def entry(
    name: bytes,
    mode: int,
    content: Any,
    *,
    size: int = 0,
    mtime_ns: int = NOW,
    uid: int = OWNER,
    **extras: Any,
) -> Entry:
    number = zlib.crc32(name)
    more = Extras(**extras) if extras else None
    return Entry(name, mode, uid, GROUP, size, mtime_ns, NOW + number, number, content, more)


def first_tree(session: Session, rng: Random) -> bytes:
    """Everything that can be restored by anybody."""
    closing = chunk_that_ends_a_page(session)
    files = [
        session.file(b"empty", []),
        session.file(b"small", [b"small\n"], mode=0o600, xattrs=[(b"user.note", b"\0\xff")]),
        session.file(b"text", session.cut(b"INSERT INTO contacts VALUES (1, 'Ada');\n" * 900)),
        session.file(b"noise", session.cut(rng.randbytes(9_000))),
        session.file(b"large chunk", [rng.randbytes(400) + bytes(16_384)]),
        session.file(b"sparse", [8192, b"between holes" * 10, 1 << 20]),
        session.file(b"only a hole", [65_536]),
        # 34 pages of 128 rows: a list of three levels
        session.file(b"long list", ([rng.randbytes(9)] * 127 + [closing]) * 34 + [4096]),
        session.file(b"linked", [b"linked\n"], link=b"golden/linked", mode=0o4755),
        session.file(b"other name", [b"linked\n"], link=b"golden/linked", mode=0o4755),
        session.file(b"before 1970", [b"old"], mtime_ns=-1_234_567_891),
        session.file(b"new\nline \xff", [b"name"]),
        session.file(b"n" * 255, [b"long name"]),
        entry(b"symlink", S_IFLNK | 0o777, b"../\xfftarget"),
        entry(b"fifo", S_IFIFO | 0o620, None),
        session.directory(b"bare", [], xattrs=[(b"user.a", b""), (b"user.b", b"2")]),
        session.directory(b"pages", page_entries(session)),
    ]
    return session.tree([session.directory(b"golden", files)])


def second_tree(session: Session, rng: Random) -> bytes:
    """Less, in a pack whose first footer has records before it."""
    # Held back is 1 MiB; a golden repository that small needs less to show both parts.
    held, packs._HELD_BACK = packs._HELD_BACK, 5000
    try:
        files = [
            session.file(b"small", [b"small\n"]),
            session.file(b"dump", [rng.randbytes(16_500), rng.randbytes(16_600)]),
        ]
        # An object may be in several packs, and twice in one.
        again = (session.chunk(b"small\n"), ObjectType.CHUNK, b"small\n")
        session.writer.put_small(packs.DATA, [again, again])
        tree = session.tree(files)
        session.writer.finish()
    finally:
        packs._HELD_BACK = held
    return tree


def third_tree(session: Session) -> bytes:
    """What only root can restore, or nobody."""
    unreadable = {"flags": int(Flag.UNREADABLE)}
    return session.tree(
        [
            entry(b"null", S_IFCHR | 0o666, [1, 3], uid=0),
            entry(b"disk", S_IFBLK | 0o600, [259, 70_000], uid=0),
            entry(b"socket", S_IFSOCK | 0o755, None),
            entry(b"unreadable", S_IFREG | 0o600, None, size=77, **unreadable),
            entry(b"closed", S_IFDIR | 0o700, None, **unreadable),
            session.file(b"changed", [b"while read"], flags=int(Flag.CHANGED)),
        ]
    )


def chunk_that_ends_a_page(session: Session) -> bytes:
    """Find a chunk after which a chunk-list page of enough rows ends, on levels 0 and 1."""
    number = 0
    while True:
        data = b"end %d" % number
        chunk_id = session.repository.hasher.id(ObjectType.CHUNK, data)
        if not chunk_id[0] and not chunk_id[8] & 3:
            return data
        number += 1


def page_entries(session: Session) -> list[Entry]:
    """Entries of a directory that takes two pages."""
    names = [b"%03d" % number for number in range(40)]
    names += [
        next(name for name in map(b"040-%d".__mod__, range(9999)) if not zlib.crc32(name) & 255)
    ]
    names += [b"%03d" % number for number in range(41, 60)]
    return [session.file(name, [b"page " + name]) for name in names]


def make(directory: Path) -> dict[str, Any]:
    """Make the repository in `directory/NAME` and return what it must be found to hold."""
    rng = Random("packstone golden 1")
    location = str(directory / NAME)
    objects.init(
        location, average=4096, pack_size=1 << 20, level=3, clock=lambda: NOW, random=rng.randbytes
    )
    ids, digests = [], {}
    repository = objects.ObjectRepository(
        location, index_dir=str(directory / "index"), random=rng.randbytes
    )
    try:
        session = Session(repository)
        first = Snapshot(
            time_ns=NOW,
            host="golden",
            paths=[b"/golden"],
            tree=first_tree(session, rng),
            user="ada",
            tags=["nightly", "crm"],
            program="packstone golden",
            excludes=["*.tmp"],
            # names that no host has, so that a restore keeps the numbers
            users={0: "golden-root", OWNER: "golden-ada"},
            groups={GROUP: "golden-users"},
            summary={"files": 70, "started_ns": NOW - 1},
        )
        ids.append(session.writer.commit(first))
        digests[ids[-1]] = session.digests
        session = Session(repository)
        second = Snapshot(
            time_ns=NOW + 1,
            host="golden",
            paths=[b"/dump"],
            tree=second_tree(session, rng),
            name=b"dump",
            parent=bytes.fromhex(ids[0]),
            original_id=bytes(range(32)),
        )
        ids.append(session.writer.commit(second))
        digests[ids[-1]] = session.digests
        session = Session(repository)
        third = Snapshot(time_ns=-NOW, host="", paths=[], tree=third_tree(session))
        ids.append(session.writer.commit(third))
        digests[ids[-1]] = session.digests
    finally:
        repository.close()
    return {
        "zstd": ZSTD_VERSION,
        "repository_id": repository.repository_id.hex(),
        "snapshots": ids,
        "digests": digests,
        "files": {
            path.relative_to(location).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(Path(location).rglob("*"))
            if path.is_file() and path.relative_to(location).parts[0] != "index"
        },
    }


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it; bytes become text where they are text."""
    if isinstance(value, bytes):
        try:
            return value.decode("ascii") if len(value) != 32 else {"hex": value.hex()}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "__struct_fields__"):
        return {field: plain(getattr(value, field)) for field in value.__struct_fields__}
    return value


def pack_up(root: Path) -> bytes:
    """Return the repository as a tar file, without the index, times or owners."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root)
            if name.parts[0] == "index":
                continue
            row = tarfile.TarInfo(name.as_posix())
            row.mode = 0o700 if path.is_dir() else 0o600
            row.type = tarfile.DIRTYPE if path.is_dir() else tarfile.REGTYPE
            data = b"" if path.is_dir() else path.read_bytes()
            row.size = len(data)
            tar.addfile(row, io.BytesIO(data))
    return gzip.compress(inner.getvalue(), 9, mtime=0)


def main(where: Path) -> None:
    """Make the repository somewhere else and leave the archive and its description."""
    import packstone

    with tempfile.TemporaryDirectory() as home:
        expected = make(Path(home))
        root = Path(home) / NAME
        archive = pack_up(root)
        with packstone.open(root) as opened:
            rows = {row.id: row.snapshot for row in opened.snapshots()}
            expected["content"] = {
                each: {
                    "snapshot": plain(rows[each]),
                    "entries": [plain(row) for row in opened.ls(each, recursive=True)],
                }
                for each in expected["snapshots"]
            }
    (where / f"{NAME}.tar.gz").write_bytes(archive)
    text = json.dumps(expected, indent=1, ensure_ascii=True)
    (where / f"{NAME}.json").write_text(text + "\n")
    print(len(archive), "bytes;", len(text), "bytes of JSON")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
