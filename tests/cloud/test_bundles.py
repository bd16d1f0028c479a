"""Bundles of footers: few requests for a machine that is new, and no harm in any of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import independent_reader
import independent_records
import pytest
from campaign import IS_SOAK
from fault_proxy import Faults, proxy
from object_server import url_of

import packstone
from packstone.errors import GenerationChanged, ObjectMissing, StorageUnavailable
from packstone.model import ObjectType
from packstone.repository import bundles, index
from packstone.repository.bases import Base, Candidates
from packstone.repository.bundles import Row, list_bundles, read_bundle, write_bundles
from packstone.repository.pack_reading import read_footer_of
from packstone.repository.publishing import publish_footers, renew_footers
from packstone.repository.repository import ObjectRepository
from packstone.storage.base import open_storage

PACKS = 1000 if IS_SOAK else 70
FILE = 20_000


class Scene:
    """A repository of many packs that one snapshot needs, seen by machines without a cache."""

    def __init__(self, url: str, folder: Path, passphrase: str | None) -> None:
        self.url, self.folder, self.passphrase = url, folder, passphrase
        self.source = folder / "source"
        self.source.mkdir()
        packstone.init(url, passphrase=passphrase).close()
        self.files = {f"{number}": os.urandom(FILE) for number in range(PACKS)}
        for name, data in self.files.items():
            (self.source / name).write_bytes(data)
        with self.objects() as objects:
            written: list[str] = []
            for data in self.files.values():
                writer = objects.writer()
                chunk_id = objects.hasher.id(ObjectType.CHUNK, data)
                assert writer.reserve([chunk_id]) == [True]
                writer.put_chunk(chunk_id, data, (0, 0))
                writer.finish()
                writer.abandon()
                written += writer.packs_written
            publish_footers(objects, written)
        with self.open() as repository:
            repository.snapshot([self.source])
        self.new_machine()

    def new_machine(self) -> None:
        shutil.rmtree(self.folder / "cache", ignore_errors=True)

    def objects(self) -> _Closing:
        return _Closing(ObjectRepository(self.url, passphrase=self.passphrase))

    def open(self, url: str | None = None) -> packstone.Repository:
        return packstone.open(url or self.url, passphrase=self.passphrase)

    def is_restored(self) -> bool:
        target = self.folder / "target"
        shutil.rmtree(target, ignore_errors=True)
        with self.open() as repository:
            result = repository.restore("latest", target, path=os.fsencode(self.source))
            assert result.errors == []
        return {path.name: path.read_bytes() for path in target.iterdir()} == self.files

    def bundles(self) -> list[str]:
        return [bundle.name for bundle in list_bundles(open_storage(self.url))]

    def replace_bundles(self, change: Callable[[list[Row]], list[Row]]) -> None:
        """Put others in their place, as whoever may write to the bucket can."""
        with self.objects() as objects:
            rows: list[Row] = []
            for name in self.bundles():
                rows += read_bundle(objects.storage, objects.sealer, name)
                objects.storage.delete(name)
            write_bundles(objects.storage, objects.sealer, os.urandom, change(rows))
        self.new_machine()


class _Closing:
    def __init__(self, objects: ObjectRepository) -> None:
        self._objects = objects

    def __enter__(self) -> ObjectRepository:
        return self._objects

    def __exit__(self, *_: object) -> None:
        self._objects.close()


@pytest.fixture(params=[None, "correct horse"], ids=["plain", "sealed"])
def scene(url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    return Scene(url, tmp_path, request.param)


def requests_of_opening(scene: Scene) -> int:
    scene.new_machine()
    with scene.objects() as objects:
        before = objects.storage.requests()["get"]
        assert len(objects.index.packs) >= PACKS
        return objects.storage.requests()["get"] - before


def test_a_new_machine_needs_few_requests(scene: Scene) -> None:
    """One for each bundle and each of the few packs that are in none."""
    assert requests_of_opening(scene) <= 6
    scene.new_machine()
    assert scene.is_restored()
    for name in scene.bundles():
        open_storage(scene.url).delete(name)
    assert requests_of_opening(scene) >= PACKS
    assert scene.is_restored()


def test_bundles_are_what_the_page_says(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from docs/format.md §13 alone, beside the packs that they tell of."""
    monkeypatch.setenv("PACKSTONE_PASSPHRASE", scene.passphrase or "")
    storage, root = open_storage(scene.url), scene.folder / "downloaded"
    names = [name for top in ("features", "keys", "packs") for name, _size in storage.list(top)]
    (root / "features").mkdir(parents=True)
    for name in ["config", *names]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(storage.get(name, 1 << 24))
    reader = independent_reader.Reader(str(root))
    (bundle,) = scene.bundles()
    data = storage.get(bundle, 1 << 24)
    rows = independent_records.read_bundle(reader, bundle, data)
    assert len(rows) == PACKS
    for pack_id, size, footer in rows:
        pack = (root / "packs" / pack_id.hex()[:2] / pack_id.hex()).read_bytes()
        assert (len(pack), {footer}) == (size, independent_records.footers_of(reader, pack))


def swapped(rows: list[Row]) -> list[Row]:
    """Say of each pack what is true of another; where that cannot be it counts for nothing."""
    footers = [row.footer for row in rows[1:] + rows[:1]]
    return [Row(row.pack_id, row.size, f) for row, f in zip(rows, footers, strict=True)]


def test_bundles_that_lie_give_no_wrong_bytes(scene: Scene) -> None:
    scene.replace_bundles(swapped)
    assert scene.is_restored()


def test_nothing_is_committed_that_only_a_lying_bundle_has(scene: Scene) -> None:
    """Of a pack that is gone a bundle says that it is another one, which is there."""

    def gone_is_there(rows: list[Row]) -> list[Row]:
        return [rows[0], Row(rows[1].pack_id, rows[1].size, rows[0].footer), *rows[2:]]

    storage = open_storage(scene.url)
    scene.replace_bundles(gone_is_there)
    with scene.objects() as objects:
        rows = read_bundle(objects.storage, objects.sealer, scene.bundles()[0])
    lost = rows[0].pack_id.hex()
    storage.delete(f"packs/{lost[:2]}/{lost}")
    scene.new_machine()
    with scene.open() as repository, pytest.raises(GenerationChanged, match="bundle"):
        repository.snapshot([scene.source])
    with scene.open() as repository:
        taken = repository.snapshot([scene.source])
        assert taken.chunks_new == 1  # what is gone
    assert scene.is_restored()


def test_prune_believes_packs_only(scene: Scene) -> None:
    scene.replace_bundles(swapped)
    with scene.open() as repository:
        repository.prune(max_unused=0.0)
        assert repository.check(read_data=True).errors == []
    assert scene.is_restored()


def test_damaged_bundles_are_passed_over(scene: Scene) -> None:
    (name,) = scene.bundles()
    storage = open_storage(scene.url)
    data = storage.get(name, 1 << 24)
    for wrong in (b"", data[:-1], data[: len(data) // 2], data[:200] + b"\1" + data[201:]):
        storage.put(name, wrong)
        scene.new_machine()
        with scene.open() as repository:
            assert repository.check().errors == []
    assert scene.is_restored()


def test_gone_between_listing_and_reading(scene: Scene) -> None:
    with scene.objects() as objects:
        for name in scene.bundles():
            open_storage(scene.url).delete(name)
        assert len(objects.index.packs) >= PACKS
    assert scene.is_restored()


def listed(scene: Scene) -> set[str]:
    return {name.rpartition("/")[2] for name, _size in open_storage(scene.url).list("packs")}


def told_of(scene: Scene) -> list[str]:
    with scene.objects() as objects:
        names = scene.bundles()
        rows = [row for name in names for row in read_bundle(objects.storage, objects.sealer, name)]
    return [row.pack_id.hex() for row in rows]


def test_they_follow_a_sweep(scene: Scene) -> None:
    """What half of a bundle's packs are gone of is made anew, what most are there of stays."""
    before = scene.bundles()
    with scene.objects() as objects:
        renew_footers(objects)
        assert scene.bundles() == before
        for pack_id in sorted(listed(scene))[: PACKS // 2]:
            objects.storage.delete(f"packs/{pack_id[:2]}/{pack_id}")
        renew_footers(objects)
    assert not set(scene.bundles()) & set(before)
    assert sorted(told_of(scene)) == sorted(listed(scene))


def test_few_packs_need_none(scene: Scene) -> None:
    with scene.open() as repository:
        repository.prune()  # which merges packs as small as these
    assert len(listed(scene)) < bundles.FEW
    assert scene.bundles() == []
    scene.new_machine()
    assert scene.is_restored()


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def proxied(endpoint: str, faults: Faults) -> Iterator[str]:
    with proxy(endpoint, faults) as found:
        yield found


def test_a_bundle_that_cannot_be_stored(
    url: str, proxied: str, bucket: str, tmp_path: Path, faults: Faults, monkeypatch: object
) -> None:
    """The snapshot is there all the same, and its packs are in the next bundle."""
    assert isinstance(monkeypatch, pytest.MonkeyPatch)
    monkeypatch.setattr(bundles, "FEW", 1)
    packstone.init(url).close()
    through = url_of(proxied, f"{bucket}/{tmp_path.name}")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(os.urandom(30_000))
    faults.reset(lambda request: "403" if "/bundles/" in request.name else None)
    with packstone.open(through) as repository:
        assert repository.snapshot([tmp_path / "source"]).snapshot_id
    assert list_bundles(open_storage(url)) == []
    faults.reset()
    (tmp_path / "source" / "other").write_bytes(os.urandom(30_000))
    with packstone.open(through) as repository:
        repository.snapshot([tmp_path / "source"])
    (bundle,) = list_bundles(open_storage(url))
    assert bundle.pack_count == 4


def without_footers(scene: Scene, pack_id: str, start: int, size: int) -> None:
    """Leave of a pack nothing but the bytes of one record, where they are."""
    storage, name = open_storage(scene.url), f"packs/{pack_id[:2]}/{pack_id}"
    data = storage.get(name, 1 << 24)
    storage.put(name, bytes(start) + data[start : start + size] + bytes(len(data) - start - size))
    scene.new_machine()


class Delta:
    """A chunk that is a delta against a file of a scene."""

    def __init__(self, scene: Scene) -> None:
        self.base = scene.files["0"]
        self.data = self.base[:-100] + os.urandom(100)

    def id(self, objects: ObjectRepository) -> bytes:
        return objects.hasher.id(ObjectType.CHUNK, self.data)

    def put(self, objects: ObjectRepository) -> int:
        """Store it unless it is there; return how many chunks became deltas."""
        writer = objects.writer()
        try:
            if writer.reserve([self.id(objects)])[0]:
                base_id = objects.hasher.id(ObjectType.CHUNK, self.base)
                bases = Candidates([Base(base_id, 0, 1)], [])
                writer.put_chunk(self.id(objects), self.data, (1, 2), bases)
            writer.finish()
            return writer.chunks_delta
        finally:
            writer.abandon()


@pytest.mark.parametrize("is_stored", [False, True])
def test_no_delta_stands_on_what_only_a_bundle_has(scene: Scene, is_stored: bool) -> None:
    """Neither a new one, nor one that was stored when its base could be found without bundles."""
    delta = Delta(scene)
    with scene.objects() as objects:
        if is_stored:
            assert delta.put(objects) == 1
        (place,) = objects.index.find(objects.hasher.id(ObjectType.CHUNK, delta.base))
    without_footers(scene, place.pack_id, place.offset, place.stored_size)
    with scene.objects() as objects:
        with pytest.raises(GenerationChanged, match="bundle"):
            delta.put(objects)
        assert delta.put(objects) == 0  # whole
    for name in scene.bundles():
        open_storage(scene.url).delete(name)
    scene.new_machine()
    with scene.objects() as objects:
        assert objects.reader.get(ObjectType.CHUNK, delta.id(objects)) == delta.data


@pytest.mark.parametrize("scene", [None], indirect=True, ids=["plain"])
def test_no_copied_delta_stands_on_what_only_a_bundle_has(scene: Scene, tmp_path: Path) -> None:
    """Its base is there, but as a delta itself; of a whole one, which is gone, a bundle tells."""
    base = Delta(scene)
    with scene.objects() as objects:
        assert base.put(objects) == 1
        writer = objects.writer()
        writer.put_whole(ObjectType.CHUNK, base.id(objects), base.data, (1, 2))
        writer.finish()
        writer.abandon()
        (whole,) = writer.packs_written
        size = objects.storage.size(f"packs/{whole[:2]}/{whole}")
        footer = read_footer_of(objects.storage, whole, size, objects.sealer, bundles.FULL)
        row = Row(bytes.fromhex(whole), size, footer)
        write_bundles(objects.storage, objects.sealer, os.urandom, [row])
    without_footers(scene, whole, 0, 0)
    edited = tmp_path / "edited"
    edited.mkdir()
    with packstone.init(tmp_path / "origin") as origin:
        (edited / "file").write_bytes(base.data)
        origin.snapshot([edited])
        data = base.data[:9000] + os.urandom(50) + base.data[9050:]
        (edited / "file").write_bytes(data)
        taken = origin.snapshot([edited])
        assert taken.chunks_delta == 1
        with scene.open() as target, pytest.raises(GenerationChanged, match="bundle"):
            origin.copy_to(target, [taken.snapshot_id])
        with scene.open() as target:
            (copied,) = origin.copy_to(target, [taken.snapshot_id]).snapshots
    for name in scene.bundles():
        open_storage(scene.url).delete(name)
    scene.new_machine()
    with scene.open() as target:
        result = target.restore(copied, tmp_path / "restored", path=os.fsencode(edited))
    assert result.errors == []
    assert (tmp_path / "restored" / "file").read_bytes() == data


def test_many_lies_are_put_right_at_once(scene: Scene) -> None:
    scene.replace_bundles(swapped)
    with scene.open() as repository, pytest.raises(GenerationChanged, match="bundle"):
        repository.snapshot([scene.source])
    with scene.open() as repository:
        assert repository.snapshot([scene.source]).chunks_new == 0
    assert scene.is_restored()


def test_many_packs_without_footers_are_missed_once(scene: Scene) -> None:
    """Bundles tell of them for ever, and are not believed twice."""
    with scene.objects() as objects:
        ids = [objects.hasher.id(ObjectType.CHUNK, data) for data in scene.files.values()]
        packs = [place.pack_id for place in objects.index.find_many(ids) if place is not None]
    for pack_id in packs[: bundles.FEW + 1]:
        without_footers(scene, pack_id, 0, 0)
    with scene.open() as repository, pytest.raises(GenerationChanged, match="bundle"):
        repository.snapshot([scene.source])
    with scene.open() as repository:
        assert repository.snapshot([scene.source]).chunks_new == bundles.FEW + 1
    assert scene.is_restored()


def test_what_a_bundle_hides_is_found_behind_what_is_gone(scene: Scene) -> None:
    """One chunk that is in no pack must not make all that a bundle leaves out seem so."""

    def hidden(rows: list[Row]) -> list[Row]:
        return [Row(row.pack_id, row.size, rows[0].footer) for row in rows if row.size < FILE * 2]

    scene.replace_bundles(hidden)
    with scene.objects() as objects:
        with pytest.raises(ObjectMissing):
            objects.reader.get(ObjectType.CHUNK, os.urandom(32))
        for data in scene.files.values():
            chunk_id = objects.hasher.id(ObjectType.CHUNK, data)
            assert objects.reader.get(ObjectType.CHUNK, chunk_id) == data


@pytest.mark.parametrize("fails", ["read_packs", "_forget"])
def test_what_fails_while_bundles_are_confirmed_confirms_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    lost = scene.files["0"]
    with scene.objects() as objects:
        lost_id = objects.hasher.id(ObjectType.CHUNK, lost)
        (place,) = objects.index.find(lost_id)
    without_footers(scene, place.pack_id, 0, 0)
    with scene.objects() as objects:
        sessions = [objects.writer() for _ in range(2)]
        for session in sessions:
            assert session.reserve([lost_id]) == [False]

        def fail(*_: object) -> None:
            raise StorageUnavailable("not now")

        with monkeypatch.context() as patch:
            patch.setattr(index if fails == "read_packs" else index.Index, fails, fail)
            with pytest.raises(StorageUnavailable):
                sessions[0].finish()
        with pytest.raises(GenerationChanged, match="bundle"):
            sessions[1].finish()
        for session in sessions:
            session.abandon()
