"""Ctrl-C and SIGTERM: exit 130, no traceback, no snapshot, nothing broken."""

from __future__ import annotations

import os
import signal
import time

import pytest


def begun(store, packs: int = 0) -> bool:
    """Wait until a snapshot from a pipe holds its lock and has read something."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if any(store.joinpath("tmp").iterdir()):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_a_piped_snapshot(run, store, number: int, as_json: bool) -> None:
    words = ["snapshot", "--stdin", "crm.sql"] + (["--json"] if as_json else [])
    process = run.start(*words)
    process.stdin.write(os.urandom(12 << 20))
    process.stdin.flush()
    begun(store)
    time.sleep(0.3)
    process.send_signal(number)
    # the pipe stays open: it must end by itself
    code = process.wait(20)
    out, err = process.stdout.read(), process.stderr.read()
    process.stdin.close()
    assert code == 130
    assert b"Traceback" not in err
    assert b"Exception" not in err
    assert b"interrupted" in err
    assert out == b""
    assert run("snapshots", "--json").json == []
    run("check", "--read-data")
    run("snapshot", "--stdin", "crm.sql", stdin=b"whole")


def test_a_command_does_not_survive(run, store) -> None:
    marker = run.directory / "still running"
    script = f"echo x; sleep 3; echo y; touch '{marker}'"
    process = run.start("snapshot", "--from-command", "n", "--", "sh", "-c", script)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert b"Traceback" not in process.stderr.read()
    assert run("snapshots", "--json").json == []


def test_a_snapshot_of_files(run, store, make_tree) -> None:
    root = make_tree({str(i): os.urandom(2_000_000) for i in range(30)})
    for delay in (0.1, 0.3, 0.5):
        process = run.start("snapshot", root)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
        err = process.stderr.read()
        # -2: so early or late that only Python itself is running
        assert code in (130, 0, -signal.SIGINT)
        if code == 130:
            assert b"Traceback" not in err
    run("check", "--read-data")
    run("snapshot", root)
