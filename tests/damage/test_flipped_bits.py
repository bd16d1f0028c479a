"""One flipped bit in every byte of a repository (B1 of reliability.md).

Each flip is named by `check --read-data`, and a restore is right or refused: never wrong.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from campaign import campaign, trials
from damage.scene import Scene, Shelf, small_scene

from packstone.codec.compression import Compressor
from packstone.codec.envelope import Kind, open_envelope
from packstone.codec.hashing import Hasher, checksum, plain_family
from packstone.errors import Damaged, UnsupportedFormat
from packstone.model import ObjectType
from packstone.repository.packs import RecordRow, read_pack

_GAP_STEP = 32  # nobody reads what lies between the footers; its hash is checked as well
# Restores are slow and one footer is as good as the other: of bytes outside records every eighth.
_RESTORE_STEP = 8


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return small_scene(tmp_path_factory.mktemp("flips"))


def flips(scene: Scene, name: str) -> list[tuple[int, int]]:
    """Return (offset, bit) for every byte that anybody reads, and for some that nobody does."""
    rng = Random(name)
    gap = scene.gap(name)
    return [
        (at, rng.randrange(8))
        for at in range(len(scene.files[name]))
        if at not in gap or at % _GAP_STEP == 0
    ]


def silent(scene: Scene, name: str, restore: bool = True) -> list[int]:
    """Flip them one by one and return the offsets of those that were not named."""
    found = []
    data = scene.files[name]
    rows = scene.pack(name).rows if name.startswith("packs/") else []
    stored = {at for row in rows for at in range(row.offset, row.offset + row.stored_size)}
    for at, bit in flips(scene, name):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        wanted = restore and (at in stored or not rows or at % _RESTORE_STEP == 0)
        seen = scene.look(scene.files | {name: bytes(changed)}, restore=wanted)
        if not seen.names(name):
            found.append(at)
    return found


def test_the_scene_is_small_and_whole(scene: Scene) -> None:
    assert len(scene.packs()) == 4
    assert 15_000 < sum(map(len, scene.files.values())) < 30_000
    seen = scene.look(scene.files)
    assert (seen.refused, seen.texts) == (None, [])
    assert list(seen.lost.values()) == [set(), set()]


@pytest.mark.parametrize("number", range(4))
def test_packs(scene: Scene, number: int) -> None:
    assert silent(scene, scene.packs()[number]) == []


@pytest.mark.parametrize("number", range(2))
def test_snapshots(scene: Scene, number: int) -> None:
    name = f"snapshots/{list(scene.stored)[number]}"
    assert silent(scene, name) == []


def test_config(scene: Scene) -> None:
    assert silent(scene, "config") == []


@pytest.mark.parametrize("name", ["config.bak", "state"])
def test_what_is_read_when_it_is_needed(scene: Scene, name: str) -> None:
    """Found damaged when the other copy is too, or at the next snapshot, it is found too late."""
    assert silent(scene, name, restore=False) == []


@pytest.mark.parametrize("name", ["config.bak", "state"])
def test_they_do_no_harm(scene: Scene, name: str) -> None:
    for at in range(0, len(scene.files[name]), 7):
        changed = bytearray(scene.files[name])
        changed[at] ^= 1
        seen = scene.look(scene.files | {name: bytes(changed)})
        assert list(seen.lost.values()) == [set(), set()]


def test_a_flip_hits_no_more_than_it_must(scene: Scene) -> None:
    """The other snapshot's own files keep restoring."""
    first, second = scene.stored
    for name in scene.packs():
        rows = scene.pack(name).rows
        for row in rows:
            changed = bytearray(scene.files[name])
            changed[row.offset + row.stored_size // 2] ^= 16
            seen = scene.look(scene.files | {name: bytes(changed)})
            assert seen.names(name)
            lost = seen.lost
            assert lost[first] != set(scene.stored[first]) or lost[second] != set(
                scene.stored[second]
            )


def test_the_index_hides_no_damage(scene: Scene, tmp_path: Path) -> None:
    """With an index from before the damage, footers are not read again at every open."""
    index = str(tmp_path / "index")
    assert scene.look(scene.files, index=index).texts == []
    rng = Random("warm")
    for name in scene.packs():
        data = scene.files[name]
        gap = scene.gap(name)
        for at in rng.sample([at for at in range(len(data)) if at not in gap], 40):
            changed = bytearray(data)
            changed[at] ^= 1 << rng.randrange(8)
            assert scene.look(scene.files | {name: bytes(changed)}, index=index).names(name), at


# -- every bit, through what reads it ---------------------------------------------------------


def flipped(data: bytes, at: int) -> bytes:
    """Return data with its bit `at` flipped."""
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def some_bits(scene: Scene, long: int) -> list[tuple[str, int]]:
    """Return (name, bit) all over the repository, as many as there are trials."""
    bits = [(name, at) for name, data in scene.files.items() for at in range(8 * len(data))]
    return bits[:: max(1, len(bits) // trials(8_000, long))]


def test_every_bit_by_what_reads_it(scene: Scene) -> None:
    """Small objects are refused; a pack's rows come whole, and a record is right or refused."""
    kinds = {"config": Kind.CONFIG, "config.bak": Kind.CONFIG, "state": Kind.STATE}
    packs = {name: scene.pack(name) for name in scene.packs()}
    hasher = Hasher(plain_family())
    codec = Compressor(3)

    def objects(row: RecordRow, data: bytes) -> list[bytes]:
        stored = data[row.offset : row.offset + row.stored_size]
        raw = memoryview(codec.decode(row.codec, stored, row.raw_size))
        found, at = [], 0
        for _id, size, kind in row.object_rows():
            found.append(hasher.id(ObjectType(kind), raw[at : at + size]))
            at += size
        return found

    with campaign("B1", "plain: single bits, by what reads them") as row:
        for name, at in some_bits(scene, 1 << 30):
            data = scene.files[name]
            changed = flipped(data, at)
            row.trials += 1
            if name not in packs:
                kind = kinds.get(name, Kind.SNAPSHOT)
                if name.startswith("history"):
                    kind = Kind.HISTORY
                with pytest.raises(Damaged):
                    open_envelope(changed, kind, name, scene.sealer)
                continue
            pack = packs[name]
            found = read_pack(Shelf({name: changed}, ""), pack.id, len(data), scene.sealer)
            assert found.rows == pack.rows and checksum(changed).hex() != pack.id
            for each in pack.rows:
                if each.offset <= at // 8 < each.offset + each.stored_size:
                    try:
                        ids = objects(each, changed)
                    except (Damaged, UnsupportedFormat):
                        continue
                    # zstd has bits without a meaning: then what comes out is what went in
                    if ids == [object_id for object_id, _, _ in each.object_rows()]:
                        assert objects(each, changed) == objects(each, data)


@pytest.mark.soak
def test_every_bit_by_the_command(scene: Scene) -> None:
    """Named by `check --read-data`, restored right or refused: all bits, or as many as asked."""
    with campaign("B1", "plain: single bits, by check and restore") as row:
        for number, (name, at) in enumerate(some_bits(scene, 1 << 30)):
            files = scene.files | {name: flipped(scene.files[name], at)}
            assert scene.look(files, restore=number % 8 == 0).names(name), (name, at)
            row.trials += 1
