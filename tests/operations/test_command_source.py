"""Programs as sources: whatever one does but end well leaves no snapshot and no program behind."""

from __future__ import annotations

import io
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import packstone
from packstone.operations.jobs.sources import open_source
from packstone.operations.jobs.sources.client import ClientPouring, blocks, feed, find_client
from packstone.operations.jobs.sources.store import StoredPart, store_parts
from packstone.operations.jobs.strategy import CommandSource, PathSource


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[packstone.Repository]:
    with packstone.init(tmp_path / "repository", chunk_size=32 << 10) as repository:
        yield repository


def store(repository: packstone.Repository, script: str) -> StoredPart:
    source = CommandSource(argv=["sh", "-c", script], name="dump")
    (part,) = store_parts(repository, open_source(source), tags=["job:x"])
    return part


def test_what_it_prints_is_stored(repository: packstone.Repository) -> None:
    part = store(repository, "seq 300000")
    assert part.error is None and not part.warnings
    expected = b"".join(b"%d\n" % n for n in range(1, 300001))
    assert repository.open_file("latest", "dump").read() == expected
    row = repository.find_snapshot("latest")
    assert (row.snapshot.name, row.snapshot.tags) == (b"dump", ["job:x"])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 1", "sh exited with 1 and said nothing"),
        ("echo no such table >&2; exit 3", "exited with 3: no such table"),
        ("seq 500000; echo lost connection >&2; exit 2", "exited with 2: lost connection"),
        ("seq 500000; kill -9 $$", "was ended by signal 9"),
        ("exec no-such-program-here", "exited with 127"),
        ("cat", None),  # its input is empty: it never waits for a terminal
    ],
)
def test_however_it_ends(
    repository: packstone.Repository, script: str, message: str | None
) -> None:
    part = store(repository, script)
    assert (part.error is None) == (message is None)
    if message is not None:
        assert isinstance(part.error, packstone.CommandFailed) and message in part.error.message
        assert part.result is None and repository.snapshots() == []
        assert repository.check(read_data=True).errors == []


def test_a_program_that_is_not_there(repository: packstone.Repository) -> None:
    source = CommandSource(argv=["no-such-program-here", "secret"], name="dump")
    (part,) = store_parts(repository, open_source(source))
    assert part.error is not None and "no-such-program-here" in part.error.message
    assert "secret" not in part.error.message + part.error.hint  # arguments may hold passwords
    with pytest.raises(packstone.UsageError, match="not installed"):
        find_client(["no-such-program-here"], "package")


def test_messages_without_end_are_kept_within_bounds(repository: packstone.Repository) -> None:
    """Both pipes are emptied all the time, or the program would wait for us."""
    talk = "echo first >&2; yes 'warning: no end' | head -c 20000000 >&2; echo last >&2"
    part = store(repository, f"seq 1000; {talk}; seq 1000; exit 1")
    assert part.error is not None
    message = part.error.message
    assert "first" in message and message.endswith("last") and len(message) < 20_000
    part = store(repository, "echo careful >&2; echo row")
    assert part.error is None and part.warnings == ["sh: careful"]


def test_a_child_that_keeps_the_messages_open(repository: packstone.Repository) -> None:
    started = time.monotonic()
    part = store(repository, "sleep 60 >/dev/null & echo $! > /dev/null; echo row; exit 4")
    assert part.error is not None and "exited with 4" in part.error.message
    assert time.monotonic() - started < 30


def test_no_program_is_left_when_the_repository_fails(
    repository: packstone.Repository, tmp_path: Path
) -> None:
    note = tmp_path / "pid"
    source = CommandSource(argv=["sh", "-c", f"echo $$ > {note}; exec yes"], name="a" * 300)
    (part,) = store_parts(repository, open_source(source))  # such a name cannot be stored
    assert isinstance(part.error, packstone.UsageError)
    for _ in range(100):
        if not note.exists() or not Path(f"/proc/{note.read_text().strip()}").exists():
            break
        time.sleep(0.05)
    else:
        pytest.fail("it still runs")


def test_a_client_that_prints_nothing_is_not_believed() -> None:
    pouring = ClientPouring(["true"])
    assert pouring.stream.read() == b""
    with pytest.raises(packstone.CommandFailed, match="printed nothing"):
        pouring.finish()
    pouring.close()


# -- playing back ---------------------------------------------------------------------------


def script(text: str) -> list[str]:
    return ["sh", "-c", text]


def test_feeding_gives_everything(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    feed(script(f"sleep 0.2; cat > {shlex.quote(str(tmp_path / 'out'))}"), iter([content, b"end"]))
    assert (tmp_path / "out").read_bytes() == content + b"end"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo wrong >&2; exit 3", "exited with 3: wrong"),
        ("head -c 10 >/dev/null; echo full >&2; exit 5", "exited with 5: full"),
        ("head -c 10 >/dev/null", "before it had read everything"),
        ("cat >/dev/null; kill -9 $$", "signal 9"),
    ],
)
def test_a_client_that_takes_no_more(text: str, message: str) -> None:
    content = blocks(io.BytesIO(bytes(10_000_000)))
    with pytest.raises(packstone.CommandFailed, match=message) as failed:
        feed(script(text), content, hint="The target is as it was")
    assert "as it was" in failed.value.hint


def test_a_broken_dump_never_ends_like_a_whole_one(tmp_path: Path) -> None:
    """An end of input would tell a client to commit: it must not live to see one."""
    marker = tmp_path / "committed"

    def breaking() -> Iterator[bytes]:
        yield b"BEGIN\n"
        time.sleep(0.3)
        raise packstone.Damaged("a chunk is damaged")

    with pytest.raises(packstone.Damaged):
        feed(
            [sys.executable, "-c", f"import sys; sys.stdin.read(); open({str(marker)!r}, 'w')"],
            breaking(),
        )
    time.sleep(0.5)
    assert not marker.exists()


def test_load_says_the_target_in_two_ways(repository: packstone.Repository, tmp_path: Path) -> None:
    out = tmp_path / "out"
    load = ["sh", "-c", f'echo "$0 $PACKSTONE_TARGET" > {out}; cat >> {out}', "<{target}>"]
    source = CommandSource(argv=["echo", "row"], name="dump", load=load)
    (part,) = open_source(source).stored()
    part.load(io.BytesIO(b"row\n"), "there")
    assert out.read_text() == "<there> there\nrow\n"
    (part,) = open_source(CommandSource(argv=["echo"], name="dump")).stored()
    with pytest.raises(packstone.UsageError, match="does not say how"):
        part.load(io.BytesIO(b""), "there")


def test_files_are_no_stream() -> None:
    with pytest.raises(packstone.UsageError):
        open_source(PathSource(paths=["/srv"]))


def test_no_thread_is_left(repository: packstone.Repository) -> None:
    before = set(threading.enumerate())
    store(repository, "seq 10")
    store(repository, "echo no >&2; exit 1")
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if thread.name == "packstone-messages"]
