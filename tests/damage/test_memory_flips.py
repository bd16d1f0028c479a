"""Row B4: a bit that flips in memory between encoding and the disk never becomes a pack.

Before a record is verified, after that while the pack holds it back, and on its way through the
storage: PackWriter reads back what it wrote and compares it with what was verified.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest
from blake3 import blake3
from campaign import Caught, campaign, control, trials
from contract.storage_suite import MemorySpool
from unit.repository.recording import (
    GENERATIONS,
    HASHER,
    Recording,
    put_chunk,
    reader_of,
    snapshots,
)

from packstone.codec import compression, delta
from packstone.codec.encryption import Sealer
from packstone.errors import Damaged
from packstone.model import Buffer, Snapshot
from packstone.repository import packs
from packstone.repository.index import Index
from packstone.repository.layout import State, encode_state, list_ids
from packstone.repository.packs import PackWriter, read_pack
from packstone.repository.read_back import Part
from packstone.repository.trees import DirectoryWriter
from packstone.repository.writer import ObjectWriter
from packstone.storage.base import Spool

TRIALS = trials(500, 10_000)
Flip = Callable[[Buffer], bytes]


class Chance:
    """Flips one bit of one of the things that are handed to it: the `at`-th."""

    def __init__(self, seed: int, at: int) -> None:
        self._random = Random(seed)
        self._left = at
        self.flipped = False

    def __call__(self, data: Buffer) -> bytes:
        plain = bytes(data)
        if self.flipped or not plain:
            return plain
        if self._left:
            self._left -= 1
            return plain
        self.flipped = True
        changed = bytearray(plain)
        changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)


def in_the_encoder(patch: pytest.MonkeyPatch, flip: Flip) -> None:
    """What compression or the delta coder gave, before the pack gets it."""
    encode = compression.Compressor.encode

    def flipping(self: Any, raw: Buffer) -> Any:
        codec, payload = encode(self, raw)
        return codec, flip(payload)

    patch.setattr(compression.Compressor, "encode", flipping)
    encode_delta = delta.DeltaCoder.encode

    def flipping_delta(self: Any, *arguments: Any) -> Any:
        found = encode_delta(self, *arguments)
        return found and found._replace(payload=flip(found.payload))

    patch.setattr(delta.DeltaCoder, "encode", flipping_delta)


def while_held_back(patch: pytest.MonkeyPatch, flip: Flip) -> None:
    """What the pack keeps in memory, after it was verified and before it is written."""
    finish = PackWriter.finish

    def flipping(self: PackWriter) -> Any:
        self._tail = [flip(payload) for payload in self._tail]
        return finish(self)

    patch.setattr(PackWriter, "finish", flipping)


def in_the_storage(patch: pytest.MonkeyPatch, flip: Flip) -> None:
    """On the way to the disk: records, footers, trailer."""
    write = MemorySpool.write
    patch.setattr(MemorySpool, "write", lambda self, data: write(self, flip(data)))


def in_the_header(patch: pytest.MonkeyPatch, flip: Flip) -> None:
    write_at = MemorySpool.write_at
    patch.setattr(
        MemorySpool, "write_at", lambda self, offset, data: write_at(self, offset, flip(data))
    )


def in_the_footer(patch: pytest.MonkeyPatch, flip: Flip) -> None:
    """Of the footer as it is kept for writing it twice."""
    footer = PackWriter._footer
    patch.setattr(PackWriter, "_footer", lambda self: flip(footer(self)))


PLACES = {
    in_the_encoder: 12,
    while_held_back: 8,
    in_the_storage: 14,
    in_the_header: 2,
    in_the_footer: 2,
}  # and among how many things one is chosen: some seeds flip nothing


@pytest.fixture(scope="module", params=["plain", "sealed"])
def sealer(request: pytest.FixtureRequest) -> Sealer:
    return Sealer(bytes(range(16)), None if request.param == "plain" else bytes(32))


@pytest.fixture(scope="module")
def index(sealer: Sealer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    index = Index(str(tmp_path_factory.mktemp("index")), sealer)
    yield index
    index.close()


def take(storage: Recording, index: Index, sealer: Sealer, seed: int) -> None:
    """Store a few chunks and commit a snapshot of them."""
    rng = Random(seed)
    storage.files["state"] = encode_state(State(generation=GENERATIONS[0]), sealer, bytes(32))
    writer = ObjectWriter(
        storage, index, HASHER, sealer, reader_of(storage, index, sealer),
        level=1, pack_size=1 << 20, random=rng.randbytes, generation=GENERATIONS[0],
    )  # fmt: skip
    for number in range(6):
        size = rng.choice([50, 3000, 20_000, 70_000])
        put_chunk(writer, rng.randbytes(size) if number % 2 else b"%d," % seed * (size // 5))
    tree = DirectoryWriter(writer.put).finish()
    try:
        writer.commit(Snapshot(time_ns=seed, host="h", paths=[b"/a"], tree=tree))
    except BaseException:
        writer.abandon()
        raise


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_flipped_bit(
    place: Callable[..., None], sealer: Sealer, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    mode = "plain" if sealer.is_plain else "encrypted"
    with campaign("B4", f"{mode}, {place.__name__.replace('_', ' ')}") as row:
        for seed in seeds(place, index, sealer, monkeypatch):
            row.trials += 1
            assert seed < 10 * TRIALS, "hardly any bit is flipped"
            if row.trials >= TRIALS // (2 * len(PLACES)):
                break


def seeds(
    place: Callable[..., None], index: Index, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int]:
    """Yield the seeds that flipped a bit, after that was refused."""
    for seed in itertools.count():
        storage = Recording()
        chance = Chance(seed, Random(seed).randrange(PLACES[place]))
        with monkeypatch.context() as patch:
            place(patch, chance)
            met = chance_is_met(storage, index, sealer, seed, chance)
        if met:
            yield seed


def test_controls(index: Index, sealer: Sealer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the verification, or without comparing what reads back, flips are committed."""
    uncompared = (packs, "read_back", name_of_what_reads_back)
    defects: list[tuple[Callable[..., None], tuple[Any, str, Any]]] = [
        (in_the_encoder, (ObjectWriter, "_verify", lambda *arguments: None)),
        (while_held_back, uncompared),
        (in_the_storage, uncompared),
        (in_the_footer, uncompared),
        (in_the_header, uncompared),
    ]
    for place, (home, name, value) in defects:
        with control("B4", f"no {name.strip('_')}, {place.__name__.replace('_', ' ')}") as row:
            with monkeypatch.context() as patch:
                patch.setattr(home, name, value)
                for _ in itertools.islice(seeds(place, index, sealer, monkeypatch), 50):
                    row.trials += 1


def name_of_what_reads_back(spool: Spool, parts: Sequence[Part], digest: bytes) -> str:
    """Do what PackWriter did before it compared anything."""
    return blake3(spool.read_at(0, sum(part.size for part in parts))).hexdigest()


def chance_is_met(
    storage: Recording, index: Index, sealer: Sealer, seed: int, chance: Chance
) -> bool:
    """Take a snapshot; a flip must be refused, and nothing but a flip."""
    index.flush()  # of a session that was refused
    index.reset()
    try:
        take(storage, index, sealer, seed)
    except Damaged as error:
        assert chance.flipped
        assert "Nothing was committed" in error.hint and "memory" in error.hint
        assert snapshots(storage) == []
        return True
    if chance.flipped and not is_padding(storage, sealer):
        raise Caught(f"seed {seed}: a flipped bit was committed")
    return False


def is_padding(storage: Recording, sealer: Sealer) -> bool:
    """Whether all packs are whole but for bytes that nobody reads."""
    for pack_id, size in list_ids(storage, "packs"):
        try:
            pack = read_pack(storage, pack_id, size, sealer)
        except Damaged:
            return False
        if pack.damage:
            return False
        seal = sealer.pack(pack.kind, pack.salt)
        data = storage.files[f"packs/{pack_id[:2]}/{pack_id}"]
        compressor = compression.Compressor(1)
        for number, row in enumerate(pack.rows):
            stored = data[row.offset : row.offset + row.stored_size]
            try:
                opened = seal.open(number, row.raw_size, row.codec, stored)
                raw = compressor.decode(row.codec, opened, row.raw_size)
            except Damaged:
                return False
            at = 0
            for object_id, size_, kind in row.object_rows():
                if HASHER.id(kind, bytes(raw)[at : at + size_]) != object_id:
                    return False
                at += size_
    return True
