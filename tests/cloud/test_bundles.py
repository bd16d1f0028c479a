"""Bundles of footers: few requests for a machine that is new, and no harm in any of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from campaign import IS_SOAK
from fault_proxy import Faults, proxy
from object_server import url_of

import packstone
from packstone.errors import GenerationChanged
from packstone.model import ObjectType
from packstone.repository import bundles
from packstone.repository.bundles import Row, list_bundles, read_bundle, write_bundles
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
