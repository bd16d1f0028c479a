"""Bad input gets a clear error and loses nothing: the list of the exit codes, one by one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from blake3 import blake3

import packstone

READ = (["snapshots"], ["ls", "latest"], ["check"], ["restore", "latest", "--target", "out"])

# root reads everything; without these two capabilities it is like any other user
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]


@pytest.fixture
def saved(run, store, source) -> Path:
    run("snapshot", source)
    return store


def everything(run) -> list[list[str]]:
    return [*READ, ["snapshot", str(run.directory)]]


def test_no_repository(run) -> None:
    for words in everything(run):
        outcome = run("--json", "-r", "nowhere", *words, code=10)
        error = outcome.json["error"]
        assert (error["kind"], error["exit_code"]) == ("no-repository", 10)
        assert "init" in error["hint"]
        assert "nowhere" in outcome.messages
    assert not run.directory.joinpath("nowhere").exists()


def test_a_foreign_directory(run, make_tree) -> None:
    tree = make_tree({"somebody": {"else": "x"}}, "foreign")
    for words in everything(run):
        run("-r", tree, *words, code=10)
    run("-r", tree / "somebody" / "else", "snapshots", code=10)
    assert sorted(path.name for path in tree.rglob("*")) == ["else", "somebody"]


@pytest.mark.parametrize("url", ["rclone://bucket/store", "sftp://host/store", "http://host/"])
def test_a_storage_that_is_not_known(run, url: str) -> None:
    assert "storage" in run("-r", url, "snapshots", code=2).messages


@pytest.mark.parametrize("size", [0, 10, -1])
def test_a_truncated_config(run, saved, size: int) -> None:
    whole = saved.joinpath("config").read_bytes()
    saved.joinpath("config").chmod(0o600)
    saved.joinpath("config").write_bytes(whole[:size])
    assert len(run("snapshots", "--json").json) == 1, "the copy serves"
    saved.joinpath("config.bak").chmod(0o600)
    saved.joinpath("config.bak").write_bytes(whole[:size])
    for words in (["snapshots"], ["snapshot", str(run.directory)]):
        assert "config" in run(*words, code=14).messages


def test_a_missing_config(run, saved) -> None:
    saved.joinpath("config").unlink()
    run("snapshots")
    run("check")


def test_a_version_that_is_not_known(run, saved) -> None:
    for name in ("config", "config.bak"):
        data = bytearray(saved.joinpath(name).read_bytes())
        data[8] = 2
        data[-32:] = blake3(data[:-32]).digest()
        saved.joinpath(name).chmod(0o600)
        saved.joinpath(name).write_bytes(data)
    for words in everything(run):
        run(*words, code=15)


def test_a_missing_state(run, saved, source) -> None:
    saved.joinpath("state").unlink()
    outcome = run("snapshot", source, code=None)
    assert outcome.code in (13, 14)
    assert len(list(saved.glob("snapshots/*"))) == 1


def test_a_damaged_pack_is_never_restored_as_good(run, store, source) -> None:
    for number in range(20):
        source.joinpath(f"random {number}").write_bytes(os.urandom(50_000))
    run("snapshot", source)
    pack = max(store.glob("packs/*/*"), key=lambda path: path.stat().st_size)
    pack.chmod(0o600)
    data = bytearray(pack.read_bytes())
    for offset in range(len(data) // 3, len(data) // 2, 64):
        data[offset] ^= 1
    pack.write_bytes(data)
    outcome = run("restore", f"latest:{source}", "--target", "out", "--json", code=3)
    named = {error["path"] for error in outcome.json["errors"]}
    assert named
    for original in source.glob("random *"):
        restored = run.directory / "out" / original.name
        if str(original) in named:
            assert not restored.exists() or restored.read_bytes() != original.read_bytes()
            assert str(original) in outcome.messages
        else:
            assert restored.read_bytes() == original.read_bytes()


def test_an_ambiguous_prefix(run, store, make_tree) -> None:
    tree = make_tree({"file": "x"})
    with packstone.open(store) as repository:
        for _ in range(17):  # two of them begin with the same digit
            repository.snapshot([tree])
        ids = [row.id for row in repository.snapshots()]
    (digit, *_) = [d for d in "0123456789abcdef" if sum(i.startswith(d) for i in ids) > 1]
    assert "ambiguous" in run("ls", digit, code=2).messages


def test_a_missing_source(run, store, source) -> None:
    outcome = run("snapshot", source, "/no\x1bwhere", "--json", code=3)
    (error,) = outcome.json["errors"]
    assert error["path"] == "/no\x1bwhere"
    assert error["message"]
    assert "/no\\x1bwhere" in outcome.messages
    assert "\x1b" not in outcome.messages
    assert outcome.json["snapshot_id"]
    names = [row["path"] for row in run("ls", "-R", "--json", "latest").json]
    assert str(source / "dump.sql") in names


def test_a_missing_source_is_named_even_when_quiet(run, store, source) -> None:
    outcome = run("-q", "snapshot", source, "/nowhere", code=3)
    assert b"/nowhere" in outcome.err


def without_privileges() -> list[str] | None:
    """Return what to put before a command so that permissions count, None if impossible."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        return None
    tried = subprocess.run([*UNPRIVILEGED, "true"], capture_output=True)
    return UNPRIVILEGED if tried.returncode == 0 else None


@pytest.fixture
def unprivileged() -> list[str]:
    prefix = without_privileges()
    if prefix is None:
        pytest.skip("root cannot be made to respect permissions here")
    return prefix


def test_an_unreadable_file_and_directory(run, store, source, unprivileged) -> None:
    source.joinpath("dump.sql").chmod(0)
    source.joinpath("directory", "nested").chmod(0)
    outcome = run("snapshot", source, "--json", code=3, prefix=unprivileged)
    paths = {error["path"] for error in outcome.json["errors"]}
    assert str(source / "dump.sql") in paths
    assert str(source / "directory" / "nested") in paths
    names = {row["path"] for row in run("ls", "-R", "--json", "latest").json}
    assert str(source / "directory" / "small") in names
    run("check", "--read-data")
    run("restore", "latest", "--target", "out", code=None)
    source.joinpath("directory", "nested").chmod(0o700)


def test_a_target_that_is_not_writable(run, saved, make_tree, unprivileged) -> None:
    target = make_tree({}, "locked")
    target.chmod(0o500)
    outcome = run("restore", "latest", "--target", target, code=None, prefix=unprivileged)
    assert outcome.code in (1, 3)
    assert "locked" in outcome.messages
    below = target / "below"
    outcome = run("restore", "latest", "--target", below, code=None, prefix=unprivileged)
    assert outcome.code in (1, 3)


def test_a_repository_that_cannot_be_written(run, saved, source, unprivileged) -> None:
    source.joinpath("new").write_text("new")
    for path in (saved, *saved.rglob("*")):
        if path.is_dir():
            path.chmod(0o500)
        else:
            path.chmod(0o400)
    try:
        run("snapshot", source, code=13, prefix=unprivileged)
        # what was stored can be looked at all the same
        run("snapshots", prefix=unprivileged)
        run("restore", "latest", "--target", "out", prefix=unprivileged)
    finally:
        for path in (saved, *saved.rglob("*")):
            if path.is_dir():
                path.chmod(0o700)
    assert len(run("snapshots", "--json").json) == 1


@pytest.mark.parametrize("keep", [0.5, 0.1, 0.0])
def test_an_index_cut_off(run, saved, source, keep: float) -> None:
    (index,) = saved.glob("index/**/data.mdb")
    os.truncate(index, int(index.stat().st_size * keep))
    run("restore", f"latest:{source}", "--target", "out")
    run("snapshot", source, "--read-all")
    run("check", "--read-data")


def test_an_index_scribbled_over(run, saved, source) -> None:
    (index,) = saved.glob("index/**/data.mdb")
    index.write_bytes(os.urandom(index.stat().st_size))
    run("restore", f"latest:{source}", "--target", "out")
    run("check", "--read-data")


def test_no_index(run, saved, source) -> None:
    shutil.rmtree(saved / "index")
    run("restore", f"latest:{source}", "--target", "out")
    run("snapshot", source)


def test_a_full_disk(run, make_tree) -> None:
    """A repository on a file system that fills up: exit 13, nothing committed, nothing lost."""
    place = run.directory / "small disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("cannot mount a file system here")
    try:
        store = place / "store"
        run("init", "--plain", store)
        run.environment["PACKSTONE_REPO"] = str(store)
        small = make_tree({"small": os.urandom(100_000)}, "small")
        run("snapshot", small)
        large = make_tree({str(i): os.urandom(1_000_000) for i in range(20)}, "large")
        outcome = run("snapshot", large, "--json", code=13)
        assert outcome.json["error"]["kind"] == "full"
        assert len(run("snapshots", "--json").json) == 1
        run("restore", f"latest:{small}", "--target", "out")
        # once there is room it works again
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        run("snapshot", large)
        run("check", "--read-data")
    finally:
        subprocess.run(["umount", "-l", place], check=True)
