"""Every decoder of stored bytes, and what must be true of whatever it returns (row F1).

A target takes any bytes. It returns, or raises AssertionError where something unsound was let
through; each error but those that a reader of damaged bytes may raise is a finding, and so is
one input that takes seconds or more memory than the limit of the process. Checksums and seals are
made right again where an enemy could do so: behind them is where decoders are alone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import lmdb
import msgspec
from contract.storage_suite import MemoryStorage

from fuzz import seeds
from packstone.codec import keys
from packstone.codec.compression import MAX_RAW_SIZE, Compressor
from packstone.codec.delta import DELTA_CODECS, DeltaCoder, joined
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, check_envelope, mode_of, open_envelope, seal_envelope
from packstone.codec.hashing import checksum
from packstone.errors import (
    Damaged,
    ObjectMissing,
    RepositoryMissing,
    StorageError,
    UnsupportedFormat,
    UsageError,
)  # fmt: skip
from packstone.filesystem.ignore import Filter, Rules
from packstone.model import Entry, ObjectType, Snapshot
from packstone.operations.jobs import memory
from packstone.operations.jobs.config import StrategyInvalid, parse_strategy
from packstone.repository import bundles, cuts, history, keyring, layout, places, rates, view
from packstone.repository.carve import carve
from packstone.repository.contents import decode_list_page, iter_content, iter_range, list_chunks
from packstone.repository.index import Index
from packstone.repository.locks import HOLDERS, holders
from packstone.repository.packs import OBJECT, Pack, PackWriter, read_pack
from packstone.repository.snapshots import read_snapshot
from packstone.repository.trees import (
    check_entry,
    decode_page,
    find_entry,
    iter_entries,
    iter_readable,
    read_page,
)  # fmt: skip
from packstone.storage.local import LocalStorage

ALLOWED = (Damaged, UnsupportedFormat)
ID, SALT = bytes(range(32)), bytes(32)
_PAGES = 200  # that a hostile tree may have fetched before it is told that there are no more


@dataclass(frozen=True)
class Target:
    """A decoder: what it is fed to begin with, and what is done with an input."""

    seeds: Callable[[], list[bytes]]
    run: Callable[[bytes], None]


def nothing(text: str) -> None:
    """Take a warning."""


@cache
def stored(encrypted: bool) -> seeds.Stored:
    return seeds.make(encrypted=encrypted)


def both() -> Sequence[seeds.Stored]:
    return stored(False), stored(True)


def shelf(files: dict[str, bytes]) -> MemoryStorage:
    storage = MemoryStorage("history", "bundles")
    storage.files.update(files)
    return storage


# -- small objects --------------------------------------------------------------------------


def envelope_seeds() -> list[bytes]:
    return [
        bytes((flags, kind)) + each.files[name]
        for each in both()
        for name, kind in (
            ("config", Kind.CONFIG), ("state", Kind.STATE),
            (each.names("snapshots")[0], Kind.SNAPSHOT), (each.names("history")[0], Kind.HISTORY),
        )
        for flags in (0, 1)
    ]  # fmt: skip


def envelopes(data: bytes) -> None:
    """Whole files, with the checksum made right or not."""
    flags, kind, body = data[0] if data else 0, data[1:2], data[2:]
    if flags & 1:
        body = body[:-32] + checksum(body[:-32])
    for sealer in (stored(False).sealer, stored(True).sealer, None):
        wanted = Kind(1 + (kind[0] if kind else 0) % len(Kind))
        try:
            found = open_envelope(body, wanted, "x", sealer)
        except ALLOWED:
            continue
        assert checksum(body[:-32]) == body[-32:]
        assert sealer is None or found.repository_id == sealer.repository_id
        assert sealer is None or found.mode == mode_of(wanted, sealer)
        assert len(found.payload) <= len(body) - 96
        check_envelope(body, wanted, "x", None)


def sealed(kind: Kind, payload: bytes, owner: seeds.Stored) -> bytes:
    return seal_envelope(kind, owner.sealer, SALT, payload)


def payloads(folder: str, kind: Kind) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        found = []
        for each in both():
            for name in [folder] if folder in each.files else each.names(folder):
                found.append(each.payload(name, kind))
        return found

    return make


def configs(payload: bytes) -> None:
    for owner in both():
        data = sealed(Kind.CONFIG, payload, owner)
        storage = shelf({"config": data, "config.bak": data})
        try:
            found = layout.read_config(storage, nothing, owner.sealer)
        except (*ALLOWED, RepositoryMissing):
            continue
        config = found.config
        wrong = (config.average, config.pack_size, config.level, config.delta_versions)
        assert not layout.check_parameters(*wrong)
        layout.encode_config(config, owner.sealer, SALT)


def states(payload: bytes) -> None:
    for owner in both():
        try:
            state = layout.decode_state(sealed(Kind.STATE, payload, owner), owner.sealer)
        except ALLOWED:
            continue
        assert 0 <= state.serial < 1 << 63
        layout.encode_state(state, owner.sealer, SALT)


def features(payload: bytes) -> None:
    for owner in both():
        storage = shelf({"features/odd": sealed(Kind.FEATURE, payload, owner)})
        for writing in (False, True):
            try:
                layout.check_features(storage, owner.sealer, writing=writing)
            except ALLOWED:
                continue


def snapshots(payload: bytes) -> None:
    for owner in both():
        data = sealed(Kind.SNAPSHOT, payload, owner)
        snapshot_id = checksum(data).hex()
        try:
            found = read_snapshot(
                shelf({f"snapshots/{snapshot_id}": data}), snapshot_id, owner.sealer
            )
        except ALLOWED:
            continue
        assert isinstance(found, Snapshot) and len(found.tree) == 32


def histories(payload: bytes) -> None:
    for owner in both():
        packs = [name.rpartition("/")[2] for name in owner.names("packs")]
        files = {
            history_name: sealed(Kind.HISTORY, payload, owner)
            for history_name in (layout.history_name("ab" * 32), layout.history_name("cd" * 32))
        }
        storage = shelf(files)
        now = 1 << 62
        dates = history.VerifiedDates(storage, owner.sealer, packs, now, nothing)
        assert all(0 <= dates.of(pack) <= now for pack in packs)
        dates.keep(packs, os.urandom)
        found = rates.read_rates(storage, owner.sealer, now)
        assert len(found) <= rates.MOST_SAMPLES and all(each.time_ns <= now for each in found)
        rates.keep_rates(storage, owner.sealer, found, now, os.urandom)


def history_seeds() -> list[bytes]:
    sample = rates.Sample(1, rates.RESTORE, 1 << 30, 9, 1 << 32, "host", "directory", "job")
    row = {"kind": rates.RATES, "time_ns": 1, "data": [sample, sample]}
    return [*payloads("history", Kind.HISTORY)(), msgspec.msgpack.encode(row)]


def slots(payload: bytes) -> None:
    """Costs that a slot may have are paid only where they are small here."""
    owner = stored(True)
    repository_id = owner.sealer.repository_id
    data = seal_envelope(Kind.KEY_SLOT, Sealer(repository_id), SALT, payload)
    storage = shelf({layout.key_name(checksum(data).hex()): data})
    found, unusable = keyring.read_slots(storage, repository_id)
    assert len(found) + len(unusable) == 1
    for each in found:
        slot = each.slot
        if keys.refusal(slot):
            continue
        assert 1 <= slot.time <= 32 and 8 * slot.lanes <= slot.memory <= 1 << 20
        if slot.time * slot.memory * slot.lanes > 256:
            continue
        try:
            secrets = keys.unwrap(slot, seeds.PASSPHRASE.encode(), repository_id, "x")
        except ALLOWED:
            continue
        assert secrets in (None, owner.secrets)


def export_seeds() -> list[bytes]:
    owner = stored(True)
    names = owner.names("keys")
    storage = shelf(owner.files)
    return [
        keyring.export_slot(storage, owner.sealer.repository_id, name.rpartition("/")[2]).encode()
        for name in names
    ]


def exports(data: bytes) -> None:
    owner = stored(True)
    try:
        keyring.import_slot(shelf({}), owner.sealer.repository_id, data.decode("utf-8", "replace"))
    except (UsageError, UnsupportedFormat):
        pass


# -- packs ----------------------------------------------------------------------------------


def pack_seeds() -> list[bytes]:
    found = []
    for each in both():
        for name in each.names("packs"):
            data = each.files[name]
            if len(data) < 60_000:
                found += [b"\0" + data, b"\7" + data]
    return found


def whole_packs(data: bytes) -> None:
    """Files; the first byte says which checksums are made right again."""
    flags, body = data[0] if data else 0, bytearray(data[1:])
    spots = []
    if flags & 1 and len(body) >= 128:
        spots.append((0, 96))
    if flags & 2 and len(body) >= 64:
        spots.append((len(body) - 64, len(body) - 32))
    if flags & 4 and len(body) >= 128:
        for head in (64, len(body) - 56):
            start, size = struct.unpack_from("<QQ", body, head)
            if size >= 32 and start + size <= len(body):
                spots.insert(0, (start, start + size - 32))
    for start, end in spots:
        body[end : end + 32] = checksum(bytes(body[start:end]))
    pack_id = checksum(bytes(body)).hex()
    storage = shelf({layout.pack_name(pack_id): bytes(body)})
    for owner in both():
        for from_end in (False, True):
            try:
                pack = read_pack(storage, pack_id, len(body), owner.sealer, from_end=from_end)
            except ALLOWED:
                continue
            judge_pack(pack, len(body))
        for pack in carve(storage, pack_id, len(body), owner.sealer):
            use_pack(pack)


def judge_pack(pack: Pack, size: int) -> None:
    """What a footer says lies in the pack, in order, and adds up."""
    end = 128
    for row in pack.rows:
        assert end <= row.offset and row.offset + row.stored_size <= size - 64
        end = row.offset + row.stored_size
        assert sum(row[1] for row in row.object_rows()) == row.raw_size <= MAX_RAW_SIZE
        assert len(row.bases) <= 3 and (row.depth > 0) == bool(row.bases) and row.depth <= 64
        assert {row[2] for row in row.object_rows()} <= ({1} if pack.kind == 1 else {2, 3})
    use_pack(pack)


def use_pack(pack: Pack) -> None:
    """Turn it into what the index files."""
    places.pack_value(1, pack)
    places.record_rows(pack)
    assert all(len(place) == places.PLACE.size for _, place in places.places_of(1, pack.rows))
    assert all(len(key) == 8 for key, _ in cuts.cut_rows(1, pack.rows))


def footer_seeds() -> list[bytes]:
    encode = msgspec.msgpack.encode
    found = [
        encode([msgspec.to_builtins(row, builtin_types=(bytes,)) for row in pack.rows[:20]])
        for each in both()
        for pack in each.packs.values()
    ]
    return [*found, encode([[128, 5, 5, 0, OBJECT.pack(ID, 5, 1), b"", [], 0, 0]])]


def footers(body: bytes) -> None:
    """Bodies in a pack whose seals are right."""

    class Lying(PackWriter):
        def _seal_footer(self, sound: bytes) -> bytes:
            return super()._seal_footer(body)

    for owner in both():
        storage = shelf({})
        writer = Lying(storage, 1, owner.sealer, SALT)
        writer.add(b"12345" * 200, 1000, 0, b"", b"")
        made = writer.finish()
        for from_end in (False, True):
            try:
                pack = read_pack(storage, made.id, made.size, owner.sealer, from_end=from_end)
            except ALLOWED:
                continue
            judge_pack(pack, made.size)


def footer_of(owner: seeds.Stored, name: str) -> bytes:
    """Return the bytes of the first footer in a pack."""
    data = owner.files[name]
    start, size = struct.unpack_from("<QQ", data, 64)
    return data[start : start + size]


def bundle_seeds() -> list[bytes]:
    found = []
    for owner in both():
        rows = [
            (bytes.fromhex(pack.id), pack.size, footer_of(owner, name))
            for name, pack in owner.packs.items()
        ]
        found += [msgspec.msgpack.encode({"packs": part}) for part in (rows, rows[:1], rows * 20)]
    return found


def bundle_payloads(payload: bytes) -> None:
    """Footers of many packs in one object: each as sound as if it had been read from its pack."""
    for owner in both():
        data = sealed(Kind.BUNDLE, payload, owner)
        storage = shelf(owner.files)
        storage.files[f"bundles/3-{checksum(data).hex()}"] = data
        sizes = {pack.id: pack.size for pack in owner.packs.values()}
        for pack in bundles.bundled_packs(storage, owner.sealer, sizes, sizes):
            judge_pack(pack, sizes[pack.id])
        bundles.renew_bundles(storage, owner.sealer, os.urandom, lambda _id, _size: b"")


_RECORD = struct.Struct("<BBI")  # codec, bases, raw size


def record_seeds() -> list[bytes]:
    rows = [row for each in both() for row in each.records if len(row[3]) < 20_000]
    return [_RECORD.pack(codec, bases, raw) + payload for codec, raw, bases, payload in rows[:200]]


def records(data: bytes) -> None:
    """What codecs make of stored bytes, also deltas upon deltas."""
    if len(data) < _RECORD.size:
        return
    codec, count, raw_size = _RECORD.unpack_from(data)
    payload = data[_RECORD.size :]
    compressor = Compressor(3)
    deltas = DeltaCoder(compressor)
    try:
        if codec not in DELTA_CODECS:
            made = compressor.decode(codec, payload, raw_size)
            assert len(made) == raw_size <= max(MAX_RAW_SIZE, len(payload))
            return
        bases = [Random(number).randbytes(12_000) for number in range(count % 5)]
        text = deltas.compose(codec, payload, bases, raw_size)
        made = deltas.decode(codec, payload, bases, raw_size)
        assert joined(text) == made and len(made) == raw_size <= MAX_RAW_SIZE
        deltas.compose(codec, payload, [text, *bases[1:]], raw_size)
    except ALLOWED:
        pass


def sealed_records(data: bytes) -> None:
    """Sealed bytes open to what was sealed, or not at all."""
    seal = stored(True).sealer.pack(1, SALT)
    whole = bytes(seal.seal(3, 100, 0, bytes(100)))
    changed = bytes(a ^ b for a, b in zip(whole, data.ljust(len(whole), b"\0"), strict=False))
    for number, size, given in ((3, 100, data), (4, 100, whole), (3, 99, whole), (3, 100, changed)):
        if (number, size, given) == (3, 100, whole):
            continue
        try:
            seal.open(number, size, 0, given)
        except Damaged:
            continue
        raise AssertionError("opened what was never sealed")


# -- trees ----------------------------------------------------------------------------------


def tree_seeds() -> list[bytes]:
    found = [page for each in both() for page in each.trees]
    encode = msgspec.msgpack.encode
    return [*found, encode((1, [(b"a", ID, 5), (b"m", ID, 7)])), encode((0, []))]


def nowhere(kind: ObjectType, object_id: bytes) -> bytes:
    raise ObjectMissing("nowhere")


def tree_pages(data: bytes) -> None:
    try:
        level, rows = decode_page(data)
    except Damaged:
        return
    if level:
        return
    names = [row.name for row in rows]  # type: ignore[union-attr]
    assert names == sorted(set(names))
    assert not [name for name in names if name in (b"", b".", b"..") or b"/" in name]
    for entry in rows:
        judge_entry(entry, nowhere)  # type: ignore[arg-type]


def judge_entry(entry: Entry, get: Callable[[ObjectType, bytes], bytes]) -> None:
    try:
        check_entry(entry)
        kind = entry.mode & 0o170000
        unreadable = entry.extras is not None and entry.extras.flags & 2
        assert 0 <= entry.mode < 1 << 16 and 0 <= entry.size < 1 << 63
        assert (entry.content is None) == (kind in (0o010000, 0o140000) or bool(unreadable))
        assert kind != 0o120000 or unreadable or b"\0" not in entry.content  # type: ignore[operator]
        assert kind != 0o040000 or unreadable or len(entry.content) == 32  # type: ignore[arg-type]
        if kind == 0o100000 and entry.content is not None:
            list_chunks(entry)
            assert sum(size for _, size in iter_content(get, entry)) == entry.size
            for start in {0, entry.size // 2, entry.size - 1} - {-1}:
                for at, _id, size in iter_range(get, entry, start):
                    assert at >= 0 and at + size > start
        if kind in (0o020000, 0o060000) and entry.content is not None:
            os.makedev(*entry.content)
    except (Damaged, ObjectMissing):
        pass


def split_pages(data: bytes) -> list[bytes]:
    """Cut an input into pages: two bytes of length before each."""
    pages = []
    at = 0
    while at + 2 <= len(data) and len(pages) < 12:
        size = int.from_bytes(data[at : at + 2], "little")
        pages.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    return pages


def join_pages(pages: Sequence[bytes]) -> bytes:
    return b"".join(len(page).to_bytes(2, "little") + page for page in pages if len(page) < 65536)


def getter(pages: list[bytes]) -> Callable[[ObjectType, bytes], bytes]:
    """Give pages of an input for ids, without end in a circle but not for ever."""
    left = _PAGES

    def get(kind: ObjectType, object_id: bytes) -> bytes:
        nonlocal left
        left -= 1
        if left < 0 or not pages:
            raise ObjectMissing("enough")
        return pages[object_id[-1] % len(pages) if object_id else 0]

    return get


def directory_seeds() -> list[bytes]:
    pages = tree_seeds()
    encode = msgspec.msgpack.encode
    low = [
        encode((0, [Entry(bytes((97 + at,)), 0o40755, 0, 0, 0, 1, 1, 1, ID, None)]))
        for at in range(3)
    ]
    ids = [bytes(31) + bytes((at,)) for at in range(4)]
    high = encode((1, [(bytes((97 + at,)), ids[1 + at], 1) for at in range(3)]))
    return [join_pages([high, *low]), join_pages(pages[:2]), join_pages([*low, *pages[:1]])]


def directories(data: bytes) -> None:
    pages = split_pages(data)
    last = b""
    try:
        for entry in iter_entries(getter(pages), bytes(32)):
            assert entry.name > last
            last = entry.name
    except (Damaged, ObjectMissing):
        pass
    last = b""
    try:
        for page in iter_readable(getter(pages), bytes(32)):
            for entry in page if isinstance(page, list) else ():
                assert entry.name > last
                last = entry.name
    except (Damaged, ObjectMissing):
        pass
    for name in (b"a", b"b", b"zz"):
        try:
            found = find_entry(getter(pages), bytes(32), name)
            assert found is None or found.name == name
            read_page(getter(pages), (0, bytes(32), name, 1))
        except (Damaged, ObjectMissing):
            pass


def list_seeds() -> list[bytes]:
    found = [b"\0" + page for each in both() for page in each.lists]
    encode = msgspec.msgpack.encode
    return [
        *found, b"\0" + encode((0, ID * 2, [5, -2, 5])), b"\1" + encode((1, ID, [12])),
        b"\0" + encode((0, b"", [-5])),
    ]  # fmt: skip


def list_pages(data: bytes) -> None:
    try:
        ids, sizes = decode_list_page(data[1:], data[0] if data else 0)
    except Damaged:
        return
    assert len(ids) == 32 * sum(size > 0 for size in sizes) and 0 not in sizes


def content_seeds() -> list[bytes]:
    encode = msgspec.msgpack.encode
    ids = [bytes(31) + bytes((at,)) for at in range(4)]
    entry = Entry(b"a", 0o100644, 0, 0, 24, 1, 1, 1, [1, ids[1] + ids[2], [12, 12]], None)
    rows = [entry for each in both() for page in each.trees for entry in entries_of(page)]
    long = [row for row in rows if isinstance(row.content, list) and len(row.content) == 3]
    found = [join_pages([encode(row), *stored(False).lists[:2]]) for row in (*long[:6], *rows[:10])]
    low = [encode((0, ID * 2, [5, -2, 5])), encode((0, ID, [-2, 10])), encode((0, ID, [12]))]
    return [join_pages([encode(entry), *low]), *found]


def entries_of(page: bytes) -> Sequence[Any]:
    level, rows = decode_page(page)
    return [] if level else rows


def contents(data: bytes) -> None:
    """One entry, and the pages of its list."""
    first, *pages = split_pages(data) or [b""]
    try:
        entry = msgspec.msgpack.decode(first, type=Entry)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return
    judge_entry(entry, getter(pages))


# -- the index, notes, patterns -------------------------------------------------------------


_TABLES = [b"meta", b"packs", b"numbers", b"objects", b"complete", b"cuts", b"bases"]


def index_seeds() -> list[bytes]:
    found = []
    for number, table in enumerate(_TABLES):
        with index_copy(stored(False)) as (_home, environment):
            database = environment.open_db(table)
            with environment.begin() as transaction:
                rows = list(transaction.cursor(db=database))
        for at, (_key, value) in enumerate(rows[:4]):
            found.append(bytes((number, at)) + value[:2000])
    return found


class index_copy:  # noqa: N801
    """A copy of a real index, opened beside the program."""

    def __init__(self, owner: seeds.Stored) -> None:
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.home = tempfile.mkdtemp(prefix="packstone-", dir=shared)
        with open(os.path.join(self.home, "data.mdb"), "wb") as file:
            file.write(owner.index["data.mdb"])

    def __enter__(self) -> tuple[str, Any]:
        self.environment = lmdb.open(self.home, max_dbs=10, map_size=64 << 20, lock=False)
        return self.home, self.environment

    def __exit__(self, *_: object) -> None:
        self.environment.close()
        shutil.rmtree(self.home)


def index_values(data: bytes) -> None:
    """One value of the index replaced, or one added: answers may be wrong, never an accident."""
    if len(data) < 2:
        return
    owner = stored(False)
    copy = index_copy(owner)
    environment = lmdb.open(copy.home, max_dbs=10, map_size=64 << 20, lock=False, sync=False)
    table = environment.open_db(_TABLES[data[0] % len(_TABLES)])
    with environment.begin(write=True) as transaction:
        keys_there = [key for key, _ in transaction.cursor(db=table)]
        key = keys_there[data[1] % len(keys_there)] if keys_there and data[1] < 200 else data[2:34]
        if key:
            transaction.put(key, data[2:], db=table)
    environment.close()
    try:
        use_index(copy.home, owner)
    finally:
        shutil.rmtree(copy.home)


def use_index(home: str, owner: seeds.Stored) -> None:
    index = Index(home, owner.sealer)
    try:
        storage = shelf(owner.files)
        for ask in (
            lambda: index.refresh(storage), lambda: use_answers(index, owner),
            lambda: list(index.records()), lambda: index.counts(), lambda: index.reset(),
            lambda: index.refresh(storage),
        ):  # fmt: skip
            try:
                ask()
            except (Damaged, ObjectMissing, StorageError):
                continue
        ids = [row[0] for pack in owner.packs.values() for row in rows_of(pack)]
        assert all(index.present(ids)), "an emptied index did not find everything again"
    finally:
        index.close()


def rows_of(pack: Pack) -> list[tuple[bytes, int, int]]:
    return [each for row in pack.rows for each in row.object_rows()]


def use_answers(index: Index, owner: seeds.Stored) -> None:
    some = [row[0] for pack in owner.packs.values() for row in rows_of(pack)[:4]]
    index.present(some)
    index.find_all(some)
    index.find(some[0])
    with index.cuts() as found:
        for pack in owner.packs.values():
            for row in pack.rows[:4]:
                if row.keys:
                    for chunk in found.at(int.from_bytes(row.keys[:8], "little")):
                        if chunk is not None:
                            found.bases(chunk)
    for pack in owner.packs.values():
        index.agrees(pack)
        index.bases_of([(pack.id, 0), (pack.id, 1 << 20)])
        index.kind_and_salt(pack.id)
        index.count_differing(pack)
        index.recall(pack.id)
    index.count_places([pack.id for pack in owner.packs.values()])


def index_heads(data: bytes) -> None:
    """The file that is looked at before it is mapped; what is sound is as long as it says."""
    with tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, "data.mdb")
        with open(path, "wb") as file:
            file.write(data)
        view.is_sound(path)


def index_head_seeds() -> list[bytes]:
    return [each.index["data.mdb"][:size] for each in both() for size in (12_288, 4096, 9000)]


def notes(data: bytes) -> None:
    """What is left beside a lock, by whoever may write there."""
    with tempfile.TemporaryDirectory() as home:
        os.mkdir(os.path.join(home, HOLDERS))
        with open(os.path.join(home, HOLDERS, "0" * 16), "wb") as file:
            file.write(data)
            file.flush()
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            assert len(holders(LocalStorage(home))) <= 1


def note_seeds() -> list[bytes]:
    note = b'{"host":"h","pid":1,"since":"2026-01-01T00:00:00Z","exclusive":true}'
    return [
        note,
        b'{"x":[[[[1]]],{}],' + note[1:],
        b"",
        b"[" * 4000,
        note[:-1] + b',"host":"\xff"}',
    ]


STRATEGY = """
state_dir = "%s"
[repositories.main]
location = "/backup"
[repositories.other]
location = "s3://bucket/main"
passphrase_command = "cat x"
[defaults]
repository = "main"
keep = { hourly = 24, yearly = "all" }
[jobs.crm]
postgresql = { databases = ["crm", "billing"], service = "crm" }
every = "1h"
copy_to = ["other"]
rpo = "2h"
[jobs.shop]
mariadb = { databases = "shop" }
every = "daily 02:00"
[jobs.files]
paths = ["/srv"]
exclude = ["*.tmp"]
every = "30 5 * * mon-fri"
[jobs.command]
command = { argv = ["slapcat"], name = "directory.ldif" }
every = "15min"
"""


def job_memories(data: bytes) -> None:
    """What a job remembers of its runs, and the note of who runs it."""
    with tempfile.TemporaryDirectory() as home:
        text = STRATEGY % home
        files = memory.JobFiles(parse_strategy(text.encode(), "/home/packstone.toml"), "crm")
        files.save(memory.Memory(job="crm"))
        for name in os.listdir(home):
            with open(os.path.join(home, name), "wb") as file:
                file.write(data)
        found = files.load()
        assert found is None or found.job == "crm"
        lock = files.lock()
        with open(files._lock, "wb") as file:
            file.write(data)
        assert files.going()
        lock.release()


def job_memory_seeds() -> list[bytes]:
    note = b'{"job":"crm","began_ns":1,"running":true,"seconds":1.5,"snapshots":["ab"]}'
    return [note, b'{"x":' + b"[" * 2000, b'{"pid":1,"since":"2026-01-01T00:00:00Z"}', b"\xff"]


def strategies(data: bytes) -> None:
    try:
        parse_strategy(data, "/home/packstone.toml")
    except StrategyInvalid:
        pass


def patterns(data: bytes) -> None:
    lines = tuple(data.decode("utf-8", "surrogateescape").split("\n"))[:20]
    if any(len(line) > 200 for line in lines):
        return
    try:
        rules = Filter(Rules(lines))
    except UsageError:
        return
    for name in (b"a", b"a.txt", b"\xff", b"x" * 60):
        for is_directory in (False, True):
            rules.excludes("home/a/", name, is_directory)


def pattern_seeds() -> list[bytes]:
    return [
        b"*.txt\n!keep.txt\n/abs/path\n**/node_modules/\na/**/b\n", b"[!a-z]?*\\ \n#c\n\\#d\n",
        b"**/\n/**\n**/**/x\n*/\n", b"[[:alpha:]]\n[]-]\n[a\n\\", b"!!x\n! \n/\n//\n",
    ]  # fmt: skip


TARGETS: dict[str, Target] = {
    "envelope": Target(envelope_seeds, envelopes),
    "config": Target(payloads("config", Kind.CONFIG), configs),
    "state": Target(payloads("state", Kind.STATE), states),
    "feature": Target(
        lambda: [msgspec.msgpack.encode({"need": need}) for need in ("read", "write", "ignore")],
        features,
    ),
    "snapshot": Target(payloads("snapshots", Kind.SNAPSHOT), snapshots),
    "history": Target(history_seeds, histories),
    "key-slot": Target(
        lambda: [stored(True).payload(n, Kind.KEY_SLOT) for n in stored(True).names("keys")], slots
    ),
    "key-export": Target(export_seeds, exports),
    "pack": Target(pack_seeds, whole_packs),
    "bundle": Target(bundle_seeds, bundle_payloads),
    "footer": Target(footer_seeds, footers),
    "record": Target(record_seeds, records),
    "sealed-record": Target(lambda: [bytes(116), b"\1" * 116], sealed_records),
    "tree-page": Target(tree_seeds, tree_pages),
    "directory": Target(directory_seeds, directories),
    "list-page": Target(list_seeds, list_pages),
    "content": Target(content_seeds, contents),
    "index": Target(index_seeds, index_values),
    "index-head": Target(index_head_seeds, index_heads),
    "job-memory": Target(job_memory_seeds, job_memories),
    "strategy": Target(lambda: [(STRATEGY % "/x").encode()], strategies),
    "lock-note": Target(note_seeds, notes),
    "patterns": Target(pattern_seeds, patterns),
}
