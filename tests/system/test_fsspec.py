"""Tables in snapshots through fsspec: pandas, DuckDB and plain file objects, without a restore."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import packstone

fsspec: Any = pytest.importorskip("fsspec")
pandas: Any = pytest.importorskip("pandas")
duckdb: Any = pytest.importorskip("duckdb")


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A repository and a directory of exports, of which yesterday's snapshot is there."""
    directory = tmp_path / "exports"
    (directory / "more").mkdir(parents=True)
    table = pandas.DataFrame({"id": range(20_000), "name": [f"n{n}" for n in range(20_000)]})
    table.to_csv(directory / "contacts.csv", index=False)
    (directory / "more" / "blob").write_bytes(random.Random(1).randbytes(2_000_000))
    (directory / "link").symlink_to("contacts.csv")
    repository = tmp_path / "repo"
    with packstone.init(repository, chunk_size=16_384) as opened:
        opened.snapshot([directory])
    fsspec.filesystem("packstone", repo=str(repository)).clear_instance_cache()
    yield repository, directory


def test_yesterday_beside_today(exports: tuple[Path, Path]) -> None:
    repository, directory = exports
    today = pandas.read_csv(directory / "contacts.csv")
    today.loc[7, "name"] = "changed"
    today.to_csv(directory / "contacts.csv", index=False)
    url = f"packstone://latest{directory}/contacts.csv"
    yesterday = pandas.read_csv(url, storage_options={"repo": str(repository)})
    assert len(yesterday) == 20_000
    assert list(yesterday.index[yesterday["name"] != today["name"]]) == [7]
    connection = duckdb.connect()
    connection.register_filesystem(fsspec.filesystem("packstone", repo=str(repository)))
    query = f"""
        SELECT old.id FROM '{url}' old JOIN '{directory}/contacts.csv' new USING (id)
        WHERE old.name <> new.name
    """
    assert connection.sql(query).fetchall() == [(7,)]


def test_listing(exports: tuple[Path, Path]) -> None:
    repository, directory = exports
    files = fsspec.filesystem("packstone", repo=str(repository))
    base = f"latest{directory}"
    assert len(files.ls("")) == 1
    assert files.ls(base, detail=False) == [
        f"{base}/contacts.csv", f"{base}/link", f"{base}/more",
    ]  # fmt: skip
    assert f"{base}/more/blob" in files.find(base)
    assert files.glob(f"{base}/*.csv") == [f"{base}/contacts.csv"]
    info = files.info(f"{base}/more/blob")
    assert (info["type"], info["size"]) == ("file", 2_000_000)
    assert files.isdir(f"{base}/more") and not files.exists(f"{base}/nothing")
    for wrong in ("nosuchsnapshot/x", f"{base}/nothing"):
        with pytest.raises(FileNotFoundError):
            files.info(wrong)
    with pytest.raises(OSError):
        files.open(f"{base}/new", "wb")


def test_any_place_of_a_file(exports: tuple[Path, Path]) -> None:
    repository, directory = exports
    files = fsspec.filesystem("packstone", repo=str(repository))
    data = (directory / "more" / "blob").read_bytes()
    rng = random.Random(2)
    with files.open(f"latest{directory}/more/blob") as file:
        assert file.read() == data
        for _ in range(100):
            offset, size = rng.randrange(len(data)), rng.randrange(100_000)
            file.seek(offset)
            assert file.read(size) == data[offset : offset + size]
        file.seek(-5, os.SEEK_END)
        assert file.read() == data[-5:]
    assert files.cat_file(f"latest{directory}/more/blob", 10, 20) == data[10:20]


def test_no_lock_is_held(exports: tuple[Path, Path]) -> None:
    """An open table must not keep a prune waiting."""
    repository, directory = exports
    files = fsspec.filesystem("packstone", repo=str(repository))
    with files.open(f"latest{directory}/contacts.csv") as file:
        file.read(10)
        with packstone.open(repository) as opened, opened._objects.sweep():
            pass
