"""Files of a repository cut off, lengthened, emptied, deleted, exchanged, or put in from elsewhere.

Whatever was done: it is named or harmless, what can be restored is, and nothing is ever wrong.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from blake3 import blake3
from damage.scene import Scene, Seen, small_scene

from packstone.errors import Damaged, RepositoryMissing
from packstone.repository.layout import pack_name

KINDS = ["config", "config.bak", "state", "snapshots", "packs"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return small_scene(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Another repository of the same files: its objects have the same ids."""
    return small_scene(tmp_path_factory.mktemp("other"))


def names_of(scene: Scene, kind: str) -> list[str]:
    return [name for name in sorted(scene.files) if name == kind or name.startswith(kind + "/")]


def assert_told(scene: Scene, name: str, seen: Seen) -> None:
    """Require that damage of a file is named, and that small objects cost nobody anything."""
    assert seen.names(name), name
    if name in ("config", "config.bak", "state"):
        assert seen.refused is None
        assert list(seen.lost.values()) == [set(), set()]


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off(scene: Scene, kind: str) -> None:
    for name in names_of(scene, kind):
        data = scene.files[name]
        step = 1 + len(data) // 40
        edges = {0, 1, 63, 64, 96, 127, 128, 129, len(data) - 1, len(data) - 64, len(data) - 65}
        for size in sorted({*range(0, len(data), step), *edges} & set(range(len(data)))):
            seen = scene.look(scene.files | {name: data[:size]})
            assert_told(scene, name, seen)


@pytest.mark.parametrize("kind", KINDS)
def test_lengthened(scene: Scene, kind: str) -> None:
    rng = Random("more")
    for name in names_of(scene, kind):
        data = scene.files[name]
        for more in (b"\0", rng.randbytes(1), bytes(4096), rng.randbytes(512), data[-64:], data):
            seen = scene.look(scene.files | {name: data + more})
            assert_told(scene, name, seen)
            # what was there is still there
            if kind == "packs":
                assert list(seen.lost.values()) == [set(), set()]


@pytest.mark.parametrize("kind", KINDS)
def test_emptied_or_zeroed(scene: Scene, kind: str) -> None:
    for name in names_of(scene, kind):
        for data in (b"", bytes(len(scene.files[name])), bytes(5000)):
            assert_told(scene, name, scene.look(scene.files | {name: data}))


def without(scene: Scene, name: str) -> dict[str, bytes]:
    return {each: data for each, data in scene.files.items() if each != name}


def test_deleted_packs(scene: Scene) -> None:
    """Which packs are gone only the index could say; what is missing of which file, check says."""
    for name in scene.packs():
        seen = scene.look(without(scene, name))
        assert seen.texts and any(seen.lost.values()), name


def test_deleted_packs_that_an_index_knows(scene: Scene, tmp_path_factory) -> None:
    for name in scene.packs():
        index = str(tmp_path_factory.mktemp("index"))
        assert scene.look(scene.files, index=index).texts == []
        seen = scene.look(without(scene, name), index=index)
        assert seen.texts and any(seen.lost.values()), name
        # and when it is put back all is well
        assert scene.look(scene.files, index=index).texts == []


def test_a_deleted_snapshot_is_one_that_was_forgotten(scene: Scene) -> None:
    first, second = scene.stored
    seen = scene.look(without(scene, f"snapshots/{first}"), restore=False)
    assert (seen.refused, seen.texts) == (None, [])
    with scene.opened(without(scene, f"snapshots/{first}")) as repository:
        assert [row.id for row in repository.snapshots()] == [second]


def test_deleted_small_files(scene: Scene) -> None:
    for name in ("config", "config.bak", "state"):
        seen = scene.look(without(scene, name))
        assert list(seen.lost.values()) == [set(), set()], name
        assert seen.names(name)
    files = {name: data for name, data in scene.files.items() if not name.startswith("config")}
    assert isinstance(scene.look(files).refused, RepositoryMissing)


# -- config ---------------------------------------------------------------------------------


def test_a_damaged_config_is_replaced_by_its_copy_with_a_warning(scene: Scene) -> None:
    for damage in (b"", scene.files["config"][:-1], b"\0" * 212):
        with scene.opened(scene.files | {"config": damage}) as repository:
            (warning,) = repository.warnings
            assert "config.bak" in warning and "Copy" in warning
            assert len(repository.snapshots()) == 2


def test_two_damaged_configs_are_an_error_that_says_what_is_safe(scene: Scene) -> None:
    seen = scene.look(scene.files | {"config": b"x", "config.bak": b"y"})
    assert isinstance(seen.refused, Damaged)
    assert "config" in seen.refused.message and "packs are unaffected" in seen.refused.hint


def test_a_damaged_state_stops_the_next_snapshot(scene: Scene) -> None:
    for damage in (b"", scene.files["state"][:-1]):
        files = scene.files | {"state": damage}
        before = set(files)
        with (
            scene.opened(files) as repository,
            pytest.raises(Damaged, match="state"),
        ):
            repository.snapshot([scene.root / "source"])
        assert set(files) == before


# -- files that are whole and in the wrong place --------------------------------------------


def test_a_pack_of_another_repository(scene: Scene, other: Scene) -> None:
    """It is whole under its own name, and still none of ours: swapped disks, a careless copy."""
    for name in other.packs():
        seen = scene.look(scene.files | {name: other.files[name]})
        assert seen.names(name)
        assert seen.refused is None and list(seen.lost.values()) == [set(), set()]


def test_packs_exchanged(scene: Scene, other: Scene) -> None:
    """Under one of our names stands another of our packs, or one of somebody else's."""
    for name in scene.packs():
        for data in [*other.files.values(), *scene.files.values()]:
            if data[:8] == b"PKSTPACK" and data != scene.files[name]:
                seen = scene.look(scene.files | {name: data})
                assert seen.names(name)


def test_a_copy_of_a_pack_under_another_name(scene: Scene) -> None:
    """What it holds may be read there; that its name is not its hash is said."""
    for name in scene.packs():
        copied = pack_name("ab" + "0" * 62)
        seen = scene.look(scene.files | {copied: scene.files[name]})
        assert seen.names(copied) and list(seen.lost.values()) == [set(), set()]
        moved = {copied: scene.files[name]} | without(scene, name)
        seen = scene.look(moved)
        assert seen.names(copied) and list(seen.lost.values()) == [set(), set()]


def test_a_pack_in_another_folder_locks_nobody_out(scene: Scene) -> None:
    """A slip of the mouse must not keep the other packs from being read."""
    name = scene.packs()[0]
    moved = {"packs/00/" + name.rpartition("/")[2]: scene.files[name]} | without(scene, name)
    seen = scene.look(moved)
    assert seen.refused is None and seen.texts


def test_snapshots_exchanged(scene: Scene, other: Scene) -> None:
    first, second = (f"snapshots/{each}" for each in scene.stored)
    theirs = f"snapshots/{next(iter(other.stored))}"
    for name, data in (
        (first, scene.files[second]),
        (second, scene.files[first]),
        (first, other.files[theirs]),
        (theirs, other.files[theirs]),
        (first, scene.files["config"]),
    ):
        seen = scene.look(scene.files | {name: data}, restore=name in (first, second))
        assert seen.names(name)
        untouched = next(each for each in scene.stored if not name.endswith(each))
        assert not seen.lost or seen.lost[untouched] == set()


def test_config_and_state_of_another_repository(scene: Scene, other: Scene) -> None:
    theirs = {"config": other.files["config"], "config.bak": other.files["config"]}
    seen = scene.look(scene.files | theirs)
    assert seen.texts and all(lost == set(scene.stored[i]) for i, lost in seen.lost.items())
    with (
        scene.opened(scene.files | {"state": other.files["state"]}) as repository,
        pytest.raises(Damaged, match="repository"),
    ):
        repository.snapshot([scene.root / "source"])


def test_small_objects_in_each_others_places(scene: Scene) -> None:
    """Each says what it is: no kind is ever taken for another."""
    snapshot = next(name for name in scene.files if name.startswith("snapshots/"))
    small = ["config", "state", snapshot]
    for name in small:
        for source in small:
            if source != name:
                assert_told(scene, name, scene.look(scene.files | {name: scene.files[source]}))


# -- records moved within a pack ------------------------------------------------------------


def test_records_exchanged(scene: Scene) -> None:
    """Two records of one pack change places, byte for byte, and the name is made right again."""
    pairs = 0
    for name in scene.packs():
        rows = scene.pack(name).rows
        for one, two in pairwise(rows):
            pairs += 1
            data = scene.files[name]
            first = data[one.offset : one.offset + one.stored_size]
            second = data[two.offset : two.offset + two.stored_size]
            changed = data[: one.offset] + second + first + data[two.offset + two.stored_size :]
            renamed = pack_name(blake3(changed).hexdigest())
            seen = scene.look({renamed: changed} | without(scene, name))
            assert seen.names(renamed)
    assert pairs


def test_what_does_not_belong_there_is_ignored(scene: Scene) -> None:
    files = scene.files | {"packs/00/.DS_Store": b"x", "snapshots/README": b"y", "notes": b"z"}
    seen = scene.look(files)
    assert (seen.refused, seen.texts) == (None, [])
