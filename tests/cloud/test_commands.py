"""Every command on a repository in an object store, as on one in a directory."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees
from conftest import Packstone
from object_server import KEYS

Remote = Callable[..., str]
PASS = {"PACKSTONE_PASSPHRASE": "correct horse"}


@pytest.mark.parametrize("sealed", [False, True])
def test_a_life(run: Packstone, remote: Remote, source: Path, sealed: bool) -> None:
    if sealed:
        remote("--kdf-memory=64KiB", "--kdf-time=1", **PASS)
    else:
        remote("--plain")
    first = run("--json", "snapshot", source).json["snapshot_id"]
    (source / "dump.sql").write_bytes(os.urandom(3_000_000))
    run("snapshot", source)
    assert len(run("--json", "snapshots").json) == 2
    run("check", "--read-data")
    run("check", "--names-only")
    run("restore", "latest", "--target", "out")
    assert_equal_trees(source, Path(f"{run.directory}/out{source}"))
    assert run("cat", f"latest:{source}/directory/small").out == b"small\n"
    # a machine that has never seen it
    shutil.rmtree(run.directory / "cache")
    run("restore", f"{first}:{source}/directory", "--target", "old")
    assert (run.directory / "old" / "small").read_text() == "small\n"
    run("forget", first)
    found = run("--json", "prune").json
    assert found["bytes_freed"] > 0 and found["packs_deleted"] + found["packs_rewritten"] > 0
    run("check", "--read-data")
    run("restore", "latest", "--target", "again")
    assert_equal_trees(source, Path(f"{run.directory}/again{source}"))
    assert run("--json", "stats").json["snapshots"] == 1
    if sealed:
        listed = run("--json", "key", "list").json
        run("key", "add", env={"PACKSTONE_NEW_PASSPHRASE": "second"})
        run("key", "remove", listed[0]["id"], env={"PACKSTONE_PASSPHRASE": "second"})
        run("snapshots", code=12)
        run("snapshots", env={"PACKSTONE_PASSPHRASE": "second"})


def test_an_unchanged_snapshot_costs_ten_requests(
    run: Packstone, remote: Remote, source: Path
) -> None:
    """And one listing of packs per thousand, which here is the only one of its kind."""
    remote("--plain")
    run("snapshot", source)
    run("snapshot", source)  # entries as young as the first one are read again
    found = run("--json", "snapshot", source).json
    requests = found["requests"]
    assert found["files_changed"] == 0
    assert requests["put"] + requests["get"] + requests["delete"] + requests["list"] <= 11
    assert requests["list"] == 3


def test_counts_are_told(run: Packstone, remote: Remote) -> None:
    remote("--plain")
    assert run("--json", "stats").json["requests"]["list"] > 0
    assert "PUT" in run("-v", "snapshots").messages
    assert "PUT" not in run("snapshots").messages


def test_there_is_one_already(run: Packstone, remote: Remote) -> None:
    url = remote("--plain")
    assert "already" in run("init", "--plain", url, code=2).messages


def test_there_is_none(run: Packstone, url: str) -> None:
    run.environment |= KEYS
    assert json.loads(run("--json", "-r", url, "stats", code=10).out)["error"]["exit_code"] == 10


def test_refused_credentials_are_told_and_not_shown(run: Packstone, remote: Remote) -> None:
    remote("--plain")
    done = run("-r", "s3://key:secret-55@bucket/x", "stats", code=2)
    assert "secret-55" not in done.messages + done.text


def test_a_server_that_is_not_there(run: Packstone) -> None:
    run.environment |= KEYS
    done = run("-r", "s3://bucket/x?endpoint=http://127.0.0.1:9&timeout=1", "stats", code=13)
    assert all(secret not in done.messages for secret in KEYS.values())


def test_a_damaged_cache_is_not_believed(run: Packstone, remote: Remote, source: Path) -> None:
    remote("--plain")
    run("snapshot", source)
    pieces = [path for path in (run.directory / "cache" / "objects").rglob("*") if path.is_file()]
    assert len(pieces) >= 3
    for path in pieces:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    run("restore", "latest", "--target", "out")
    assert_equal_trees(source, Path(f"{run.directory}/out{source}"))


def test_the_cache_keeps_its_bounds(run: Packstone, remote: Remote, make_tree: Remote) -> None:
    remote("--plain", PACKSTONE_CACHE_SIZE="3000000")
    for turn in range(3):
        root = make_tree({"a": os.urandom(2_500_000)}, name=f"source{turn}")
        run("snapshot", root)
    files = [path for path in (run.directory / "cache" / "objects").rglob("*") if path.is_file()]
    assert 0 < sum(path.stat().st_size for path in files) <= 3_000_000
    run("check", "--read-data")


def test_two_repositories_of_a_machine(
    run: Packstone, remote: Remote, source: Path, tmp_path: Path
) -> None:
    url = remote("--plain")
    run("snapshot", source)
    run("init", "--plain", tmp_path / "local")
    run("-r", url, "copy", "--to", tmp_path / "local")
    run("-r", tmp_path / "local", "check", "--read-data")
