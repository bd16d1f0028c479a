"""Locks between real processes: who waits, who gives up, and what they are told (row C2)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import Packstone


@contextmanager
def writing(run: Packstone) -> Iterator[subprocess.Popen[bytes]]:
    """Let a snapshot of a pipe be under way, until the end of the block."""
    notes = Path(run.environment["PACKSTONE_REPO"]) / "locks"
    before = set(notes.iterdir()) if notes.is_dir() else set()
    process = run.start("snapshot", "--stdin", "dump")
    assert process.stdin is not None
    deadline = time.monotonic() + 20
    while not (
        notes.is_dir()
        and any(each.stat().st_size for each in notes.iterdir() if each not in before)
    ):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.communicate(timeout=30)


def forget_all(store: Path) -> None:
    for path in (store / "snapshots").iterdir():
        path.unlink()


def test_who_holds_it_is_named(run: Packstone, store: Path, source: Path) -> None:
    run("snapshot", source)
    forget_all(store)
    with writing(run) as writer:
        packs = sorted((store / "packs").rglob("*"))
        done = run("prune", code=11)
        assert f"process {writer.pid} on {os.uname().nodename} since 2" in done.messages
        assert "--lock-timeout" in done.messages
        error = run("--json", "prune", code=11).json["error"]
        assert (error["kind"], error["exit_code"]) == ("locked", 11)
        assert sorted((store / "packs").rglob("*")) == packs
        begin = time.monotonic()
        run("prune", "--lock-timeout", "1s", code=11)
        assert 1 <= time.monotonic() - begin < 30
        run("snapshot", source)  # others are not in its way
    assert writer.returncode == 0
    run("prune")


def test_waiting_until_the_other_is_done(run: Packstone, store: Path, source: Path) -> None:
    run("snapshot", source)
    forget_all(store)
    with writing(run) as writer:
        pruner = run.start("prune", "--lock-timeout", "60s")
        assert pruner.stderr is not None
        line = pruner.stderr.readline()
        assert b"waiting" in line and str(writer.pid).encode() in line
        assert pruner.poll() is None
        writer.communicate(b"rows\n" * 1000, timeout=30)
        out, err = pruner.communicate(timeout=60)
        assert pruner.returncode == 0 and b"deleted" in out, err
    assert run("cat", "latest:dump").out == b"rows\n" * 1000
    run("check", "--read-data")


def test_notes_of_the_killed_decide_nothing(run: Packstone, store: Path, source: Path) -> None:
    run("snapshot", source)
    with writing(run) as writer:
        writer.kill()
        writer.wait(10)
    assert any((store / "locks").iterdir()), "nobody put it away"
    forget_all(store)
    run("prune")
    assert list((store / "locks").iterdir()) == []
    assert list((store / "tmp").iterdir()) == []


def test_notes_of_strangers(run: Packstone, store: Path, source: Path) -> None:
    """Garbage, huge, hostile: harmless, and nothing of it reaches a terminal as it is."""
    run("snapshot", source)
    forget_all(store)
    notes = store / "locks"
    notes.mkdir(exist_ok=True)
    hostile = {"host": "\x1b]0;owned\x07\nhost", "pid": 1, "since": "\x1b[2J", "exclusive": True}
    (notes / "hostile").write_text(json.dumps(hostile))
    (notes / "garbage").write_bytes(os.urandom(100))
    (notes / "huge").write_bytes(b"[" * 5_000_000)
    (notes / "empty").write_bytes(b"")
    os.symlink(source / "dump.sql", notes / "link")
    os.mkfifo(notes / "fifo")
    (notes / "directory").mkdir()
    held = [os.open(notes / name, os.O_RDONLY) for name in ("hostile", "garbage", "huge", "empty")]
    import fcntl

    for fd in held:
        fcntl.flock(fd, fcntl.LOCK_EX)
    with writing(run):
        done = run("prune", code=11)
        assert "\x1b" not in done.messages and "\x07" not in done.messages
        out = run("--json", "prune", code=11)
        assert b"\x1b" not in out.out
    for fd in held:
        os.close(fd)
    run("prune")
    assert (source / "dump.sql").exists()


def test_a_repository_that_is_read_only_gets_no_note(
    run: Packstone, store: Path, source: Path, make_tree: Callable[..., Path]
) -> None:
    run("snapshot", source)
    run("snapshot", source, "--tag", "second", "--read-all")
    next((store / "snapshots").iterdir()).unlink()
    before = sorted(store.rglob("*"))
    if os.geteuid() == 0:
        place = run.directory / "mounted"
        place.mkdir()
        words = ["mount", "--bind", store, place]
        if subprocess.run(words, capture_output=True).returncode:
            return
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
            run("-r", place, "ls", "latest")
            if run("prune", "--dry-run", "--max-unused", "0%").text.startswith("0 packs would"):
                return
            run("-r", place, "prune", "--max-unused", "0%", code=13)
        finally:
            subprocess.run(["umount", place], check=True)
    assert [path for path in sorted(store.rglob("*")) if path not in before] == []


def test_two_pruners_and_many_snapshots(run: Packstone, store: Path, source: Path) -> None:
    run("snapshot", source)
    forget_all(store)
    both = [run.start("prune", "--lock-timeout", "60s") for _ in range(2)]
    many = [run.start("snapshot", source, "--lock-timeout", "60s") for _ in range(4)]
    for process in [*both, *many]:
        _out, err = process.communicate(timeout=120)
        assert process.returncode == 0 or b"sweep ran" in err, err
    assert len(run("--json", "snapshots").json) == sum(each.returncode == 0 for each in many)
    run("check", "--read-data")
    run("restore", "latest", "--target", run.directory / "target")
