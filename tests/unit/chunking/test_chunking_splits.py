"""How the bytes arrive changes nothing."""

from __future__ import annotations

import io
import random

from chunking_data import VARIED
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_chunker import Reference

from packstone.chunking import _kernel
from packstone.chunking.chunker import Chunker, ChunkerParams, iter_chunks

KIB = 1024
AVERAGE = 4 * KIB
SECRET = random.Random("splits").randbytes(64)
PARAMS = ChunkerParams(AVERAGE, SECRET)
SPLITS = 100_000


def _piecewise(chunker: Chunker, run: bytes, points: list[int]) -> list[int]:
    """Cut with bytes known up to one point after the other."""
    ends: list[int] = []
    begin = 0
    for point in points:
        ends += chunker.cut(run, begin, point, False)
        begin = ends[-1] if ends else 0
    return ends + chunker.cut(run, begin, len(run), True)


def test_random_splits() -> None:
    rng = random.Random("random splits")
    run = rng.randbytes(14 * KIB) + VARIED["decimal lines"](rng, 10 * KIB)
    expected = Reference(AVERAGE, SECRET).ends(run)
    chunkers = [Chunker(PARAMS, path) for path in _kernel.paths()]
    size = len(run)
    for number in range(SPLITS):
        points = sorted(int(rng.random() * size) for _ in range(number % 3 + 1))
        chunker = chunkers[number % len(chunkers)]
        assert _piecewise(chunker, run, points) == expected, (points, chunker.path)


def test_splits_around_every_cut() -> None:
    rng = random.Random("around")
    run = rng.randbytes(64 * KIB)
    expected = Reference(AVERAGE, SECRET).ends(run)
    for path in _kernel.paths():
        chunker = Chunker(PARAMS, path)
        for end in expected[:-1]:
            for point in range(end - 66, end + 67):
                ends = chunker.cut(run, 0, point, False)
                assert ends == [known for known in expected if known <= point]
                assert _piecewise(chunker, run, [point]) == expected


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    pieces=st.lists(
        st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 400)), min_size=1, max_size=8
    ),
    secret=st.binary(min_size=64, max_size=64),
    points=st.lists(st.floats(0, 1), max_size=5),
)
def test_any_bytes_any_secret_any_splits(
    pieces: list[tuple[bytes, int]], secret: bytes, points: list[float]
) -> None:
    run = b"".join(piece * count for piece, count in pieces)
    expected = Reference(AVERAGE, secret).ends(run)
    for path in _kernel.paths():
        chunker = Chunker(ChunkerParams(AVERAGE, secret), path)
        places = sorted(int(point * len(run)) for point in points)
        assert _piecewise(chunker, run, places) == expected


def test_iter_chunks_is_the_stream_cut_whole() -> None:
    rng = random.Random("stream")
    run = rng.randbytes(3 << 20) + bytes(1 << 20)
    expected = Chunker(PARAMS).cut(run, 0, len(run), True)
    for most in (1 << 30, 65536, 1000):
        stream = io.BytesIO(run)

        def read(size: int, stream: io.BytesIO = stream, most: int = most) -> bytes:
            return stream.read(min(size, most))

        chunks = list(iter_chunks(read, PARAMS))
        assert b"".join(chunks) == run
        at = 0
        assert [at := at + len(chunk) for chunk in chunks] == expected


def test_iter_chunks_of_short_streams() -> None:
    assert list(iter_chunks(io.BytesIO().read, PARAMS)) == []
    assert list(iter_chunks(io.BytesIO(b"x").read, PARAMS)) == [b"x"]
    large = ChunkerParams(1 << 20, SECRET)
    run = random.Random("short").randbytes(300 * KIB)
    assert list(iter_chunks(io.BytesIO(run).read, large)) == [run]
