"""Progress: a bar on a terminal and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
import time
from typing import IO

import pytest

COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-7][0-9;]*m")


def on_terminal(run, *words: str, env: dict[str, str] | None = None) -> bytes:
    """Store a slow pipe with stderr on a terminal; return what was shown there."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        run.argv(["snapshot", "--stdin", "crm\x1b.sql", *words]),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env=run.environment | {"TERM": "xterm-256color", "COLUMNS": "120"} | (env or {}),
        cwd=run.directory,
    )
    os.close(theirs)
    assert process.stdin is not None
    writer = threading.Thread(target=write_slowly, args=[process.stdin])
    writer.start()
    shown = b""
    while True:
        try:
            block = os.read(ours, 1 << 16)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not block:
            break
        shown += block
    os.close(ours)
    writer.join()
    assert process.wait(30) == 0, shown
    return shown


def write_slowly(pipe: IO[bytes]) -> None:
    try:
        for _ in range(8):
            pipe.write(os.urandom(3 << 20))
            pipe.flush()
            time.sleep(0.15)
        pipe.close()
    except BrokenPipeError:
        pass  # it ended early; its exit code and messages say why


def test_a_bar(run, store) -> None:
    shown = on_terminal(run)
    assert b"snapshot" in shown
    assert b"MiB/s" in shown
    assert b"files" in shown
    assert b"crm" not in shown  # names stay out of it
    assert shown.rstrip().endswith(b"\x1b[2K") or b"\x1b[?25h" in shown  # the cursor is back


def test_no_color(run, store) -> None:
    assert COLOUR.search(on_terminal(run))
    assert not COLOUR.search(on_terminal(run, env={"NO_COLOR": "1"}))


@pytest.mark.parametrize("words", [["-q"], ["--json", "-q"]], ids=" ".join)
def test_quiet(run, store, words: list[str]) -> None:
    assert on_terminal(run, *words) == b""


def test_json_has_lines_and_no_bar(run, store) -> None:
    shown = on_terminal(run, "--json")
    assert b"\x1b[" not in shown
    assert all(line.startswith(b'{"type": "progress"') for line in shown.splitlines())
