"""Repair of packs and index on a real disk: what it may touch, where it gets things from."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from compare_trees import describe, differences
from damage.sealed_scene import CHEAP
from operations.test_bad_sectors import spoil as spoil_of
from tables import CHUNK_SIZE, deltas, nights, records

import packstone
from packstone.model import ObjectType
from packstone.repository import layout
from packstone.repository.packs import DATA

spoil = spoil_of  # the fixture
NIGHTS = nights("repair", 3_000, 3)
Spoil = Callable[[Path, int], None]
SECRETS: dict[str, str | None] = {"plain": None, "encrypted": "some passphrase"}


def assert_equal_trees(expected: Path, found: Path) -> None:
    assert differences(describe(expected, top=False), describe(found, top=False)) == []


class Place:
    """A repository of three nights of a table and other files, and its source."""

    def __init__(self, root: Path, secret: str | None) -> None:
        self.root, self.secret = root, secret
        self.source, self.location = root / "source", root / "store"
        self.source.mkdir()
        packstone.init(
            self.location, chunk_size=CHUNK_SIZE, pack_size=1 << 20, passphrase=secret, argon2=CHEAP
        ).close()
        self.ids: list[str] = []
        for at, night in enumerate(NIGHTS):
            (self.source / "table").write_bytes(night)
            (self.source / f"noise {at}").write_bytes(Random(at).randbytes(150_000))
            (self.source / f"few {at}").mkdir()
            for small in range(20):
                (self.source / f"few {at}" / f"{small}").write_text(f"{at} {small}\n" * 9)
            with self.open() as repository:
                self.ids.append(repository.snapshot([self.source]).snapshot_id or "")
                assert at == 0 or deltas(records(repository))
        subprocess.run(["cp", "-a", self.source, root / "as it was"], check=True)

    def open(self, location: Path | None = None, **options: Any) -> packstone.Repository:
        location = location or self.location
        return packstone.open(location, passphrase=self.secret, threads=2, **options)

    def copy(self, name: str = "copy") -> Path:
        shutil.copytree(self.location, self.root / name, ignore=shutil.ignore_patterns("index"))
        return self.root / name

    def packs(self) -> list[Path]:
        """Return the packs, the largest first."""
        found = [path for path in (self.location / "packs").rglob("*") if path.is_file()]
        return sorted(found, key=lambda path: -path.stat().st_size)

    def data_packs(self) -> list[Path]:
        return [path for path in self.packs() if path.read_bytes()[10] == DATA]

    def assert_whole(self, snapshot: str | None = None, source: Path | None = None) -> None:
        target = self.root / "target"
        with self.open() as repository:
            result = repository.restore(snapshot or self.ids[-1], target, path=bytes(self.source))
            assert result.errors == []
            assert_equal_trees(source or self.root / "as it was", target)
            assert repository.check(read_data=True).errors == []
        shutil.rmtree(target)


@pytest.fixture(params=list(SECRETS))
def place(
    request: pytest.FixtureRequest, big_place: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(big_place / "cache"))
    yield (made := Place(big_place, SECRETS[request.param]))
    assert os.listdir(made.location / "tmp") == []


@pytest.fixture
def plain(big_place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(big_place / "cache"))
    yield (made := Place(big_place, None))
    assert os.listdir(made.location / "tmp") == []


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for at in places or (len(data) // 2,):
        data[at] ^= 0x55
    path.write_bytes(data)


def everything(location: Path) -> dict[str, bytes]:
    """Return every file; of the index what LMDB stores, not who reads it just now."""
    return {
        path.relative_to(location).as_posix(): path.read_bytes()
        for path in location.rglob("*")
        if path.is_file() and path.name != "lock.mdb"
    }


def test_of_what_is_healthy_not_a_byte_changes(place: Place) -> None:
    """Every file, the state and the index too, whatever is repaired and from wherever."""
    copy = place.copy()
    with place.open() as repository:
        assert repository.check().errors == []
    before, theirs = everything(place.location), everything(copy)
    with place.open() as repository:
        assert not repository.repair_index().rebuilt
        assert repository.repair_packs().is_whole
        assert repository.repair_snapshots().is_whole
        assert repository.repair_snapshots(forget=True).is_whole
        with place.open(copy, index_dir=place.root / "elsewhere") as other:
            result = repository.repair_packs(source=other)
            assert result.is_whole and not result.packs_fetched and not result.objects_fetched
    assert everything(place.location) == before
    assert everything(copy) == theirs


# -- bad sectors ----------------------------------------------------------------------------


def test_records_outside_a_bad_sector_are_saved(
    plain: Place, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that gives EIO for a place of a pack: one file is lost, and named."""
    pack = plain.packs()[0]
    at = pack.stat().st_size // 2
    spoil(pack, at)
    with plain.open() as repository:
        result = repository.repair_packs()
        (found,) = result.damaged
        assert found.outcome == "quarantined" and found.lost == 1 and found.saved > 5
        assert not pack.exists()
        assert (plain.location / found.quarantine).stat().st_size > at
        hit = {path for loss in result.losses for path in loss.paths}
        for snapshot_id in plain.ids:
            restored = repository.restore(snapshot_id, plain.root / snapshot_id)
            assert {problem.path for problem in restored.errors} <= hit


def test_a_disk_that_cannot_be_read_at_all_moves_nothing(
    plain: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What may be a cable or a permission is no damage: nothing goes to quarantine."""
    from packstone.storage import local

    read_range = local.read_range
    target: list[int] = []

    def read(fd: int, offset: int, size: int, *calls: object) -> bytes:
        if os.fstat(fd).st_ino in target:
            raise OSError(errno.EACCES, "Permission denied")
        return read_range(fd, offset, size, *calls)

    before = everything(plain.location)
    packs = plain.packs()
    monkeypatch.setattr(local, "read_range", read)
    judged = 0
    for path in packs:
        target[:] = [path.stat().st_ino]
        with plain.open() as repository, contextlib.suppress(packstone.StorageUnavailable):
            (found,) = repository.repair_packs().damaged  # others need it: that ends it at once
            assert found.outcome == "stays" and "cannot be judged" in found.reason
            judged += 1
    target.clear()
    assert judged
    assert everything(plain.location) == before


def test_what_was_good_the_second_time_is_not_damage(
    plain: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packstone.storage import local

    read_range = local.read_range
    wrong: list[int] = []

    def read(fd: int, offset: int, size: int, *calls: object) -> bytes:
        data = read_range(fd, offset, size, *calls)
        if size > 100_000 and len(data) > 100_000 and not wrong:
            wrong.append(offset)
            return bytes(9) + data[9:]
        return data

    before = everything(plain.location / "packs")
    with plain.open() as repository:
        monkeypatch.setattr(local, "read_range", read)
        result = repository.repair_packs()
    assert wrong and result.transient and result.is_whole and result.damaged == []
    assert everything(plain.location / "packs") == before


# -- from another repository ----------------------------------------------------------------


def test_a_whole_copy_takes_the_place_of_a_damaged_pack(place: Place) -> None:
    """Bit for bit, and the damaged bytes are kept."""
    copy = place.copy()
    before = {path: path.read_bytes() for path in place.packs()}
    for path in before:
        flip(path)
    damaged = {path: path.read_bytes() for path in before}
    with place.open() as repository, place.open(copy) as other:
        result = repository.repair_packs(source=other)
        assert result.is_whole and result.packs_fetched == len(before)
        assert {found.outcome for found in result.damaged} == {"put back"}
    assert {path: path.read_bytes() for path in place.packs()} == before
    kept = {
        path.name: path.read_bytes() for path in (place.location / "quarantine/packs").iterdir()
    }
    assert kept == {path.name: data for path, data in damaged.items()}
    for snapshot_id in place.ids[:-1]:
        with place.open() as repository:
            assert repository.restore(snapshot_id, place.root / snapshot_id).errors == []
    place.assert_whole()


def test_missing_packs_come_back_whole(place: Place) -> None:
    copy = place.copy()
    before = {path: path.read_bytes() for path in place.packs()}
    for path in before:
        path.unlink()
    with place.open() as repository, place.open(copy) as other:
        result = repository.repair_packs(source=other)
        assert result.is_whole and result.packs_fetched == len(before)
    assert {path: path.read_bytes() for path in place.packs()} == before
    place.assert_whole()


def test_a_copy_that_is_damaged_too(place: Place) -> None:
    """Each has another bad record: what one cannot give the other does."""
    copy = place.copy()
    pack = place.packs()[0]
    size = pack.stat().st_size
    flip(pack, size // 5)
    flip(copy / pack.relative_to(place.location), size * 4 // 5)
    with place.open() as repository, place.open(copy) as other:
        result = repository.repair_packs(source=other)
        assert result.is_whole and result.objects_fetched == 1 and result.packs_fetched == 0
        assert [found.outcome for found in result.damaged] == ["quarantined"]
    place.assert_whole()


def test_objects_from_another_repository_of_the_family(place: Place) -> None:
    with place.open() as repository:
        other = packstone.init(
            place.root / "other", like=repository, passphrase=place.secret, argon2=CHEAP
        )
    with other:
        other.snapshot([place.source])
        for path in place.data_packs():
            flip(path, 70 + int.from_bytes(path.read_bytes()[64:72], "little"))
            flip(path, 70 + int.from_bytes(path.read_bytes()[-56:-48], "little"))
        with place.open(index_dir=place.root / "new index") as repository:
            result = repository.repair_packs(source=other)
            assert result.objects_fetched > 20 and result.packs_fetched == 0
            hit = {snapshot for loss in result.losses for snapshot in loss.snapshots}
            # The other one never had what the table was before.
            assert hit <= set(place.ids[:-1])
            target = place.root / "target"
            assert repository.restore(place.ids[-1], target, path=bytes(place.source)).errors == []
            assert_equal_trees(place.root / "as it was", target)


def test_what_is_no_source(place: Place) -> None:
    with (
        place.open() as repository,
        packstone.init(place.root / "stranger", passphrase="x" * 20, argon2=CHEAP) as stranger,
    ):
        with pytest.raises(packstone.UsageError, match="family"):
            repository.repair_packs(source=stranger)
        with place.open() as same, pytest.raises(packstone.UsageError, match="itself"):
            repository.repair_packs(source=same)


def test_where_files_have_one_name_only(
    plain: Place, monkeypatch: pytest.MonkeyPatch, spoil: Spoil
) -> None:
    """A file system without hard links: the damaged bytes are copied, zeros for bad sectors."""

    def link(*_arguments: Any, **_options: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    copy = plain.copy()
    pack = plain.packs()[0]
    whole = pack.read_bytes()
    spoil(pack, len(whole) // 2)
    monkeypatch.setattr(os, "link", link)
    with plain.open() as repository, plain.open(copy) as other:
        (found,) = repository.repair_packs(source=other).damaged
    assert found.outcome == "put back"
    assert pack.read_bytes() == whole
    sector = len(whole) // 2 // 4096 * 4096
    expected = whole[:sector] + bytes(4096) + whole[sector + 4096 :]
    assert (plain.location / found.quarantine).read_bytes() == expected
    plain.assert_whole()


# -- a sweep like any other -----------------------------------------------------------------


def test_quarantining_is_a_sweep(plain: Place) -> None:
    """A new generation, the exclusive lock, and a pack that is damaged twice is kept twice."""
    pack = plain.packs()[0]
    copy = plain.copy()
    for _ in range(2):
        with plain.open() as repository:
            generation = repository._objects.generation()
            flip(pack, Random().randrange(200, 60_000))
            with plain.open(copy) as other:
                assert repository.repair_packs(source=other).is_whole
            assert repository._objects.generation() != generation
    assert len(list((plain.location / "quarantine/packs").iterdir())) == 2
    flip(pack)
    with plain.open() as repository, plain.open():
        with pytest.raises(packstone.RepositoryLocked):
            repository.repair_packs()
    assert pack.exists()
    with plain.open() as repository:
        assert repository.repair_packs().damaged[0].outcome == "quarantined"


def test_prune_and_check_never_look_into_quarantine(plain: Place) -> None:
    flip(plain.packs()[0])
    with plain.open() as repository:
        repository.repair_packs()
        repository.repair_snapshots(forget=True)
    kept = everything(plain.location / "quarantine")
    assert len(kept) > 1
    with plain.open() as repository:
        assert repository.check(read_data=True).errors == []
        repository.prune(max_unused=0.0)
        assert repository.check(read_data=True).errors == []
    assert everything(plain.location / "quarantine") == kept


# -- healing (row B3) -----------------------------------------------------------------------

DAMAGE: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut off": lambda path: os.truncate(path, path.stat().st_size // 3),
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", ["same", "changed", "new"])
@pytest.mark.parametrize("damage", list(DAMAGE))
def test_the_next_snapshot_heals(plain: Place, damage: str, change: str) -> None:
    """After repair of packs a snapshot stores again what was lost, of all that the source has."""
    for pack in plain.data_packs() if change == "same" else plain.packs():
        DAMAGE[damage](pack)
    if change == "changed":
        for path in plain.source.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes() + b"a new end\n")
    elif change == "new":
        (plain.source / "table").write_bytes(nights("another", 3_000, 1)[0])
        (plain.source / "more").write_bytes(os.urandom(90_000))
    with plain.open() as repository:
        repository.repair_packs()
        taken = repository.snapshot([plain.source])
        assert taken.errors == [] and taken.snapshot_id
        hit = {name for f in repository.check(read_data=True).errors for name in f.snapshots}
        assert taken.snapshot_id not in hit
        target = plain.root / "healed"
        restored = repository.restore(taken.snapshot_id, target, path=bytes(plain.source))
        assert restored.errors == []
        assert_equal_trees(plain.source, target)
        if change == "same":
            # The last snapshot named the very same chunks: it is whole again, too.
            assert plain.ids[-1] not in hit
        repaired = repository.repair_snapshots(forget=True)
        assert {found.original_id for found in repaired.repaired} == hit
        assert repository.check(read_data=True).errors == []
        repository.prune()
        assert repository.check(read_data=True).errors == []
    plain.assert_whole(taken.snapshot_id, plain.source)


# -- index ----------------------------------------------------------------------------------


def index_file(place: Place) -> Path:
    return place.location / "index" / "data.mdb"


def test_an_index_that_cannot_be_opened(plain: Place) -> None:
    data = bytearray(index_file(plain).read_bytes())
    data[4096 * 2 :] = os.urandom(len(data) - 4096 * 2)
    index_file(plain).write_bytes(data)
    with plain.open() as repository:
        assert repository.repair_index(force=True).rebuilt
    plain.assert_whole()
    index_file(plain).write_bytes(b"no database")
    with plain.open() as repository:
        assert repository.repair_index().differing == {}
    plain.assert_whole()


def test_an_index_with_wrong_places(plain: Place) -> None:
    """Places, rows and bases that other packs have: all noticed, all made anew."""
    for database in (b"objects", b"packs", b"bases"):
        with plain.open() as repository:
            view = repository._objects.index._view

            def exchange(transaction: Any, view: Any = view, database: bytes = database) -> None:
                found = [
                    (bytes(key), bytes(value))
                    for key, value in transaction.cursor(db=view.databases[database])
                ]
                assert len(found) > 1
                for (key, _), (_, value) in zip(found, found[1:] + found[:1], strict=True):
                    transaction.put(key, value, db=view.databases[database])

            view.write(exchange)
        with plain.open() as repository:
            result = repository.repair_index()
            assert result.rebuilt and result.differing, database
            assert not repository.repair_index().rebuilt
        plain.assert_whole()


def test_an_index_with_more_than_there_is(plain: Place) -> None:
    with plain.open() as repository:
        view = repository._objects.index._view

        def add(transaction: Any) -> None:
            _key, value = next(iter(transaction.cursor(db=view.databases[b"objects"])))
            transaction.put(bytes(32), bytes(value), db=view.databases[b"objects"])

        view.write(add)
    with plain.open() as repository:
        result = repository.repair_index()
        assert (result.rebuilt, result.surplus) == (True, 1)
    plain.assert_whole()


def test_what_only_the_index_knows_is_not_thrown_away(plain: Place) -> None:
    """A wrong index, and a pack without footers: nothing is made anew before that one is saved."""
    pack = plain.packs()[0]
    data = pack.read_bytes()
    flip(pack, 70 + int.from_bytes(data[64:72], "little"))
    flip(pack, 70 + int.from_bytes(data[-56:-48], "little"))
    with plain.open() as repository:
        view = repository._objects.index._view

        def add(transaction: Any) -> None:
            _key, value = next(iter(transaction.cursor(db=view.databases[b"objects"])))
            transaction.put(bytes(32), bytes(value), db=view.databases[b"objects"])

        view.write(add)
    with plain.open() as repository:
        try:
            assert repository.repair_index().damaged.keys() <= {pack.name}
        except packstone.Damaged as refused:  # where the wrong entry is one of that very pack
            assert pack.name[:12] in refused.message and "repair packs" in refused.hint
        assert pack.name in repository._objects.index.packs.values(), "what it knew it knows"


def test_a_missing_object_costs_no_pack_that_only_the_index_knows(plain: Place) -> None:
    """One pack is gone, another one has lost its footers: what is in it is read, and saved."""
    packs = sorted(plain.packs(), key=lambda path: path.stat().st_size)
    gone, pack = packs[0], packs[-1]
    data = pack.read_bytes()
    flip(pack, 70 + int.from_bytes(data[64:72], "little"))
    flip(pack, 70 + int.from_bytes(data[-56:-48], "little"))
    gone.unlink()
    with plain.open() as repository:
        objects = repository._objects
        with pytest.raises(packstone.ObjectMissing):
            objects.reader.get(ObjectType.CHUNK, bytes(32))
        assert pack.name in objects.index.packs.values(), "what it knew it knows"
        (found,) = (each for each in repository.repair_packs().damaged if each.pack == pack.name)
        assert found.quarantine


def test_other_repositories_keep_the_index(plain: Place) -> None:
    """Whoever has the old index open goes on with it."""
    with plain.open() as first:
        with plain.open() as second:
            assert second.repair_index(force=True).rebuilt
        assert first.repair_index().differing == {}
    plain.assert_whole()


def test_layout_of_quarantine(plain: Place) -> None:
    """docs/format.md §1: the file keeps the last part of its name."""
    pack = plain.packs()[0]
    flip(pack)
    damaged = pack.read_bytes()
    with plain.open() as repository:
        (found,) = repository.repair_packs().damaged
    assert layout.pack_name(found.pack) == pack.relative_to(plain.location).as_posix()
    assert found.quarantine == f"quarantine/packs/{found.pack}"
    assert (plain.location / found.quarantine).read_bytes() == damaged
