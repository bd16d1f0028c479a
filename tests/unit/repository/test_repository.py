"""A repository is created whole or not at all, and opened only when its format is known."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from packstone.codec.encryption import Sealer
from packstone.codec.hashing import derive
from packstone.errors import (
    Damaged,
    PackstoneError,
    RepositoryMissing,
    StorageError,
    UsageError,
)
from packstone.repository import layout
from packstone.repository.layout import Config
from packstone.repository.locks import Lock
from packstone.repository.repository import ObjectRepository, init
from packstone.storage.local import LocalStorage


def make(path: Path, **changes: object) -> None:
    options = {"average": 4096, "pack_size": 1 << 20, "level": 3} | changes
    init(str(path), **options)  # type: ignore[arg-type]


def files(path: Path) -> dict[str, bytes]:
    return {
        found.relative_to(path).as_posix(): found.read_bytes()
        for found in path.rglob("*")
        if found.is_file() and found.relative_to(path).parts[0] != "index"
    }


def test_init_is_a_function_of_clock_and_randomness(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, clock=lambda: 5, random=Random(1).randbytes)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    make(tmp_path / "c", clock=lambda: 5, random=Random(2).randbytes)
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_init_makes_what_the_page_names(tmp_path: Path) -> None:
    make(tmp_path / "store")
    found = files(tmp_path / "store")
    assert set(found) == {"config", "config.bak", "state", "lock"}
    assert found["config"] == found["config.bak"] and found["lock"] == b""
    assert sorted(os.listdir(tmp_path / "store/packs")) == [f"{n:02x}" for n in range(256)]
    config = ObjectRepository(str(tmp_path / "store"))
    assert (config.config.average, config.config.pack_size, config.config.level) == (
        4096,
        1 << 20,
        3,
    )
    config.close()


def test_config_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never finished is no repository, and what is in its place is not emptied."""
    puts: list[str] = []
    put = LocalStorage.put

    def record(storage: LocalStorage, name: str, data: bytes) -> None:
        puts.append(name)
        put(storage, name, data)

    monkeypatch.setattr(LocalStorage, "put", record)
    make(tmp_path / "store")
    assert puts[-1] == "config" and set(puts) == {"lock", "state", "config.bak", "config"}


@pytest.mark.parametrize("changes", [{"average": 5000}, {"pack_size": 1}, {"level": 0}])
def test_init_refuses_parameters_before_it_writes(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(UsageError):
        make(tmp_path / "store", **changes)
    assert not (tmp_path / "store").exists()


def test_init_refuses_what_is_in_use(tmp_path: Path) -> None:
    make(tmp_path / "store")
    before = files(tmp_path / "store")
    with pytest.raises(UsageError, match="already"):
        make(tmp_path / "store")
    assert files(tmp_path / "store") == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not empty"):
        make(tmp_path / "full")
    for name in ("full/file", "dangling"):
        if name == "dangling":
            os.symlink("nowhere", tmp_path / "dangling")
        with pytest.raises(UsageError, match="not a directory"):
            make(tmp_path / name)
    (tmp_path / "empty").mkdir()
    make(tmp_path / "empty")


def test_open_refuses_what_is_none(tmp_path: Path) -> None:
    with pytest.raises(RepositoryMissing):
        ObjectRepository(str(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepositoryMissing):
        ObjectRepository(str(tmp_path / "empty"))
    assert os.listdir(tmp_path / "empty") == []


def replace_config(path: Path, config: Config) -> None:
    data = layout.encode_config(config, Sealer(bytes(16)), bytes(32))
    for name in ("config", "config.bak"):
        (path / name).write_bytes(data)


def is_free(path: Path) -> bool:
    try:
        Lock(LocalStorage(str(path)), exclusive=True).release()
    except PackstoneError:
        return False
    return True


def test_a_plain_repository_has_the_plain_family(tmp_path: Path) -> None:
    make(tmp_path / "store")
    family = derive("packstone v1 family fingerprint", bytes(32))
    replace_config(tmp_path / "store", Config(created_ns=1, family=family, average=4096))
    with pytest.raises(Damaged, match="family"):
        ObjectRepository(str(tmp_path / "store"))
    assert is_free(tmp_path / "store"), "who fails holds no lock"


def test_who_fails_to_open_holds_no_lock(tmp_path: Path) -> None:
    make(tmp_path / "store")
    (tmp_path / "store/features/parity").write_bytes(b"damaged")
    with pytest.raises(Damaged):
        ObjectRepository(str(tmp_path / "store"))
    os.unlink(tmp_path / "store/features/parity")
    os.rmdir(tmp_path / "store/features")
    with pytest.raises(StorageError):
        ObjectRepository(str(tmp_path / "store"))
    assert is_free(tmp_path / "store")


def test_an_open_repository_is_locked_until_it_is_closed(tmp_path: Path) -> None:
    make(tmp_path / "store")
    first = ObjectRepository(str(tmp_path / "store"))
    second = ObjectRepository(str(tmp_path / "store"))
    assert not is_free(tmp_path / "store")
    first.close()
    first.close()
    assert not is_free(tmp_path / "store")
    second.close()
    assert is_free(tmp_path / "store")


def test_the_index_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    make(tmp_path / "plain")
    make(tmp_path / "chosen", index_dir=str(tmp_path / "indexes"))
    for name, options, expected in (
        ("plain", {}, "plain/index"),
        ("plain", {"index_dir": str(tmp_path / "other")}, "other"),
        ("chosen", {}, None),
    ):
        opened = ObjectRepository(str(tmp_path / name), **options)
        assert opened.index.packs == {}
        own = f"{opened.repository_id.hex()}-*/data.mdb"  # a copy elsewhere has another
        if expected is not None:
            assert list(tmp_path.glob(f"{expected}/data.mdb"))
        elif (tmp_path / "indexes").exists():
            assert list(tmp_path.glob(f"indexes/{own}"))
        else:
            assert list(tmp_path.glob(f"cache/{own}"))  # that disk is not there
        opened.close()


def test_damaged_snapshots_are_warned_of(tmp_path: Path) -> None:
    make(tmp_path / "store")
    (tmp_path / "store/snapshots" / ("a" * 64)).write_bytes(b"damaged")
    opened = ObjectRepository(str(tmp_path / "store"))
    assert opened.snapshots() == []
    (warning,) = opened.warnings
    assert "aaaaaaaaaaaa" in warning
    opened.close()


def test_damaged_packs_are_warned_of(tmp_path: Path) -> None:
    make(tmp_path / "store")
    (tmp_path / "store/packs/aa" / ("a" * 64)).write_bytes(b"damaged")
    opened = ObjectRepository(str(tmp_path / "store"))
    assert opened.index.packs == {}
    assert len(opened.warnings) == len(opened.damaged_packs) == 1
    opened.close()
