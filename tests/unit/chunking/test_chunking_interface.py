"""Buffers, arguments, paths, threads, and that nothing outside the run is touched."""

from __future__ import annotations

import array
import ctypes
import mmap
import random
import sys
import threading

import pytest

from packstone.chunking import _kernel
from packstone.chunking.chunker import PATH_VARIABLE, Chunker, ChunkerParams

KIB = 1024
PARAMS = ChunkerParams(4 * KIB, random.Random("interface").randbytes(64))
RUN = random.Random("buffers").randbytes(50 * KIB)


def test_every_type_of_buffer(path: str) -> None:
    chunker = Chunker(PARAMS, path)
    expected = chunker.cut(RUN, 0, len(RUN), True)
    wide = memoryview(b"abc" + RUN + b"xyz")[3:-3]
    for buffer in (bytearray(RUN), memoryview(RUN), wide, array.array("I", RUN)):
        assert chunker.cut(buffer, 0, len(RUN), True) == expected
        assert chunker.keys(buffer, expected, 0, len(RUN)) == chunker.keys(
            RUN, expected, 0, len(RUN)
        )
    moved = chunker.cut(b"abc" + RUN, 3, 3 + len(RUN), True)
    assert moved == [end + 3 for end in expected]


def test_refused_buffers() -> None:
    chunker = Chunker(PARAMS)
    with pytest.raises(BufferError):
        chunker.cut(memoryview(RUN)[::2], 0, 100, True)
    with pytest.raises(TypeError):
        chunker.cut("text", 0, 4, True)  # type: ignore[arg-type]


@pytest.mark.parametrize(("begin", "end"), [(-1, 5), (5, 4), (0, 11), (11, 11), (0, -1)])
def test_refused_limits(begin: int, end: int) -> None:
    with pytest.raises(ValueError, match=r"negative|expected 0 <= begin <= end <= 10"):
        Chunker(PARAMS).cut(bytes(10), begin, end, True)
    with pytest.raises(ValueError, match=r"negative|expected 0 <= begin <= end <= 10"):
        Chunker(PARAMS).keys(bytes(10), [], begin, end)


def test_refused_arguments() -> None:
    cutter = _kernel.Cutter(bytes(64), 4 * KIB)
    with pytest.raises(TypeError, match="4 arguments, got 3"):
        cutter.cut(b"", 0, 0)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="4 arguments, got 5"):
        cutter.keys(b"", [], 0, 0, 0)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        cutter.cut(b"", 0.0, 0, True)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        cutter.cut(b"", 0, 1 << 70, True)
    with pytest.raises(TypeError):
        cutter.keys(b"", 3, 0, 0)  # type: ignore[arg-type]


def test_short_runs(path: str) -> None:
    chunker = Chunker(PARAMS, path)
    assert chunker.cut(b"", 0, 0, True) == []
    assert chunker.cut(b"", 0, 0, False) == []
    assert chunker.cut(b"xyz", 3, 3, True) == []
    assert chunker.cut(b"xyz", 1, 3, True) == [3]
    assert chunker.cut(b"xyz", 1, 3, False) == []


@pytest.mark.parametrize("average", [0, -4096, 2048, 4095, 5000, 12288, 16 << 20])
def test_refused_averages(average: int) -> None:
    with pytest.raises(ValueError, match=f"average is {average}, expected a power of two"):
        ChunkerParams(average, bytes(64))
    with pytest.raises(ValueError, match=f"average is {average}, expected a power of two"):
        _kernel.Cutter(bytes(64), average)


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_refused_secrets(size: int) -> None:
    with pytest.raises(ValueError, match=f"secret has {size} bytes, expected 64"):
        ChunkerParams(4096, bytes(size))
    with pytest.raises(ValueError, match=f"secret has {size} bytes, expected 64"):
        _kernel.Cutter(bytes(size), 4096)


def test_parameters() -> None:
    params = ChunkerParams(128 * KIB, bytes(range(64)))
    assert (params.minimum, params.centre, params.maximum) == (64 * KIB, 104 * KIB, 512 * KIB)
    assert "secret" not in repr(params)
    chunker = Chunker(params)
    assert chunker.params is params
    assert (chunker.minimum, chunker.average, chunker.maximum) == (64 * KIB, 128 * KIB, 512 * KIB)


def test_choice_of_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PATH_VARIABLE, raising=False)
    usable = _kernel.paths()
    assert usable[-1] == "portable"
    assert Chunker(PARAMS).path == usable[0]
    for name in usable:
        assert Chunker(PARAMS, name).path == name
        monkeypatch.setenv(PATH_VARIABLE, name)
        assert Chunker(PARAMS).path == name
        assert Chunker(PARAMS, "portable").path == "portable"
    monkeypatch.setenv(PATH_VARIABLE, "")
    assert Chunker(PARAMS).path == usable[0]
    for name in {"avx2", "avx512", "neon", "nonsense"} - set(usable):
        with pytest.raises(ValueError, match=f"'{name}' is not available .*portable"):
            Chunker(PARAMS, name)
        monkeypatch.setenv(PATH_VARIABLE, name)
        with pytest.raises(ValueError, match=f"'{name}' is not available"):
            Chunker(PARAMS)


def test_other_threads_run_during_a_scan() -> None:
    """With an endless switch interval, only a released GIL lets this thread go on meanwhile."""
    data = bytes(256 << 20)  # never touched before, so it costs no memory
    chunker = Chunker(PARAMS, "portable")
    interval = sys.getswitchinterval()
    for _ in range(5):  # a loaded machine may not run this thread in time
        started = threading.Event()
        done: list[bool] = []

        def scan(started: threading.Event = started, done: list[bool] = done) -> None:
            started.set()
            chunker.cut(data, 0, len(data), True)
            done.append(True)

        thread = threading.Thread(target=scan)
        sys.setswitchinterval(1000)
        try:
            thread.start()
            started.wait()
            finished_first = bool(done)
        finally:
            sys.setswitchinterval(interval)
            thread.join()
        if not finished_first:
            return
    pytest.fail("the scan kept the GIL")


def test_one_chunker_for_many_threads() -> None:
    chunker = Chunker(PARAMS)
    run = random.Random("threads").randbytes(1 << 20)
    expected = chunker.cut(run, 0, len(run), True)
    results: list[list[int]] = []
    threads = [
        threading.Thread(target=lambda: results.append(chunker.cut(run, 0, len(run), True)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 8


@pytest.mark.skipif(not hasattr(mmap, "MAP_ANONYMOUS"), reason="needs anonymous mappings")
@pytest.mark.parametrize("average", [4 * KIB, 32 * KIB])
def test_nothing_outside_the_run_is_read(path: str, average: int) -> None:
    """The run lies between two pages that nobody may touch."""
    page = mmap.PAGESIZE
    library = ctypes.CDLL(None, use_errno=True)
    room = -(-9 * average // page) * page
    mapping = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
    rng = random.Random(average)
    mapping[page : page + room] = rng.randbytes(room)

    def protect(mode: int) -> None:
        for address in (start, start + page + room):
            result = library.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), mode)
            assert result == 0, ctypes.get_errno()

    protect(0)
    try:
        chunker = Chunker(ChunkerParams(average, rng.randbytes(64)), path)
        inside = (ctypes.c_char * room).from_address(start + page)
        view = memoryview(inside).cast("B")
        lengths = [*range(200), *(rng.randrange(room + 1) for _ in range(1500)), room]
        for length in lengths:
            for final in (False, True):
                at_end = chunker.cut(view, room - length, room, final)
                at_start = chunker.cut(view, 0, length, final)
                assert not final or at_end[-1:] == [room][: length > 0]
                chunker.keys(view, [room - length, *at_end], room - length, room)
                chunker.keys(view, [0, *at_start, length], 0, length)
    finally:
        protect(3)
