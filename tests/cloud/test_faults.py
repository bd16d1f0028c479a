"""Row O1: whatever the store answers, success or a clean abort, never a half-written snapshot.

Every request of an operation gets every fault, once and from then on. Afterwards, by a client
that nothing disturbs, whatever snapshots are listed must be whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from fault_proxy import FAULTS, Faults, Request, proxy
from object_server import url_of

import packstone
from packstone.errors import PackstoneError, StorageError
from packstone.storage import requests as requests_module
from packstone.storage.base import open_storage
from packstone.storage.credentials import connect
from packstone.storage.objects import ObjectStorage
from packstone.storage.urls import parse_place


@pytest.fixture(scope="module")
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="module")
def proxied(endpoint: str, faults: Faults) -> Iterator[str]:
    with proxy(endpoint, faults) as found:
        yield found


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, faults: Faults) -> Iterator[None]:
    monkeypatch.setattr(requests_module, "_FIRST_PAUSE", 0.001)
    faults.patience = 1.3
    yield
    faults.reset()
    faults.strip_conditions = False


class Scene:
    """A repository with two snapshots, one more to take, and copies of it for each fault."""

    def __init__(self, endpoint: str, proxied: str, bucket: str, folder: Path) -> None:
        self._endpoint, self._proxied, self._bucket = endpoint, proxied, bucket
        self.folder = folder
        self.source = folder / "source"
        self.source.mkdir()
        (self.source / "kept").write_bytes(os.urandom(40_000))
        (self.source / "old").write_bytes(os.urandom(400_000))
        self._original = f"{bucket}/{secrets.token_hex(8)}"
        with packstone.init(url_of(endpoint, self._original)) as repository:
            repository.snapshot([self.source])
            (self.source / "old").unlink()
            (self.source / "new").write_bytes(os.urandom(30_000))
            second = repository.snapshot([self.source])
            first = next(row.id for row in repository.snapshots() if row.id != second.snapshot_id)
            repository.forget([first])
        self.committed = self.content()
        os.truncate(self.source / "new", 20_000)
        self._objects = self._read(self._original)

    def _client(self, place: str) -> tuple[obstore.store.ObjectStore, str]:
        found = parse_place(url_of(self._endpoint, place))
        return connect(found, 60), found.prefix

    def _read(self, place: str) -> dict[str, bytes]:
        client, prefix = self._client(place)
        names = [row["path"] for page in obstore.list(client, prefix) for row in page]
        return {name[len(prefix) :]: bytes(obstore.get(client, name).bytes()) for name in names}

    def copy(self) -> tuple[str, str]:
        """Return the URLs of a new copy: as it is, and through the proxy."""
        place = f"{self._bucket}/{secrets.token_hex(8)}"
        client, prefix = self._client(place)
        for name, data in self._objects.items():
            if not name.startswith("locks/"):
                obstore.put(client, prefix + name, data, use_multipart=False)
        return url_of(self._endpoint, place), url_of(self._proxied, place, timeout="1")

    def restored(self, repository: packstone.Repository, snapshot: str) -> dict[str, bytes]:
        target = self.folder / "restored"
        shutil.rmtree(target, ignore_errors=True)
        assert repository.restore(snapshot, target, path=os.fsencode(self.source)).errors == []
        return {path.name: path.read_bytes() for path in target.iterdir()}

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.source.iterdir()}


@pytest.fixture
def scene(endpoint: str, proxied: str, bucket: str, tmp_path: Path) -> Scene:
    return Scene(endpoint, proxied, bucket, tmp_path)


def take(url: str, scene: Scene) -> str | None:
    with packstone.open(url) as repository:
        return repository.snapshot([scene.source]).snapshot_id


def restore(url: str, scene: Scene) -> None:
    with packstone.open(url) as repository:
        shutil.rmtree(scene.folder / "out", ignore_errors=True)
        result = repository.restore("latest", scene.folder / "out", path=os.fsencode(scene.source))
        if result.errors:
            raise StorageError(result.errors[0].message)
        assert (scene.folder / "out" / "kept").read_bytes() == scene.content()["kept"]


def prune(url: str, scene: Scene) -> None:
    with packstone.open(url) as repository:
        repository.prune(max_unused=0.0)


# Of a listing: it ends half-way, or misses names that are there.
LISTING_FAULTS = ["cut listing", "hide packs/", "hide locks/", "hide state"]
OPERATIONS: dict[str, Callable[[str, Scene], str | None]] = {
    "snapshot": take,
    "restore": restore,  # type: ignore[dict-item]
    "prune": prune,  # type: ignore[dict-item]
}


def requests_of(operation: str, scene: Scene, faults: Faults) -> list[Request]:
    _direct, through = scene.copy()
    faults.reset()
    OPERATIONS[operation](through, scene)
    return faults.seen


def attempt(operation: str, scene: Scene, through: str) -> tuple[str | None, PackstoneError | None]:
    try:
        return OPERATIONS[operation](through, scene), None
    except PackstoneError as error:  # anything else is no clean abort
        assert "Traceback" not in error.message and "<?xml" not in error.message
        return None, error


def judge(scene: Scene, direct: str, taken: str | None, failed: bool, what: str) -> None:
    """Nothing that is listed is half-written, and what was there still is."""
    with packstone.open(direct) as repository:
        rows = repository.snapshots()
        assert rows, what
        assert repository.check(read_data=True).errors == [], what
        assert "kept" in scene.restored(repository, rows[0].id), what
        if taken is not None:
            assert scene.restored(repository, taken) == scene.content(), what
        elif not failed:
            assert len(rows) == 1, what


def at(number: int, fault: str, *, onwards: bool) -> Callable[[Request], str | None]:
    def rule(request: Request) -> str | None:
        due = request.number >= number if onwards else request.number == number
        return fault if due else None

    return rule


def campaign(
    operation: str, scene: Scene, faults: Faults, kinds: list[str], *, onwards: bool, each: int = 1
) -> tuple[int, int]:
    """Play `each` of the faults, in turn, at every request; return (successes, runs)."""
    succeeded = runs = 0
    for number, request in enumerate(requests_of(operation, scene, faults)):
        for turn in range(each):
            kind = kinds[(number + turn) % len(kinds)]
            if kind in LISTING_FAULTS and request.verb != "LIST":
                continue
            direct, through = scene.copy()
            faults.reset(at(number, kind, onwards=onwards))
            taken, error = attempt(operation, scene, through)
            faults.reset()
            what = f"{operation}: {kind} at request {number}{' and on' if onwards else ''}: {error}"
            _expire(direct)
            judge(scene, direct, taken, error is not None, what)
            succeeded += error is None
            runs += 1
    assert runs
    return succeeded, runs


def _expire(url: str) -> None:
    """Take away locks that could not be given back; in truth they expire."""
    storage = open_storage(url)
    for name, _size in list(storage.list("locks")):
        storage.delete(name)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_fault_at_one_request(operation: str, scene: Scene, faults: Faults) -> None:
    """All but refused credentials are tried again, or are of no consequence."""
    kinds = ["503", "done 500", "reset", "short", "wrong"]
    succeeded, runs = campaign(operation, scene, faults, kinds, onwards=False)
    assert succeeded >= 0.9 * runs


def test_an_end_of_all_answers(scene: Scene, faults: Faults) -> None:
    campaign("snapshot", scene, faults, ["500", "expired"], onwards=True)


@pytest.mark.soak
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("onwards", [False, True])
def test_every_fault(operation: str, onwards: bool, scene: Scene, faults: Faults) -> None:
    kinds = [*FAULTS, "403", *LISTING_FAULTS]
    campaign(operation, scene, faults, kinds, onwards=onwards, each=len(kinds))


# -- listings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_listings_cut_short(operation: str, scene: Scene, faults: Faults) -> None:
    """A store that ends a listing half-way is not believed, whatever it was asked for."""
    direct, through = scene.copy()
    faults.reset(lambda request: "cut listing" if request.verb == "LIST" else None)
    with pytest.raises(StorageError):
        OPERATIONS[operation](through, scene)
    faults.reset()
    _expire(direct)
    judge(scene, direct, None, True, operation)


def test_more_than_a_thousand_names(scene: Scene, faults: Faults) -> None:
    """Each page may fail; a page in the middle that is cut short ends in an error."""
    direct, through = scene.copy()
    storage = open_storage(direct)
    assert isinstance(storage, ObjectStorage)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: storage.put(f"history/{n:04}", b""), range(2300)))
    remote = open_storage(through)
    for kind, page in (("503", 1), ("reset", 2), ("short", 1), ("error in 200", 2)):
        faults.reset(at(page, kind, onwards=False))
        assert len(list(remote.list("history"))) == 2300, kind
    faults.reset(lambda request: "cut listing" if request.number >= 1 else None)
    with pytest.raises(StorageError):
        list(remote.list("history"))


def test_a_pruner_whose_lock_is_not_listed(scene: Scene, faults: Faults) -> None:
    """A store whose listings lag: whoever cannot see its own lock would see no other either."""
    direct, through = scene.copy()
    faults.reset(lambda request: "hide locks/" if request.verb == "LIST" else None)
    with pytest.raises(StorageError, match="does not list what was just stored"):
        prune(through, scene)
    faults.reset()
    judge(scene, direct, None, True, "prune")


def test_a_listing_without_the_newest_snapshot(scene: Scene, faults: Faults) -> None:
    """Whoever has seen it does not prune what it needs; once it is forgotten it may be gone."""
    direct, through = scene.copy()
    taken = take(through, scene)
    assert taken is not None
    faults.reset(lambda request: f"hide {taken}" if request.verb == "LIST" else None)
    with pytest.raises(StorageError, match="does not list"):
        prune(through, scene)
    faults.reset()
    judge(scene, direct, taken, False, "prune")
    with packstone.open(direct) as repository:  # another machine, as it were
        repository.forget([taken])
    prune(through, scene)


# -- conditions ---------------------------------------------------------------------------------


def test_a_store_without_conditions_has_one_user(
    proxied: str, bucket: str, faults: Faults, tmp_path: Path
) -> None:
    faults.strip_conditions = True
    url = url_of(proxied, f"{bucket}/{secrets.token_hex(8)}")
    (tmp_path / "source").mkdir()
    with packstone.init(url) as repository:
        repository.snapshot([tmp_path / "source"])
        with pytest.raises(packstone.RepositoryLocked):
            packstone.open(url)
        repository.prune()
    packstone.open(url).close()


@pytest.mark.parametrize("kind", ["409", "412", "done 500", "done time-out"])
def test_a_condition_refused_for_a_moment(scene: Scene, faults: Faults, kind: str) -> None:
    """An attempt whose answer was lost may have stored what the next one finds there."""
    _direct, through = scene.copy()
    storage = open_storage(through)
    faults.reset(at(0, kind, onwards=False))
    assert storage.put_if_absent("features/new", secrets.token_bytes(32))
    faults.reset()
    version = storage.get_version("features/new", 99)
    faults.reset(at(0, kind, onwards=False))
    assert storage.replace("features/new", secrets.token_bytes(32), version.tag)
    faults.reset()
    assert storage.replace("features/new", b"x", version.tag) is None
    assert not storage.put_if_absent("features/new", b"x")


# -- bytes that are wrong on the way --------------------------------------------------------------


def test_packs_that_come_wrong_once(scene: Scene, faults: Faults) -> None:
    """A second look brings the right bytes, and the wrong ones do not stay in the cache."""
    _direct, through = scene.copy()
    seen: set[str] = set()

    def rule(request: Request) -> str | None:
        fresh = request.verb == "GET" and request.name not in seen
        seen.add(request.name)
        return "wrong" if fresh and ("/packs/" in request.name or "/snap" in request.name) else None

    faults.reset(rule)
    with packstone.open(through) as repository:
        assert scene.restored(repository, "latest") == scene.committed
    assert any("/snap" in name for name in seen) and any("/packs/" in name for name in seen)
