"""The filter lets about one position in D through, whatever the key and the data.

The candidates of a megabyte are counted with big integers that hold one byte per position; that
this counts the same as the reference is tested first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache

import pytest
from chunking_data import SPARSE, VARIED, Kind, constant
from reference_chunker import Reference

from packstone.chunking.chunker import Chunker, ChunkerParams

KIB = 1024
MIB = 1024 * KIB
SPACING = 4096
KEY_COUNT = 8


@cache
def _lanes(size: int, byte: int) -> int:
    return int.from_bytes(bytes([byte]) * size, "little")


def _add(a: int, b: int, size: int) -> int:
    """Return the sums of all bytes, each mod 256."""
    low = _lanes(size, 0x7F)
    return ((a & low) + (b & low)) ^ ((a ^ b) & _lanes(size, 0x80))


def _double(a: int, times: int, size: int) -> int:
    """Return all bytes shifted left, each mod 256."""
    return (a << times) & _lanes(size, 0xFF << times & 0xFF)


def _filter_values(data: bytes, secret: bytes) -> int:
    """Return f of all positions; those of the first 63 count bytes before the data as S = 0."""
    size = len(data)
    lo, hi = secret[:16], secret[16:32]
    table = bytes((lo[b & 15] + hi[b >> 4]) % 256 for b in range(256))
    mask = _lanes(size, 0xFF)
    values = int.from_bytes(data.translate(table), "little")
    for reach in (1, 2, 4):
        earlier = (values << 8 * reach) & mask
        values = _add(values, _double(earlier, reach, size), size)
    for reach in (8, 16, 32):
        values = _add(values, (values << 8 * reach) & mask, size)
    return values


def candidate_count(data: bytes, secret: bytes, four_tests: bool = True) -> int:
    """Return how many positions from 80 on are candidates."""
    size = len(data)
    f = _filter_values(data, secret)
    high = _lanes(size, 0x80)
    from_64 = f | f << 1
    a = high & ~(from_64 | f << 2)
    b = high & ~from_64 & f << 2
    found = a & b << 8 * 5 & a << 8 * 11
    if four_tests:
        found &= b << 8 * 17
    return (found >> 8 * 80).bit_count()


def _densities(make: Kind, size: int) -> list[float]:
    """Return the density of candidates under several keys, as a multiple of the nominal one."""
    rng = random.Random("density")
    data = make(rng, size)
    counts = [candidate_count(data, rng.randbytes(64)) for _ in range(KEY_COUNT)]
    return [count * SPACING / len(data) for count in counts]


@pytest.mark.parametrize("average", [4 * KIB, 32 * KIB])
def test_counting_agrees_with_the_reference(average: int) -> None:
    rng = random.Random(average)
    secret = rng.randbytes(64)
    data = VARIED["text"](rng, 128 * KIB)
    expected = len(Reference(average, secret).candidates(data))
    assert candidate_count(data, secret, four_tests=average >= 32 * KIB) == expected > 0


@pytest.mark.parametrize("kind", VARIED | SPARSE)
def test_every_kind_has_its_candidates(kind: str) -> None:
    for density in _densities((VARIED | SPARSE)[kind], MIB):
        assert 0.5 <= density <= 2


@pytest.mark.parametrize("kind", SPARSE)
def test_sparse_records_are_cut_by_content(kind: str) -> None:
    """The filter misses some of them under some keys; the second look finds cuts all the same.

    An insertion near the start moves everything: almost all chunks must be found again.
    """
    average = 32 * KIB
    rng = random.Random(f"sparse {kind}")
    data = SPARSE[kind](rng, 2 * MIB)
    later = data[: 100 * KIB] + b"eleven more" + data[100 * KIB :]
    shares = []
    for _ in range(KEY_COUNT):
        chunker = Chunker(ChunkerParams(average, rng.randbytes(64)))
        before, after = ([*_chunks(chunker, run)] for run in (data, later))
        known = set(before)
        new = sum(len(chunk) for chunk in after if chunk not in known)
        shares.append(new / len(later))
        assert 0.45 <= len(data) / len(before) / average <= 3.5
    assert max(shares) <= 0.4
    assert sorted(shares)[KEY_COUNT // 2] <= 0.15


def _chunks(chunker: Chunker, run: bytes) -> Iterator[bytes]:
    ends = chunker.cut(run, 0, len(run), True)
    return (run[begin:end] for begin, end in zip([0, *ends], ends, strict=False))


@pytest.mark.parametrize("byte", [0, 1, 32, 48, 255])
def test_runs_of_one_byte_have_no_candidate(byte: int) -> None:
    assert set(_densities(constant(byte), 64 * KIB)) == {0.0}


@pytest.mark.parametrize("average", [4 * KIB, 16 * KIB, 32 * KIB, 128 * KIB])
def test_mean_size_of_chunks(average: int) -> None:
    """The hazards before and after the centre make 1.04 averages, less the last chunk's share."""
    run = random.Random(f"mean {average}").randbytes(300 * average)
    secret = random.Random(average).randbytes(64)
    chunker = Chunker(ChunkerParams(average, secret))
    ends = chunker.cut(run, 0, len(run), True)
    sizes = [end - begin for begin, end in zip([0, *ends], ends, strict=False)]
    assert 0.95 <= sum(sizes) / len(sizes) / average <= 1.1
    assert min(sizes[:-1]) >= average // 2
    assert max(sizes) <= 4 * average
    early = sum(size < chunker.params.centre for size in sizes) / len(sizes)
    assert 0.03 <= early <= 0.14  # 1 - exp(-5/64) = 7.5 %
    assert sum(size == 4 * average for size in sizes) == 0
