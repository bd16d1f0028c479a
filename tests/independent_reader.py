"""Restore a snapshot with nothing but docs/format.md: a second reader, without an index.

Use: PACKSTONE_PASSPHRASE=… python tests/independent_reader.py REPOSITORY SNAPSHOT-ID TARGET
Never here: imports of the package, writing, speed, partial restores, paths above PATH_MAX.
Invariant: every byte it restores was hashed and compared with the id that named it.
"""

import base64
import functools
import os
import re
import stat
import struct
import sys
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

CHUNK, TREE, LIST, MIB, HEX = 1, 2, 3, 1 << 20, "[0-9a-f]" * 64
ID_KEYS = ["", "id chunk", "id tree", "id chunk list"]  # §2, by type of the object
Row = tuple[int, int, int, int, bytes, bytes, list[bytes], int, int]  # §4: a record in a footer
EntryRow = tuple[bytes, int, int, int, int, int, int, int, Any, dict[str, Any] | None]  # §6
NUMBER = re.compile(rb"[\x80-\xff]{0,4}[\0-\x7f]")  # §4, in a delta
SLOT_KEYS = "kdf time memory lanes salt check wrapped created_ns role label"  # §11


def need(value: Any, message: str) -> Any:
    if not value:
        raise ValueError(message)
    return value


def first_good(attempt: Any, ways: Any) -> Any:  # what is refused on all ways, is None
    for way in ways:
        try:
            return attempt(*way)
        except Exception as error:  # of whichever library, it is refused
            print(f"{way[0]}: {error!r}", file=sys.stderr)
    return None


def unpack(data: bytes, shape: Any = Any) -> Any:
    value = msgspec.msgpack.decode(data, type=shape)
    return need(msgspec.msgpack.encode(value) == data, "MessagePack is not canonical") and value


def derive(context: str, material: bytes) -> bytes:
    return blake3(material, derive_key_context=f"packstone v1 {context}").digest()


def unseal(key: bytes, data: bytes, about: bytes, number: int | None = None) -> bytes:
    data = AESGCM(key).decrypt((number or 0).to_bytes(12, "little"), data, about)
    end = 4 + int.from_bytes(data[:4], "little")
    step = 1 << (exponent := end.bit_length() - 1) - exponent.bit_length()
    sound = number is not None or (len(data) == -(-end // step) * step and not any(data[end:]))
    return need(sound, "padding") and data if number is not None else data[4:end]


def open_envelope(data: bytes, kind: int, owner: bytes, sealing: bytes | None) -> Any:  # §3
    need(len(data) <= 96 + 16 * MIB and blake3(data[:-32]).digest() == data[-32:], "checksum")
    mode = 0 if sealing is None or kind == 6 else 2 if kind in (1, 4) else 1
    start = struct.pack("<8sHBBI16s", b"PKSTNOBJ", 1, kind, mode, len(data) - 96, owner)
    need(data[:32] == start, f"unsupported, or not an envelope of this kind: {data[:32]}")
    head, field = data[:64], data[64:-32]
    if mode == 1:
        field = unseal(derive("object key", sealing + head[32:]), field, head)
    elif mode == 2:
        key, field, tag = derive("object authentication", sealing), field[:-32], field[-32:]
        need(blake3(head + field, key=key).digest() == tag, "not authentic")
    return unpack(field)


def passphrase_bytes(given: bytes) -> bytes:
    try:
        text = unicodedata.normalize("NFC", given.decode())
    except UnicodeDecodeError:
        return given
    key = "".join(text.split()).upper().translate(str.maketrans("018", "OIB", "-"))
    fits = base64.b32encode(blake3(key[:32].encode()).digest())[:4].decode() == key[32:]
    return (key if fits and not key.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") else text).encode()


def expand(data: bytes, codec: int, raw_size: int, text: bytes) -> bytes:  # a record (§4)
    if codec & 1:
        frame = zstandard.get_frame_parameters(data)
        need(frame.content_size <= raw_size and frame.window_size <= 64 * MIB, "frame")
        data = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    if codec < 2:
        return data
    at, end, copied, made = 0, len(data), 0, b""  # a delta; text is that of its bases

    def number() -> int:
        nonlocal at
        found = need(NUMBER.match(data, at, end), "number")
        at = found.end()
        return sum((byte & 127) << 7 * place for place, byte in enumerate(found[0]))

    rest = end = number() + at  # of the instructions; the rest are literals
    while len(made) < raw_size:
        rest += (size := number())
        made += data[rest - size : rest]
        if len(made) < raw_size:
            size, shift = number(), number()
            copied += (shift >> 1 ^ -(shift & 1)) + size
            need(0 < size <= copied <= len(text), "copy of what is in no base")
            made += text[copied - size : copied]
    need(at == end and rest == len(data) <= raw_size == len(made), "delta of another size")
    return made


class Reader:  # of one repository: where every object lies according to the footers
    def __init__(self, root: str) -> None:
        self.read = functools.lru_cache(4)(lambda name: Path(root, name).read_bytes())
        self.slots = [[f"keys/{path.name}"] for path in Path(root, "keys").glob(HEX)]
        need(first_good(self.config, [["config"], ["config.bak"]]), "no config")
        for name in os.listdir(f"{root}/features"):  # §8
            payload = open_envelope(self.read(f"features/{name}"), 4, self.owner, self.sealing)
            need(payload["need"] != "read" or name == "delta", f"unsupported: feature {name}")
        self.places: dict[tuple[int, bytes], list[tuple[Any, ...]]] = {}  # of an object
        for path in Path(root, "packs").glob("[0-9a-f][0-9a-f]/" + HEX):
            pack, last = str(path.relative_to(root)), path.stat().st_size - 64
            first_good(self.learn, [(pack, 0, 128), (pack, last, 64)])

    def config(self, name: str) -> bool:
        data, secrets = self.read(name), derive("plain family", b"")
        self.owner = data[16:32]
        if data[11:12] != b"\0":  # without a sealing secret it is plain
            secrets = need(first_good(self.unlock, self.slots), "no slot opens with the passphrase")
        self.family, self.sealing = secrets[:32], secrets[32:] or None
        stated = open_envelope(data, 1, self.owner, self.sealing)["family"]
        return need(stated == derive("family fingerprint", self.family), "of another family")

    def unlock(self, name: str) -> bytes:  # to the family and the sealing secret (§11)
        given = passphrase_bytes(os.environb.get(b"PACKSTONE_PASSPHRASE", b""))
        need(name[5:] == blake3(self.read(name)).hexdigest(), "slot does not match its name")
        slot = open_envelope(self.read(name), 6, self.owner, None)
        need(" ".join(slot) == SLOT_KEYS, "slot with other keys")
        kdf, time, memory, lanes, salt, *rest = slot.values()
        need((kdf, *map(len, [salt, *rest[:2]])) == ("argon2id", 32, 32, 80), "slot kind")
        need(1 <= time <= 32 and 1 <= lanes <= 64 and 8 * lanes <= memory <= MIB, "Argon2")
        argon2 = Argon2id(salt=salt, length=64, iterations=time, lanes=lanes, memory_cost=memory)
        key, (check, wrapped, *about) = argon2.derive(given), rest
        about = b"packstone v1 key slot" + self.owner + msgspec.msgpack.encode(about)
        need(key[32:] == check, "another passphrase")
        return AESGCMSIV(key[:32]).decrypt(bytes(12), wrapped, about)

    def learn(self, pack: str, start: int, size: int) -> None:  # by way of header or trailer (§4)
        part = (whole := self.read(pack))[start : start + size]
        need(blake3(part[:-32]).digest() == part[-32:], "checksum of header or trailer")
        offset, size = struct.unpack_from("<QQ", part, 64 if start == 0 else 8)
        data = whole[offset : offset + size]
        need(size <= 256 * MIB + 96 and blake3(data[:-32]).digest() == data[-32:], "footer")
        head, body, mode = data[:64], data[64:-32], 0 if self.sealing is None else 1
        need(head[:32] == b"PKSTFOOT" + struct.pack("<II", size - 96, 0) + self.owner, "footer")
        starts = [b"PKSTPACK" + bytes((1, 0, k, mode)) + bytes(4) + head[16:] for k in range(3)]
        if self.sealing is not None:
            body = unseal(derive("footer key", self.sealing + head[32:]), body, starts[0] + head)
        rows, end = unpack(body, list[Row]), 128
        types = {type_ for row in rows for _, _, type_ in struct.iter_unpack("<32sIB", row[4])}
        prefix = starts[1 if types == {CHUNK} else 2]
        need(types == {CHUNK} or types <= {TREE, LIST}, "types that are no pack's")
        ways = [prefix + struct.pack("<QQ16x", offset, size)]
        ways += [struct.pack("<8sQQQ", b"PKSTTAIL", offset, size, len(whole))]
        need(part[:-32] == ways[start > 0], "unsupported, or of another pack")
        for number, row in enumerate(rows):
            begin, stored_size, raw_size, codec, objects, keys, bases, depth, _ = row
            need(codec < 16 and 0 <= depth <= 64 and len(bases) <= 3, "codec, depth or bases")
            need((depth > 0) == bool(bases) and (codec > 3 or bool(bases) == (codec > 1)), "bases")
            need(codec not in (2, 3) or (types, len(objects)) == ({CHUNK}, 37), "delta of no chunk")
            need(begin >= end and stored_size >= 0, "records overlap or are out of order")
            need(0 < len(objects) <= 37 * 65536 and len(keys) in (0, 16), "impossible record")
            end, at = begin + stored_size, 0
            for object_id, size, type_ in struct.iter_unpack("<32sIB", objects):
                place = pack, prefix, number, row, at, size
                self.places.setdefault((type_, object_id), []).append(place)
                at += size
            need(at == raw_size <= 64 * MIB, "sizes do not add up")

    def load(self, type_: int, object_id: bytes, limit: int = 65, under: Any = None) -> bytes:
        def get(pack: str, prefix: bytes, number: int, row: Any, at: int, size: int) -> bytes:
            offset, stored_size, raw_size, codec, _, _, bases, depth, _ = row
            data = self.read(pack)[offset : offset + stored_size]
            if self.sealing is not None:
                about = prefix + struct.pack("<QIIB", number, raw_size, stored_size, codec)
                data = unseal(derive("record key", self.sealing + prefix[32:]), data, about, number)
            below: dict[bytes, int] = {} if under is None else under  # what it stands on (§4)
            need(depth < limit and codec < 4, f"depth {depth}, or unsupported codec {codec}")
            text = b"".join([self.load(CHUNK, each, depth, below) for each in bases])
            need(sum(below.values()) <= 128 * MIB, "it stands on too much")
            data, below[object_id] = expand(data, codec, raw_size, text), raw_size
            need(len(data) == raw_size, "record of another size")
            key, data = derive(ID_KEYS[type_], self.family), data[at : at + size]
            return need(blake3(data, key=key).digest() == object_id, "another hash") and data

        found = first_good(get, self.places.get((type_, object_id), ()))
        return need(found, f"object {object_id.hex()} of type {type_} is missing")

    def entries(self, page_id: bytes, level: int | None = None) -> Any:  # of a directory (§6)
        found, rows = unpack(self.load(TREE, page_id), tuple[int, list[Any]])
        need(0 <= found <= 8 and level in (None, found), f"tree page of level {found}")
        yield from msgspec.convert(rows, list[EntryRow]) if found == 0 else ()
        for first, child, count in rows if found else ():
            below = list(self.entries(child, found - 1))
            need(len(below) == count and below[0][0] == first, "page is not what it is called")
            yield from below

    def pieces(self, size: int, content: Any, level: int | None = None) -> Any:  # hole, chunk (§6)
        if isinstance(content, bytes):
            content = [0, content, [size] if content else []]
        found, ids, sizes = msgspec.convert(content, tuple[int, bytes, list[int]])
        need(0 <= found <= 8 and level in (None, found), f"chunk-list page of level {found}")
        need(all(sizes) and (found == 0 or min(sizes, default=1) > 0), "size in a chunk list")
        wanted = size, 32 * sum(each > 0 for each in sizes)
        need((sum(map(abs, sizes)), len(ids)) == wanted, "sizes or ids of a chunk list")
        each = iter([ids[at : at + 32] for at in range(0, len(ids), 32)])
        for n in sizes:
            data = self.load(LIST if found else CHUNK, next(each)) if n > 0 else b""
            need(found or len(data) == max(n, 0), "chunk of another size")
            yield from self.pieces(n, unpack(data), found - 1) if found else [(max(-n, 0), data)]

    def restore(self, snapshot_id: str, target: bytes) -> None:  # all of it, into a new directory
        data = self.read("snapshots/" + snapshot_id)
        need(blake3(data).hexdigest() == snapshot_id, "snapshot does not match its name")
        waiting = [(target, open_envelope(data, 3, self.owner, self.sealing)["tree"])]
        os.mkdir(target, 0o700)  # new: there are no links of others in it to follow
        links, made = [], dict[bytes, EntryRow]()  # made: in that order
        for directory, page_id in waiting:  # which grows
            last = b""
            for entry in self.entries(page_id):
                name, mode, content, extras = entry[0], entry[1], entry[8], entry[9] or {}
                need(last < name not in (b".", b"..") and not {*b"/\0"} & {*name}, f"name {name!r}")
                last, path, unread = name, directory + b"/" + name, extras.get("flags", 0) & 2
                first = target + b"/" + extras["link"] if "link" in extras else path
                if stat.S_ISDIR(mode):
                    os.mkdir(path, 0o700)
                    waiting += [] if unread else [(path, content)]
                elif unread or stat.S_ISSOCK(mode) or first != path:
                    links += [] if first == path else [(first, path)]
                    continue
                elif stat.S_ISLNK(mode):
                    os.symlink(content, path)
                elif stat.S_ISREG(mode):
                    with open(path, "xb") as file:
                        for hole, chunk in self.pieces(entry[4], content):
                            file.seek(hole, os.SEEK_CUR)
                            file.write(chunk)
                        file.truncate()
                else:
                    os.mknod(path, stat.S_IFMT(mode), os.makedev(*content) if content else 0)
                made[path] = entry
        for first, path in links:
            need(first in made, f"{path!r} is a link to what is not there")
            os.link(first, path, follow_symlinks=False)
        for path, entry in reversed(made.items()):  # directories after what came into them
            os.chown(path, *(entry[2:4] if os.geteuid() == 0 else (-1, -1)), follow_symlinks=False)
            if not stat.S_ISLNK(entry[1]):
                os.chmod(path, stat.S_IMODE(entry[1]))  # after chown, which clears setuid
            for name, value in (entry[9] or {}).get("xattrs", ()):
                os.setxattr(path, name, value, follow_symlinks=False)
            os.utime(path, ns=(entry[5], entry[5]), follow_symlinks=False)


if __name__ == "__main__":
    Reader(sys.argv[1]).restore(sys.argv[2], os.fsencode(sys.argv[3]))
