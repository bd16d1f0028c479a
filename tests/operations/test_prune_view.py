"""A view that lies, row by row, in every way (rows 2, 4, 7, 16): prune refuses or is right.

What counts is what the footers of the packs say afterwards: everything that snapshots reach is
there, at the end of a chain of deltas that ends.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import pytest
from operations.pruning import History

import packstone
from packstone.errors import PackstoneError
from packstone.repository.layout import list_ids
from packstone.repository.marks import Marker
from packstone.repository.packs import read_pack
from packstone.repository.places import NUMBER, PACK, PLACE, RECORD, ROW
from packstone.repository.repository import ObjectRepository

DATABASES = (b"meta", b"packs", b"numbers", b"objects", b"complete", b"cuts", b"bases")
Stored = dict[bytes, list[tuple[int, list[bytes]]]]  # id → depth and bases of every copy


def footers(objects: ObjectRepository) -> Stored:
    found: Stored = {}
    for pack_id, size in list_ids(objects.storage, "packs"):
        for row in read_pack(objects.storage, pack_id, size, objects.sealer).rows:
            for object_id, _size, _type in row.object_rows():
                found.setdefault(object_id, []).append((row.depth, row.bases))
    return found


def can_be_had(stored: Stored, object_id: bytes, below: int = 65) -> bool:
    """Return whether some copy stands on copies that are there, each of less depth."""
    return any(
        depth < below and all(can_be_had(stored, base, depth) for base in bases)
        for depth, bases in stored.get(object_id, [])
    )


class Scene:
    """A repository with much to prune, and the ids of what must stay."""

    def __init__(self, place: Path) -> None:
        history = History(place, "view")
        self.history = history
        with history.open() as repository:
            taken = history.fill(repository, 9)
            history.forget(*taken[:4:2], *taken[5:7])
            # An older copy of everything, in packs that nobody needs in the end.
            objects = repository._objects
            marker = Marker(objects.index, objects.reader.get)
            marker.add(row.snapshot.tree for row in objects.snapshots())
            self.needed: set[bytes] = set()
            for pack_id, size in list_ids(objects.storage, "packs"):
                pack = read_pack(objects.storage, pack_id, size, objects.sealer)
                ids = [each[0] for row in pack.rows for each in row.object_rows()]
                self.needed |= {
                    each for at, each in enumerate(ids) if marker.wanted.has(pack_id, at)
                }
        self.original = place / "original"
        history.location.rename(self.original)

    def fresh(self) -> Path:
        shutil.rmtree(self.history.location, ignore_errors=True)
        # Where it is remembered how new the state of this one was.
        shutil.rmtree(os.environ["PACKSTONE_CACHE_DIR"], ignore_errors=True)
        shutil.copytree(self.original, self.history.location)
        return self.history.location

    def lie(self, change: Callable[[Any, dict[bytes, Any]], None]) -> None:
        """Change rows of the view behind everyone's back."""
        with lmdb.open(str(self.fresh() / "index"), max_dbs=8, map_size=1 << 26) as environment:
            databases = {name: environment.open_db(name) for name in DATABASES}
            with environment.begin(write=True) as transaction:
                change(transaction, databases)

    def prune(self, rebase: bool) -> bool:
        """Prune; whatever comes of it, nothing that is needed is gone. Return whether it did."""
        done = True
        with self.history.open(threads=1) as repository:
            try:
                repository.prune(max_unused=0.0, rebase=rebase)
            except PackstoneError as error:
                assert error.exit_code in (13, 14)
                done = False
            stored = footers(repository._objects)
        lost = [each for each in self.needed if not can_be_had(stored, each)]
        assert lost == [], "prune has deleted what snapshots need"
        return done

    def verify(self) -> None:
        shutil.rmtree(self.history.location / "index")
        with self.history.open() as repository:
            self.history.verify(repository)


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="packstone-", dir=shared) as place:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PACKSTONE_CACHE_DIR", f"{place}/cache")
            yield Scene(Path(place))


def rows(scene: Scene, name: bytes) -> list[tuple[bytes, bytes]]:
    """Return the rows of one database of the sound view."""
    path = str(scene.original / "index")
    with lmdb.open(path, max_dbs=8, readonly=True, lock=False) as environment:
        database = environment.open_db(name)
        with environment.begin() as transaction:
            return list(transaction.cursor(db=database))


def put(name: bytes, key: bytes, value: bytes) -> Callable[[Any, dict[bytes, Any]], None]:
    return lambda transaction, databases: transaction.put(key, value, db=databases[name])


def lose(name: bytes, key: bytes) -> Callable[[Any, dict[bytes, Any]], None]:
    return lambda transaction, databases: transaction.delete(key, db=databases[name])


def test_the_truth(scene: Scene) -> None:
    scene.fresh()
    before = len(scene.history.packs())
    assert scene.prune(rebase=False)
    assert len(scene.history.packs()) < before
    scene.verify()


WRONG = ["moved", "moved to one that is walked first", "lost", "one more", "another record"]


@pytest.mark.parametrize("wrong", WRONG)
def test_places_of_objects(scene: Scene, wrong: str) -> None:
    """Of objects that are needed, and of some that are not; of all with a soak profile."""
    chance = Random(wrong)
    places = rows(scene, b"objects")
    tried = places if os.environ.get("HYPOTHESIS_PROFILE") == "soak" else chance.sample(places, 24)
    roots = {row.snapshot.tree for row in snapshots(scene)}
    first = next(value for key, value in places if key in roots)
    done = 0
    for at, (object_id, value) in enumerate(tried):
        other = chance.choice(places)[1][: PLACE.size]
        if wrong == "moved":
            change = put(b"objects", object_id, other)
        elif wrong == "moved to one that is walked first":
            change = put(b"objects", object_id, first)
        elif wrong == "lost":
            change = lose(b"objects", object_id)
        elif wrong == "one more":
            change = put(b"objects", object_id, value + (first if at % 2 else other))
        else:
            number, record, *rest = PLACE.unpack(value[: PLACE.size])
            change = put(b"objects", object_id, PLACE.pack(number, record ^ 1, *rest))
        scene.lie(change)
        done += scene.prune(rebase=at % 5 == 0)
    assert done > len(tried) // 2, "a view is made anew rather than complained about"
    scene.verify()


def snapshots(scene: Scene) -> list[packstone.SnapshotRow]:
    scene.fresh()
    with scene.history.open() as repository:
        return repository.snapshots()


@pytest.mark.parametrize("wrong", ["lost", "others", "depth 0", "a step less", "a step more"])
def test_what_deltas_stand_on(scene: Scene, wrong: str) -> None:
    bases = rows(scene, b"bases")
    packs = dict(rows(scene, b"packs"))
    ids = [key for key, _value in rows(scene, b"objects")]
    assert len(bases) > 10
    for at, (key, _value) in enumerate(bases):
        number, record = RECORD.unpack(key)
        value = packs[NUMBER.pack(number)]
        fields = list(ROW.unpack_from(value, record * ROW.size))
        if wrong == "lost":
            change = lose(b"bases", key)
        elif wrong == "others":
            change = put(b"bases", key, ids[at])
        else:
            depth = {"depth 0": 0, "a step less": fields[4] - 1, "a step more": fields[4] + 1}
            fields[4] = depth[wrong]
            start = record * ROW.size
            new = value[:start] + ROW.pack(*fields) + value[start + ROW.size :]
            change = put(b"packs", NUMBER.pack(number), new)
        scene.lie(change)
        scene.prune(rebase=at % 3 == 0)
    scene.verify()


def test_numbers_of_packs(scene: Scene) -> None:
    """Two packs taken for each other, and a pack taken for one that is not there."""
    packs = rows(scene, b"numbers")
    for (first, value), (second, other) in itertools.pairwise(packs):
        one, two = list(PACK.unpack(value)), list(PACK.unpack(other))
        one[0], two[0] = two[0], one[0]

        def swap(transaction: Any, databases: dict[bytes, Any], made: object = (one, two)) -> None:
            for pack_id, fields in zip((first, second), made, strict=True):
                transaction.put(pack_id, PACK.pack(*fields), db=databases[b"numbers"])

        scene.lie(swap)
        scene.prune(rebase=False)
        one[0] = 999
        scene.lie(put(b"numbers", first, PACK.pack(*one)))
        scene.prune(rebase=False)
        scene.lie(put(b"numbers", bytes(32), value))
        scene.prune(rebase=True)
    scene.verify()
