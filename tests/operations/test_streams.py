"""Snapshots of streams and commands: every size, short reads, and no snapshot when it fails."""

from __future__ import annotations

import io
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import packstone
from packstone.operations.storing import SPAN_SIZE


class Stream(io.RawIOBase):
    """Gives its bytes in pieces of the sizes given, over and over; may raise at a position."""

    def __init__(self, data: bytes, pieces: tuple[int, ...], fail_at: int | None = None) -> None:
        self._data = data
        self._pieces = pieces
        self._fail_at = fail_at
        self._position = 0
        self._turn = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._fail_at is not None and self._position >= self._fail_at:
            raise OSError(5, "the other end is gone")
        size = min(len(buffer), self._pieces[self._turn % len(self._pieces)])
        self._turn += 1
        data = self._data[self._position : self._position + size]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def stored(repository: packstone.Repository, name: str) -> bytes:
    with repository.open_file("latest", name) as file:
        return file.read()


@pytest.mark.parametrize(
    "size",
    [0, 1, 2, 4096, SPAN_SIZE - 1, SPAN_SIZE, SPAN_SIZE + 1, 2 * SPAN_SIZE, 2 * SPAN_SIZE + 33],
)
def test_sizes(repository: packstone.Repository, tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    result = repository.snapshot_stream(io.BytesIO(data), "dump.sql")
    assert result.snapshot_id is not None
    assert (result.bytes_total, result.bytes_read, result.files_new) == (size, size, 1)
    assert stored(repository, "dump.sql") == data
    repository.restore("latest", tmp_path / "target")
    assert (tmp_path / "target" / "dump.sql").read_bytes() == data
    assert repository.check(read_data=True).errors == []


@pytest.mark.parametrize("pieces", [(1, 7, 65536), (999,), (SPAN_SIZE, 1), (1 << 20, 3)])
def test_short_reads_cut_as_one(repository: packstone.Repository, pieces: tuple[int, ...]) -> None:
    """How a pipe portions its bytes must not change the chunks."""
    data = random.Random(1).randbytes(SPAN_SIZE + 500_000)
    repository.snapshot_stream(io.BytesIO(data), "dump.sql")
    again = repository.snapshot_stream(Stream(data, pieces), "dump.sql")
    assert stored(repository, "dump.sql") == data
    assert (again.chunks_new, again.files_unmodified) == (0, 1)


def test_a_pipe(repository: packstone.Repository) -> None:
    data = random.Random(2).randbytes(6 << 20)
    reading, writing = os.pipe()

    def write() -> None:
        with open(writing, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    with open(reading, "rb", buffering=0) as pipe:
        repository.snapshot_stream(pipe, b"dump")  # type: ignore[arg-type]
    thread.join()
    assert stored(repository, "dump") == data


def test_like_a_file(repository: packstone.Repository, source: Path) -> None:
    """A dump piped in and the same dump as a file have the same chunks."""
    data = random.Random(3).randbytes(9 << 20)
    (source / "dump").write_bytes(data)
    repository.snapshot([source])
    result = repository.snapshot_stream(io.BytesIO(data), "dump")
    assert result.chunks_new == 0


def test_spans_leave_no_trace(repository: packstone.Repository) -> None:
    """Chunks end where the whole, cut at once, has its cuts; not where a buffer ended."""
    from packstone.chunking.chunker import Chunker, ChunkerParams
    from packstone.repository.contents import iter_content

    data = random.Random(6).randbytes(3 * SPAN_SIZE + 12345)
    repository.snapshot_stream(io.BytesIO(data), "dump")
    objects = repository._objects
    entry = next(iter(repository.ls("latest"))).entry
    ends, position = [], 0
    for _, size in iter_content(objects.reader.get, entry):
        position += size
        ends.append(position)
    params = ChunkerParams(objects.config.average, objects.hasher.cutting_secret)
    assert ends == Chunker(params).cut(data, 0, len(data), True)


@pytest.mark.parametrize("fail_at", [0, 1, SPAN_SIZE, SPAN_SIZE + 1, 3 * SPAN_SIZE])
def test_a_stream_that_raises(repository: packstone.Repository, fail_at: int) -> None:
    repository.snapshot_stream(io.BytesIO(b"before"), "dump.sql")
    data = random.Random(4).randbytes(4 * SPAN_SIZE)
    with pytest.raises(OSError, match="the other end is gone"):
        repository.snapshot_stream(Stream(data, (SPAN_SIZE,), fail_at), "dump.sql")  # type: ignore[arg-type]
    assert len(repository.snapshots()) == 1
    assert list((Path(repository.location) / "tmp").iterdir()) == []
    repository.snapshot_stream(io.BytesIO(data), "dump.sql")
    assert stored(repository, "dump.sql") == data
    assert repository.check(read_data=True).errors == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "nul\0", "x" * 256])
def test_names_that_cannot_be(repository: packstone.Repository, name: str) -> None:
    with pytest.raises(packstone.UsageError):
        repository.snapshot_stream(io.BytesIO(b"1"), name)
    assert repository.snapshots() == []


def test_hostile_names(repository: packstone.Repository, tmp_path: Path) -> None:
    for at, name in enumerate((b"\xff\n", b"-rf", b"x" * 255)):
        repository.snapshot_stream(io.BytesIO(name), name)
        repository.restore("latest", tmp_path / str(at))
        assert os.listdir(bytes(tmp_path / str(at))) == [name]


def test_the_parent_has_the_same_name_else_the_same_tags(
    repository: packstone.Repository,
) -> None:
    def take(name: str, **options: Any) -> packstone.SnapshotResult:
        return repository.snapshot_stream(io.BytesIO(name.encode() * 100), name, **options)

    first = take("monday.sql", tags=["crm"])
    assert first.parent_id is None
    assert take("monday.sql").parent_id == first.snapshot_id
    assert take("tuesday.sql").parent_id is None
    assert take("wednesday.sql", tags=["crm"]).parent_id == first.snapshot_id
    assert take("monday.sql", host="elsewhere").parent_id is None


def test_progress_and_dry_run(repository: packstone.Repository) -> None:
    data = random.Random(5).randbytes(5 << 20)
    seen: list[packstone.Progress] = []
    result = repository.snapshot_stream(
        io.BytesIO(data), "dump", dry_run=True, progress=seen.append
    )
    assert result.snapshot_id is None and seen and seen[-1].current == b"dump"
    assert repository.snapshots() == []
    with pytest.raises(KeyboardInterrupt):
        repository.snapshot_stream(io.BytesIO(data), "dump", progress=_interrupt)
    assert repository.snapshots() == []


def _interrupt(_: packstone.Progress) -> None:
    raise KeyboardInterrupt


# -- commands -------------------------------------------------------------------------------


def test_a_command(repository: packstone.Repository, tmp_path: Path) -> None:
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 20_000)"
    result = repository.snapshot_command([sys.executable, "-c", script], "out")
    assert result.bytes_read == 256 * 20_000
    assert stored(repository, "out") == bytes(range(256)) * 20_000
    assert repository.snapshot_command(["true"], "nothing").bytes_total == 0


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["false"], "exited with 1"),
        (["sh", "-c", "head -c 9000000 /dev/urandom; exit 3"], "exited with 3"),
        (["sh", "-c", "echo some; kill -9 $$"], "signal 9"),
        (["/no/such/command"], "cannot run"),
        (["/etc"], "cannot run"),
    ],
)
def test_a_command_that_fails(repository: packstone.Repository, argv: list[str], text: str) -> None:
    with pytest.raises(packstone.CommandFailed, match=text):
        repository.snapshot_command(argv, "out")
    assert repository.snapshots() == []
    assert list((Path(repository.location) / "tmp").iterdir()) == []
    assert repository.snapshot_command(["echo", "fine"], "out").snapshot_id is not None


def test_no_command(repository: packstone.Repository) -> None:
    with pytest.raises(packstone.UsageError):
        repository.snapshot_command([], "out")


def test_a_command_is_ended_when_its_snapshot_is(
    repository: packstone.Repository, tmp_path: Path
) -> None:
    """The repository fails: the command does not write on into nowhere."""
    note = tmp_path / "pid"
    script = f"echo $$ > {note}; exec yes"
    with pytest.raises(KeyboardInterrupt):
        repository.snapshot_command(["sh", "-c", script], "out", progress=_interrupt)
    pid = int(note.read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.01)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the command still runs")
    assert repository.snapshots() == []


def test_a_command_that_ignores_its_end(repository: packstone.Repository) -> None:
    """One that will not stop at SIGTERM must not keep an interrupted snapshot waiting."""
    script = "trap '' TERM PIPE; for i in $(seq 200); do echo x; sleep 0.02; done 2>/dev/null"
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        repository.snapshot_command(["sh", "-c", script], "out", progress=_interrupt)
    assert time.monotonic() - begin < 4
