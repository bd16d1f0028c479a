"""A repository of the first release is read by every later one (docs/format.md, all of it).

`plain-v1.tar.gz` is never made again: what `make.py` makes today is compared with it.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import independent_reader
import pytest

import packstone
from packstone.codec.encryption import Sealer
from packstone.repository.packs import HEADER_SIZE, read_pack
from packstone.storage.local import LocalStorage

HERE = Path(__file__).parent
EXPECTED = json.loads((HERE / "plain-v1.json").read_text())
FIRST, SECOND, THIRD = EXPECTED["snapshots"]

_spec = importlib.util.spec_from_file_location("golden_make", HERE / "make.py")
make = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it was; tests put their index elsewhere."""
    root = tmp_path_factory.mktemp("golden") / make.NAME
    root.mkdir()
    data = (HERE / "plain-v1.tar.gz").read_bytes()
    assert len(data) < 100_000
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(root, filter="tar")
    return root


@pytest.fixture
def opened(golden: Path, tmp_path: Path) -> Any:
    with packstone.open(golden, index_dir=tmp_path / "index") as repository:
        yield repository
        assert repository.warnings == []


def value_of(stored: Any) -> bytes:
    """Turn what make.plain made of bytes back into bytes."""
    if isinstance(stored, dict):
        return (
            base64.b64decode(stored["base64"])
            if "base64" in stored
            else bytes.fromhex(stored["hex"])
        )
    return stored.encode("ascii")


def test_the_archive_is_what_it_was(golden: Path) -> None:
    found = {
        path.relative_to(golden).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in golden.rglob("*")
        if path.is_file()
    }
    assert found == EXPECTED["files"]


def test_has_every_feature_of_packs(golden: Path) -> None:
    storage = LocalStorage(str(golden))
    sealer = Sealer(bytes.fromhex(EXPECTED["repository_id"]))
    seen: set[str] = set()
    places: dict[bytes, int] = {}
    for path in golden.glob("packs/*/*"):
        pack = read_pack(storage, path.name, path.stat().st_size, sealer)
        offset, size = (int.from_bytes(path.read_bytes()[at : at + 8], "little") for at in (64, 72))
        seen.add(f"kind {pack.kind}")
        seen |= {f"type {row[2]}" for record in pack.rows for row in record.object_rows()}
        for record in pack.rows:
            ids = [row[0] for row in record.object_rows()]
            seen.add(f"codec {record.codec}")
            seen.add("keys" if record.keys else "no keys")
            seen.add("run" if len(ids) > 1 else "single")
            seen.add("first part" if record.offset < offset else "second part")
            if len(set(ids)) < len(ids):
                seen.add("twice in one record")
            for object_id in set(ids):
                places[object_id] = places.get(object_id, 0) + 1
        assert offset >= HEADER_SIZE and size > 96
    assert max(places.values()) > 1, "an object in several packs"
    assert seen == set(
        "kind 1,kind 2,type 1,type 2,type 3,codec 0,codec 1,keys,no keys,run,single,"
        "first part,second part,twice in one record".split(",")
    )


@pytest.mark.parametrize("snapshot_id", EXPECTED["snapshots"])
def test_reads_the_same(opened: packstone.Repository, snapshot_id: str) -> None:
    assert opened.id == EXPECTED["repository_id"]
    expected = EXPECTED["content"][snapshot_id]
    rows = {row.id: row.snapshot for row in opened.snapshots()}
    assert rows.keys() == EXPECTED["content"].keys()
    assert make.plain(rows[snapshot_id]) == expected["snapshot"]
    entries = [make.plain(row) for row in opened.ls(snapshot_id, recursive=True)]
    assert entries == expected["entries"]


def test_check_finds_nothing(opened: packstone.Repository) -> None:
    result = opened.check(read_data=True)
    assert result.errors == [] and result.warnings == []
    assert (result.packs_checked, result.snapshots_checked) == (6, 3)


def compare(target: Path, snapshot_id: str) -> int:
    """Compare a restore with what make.py put in; return the number of entries."""
    digests = EXPECTED["digests"][snapshot_id]
    groups: dict[Any, set[int]] = {}
    found = {os.fsencode(path.relative_to(target)) for path in target.rglob("*")}
    for path, entry, _user, _group in EXPECTED["content"][snapshot_id]["entries"]:
        name = value_of(path).lstrip(b"/")
        found.remove(name)
        at = os.path.join(os.fsencode(target), name)
        status = os.lstat(at)
        assert stat.S_IFMT(status.st_mode) == stat.S_IFMT(entry["mode"]), name
        if not stat.S_ISLNK(status.st_mode):
            assert status.st_mode == entry["mode"], name
        assert status.st_mtime_ns == entry["mtime_ns"], name
        if os.geteuid() == 0:
            assert (status.st_uid, status.st_gid) == (entry["uid"], entry["gid"]), name
        if stat.S_ISREG(status.st_mode):
            with open(at, "rb") as file:
                found_digest = hashlib.sha256(file.read()).hexdigest()
            assert found_digest == digests[os.path.basename(name).decode("latin-1")], name
            assert status.st_size == entry["size"], name
        elif stat.S_ISLNK(status.st_mode):
            assert os.readlink(at) == value_of(entry["content"])
        extras = entry["extras"] or {"link": "", "xattrs": []}
        if extras["link"]:
            groups.setdefault(extras["link"], set()).add(status.st_ino)
        xattrs = {
            os.fsencode(each): os.getxattr(at, each, follow_symlinks=False)
            for each in os.listxattr(at, follow_symlinks=False)
            if each.startswith("user.")
        }
        assert xattrs == {value_of(k): value_of(v) for k, v in extras["xattrs"]}, name
    assert not found, "more than was stored"
    assert all(len(inodes) == 1 for inodes in groups.values())
    return len(EXPECTED["content"][snapshot_id]["entries"])


@pytest.mark.parametrize(("snapshot_id", "count"), [(FIRST, 78), (SECOND, 2)])
def test_restores_the_same(
    opened: packstone.Repository, tmp_path: Path, snapshot_id: str, count: int
) -> None:
    result = opened.restore(snapshot_id, tmp_path / "out", sparse=True)
    assert result.errors == []
    assert compare(tmp_path / "out", snapshot_id) == count
    if snapshot_id == FIRST:
        assert (tmp_path / "out/golden/only a hole").stat().st_blocks == 0


@pytest.mark.parametrize(("snapshot_id", "count"), [(FIRST, 78), (SECOND, 2)])
def test_the_independent_reader_restores_the_same(
    golden: Path, tmp_path: Path, snapshot_id: str, count: int
) -> None:
    words = [sys.executable, "-I", independent_reader.__file__, golden, snapshot_id]
    done = subprocess.run([*words, tmp_path / "out"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert compare(tmp_path / "out", snapshot_id) == count


def test_what_cannot_be_restored_is_named(opened: packstone.Repository, tmp_path: Path) -> None:
    result = opened.restore(THIRD, tmp_path / "out")
    named = {os.path.basename(os.fsencode(problem.path)) for problem in result.errors}
    assert named - {b"null", b"disk"} == {b"unreadable", b"closed"}
    assert (tmp_path / "out/changed").read_bytes() == b"while read"
    assert not (tmp_path / "out/socket").exists()


def test_is_made_the_same_today(tmp_path: Path) -> None:
    """The same inputs, clock and randomness give the same bytes."""
    found = make.make(tmp_path)
    expected = {key: EXPECTED[key] for key in ("repository_id", "snapshots", "digests")}
    assert {key: found[key] for key in expected} == expected
    if found["zstd"] == EXPECTED["zstd"]:
        assert found["files"] == EXPECTED["files"]
    else:  # another libzstd may compress to other bytes, which names packs otherwise
        kept = {name for name in EXPECTED["files"] if not name.startswith("packs/")}
        assert {name: found["files"][name] for name in kept} == {
            name: EXPECTED["files"][name] for name in kept
        }
