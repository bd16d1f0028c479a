"""SipHash against its authors' vectors, and cut-point keys against the reference."""

from __future__ import annotations

import random

import pytest
from reference_chunker import Reference, siphash24

from packstone.chunking import _kernel
from packstone.chunking.chunker import Chunker, ChunkerParams

KIB = 1024

# vectors_sip64 of the reference implementation: key 00 01 … 0f, messages of 0, 1, 2, … bytes
# 00 01 02 …, results as bytes
VECTORS = """
310e0edd47db6f72 fd67dc93c539f874 5a4fa9d909806c0d 2d7efbd796666785 b7877127e09427cf
8da699cd64557618 cee3fe586e46c9cb 37d1018bf50002ab 6224939a79f5f593 b0e4a90bdf82009e
f3b9dd94c5bb5d7a a7ad6b22462fb3f4 fbe50e86bc8f1e75 903d84c02756ea14 eef27a8e90ca23f7
e545be4961ca29a1 db9bc2577fcc2a3f 9447be2cf5e99a69 9cd38d96f0b3c14b bd6179a71dc96dbb
98eea21af25cd6be c7673b2eb0cbf2d0 883ea3e395675393 c8ce5ccd8c030ca8 94af49f6c650adb8
eab8858ade92e1bc f315bb5bb835d817 adcf6b0763612e2f a5c91da7acaa4dde 716595876650a2a6
28ef495c53a387ad 42c341d8fa92d832 ce7cf2722f512771 e37859f94623f3a7 381205bb1ab0e012
ae97a10fd434e015 b4a31508beff4d31 81396229f0907902 4d0cf49ee5d4dcca 5c73336a76d8bf9a
d0a704536ba93e0e 925958fcd6420cad a915c29bc8067318 952b79f3bc0aa6d4 f21df2e41d4535f9
87577519048f53a9 10a56cf5dfcd9adb eb75095ccd986cd0 51a9cb9ecba312e6 96afadfc2ce666c7
72fe52975a4364ee 5a1645b276d592a1 b274cb8ebf87870a 6f9bb4203de7b381 eaecb2a30b22a87f
9924a43cc1315724 bd838d3aafbf8db7 0b1a2a3265d51aea 135079a3231ce660 932b2846e4d70666
e1915f5cb1eca46c f325965ca16d629f 575ff28e60381be5 724506eb4c328a95
""".split()


@pytest.mark.parametrize("function", [_kernel.siphash24, siphash24])
def test_siphash_vectors(function: object) -> None:
    assert callable(function)
    assert len(VECTORS) == 64
    for size, expected in enumerate(VECTORS):
        found = function(bytes(range(16)), bytes(range(size)))
        assert found.to_bytes(8, "little").hex() == expected, size


def test_siphash_of_longer_data_and_other_buffers() -> None:
    rng = random.Random("siphash")
    for size in [*range(60, 80), 255, 256, 257, 1000]:
        key, data = rng.randbytes(16), rng.randbytes(size)
        assert _kernel.siphash24(bytearray(key), memoryview(data)) == siphash24(key, data)
    for size in (0, 15, 17):
        with pytest.raises(ValueError, match=f"the key has {size} bytes, expected 16"):
            _kernel.siphash24(bytes(size), b"")


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 63, 64, 65, 200])
def test_keys_of_every_position(size: int, path: str) -> None:
    rng = random.Random(size)
    secret, run = rng.randbytes(64), rng.randbytes(size)
    reference = Reference(4 * KIB, secret)
    chunker = Chunker(ChunkerParams(4 * KIB, secret), path)
    positions = list(range(size + 1))
    expected = [reference.key(run, position) for position in positions]
    assert chunker.keys(run, positions, 0, size) == expected
    assert chunker.keys(run, tuple(positions), 0, size) == expected


def test_keys_stop_at_the_run() -> None:
    """Bytes of the buffer outside the run have no part in a key."""
    rng = random.Random("run in a buffer")
    secret, run = rng.randbytes(64), rng.randbytes(150)
    chunker = Chunker(ChunkerParams(4 * KIB, secret))
    buffer = rng.randbytes(40) + run + rng.randbytes(40)
    inside = chunker.keys(buffer, range(40, 191), 40, 190)
    assert inside == chunker.keys(run, range(151), 0, 150)
    assert len(set(inside)) == 151


def test_positions_outside_the_run() -> None:
    chunker = Chunker(ChunkerParams(4 * KIB, bytes(64)))
    for position in (9, 91):
        with pytest.raises(ValueError, match=f"position {position} is not in the run 10..90"):
            chunker.keys(bytes(100), [50, position], 10, 90)
    with pytest.raises(ValueError, match="negative"):
        chunker.keys(bytes(100), [-1], 0, 90)
    with pytest.raises(TypeError):
        chunker.keys(bytes(100), ["1"], 0, 90)  # type: ignore[list-item]
    assert chunker.keys(bytes(100), [], 10, 90) == []
