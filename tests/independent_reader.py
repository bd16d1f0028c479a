"""Restore a snapshot with nothing but docs/format.md.

Lives here: a second reader of the format, version 1, that imports nothing of the package and knows
no index. Never here: writing to a repository, speed, partial restores, paths above PATH_MAX.
Invariant: every byte it restores was hashed and compared with the id that named it.
Use: python tests/independent_reader.py REPOSITORY SNAPSHOT-ID TARGET
"""

from __future__ import annotations

import functools
import os
import re
import stat
import struct
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import zstandard
from blake3 import blake3

CHUNK, TREE, LIST, MIB = 1, 2, 3, 1 << 20
Row = tuple[int, int, int, int, bytes, bytes, list[bytes], int, int]  # §4: a record in a footer
EntryRow = tuple[bytes, int, int, int, int, int, int, int, Any, dict[str, Any] | None]  # §6
ListPage = tuple[int, bytes, list[int]]


class Refused(Exception):
    """Something is not exactly what docs/format.md says."""


def need(condition: object, message: str) -> None:
    if not condition:
        raise Refused(message)


def unpack(data: bytes, shape: Any = Any) -> Any:
    value = msgspec.msgpack.decode(data, type=shape)
    need(msgspec.msgpack.encode(value) == data, "MessagePack is not canonical")
    return value


def derive(context: str, material: bytes) -> bytes:
    return blake3(material, derive_key_context=f"packstone v1 {context}").digest()


DAMAGE = (Refused, msgspec.MsgspecError, zstandard.ZstdError, struct.error)
FAMILY = derive("plain family", b"")  # §2
ID_KEYS = [b"", *(derive(f"id {name}", FAMILY) for name in ("chunk", "tree", "chunk list"))]


def open_envelope(data: bytes, kind: int, repository_id: bytes | None) -> tuple[bytes, Any]:
    """Return repository id and payload of a small object (§3)."""
    need(96 <= len(data) <= 96 + 16 * MIB and data[:8] == b"PKSTNOBJ", "not an envelope")
    version, found, mode, size = struct.unpack_from("<HBBI", data, 8)
    need(version == 1 and mode == 0, f"unsupported: envelope version {version}, mode {mode}")
    need(len(data) == 96 + size and found == kind, "envelope of another length or kind")
    need(repository_id in (None, data[16:32]), "envelope of another repository")
    need(blake3(data[:-32]).digest() == data[-32:], "envelope does not match its checksum")
    return data[16:32], unpack(data[64:-32])


class Reader:  # of one repository: where every object lies according to the footers
    def __init__(self, root: str) -> None:
        self.root = root
        try:
            self.repository_id, config = open_envelope(self.read("config"), 1, None)
        except (*DAMAGE, FileNotFoundError) as error:
            print(f"config: {error}; config.bak is used", file=sys.stderr)
            self.repository_id, config = open_envelope(self.read("config.bak"), 1, None)
        need(config["family"] == derive("family fingerprint", FAMILY), "not the plain family")
        for name in os.listdir(f"{root}/features"):  # §8
            payload = open_envelope(self.read(f"features/{name}"), 4, self.repository_id)[1]
            need(payload["need"] in ("write", "ignore"), f"unsupported: feature {name}")
        self.places: dict[tuple[int, bytes], list[tuple[str, Row, int, int]]] = {}
        for folder in [f"packs/{first:02x}" for first in range(256)]:
            for name in os.listdir(f"{root}/{folder}"):
                if re.fullmatch("[0-9a-f]{64}", name):
                    self._learn(f"{folder}/{name}")
        self.decode = functools.lru_cache(32)(self._decode)

    def read(self, name: str, offset: int = 0, size: int = -1) -> bytes:
        with open(f"{self.root}/{name}", "rb") as file:
            file.seek(offset)
            return file.read(size)

    def _learn(self, pack: str) -> None:
        """Note the places of a pack's objects, from whichever footer can be read (§4)."""
        for find in (self._header, self._trailer):
            try:
                kind, *where = find(pack)
                rows = self._footer(pack, *where)
            except DAMAGE as error:
                print(f"{pack}: {error}", file=sys.stderr)
                continue
            for row in rows:
                begin = 0
                for object_id, size, type_ in struct.iter_unpack("<32sIB", row[4]):
                    need(kind in (None, 1 if type_ == CHUNK else 2), "type in a wrong pack")
                    self.places.setdefault((type_, object_id), []).append((pack, row, begin, size))
                    begin += size
            return

    def _header(self, pack: str) -> tuple[Any, ...]:
        data = self.read(pack, 0, 128)
        need(data[:8] == b"PKSTPACK" and blake3(data[:96]).digest() == data[96:], "bad header")
        version, kind, mode, zero = struct.unpack_from("<HBBI", data, 8)
        need((version, mode) == (1, 0), f"unsupported: pack version {version}, mode {mode}")
        need(kind in (1, 2) and zero == 0 and not any(data[80:96]), "impossible header")
        return kind, *struct.unpack_from("<QQ", data, 64), data[32:64]

    def _trailer(self, pack: str) -> tuple[Any, ...]:
        whole = os.stat(f"{self.root}/{pack}").st_size
        data = self.read(pack, max(whole - 64, 0))
        need(data[:8] == b"PKSTTAIL" and blake3(data[:32]).digest() == data[32:], "bad trailer")
        offset, size, stated = struct.unpack_from("<QQQ", data, 8)
        need(stated == whole, f"pack has {whole} bytes, not {stated}")
        return None, offset, size, None  # only the header states kind and salt

    def _footer(self, pack: str, offset: int, size: int, salt: bytes | None) -> list[Row]:
        need(96 <= size <= 256 * MIB + 96, "footer of an impossible size")
        data = self.read(pack, offset, size)
        need(data[:8] == b"PKSTFOOT" and blake3(data[:-32]).digest() == data[-32:], "bad footer")
        need(struct.unpack_from("<II", data, 8) == (size - 96, 0), "footer of another size")
        need(data[16:32] == self.repository_id, "pack of another repository")
        need(salt in (None, data[32:64]), "footer of another pack")
        rows: list[Row] = unpack(data[64:-32], list[Row])
        end = 128
        for begin, stored_size, raw_size, codec, objects, keys, bases, depth, lineage in rows:
            need(codec in (0, 1) and not (bases or depth or lineage), f"unsupported codec {codec}")
            need(begin >= end and stored_size >= 0, "records overlap or are out of order")
            need(0 < len(objects) <= 37 * 65536 and len(keys) in (0, 16), "impossible record")
            sizes = sum(row[1] for row in struct.iter_unpack("<32sIB", objects))
            need(sizes == raw_size <= 64 * MIB, "sizes do not add up")
            end = begin + stored_size
        return rows

    def _decode(self, pack: str, offset: int, size: int, raw_size: int, codec: int) -> bytes:
        data = self.read(pack, offset, size)
        if codec == 1:
            frame = zstandard.get_frame_parameters(data)
            need(frame.content_size == raw_size and not frame.dict_id, "frame of another size")
            need(frame.window_size <= 64 * MIB, "window above the limit")
            data = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
        need(len(data) == raw_size, "record of another size")
        return data

    def load(self, type_: int, object_id: bytes) -> bytes:
        """Return an object; every place is as good as any other (§4), if the hash says so (§2)."""
        for pack, row, begin, size in self.places.get((type_, object_id), ()):
            try:
                data = self.decode(pack, *row[:4])[begin : begin + size]
                need(blake3(data, key=ID_KEYS[type_]).digest() == object_id, "another hash")
                return data
            except DAMAGE as error:
                print(f"{pack} at {row[0]}: {error}", file=sys.stderr)
        raise Refused(f"object {object_id.hex()} of type {type_} is missing")

    def entries(self, page_id: bytes, level: int | None = None) -> Iterator[EntryRow]:
        """Yield the entries of a directory, ascending (§6)."""
        found, rows = unpack(self.load(TREE, page_id), tuple[int, list[Any]])
        need(0 <= found <= 8 and level in (None, found), f"tree page of level {found}")
        yield from msgspec.convert(rows, list[EntryRow]) if found == 0 else ()
        for first, child, count in rows if found else ():
            below = list(self.entries(child, found - 1))
            need(len(below) == count and below[0][0] == first, "page is not what it is called")
            yield from below

    def pieces(self, level: int, ids: bytes, sizes: list[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (size, chunk) in order; a hole has no bytes (§6)."""
        need(0 <= level <= 8 and len(ids) == 32 * sum(s > 0 for s in sizes), "chunk list")
        need(all(sizes) and (level == 0 or min(sizes, default=1) > 0), "size in a chunk list")
        each = iter([ids[at : at + 32] for at in range(0, len(ids), 32)])
        for size in sizes:
            if size < 0:
                yield -size, b""
            elif level:
                page = unpack(self.load(LIST, next(each)), ListPage)
                need(page[0] == level - 1 and sum(map(abs, page[2])) == size, "chunk-list page")
                yield from self.pieces(*page)
            else:
                chunk = self.load(CHUNK, next(each))
                need(len(chunk) == size, "chunk of another size")
                yield size, chunk

    def restore(self, snapshot_id: str, target: bytes) -> None:
        """Restore a whole snapshot into a directory that must not exist yet."""
        data = self.read("snapshots/" + snapshot_id)
        need(blake3(data).hexdigest() == snapshot_id, "snapshot does not match its name")
        waiting = [(target, open_envelope(data, 3, self.repository_id)[1]["tree"])]
        os.mkdir(target, 0o700)  # new: there are no links of others in it to follow
        links, made = [], dict[bytes, EntryRow]()  # made: in that order
        while waiting:
            directory, page_id = waiting.pop()
            last = b""
            for entry in self.entries(page_id):
                name, mode, content, extras = entry[0], entry[1], entry[8], entry[9] or {}
                need(last < name not in (b".", b"..") and len(name) < 256, "name refused")
                need(b"/" not in name and b"\0" not in name, "name refused")
                last, path, unread = name, directory + b"/" + name, extras.get("flags", 0) & 2
                first = target + b"/" + extras["link"] if "link" in extras else path
                if stat.S_ISDIR(mode):
                    os.mkdir(path, 0o700)
                    made[path] = entry
                    waiting += [] if unread else [(path, content)]
                elif unread or stat.S_ISSOCK(mode):
                    print(f"{path!r}: nothing to restore", file=sys.stderr)
                elif first != path:
                    links.append((first, path))
                else:
                    self._create(path, mode, entry[4], content)
                    made[path] = entry
        for first, path in links:
            need(first in made, f"{path!r} is a link to what is not there")
            os.link(first, path, follow_symlinks=False)
        for path, entry in reversed(made.items()):  # directories after what came into them
            self._attributes(path, entry)

    def _create(self, path: bytes, mode: int, size: int, content: Any) -> None:
        if stat.S_ISLNK(mode):
            return os.symlink(content, path)
        if not stat.S_ISREG(mode):
            return os.mknod(path, stat.S_IFMT(mode), os.makedev(*content) if content else 0)
        if isinstance(content, bytes):
            content = [0, content, [size] if content else []]
        at = 0
        with open(path, "xb") as file:
            for piece_size, chunk in self.pieces(*msgspec.convert(content, ListPage)):
                os.pwrite(file.fileno(), chunk, at)
                at += piece_size
            file.truncate(size)
        return need(at == size, f"{path!r} has {at} bytes, not {size}")

    def _attributes(self, path: bytes, entry: EntryRow) -> None:
        if os.geteuid() == 0:
            os.chown(path, entry[2], entry[3], follow_symlinks=False)
        if not stat.S_ISLNK(entry[1]):
            os.chmod(path, stat.S_IMODE(entry[1]))  # after chown, which clears setuid
        for name, value in (entry[9] or {}).get("xattrs", ()):
            os.setxattr(path, name, value, follow_symlinks=False)
        os.utime(path, ns=(entry[5], entry[5]), follow_symlinks=False)


if __name__ == "__main__":
    try:
        Reader(sys.argv[1]).restore(sys.argv[2], os.fsencode(sys.argv[3]))
    except DAMAGE as error:
        sys.exit(f"refused: {error}")
