"""Repair after every kind of damage: nothing readable is lost, what is lost is named (row R1).

And of what is healthy not a byte changes.
"""

from __future__ import annotations

import shutil
import tempfile
from random import Random

import pytest
from blake3 import blake3
from damage.mending import Files, mend, repaired
from damage.scene import FAST, Scene, large_scene, small_scene
from damage.sealed_scene import SealedScene, large_sealed_scene, small_sealed_scene
from damage.test_delta_damage import DeltaScene, with_second_copies
from damage.test_delta_damage import scene as delta_scene_of
from damage.test_sectors import HASHER, sectors, sound_objects
from tables import id_of

import packstone
from packstone.model import ObjectType
from packstone.repository.layout import pack_name
from packstone.repository.packs import DATA, RecordRow

deltas = delta_scene_of  # the fixture, under a name of its own

_SCENES = {
    "plain": small_scene,
    "plain records": large_scene,
    "sealed": small_sealed_scene,
    "sealed records": large_sealed_scene,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scene]:
    return {name: make(tmp_path_factory.mktemp("repair")) for name, make in _SCENES.items()}


@pytest.fixture(params=list(_SCENES))
def scene(scenes: dict[str, Scene], request: pytest.FixtureRequest) -> Scene:
    return scenes[request.param]


def data_pack(scene: Scene) -> str:
    """Return the name of the largest data pack."""
    names = [name for name in scene.packs() if scene.pack(name).kind == DATA]
    return max(names, key=lambda name: len(scene.files[name]))


def assert_untouched(scene: Scene) -> None:
    files = dict(scene.files)
    with scene.opened(files) as repository:
        assert repository.repair_index().differing == {}
        assert repository.repair_packs().damaged == []
        assert repository.repair_snapshots().repaired == []
        assert repository.repair_snapshots(forget=True).quarantined == {}
    assert files == scene.files


def test_of_what_is_healthy_not_a_byte_changes(scene: Scene) -> None:
    assert_untouched(scene)


def test_of_healthy_deltas_not_a_byte_changes(deltas: DeltaScene) -> None:
    assert_untouched(deltas)


# -- sectors --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [512, 4096])
def test_a_bad_sector_costs_what_it_holds(scenes: dict[str, Scene], size: int) -> None:
    """Exactly the records that the sector hit are lost; the others are in new packs."""
    scene = scenes["plain records"]
    (contents,) = scene.stored.values()
    file_of = {HASHER.id(ObjectType.CHUNK, data): name for name, data in contents.items()}
    name = data_pack(scene)
    for begin, damaged in sectors(scene.files[name], size, "noise")[:: 4096 // size]:
        sound = sound_objects(scene.pack(name), damaged)
        expected = {file for object_id, file in file_of.items() if object_id not in sound}
        after, seen = mend(scene, scene.files | {name: damaged})
        assert list(seen.lost.values()) == [expected], begin
        assert after["quarantine/packs/" + name.rpartition("/")[2]] == damaged


def test_a_bad_sector_of_metadata(scene: Scene) -> None:
    for name in scene.packs():
        if scene.pack(name).kind != DATA:
            for _begin, damaged in sectors(scene.files[name], 4096, "noise"):
                mend(scene, scene.files | {name: damaged})


def test_a_byte_anywhere(scene: Scene) -> None:
    """Also where no reader looks: then everything is saved."""
    rng = Random("byte")
    for name in scene.packs():
        data = scene.files[name]
        gap = scene.gap(name)
        places = [rng.choice(gap)] if gap else []
        for at in [*places, 3, 70, 120, len(data) - 3, *rng.sample(range(len(data)), 3)]:
            damaged = bytearray(data)
            damaged[at] ^= 0x21
            _after, seen = mend(scene, scene.files | {name: bytes(damaged)})
            if at in places:
                assert not any(seen.lost.values())


# -- footers --------------------------------------------------------------------------------


def spots(data: bytes) -> dict[str, int]:
    return {
        "header": 5,
        "trailer": len(data) - 5,
        "first": int.from_bytes(data[64:72], "little") + 70,
        "second": int.from_bytes(data[-56:-48], "little") + 70,
    }


def without(data: bytes, *ends: str) -> bytes:
    damaged = bytearray(data)
    for end in ends:
        damaged[spots(data)[end]] ^= 1
    return bytes(damaged)


@pytest.mark.parametrize(
    "ends",
    ["header", "trailer", "first", "second", "header trailer", "header second", "first trailer"],
)
def test_one_footer_is_enough(scene: Scene, ends: str) -> None:
    """A footer that nothing leads to is found by what it is: everything is saved."""
    for name in scene.packs():
        damaged = without(scene.files[name], *ends.split())
        _after, seen = mend(scene, scene.files | {name: damaged})
        assert not any(seen.lost.values()), name


def test_both_footers_are_gone(scene: Scene) -> None:
    name = data_pack(scene)
    files = scene.files | {name: without(scene.files[name], "first", "second")}
    after, seen = mend(scene, files)
    assert any(seen.lost.values())
    assert "quarantine/packs/" + name.rpartition("/")[2] in after


def test_what_only_the_index_knows_is_saved(scene: Scene) -> None:
    """With both footers gone the view still leads to every record, until the file moves away."""
    for name in scene.packs():
        index = tempfile.mkdtemp(dir=FAST)
        assert scene.look(scene.files, index=index).texts == []
        files = scene.files | {name: without(scene.files[name], "first", "second")}
        after, result = repaired(scene, files, index)
        assert result.is_whole and [found.outcome for found in result.damaged] == ["quarantined"]
        assert not any(scene.look(after).lost.values()), name
        shutil.rmtree(index)


# -- whole files ----------------------------------------------------------------------------


def test_cut_off(scene: Scene) -> None:
    """Records before the end are saved if the first footer is."""
    name = data_pack(scene)
    data = scene.files[name]
    for size in (0, 1, 127, 128, len(data) // 3, len(data) - 4096, len(data) - 64, len(data) - 1):
        _after, seen = mend(scene, scene.files | {name: data[: max(0, size)]})
        if size >= len(data) - 64:
            assert not any(seen.lost.values()), size


def test_lengthened_zeroed_or_missing(scene: Scene, scenes: dict[str, Scene]) -> None:
    for name in scene.packs():
        data = scene.files[name]
        for damaged in (data + b"\0", data + data, b"\0" * len(data)):
            _after, seen = mend(scene, scene.files | {name: damaged})
            assert damaged[:8] != data[:8] or not any(seen.lost.values())
        rest = {each: at for each, at in scene.files.items() if each != name}
        after, result = repaired(scene, rest)
        assert after == rest and not result.is_whole, "what is missing is said, and all that can be"


def test_under_another_name(scene: Scene) -> None:
    copied = pack_name("ab" + "0" * 62)
    for name in scene.packs():
        _after, seen = mend(scene, scene.files | {copied: scene.files[name]})
        assert not any(seen.lost.values())
        moved = {each: at for each, at in scene.files.items() if each != name}
        _after, seen = mend(scene, moved | {copied: scene.files[name]})
        assert not any(seen.lost.values())


def test_what_was_never_damaged_stays(scene: Scene, tmp_path_factory) -> None:
    """Bytes that are what their name says, and no pack of ours: another's, or nobody knows what."""
    other = small_scene(tmp_path_factory.mktemp("other"))
    odd = without(scene.files[data_pack(scene)], "first", "second")
    strangers = {name: other.files[name] for name in other.packs()}
    for name, data in (strangers | {pack_name(blake3(odd).hexdigest()): odd}).items():
        files = scene.files | {name: data}
        after, result = repaired(scene, files)
        assert after == files
        assert [(found.outcome, bool(found.reason)) for found in result.damaged] == [
            ("stays", True)
        ]
        assert not result.is_whole


def test_a_config_of_another_repository_costs_nothing(scenes, tmp_path_factory) -> None:
    """Every pack and snapshot is whole, and seems to be somebody else's: nothing may move."""
    scene = scenes["plain"]
    other = small_scene(tmp_path_factory.mktemp("config"))
    theirs = dict.fromkeys(("config", "config.bak"), other.files["config"])
    spoilt = data_pack(scene)
    damaged = {spoilt: scene.files[spoilt][:-9] + b"x" + scene.files[spoilt][-8:]}
    for files in (scene.files | theirs, scene.files | theirs | damaged):
        after = dict(files)
        with scene.opened(after) as repository:
            repository.repair_packs()
            with pytest.raises(packstone.PackstoneError):
                repository.repair_snapshots(forget=True)
        assert after == files


# -- deltas ---------------------------------------------------------------------------------


def test_every_record_of_a_chain(deltas: DeltaScene) -> None:
    """Lost is what stands on it and nothing else; deltas that are whole keep their depth."""
    for place in deltas.rows:
        if len(place[2].objects) > 37:
            continue
        expected = deltas.needing(id_of(place[2]))
        after, seen = mend(deltas, deltas.spoilt(place, wholly=True))
        assert seen.lost == expected
        assert_depths(deltas, after)
        # A byte may be one that a delta does not look at: that can be read, and is saved.
        files = deltas.spoilt(place)
        readable = deltas.look(files).lost
        after, seen = mend(deltas, files)
        assert seen.lost == readable
        assert_depths(deltas, after)


def assert_depths(scene: DeltaScene, files: Files) -> None:
    """Require that no chunk is deeper than it was."""
    was: dict[bytes, int] = {}
    for _name, _number, row in scene.rows:
        for object_id, _size, _type in row.object_rows():
            was[object_id] = min(row.depth, was.get(object_id, row.depth))
    now: dict[bytes, int] = {}
    for name in (each for each in files if each.startswith("packs/")):
        pack = Scene.pack(_With(files, scene), name)  # type: ignore[arg-type]
        for row in pack.rows if pack.kind == DATA else ():
            for object_id, _size, _type in row.object_rows():
                now[object_id] = min(row.depth, now.get(object_id, row.depth))
    assert all(depth <= was[object_id] for object_id, depth in now.items())


class _With:
    def __init__(self, files: Files, scene: Scene) -> None:
        self.files, self.sealer = files, scene.sealer


def test_a_delta_whose_base_is_damaged_elsewhere_stays(deltas: DeltaScene) -> None:
    """Its pack is as it was written: only the pack of the base is put away."""
    bases = {base for _, _, row in deltas.rows for base in row.bases}
    place = next(each for each in deltas.rows if id_of(each[2]) in bases and not each[2].bases)
    after, result = repaired(deltas, deltas.spoilt(place))
    assert [found.pack for found in result.damaged] == [place[0].rpartition("/")[2]]
    others = {name: data for name, data in deltas.files.items() if name != place[0]}
    assert {name: after[name] for name in others if name != "state"} == {
        name: data for name, data in others.items() if name != "state"
    }


def test_bases_that_are_whole_elsewhere(deltas: DeltaScene) -> None:
    bases = {base for _, _, row in deltas.rows for base in row.bases}
    copied = with_second_copies(deltas, bases)
    (added,) = set(copied) - set(deltas.files)
    for place in deltas.rows:
        if id_of(place[2]) in bases:
            _after, seen = mend(deltas, deltas.spoilt(place) | {added: copied[added]})
            assert not any(seen.lost.values())


def test_a_whole_copy_is_not_replaced_by_a_delta(deltas: DeltaScene) -> None:
    """A chunk that was whole is stored whole again, though a delta of it is left."""
    place = next(each for each in deltas.rows if each[2].depth)
    copied = with_second_copies(deltas, {id_of(place[2])})
    (added,) = set(copied) - set(deltas.files)
    row = deltas_row(deltas, copied, added)
    data = bytearray(copied[added])
    data[row.offset + row.stored_size // 2] ^= 1
    after, _seen = mend(deltas, copied | {added: bytes(data)})
    with deltas.opened(after) as repository:
        assert repository._objects.index.find(id_of(place[2]))[0].depth == 0


def deltas_row(scene: DeltaScene, files: Files, name: str) -> RecordRow:
    """Return the one record of a pack."""
    (row,) = Scene.pack(_With(files, scene), name).rows  # type: ignore[arg-type]
    return row


def test_two_packs_with_damage(deltas: DeltaScene) -> None:
    """A delta in one, its base in the other, both whole beside what is damaged there."""
    rng = Random("two packs")
    singles = [each for each in deltas.rows if len(each[2].objects) == 37]
    for _ in range(6):
        two = rng.sample(singles, 2)
        expected = deltas.needing(*(id_of(each[2]) for each in two))
        _after, seen = mend(deltas, deltas.spoilt(*two, wholly=True))
        assert seen.lost == expected


def test_only_the_packs_that_are_named(deltas: DeltaScene) -> None:
    names = sorted({name for name, _, _ in deltas.rows})[:2]
    places = [next(each for each in deltas.rows if each[0] == name) for name in names]
    files = deltas.spoilt(*places)
    after = dict(files)
    with deltas.opened(after) as repository:
        first = names[0].rpartition("/")[2]
        result = repository.repair_packs([first[:9]])
        assert [found.pack for found in result.damaged] == [first]
        with pytest.raises(packstone.UsageError):
            repository.repair_packs(["no such"])
    assert names[0] not in after and after[names[1]] == files[names[1]]


# -- written wrong --------------------------------------------------------------------------


def test_records_that_were_written_wrong(scenes: dict[str, Scene]) -> None:
    """The name is right and a record is not: what else is in the pack is saved."""
    scene = scenes["plain records"]
    name = data_pack(scene)
    row = next(row for row in scene.pack(name).rows if len(row.objects) == 37)
    data = bytearray(scene.files[name])
    data[row.offset + 99] ^= 1
    renamed = pack_name(blake3(data).hexdigest())
    files = {each: at for each, at in scene.files.items() if each != name}
    _after, seen = mend(scene, files | {renamed: bytes(data)})
    assert sum(map(len, seen.lost.values())) == 1


def test_sealed_scenes_are_sealed(scenes: dict[str, Scene]) -> None:
    assert isinstance(scenes["sealed"], SealedScene)
