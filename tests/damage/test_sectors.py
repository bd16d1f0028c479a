"""One bad sector at every place of a pack: what is not in it survives.

Sectors of 512 and of 4,096 bytes, as disks have them, zeroed and overwritten with noise.
"""

from __future__ import annotations

import os
from random import Random

import pytest
from damage.scene import Scene, Shelf, large_scene

from packstone.codec.compression import Compressor
from packstone.codec.hashing import Hasher, plain_family
from packstone.errors import Damaged
from packstone.model import ObjectType
from packstone.repository.packs import DATA, Pack, read_pack

HASHER = Hasher(plain_family())


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return large_scene(tmp_path_factory.mktemp("sectors"))


def packs_of_kind(scene: Scene, kind: int) -> list[str]:
    return [name for name in scene.packs() if scene.pack(name).kind == kind]


def sectors(data: bytes, size: int, fill: str) -> list[tuple[int, bytes]]:
    """Return (begin, damaged file) for every sector that changes anything."""
    rng = Random(f"{size} {fill}")
    found = []
    for begin in range(0, len(data), size):
        old = data[begin : begin + size]
        new = bytes(len(old)) if fill == "zeros" else rng.randbytes(len(old))
        if new != old:
            found.append((begin, data[:begin] + new + data[begin + len(old) :]))
    return found


def sound_objects(pack: Pack, data: bytes) -> set[bytes]:
    """Decode every record and return the ids of what is as it was."""
    codec = Compressor(3)
    sound = set()
    for row in pack.rows:
        payload = data[row.offset : row.offset + row.stored_size]
        try:
            raw = codec.decode(row.codec, payload, row.raw_size)
        except Damaged:
            continue
        at = 0
        for object_id, size, kind in row.object_rows():
            if HASHER.id(ObjectType(kind), raw[at : at + size]) == object_id:
                sound.add(object_id)
            at += size
    return sound


def test_the_pack_has_several_records(scene: Scene) -> None:
    (name,) = packs_of_kind(scene, DATA)
    rows = scene.pack(name).rows
    assert len(rows) == 5
    assert sorted(len(list(row.object_rows())) for row in rows) == [1, 1, 1, 1, 6]
    assert len(sectors(scene.files[name], 512, "noise")) > 100


@pytest.mark.parametrize("fill", ["zeros", "noise"])
@pytest.mark.parametrize("size", [512, 4096])
def test_footers_and_untouched_records_survive(scene: Scene, size: int, fill: str) -> None:
    """Of every pack: its footer is found, and records outside the sector are whole."""
    for name in scene.packs():
        data, pack = scene.files[name], scene.pack(name)
        for begin, damaged in sectors(data, size, fill):
            shelf = Shelf(scene.files | {name: damaged}, "")
            found = read_pack(shelf, pack.id, len(damaged), scene.sealer)
            assert found.rows == pack.rows, f"no footer with a bad sector at {begin}"
            untouched = {
                object_id
                for row in pack.rows
                if row.offset + row.stored_size <= begin or row.offset >= begin + size
                for object_id, _, _ in row.object_rows()
            }
            assert sound_objects(found, damaged) >= untouched


@pytest.mark.parametrize("fill", ["zeros", "noise"])
@pytest.mark.parametrize("size", [512, 4096])
def test_restores_what_the_sector_does_not_hold(scene: Scene, size: int, fill: str) -> None:
    """Exactly the files whose bytes the sector took are lost, and all of them are named."""
    (snapshot_id,) = scene.stored
    contents = scene.stored[snapshot_id]
    file_of = {HASHER.id(ObjectType.CHUNK, data): name for name, data in contents.items()}
    (name,) = packs_of_kind(scene, DATA)
    pack = scene.pack(name)
    for begin, damaged in sectors(scene.files[name], size, fill):
        sound = sound_objects(pack, damaged)
        expected = {file for object_id, file in file_of.items() if object_id not in sound}
        seen = scene.look(scene.files | {name: damaged})
        assert seen.refused is None
        assert pack.id[:12] in seen.packs, f"check is silent on a bad sector at {begin}"
        assert seen.lost[snapshot_id] == expected, begin
        assert {os.path.basename(path) for path in seen.paths} == expected


def test_a_sector_of_metadata_is_no_wrong_tree(scene: Scene) -> None:
    for name in packs_of_kind(scene, 2):
        pack = scene.pack(name)
        for begin, damaged in sectors(scene.files[name], 512, "noise"):
            seen = scene.look(scene.files | {name: damaged})
            assert pack.id[:12] in seen.packs, begin


def test_two_bad_sectors_may_take_both_footers(scene: Scene) -> None:
    """Then it is said which pack, and what was in it is missing, not wrong."""
    (name,) = packs_of_kind(scene, DATA)
    data = bytearray(scene.files[name])
    first = int.from_bytes(data[64:72], "little")
    second = int.from_bytes(data[-56:-48], "little")
    data[first + 70] ^= 1
    data[second + 70] ^= 1
    seen = scene.look(scene.files | {name: bytes(data)})
    assert seen.refused is None and seen.names(name)
    assert any("both footers" in text for text in seen.texts)
    (lost,) = seen.lost.values()
    assert lost == set(*scene.stored.values())


@pytest.mark.parametrize("ends", ["header and trailer", "header and second", "first and trailer"])
def test_no_way_to_a_footer(scene: Scene, ends: str) -> None:
    (name,) = packs_of_kind(scene, DATA)
    data = bytearray(scene.files[name])
    places = {
        "header": 5,
        "trailer": len(data) - 5,
        "first": int.from_bytes(data[64:72], "little") + 5,
        "second": int.from_bytes(data[-56:-48], "little") + 5,
    }
    for end in ends.split(" and "):
        data[places[end]] ^= 1
    seen = scene.look(scene.files | {name: bytes(data)})
    assert seen.refused is None and seen.names(name)
