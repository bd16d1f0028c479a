"""Every path of the kernel gives the cuts of the readable reference, at every length."""

from __future__ import annotations

import random

import pytest
from chunking_data import SPARSE, VARIED, constant, periodic
from reference_chunker import Reference

from packstone.chunking import _kernel
from packstone.chunking.chunker import Chunker, ChunkerParams

KIB = 1024
EVERYTHING = (
    VARIED
    | SPARSE
    | {
        "zeros": constant(0),
        "ones": constant(255),
        "period 7": periodic(7),
        "period 64": periodic(64),
        "period 1000": periodic(1000),
    }
)


def _secret(name: str) -> bytes:
    return random.Random(name).randbytes(64)


def _chunkers(average: int, secret: bytes) -> list[Chunker]:
    return [Chunker(ChunkerParams(average, secret), path) for path in _kernel.paths()]


def test_every_length_up_to_twice_the_maximum() -> None:
    average = 4 * KIB
    rng = random.Random("every length")
    secret = _secret("every length")
    # half noise, half text: cuts by decision as well as by the maximum
    run = rng.randbytes(16 * KIB) + VARIED["text"](rng, 16 * KIB)
    reference = Reference(average, secret)
    candidates = reference.candidates(run)
    chunkers = _chunkers(average, secret)
    for length in range(8 * average + 1):
        certain = reference.ends_among(run, candidates, 0, length, final=False)
        final = reference.ends_among(run, candidates, 0, length)
        for chunker in chunkers:
            assert chunker.cut(run, 0, length, False) == certain, (length, chunker.path)
            assert chunker.cut(run, 0, length, True) == final, (length, chunker.path)


def test_four_tests_at_sampled_lengths() -> None:
    average = 32 * KIB
    rng = random.Random("four tests")
    secret = _secret("four tests")
    run = rng.randbytes(160 * KIB) + VARIED["csv"](rng, 96 * KIB)
    reference = Reference(average, secret)
    candidates = reference.candidates(run)
    chunkers = _chunkers(average, secret)
    ends = reference.ends_among(run, candidates, 0, len(run))
    assert len(ends) > 4
    near = {max(0, end + step) for end in ends for step in range(-70, 71)}
    lengths = near | {rng.randrange(len(run) + 1) for _ in range(500)}
    for length in sorted(length for length in lengths if length <= len(run)):
        certain = reference.ends_among(run, candidates, 0, length, final=False)
        final = reference.ends_among(run, candidates, 0, length)
        for chunker in chunkers:
            assert chunker.cut(run, 0, length, False) == certain, (length, chunker.path)
            assert chunker.cut(run, 0, length, True) == final, (length, chunker.path)


def test_every_begin_in_a_few_words() -> None:
    """Registers and words start anywhere in memory."""
    average = 4 * KIB
    run = random.Random("begins").randbytes(12 * KIB)
    reference = Reference(average, _secret("begins"))
    candidates = reference.candidates(run)
    for chunker in _chunkers(average, _secret("begins")):
        for begin in range(300):
            end = len(run) - begin % 7
            expected = reference.ends_among(run, candidates, begin, end)
            assert chunker.cut(run, begin, end, True) == expected, (begin, chunker.path)


def test_candidates_just_before_the_minimum() -> None:
    """A run that ends soon after the minimum is seen in a word that reaches back before it."""
    average = 4 * KIB
    run = random.Random("minimum").randbytes(64 * KIB)
    reference = Reference(average, _secret("minimum"))
    candidates = reference.candidates(run)
    early = [c.position for c in candidates if c.decision < reference.threshold // 4]
    chunkers = _chunkers(average, _secret("minimum"))
    assert len(early) >= 3
    for position in early:
        for short in (1, 2, 10, 30, 50, 62):
            begin = position + 1 - (average // 2 - short)
            end = begin + average // 2 + (63 - short) // 2
            if begin >= 0 and end <= len(run):
                expected = reference.ends_among(run, candidates, begin, end)
                for chunker in chunkers:
                    assert chunker.cut(run, begin, end, True) == expected, chunker.path


@pytest.mark.parametrize("kind", EVERYTHING)
def test_every_kind_of_data(kind: str) -> None:
    for number in range(2):
        secret = _secret(f"{kind} {number}")
        run = EVERYTHING[kind](random.Random(f"{kind} {number}"), 40 * KIB)
        expected = Reference(4 * KIB, secret).ends(run)
        for chunker in _chunkers(4 * KIB, secret):
            assert chunker.cut(run, 0, len(run), True) == expected, chunker.path


@pytest.mark.parametrize("average", [16 * KIB, 64 * KIB, 128 * KIB, 1024 * KIB, 8192 * KIB])
def test_every_size_of_average(average: int) -> None:
    """One run a little longer than fits the reference's patience."""
    secret = _secret(str(average))
    run = random.Random(average).randbytes(min(6 * average, 256 * KIB))
    expected = Reference(average, secret).ends(run)
    for chunker in _chunkers(average, secret):
        assert chunker.cut(run, 0, len(run), True) == expected, chunker.path


@pytest.mark.parametrize("average", [64 * KIB, 1024 * KIB, 8192 * KIB])
def test_paths_agree_on_large_runs(average: int) -> None:
    """What the reference is too slow for: tens of chunks at every size."""
    rng = random.Random(f"large {average}")
    piece = VARIED["text"](rng, 256 * KIB) + rng.randbytes(1792 * KIB)
    run = b"".join(piece[rng.randrange(1 << 20) :] for _ in range(12))
    ends = [chunker.cut(run, 0, len(run), True) for chunker in _chunkers(average, _secret("large"))]
    assert all(other == ends[0] for other in ends)
    assert ends[0][-1] == len(run)


def test_zeros_are_cut_at_the_maximum(path: str) -> None:
    chunker = Chunker(ChunkerParams(4 * KIB, _secret("zeros")), path)
    assert chunker.cut(bytes(40 * KIB), 0, 40 * KIB, True) == [16 * KIB, 32 * KIB, 40 * KIB]
    assert chunker.cut(bytes(40 * KIB), 0, 40 * KIB, False) == [16 * KIB, 32 * KIB]
    assert chunker.cut(bytes(32 * KIB), 0, 32 * KIB, False) == [16 * KIB, 32 * KIB]
