"""Records come back as they were, and no frame makes the decoder do more than was stated."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.compression import MAX_RAW_SIZE, STORED, ZSTD, Compressor, check_frame
from packstone.errors import Damaged, UnsupportedFormat

MIB = 1 << 20


def repetitive(seed: int, size: int) -> bytes:
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(1, 30)) for _ in range(20)]
    return b"".join(rng.choices(words, k=size // 5 + 20))[:size].ljust(size, b"-")


@given(raw=st.binary(max_size=2000), level=st.integers(1, 19))
def test_decode_undoes_encode(raw: bytes, level: int) -> None:
    compressor = Compressor(level)
    codec, payload = compressor.encode(raw)
    assert bytes(compressor.decode(codec, payload, len(raw))) == raw


@given(seed=st.integers(0, 1 << 32), size=st.integers(1, 300_000))
def test_decode_undoes_encode_of_what_compresses(seed: int, size: int) -> None:
    raw = repetitive(seed, size)
    codec, payload = Compressor(3).encode(memoryview(bytearray(raw)))
    assert bytes(Compressor(19).decode(codec, memoryview(payload), size)) == raw
    if size > 5000:
        assert codec == ZSTD and len(payload) < size


def test_what_does_not_compress_is_stored_as_it_is() -> None:
    raw = random.Random(1).randbytes(100_000)
    codec, payload = Compressor(3).encode(raw)
    assert (codec, payload) == (STORED, raw)


def test_a_saving_below_one_part_in_32_is_none() -> None:
    """A frame must pay for its decoding at every read."""
    noise = random.Random(2).randbytes(64_000)
    for zeros, expected in ((500, STORED), (16_000, ZSTD)):
        raw = noise + bytes(zeros)
        codec, payload = Compressor(3).encode(raw)
        assert codec == expected
        assert len(payload) <= len(raw)


def test_frames_say_how_long_their_content_is() -> None:
    raw = repetitive(3, 50_000)
    _codec, payload = Compressor(3).encode(raw)
    assert zstandard.get_frame_parameters(payload).content_size == len(raw)


@given(data=st.binary(max_size=200), raw_size=st.integers(0, 1000))
def test_garbage_is_damage(data: bytes, raw_size: int) -> None:
    try:
        raw = Compressor(3).decode(ZSTD, data, raw_size)
    except Damaged:
        return
    assert len(raw) == raw_size


@given(seed=st.integers(0, 1000), at=st.integers(0, 1 << 20), bit=st.integers(0, 7))
def test_a_flipped_bit_gives_an_error_or_the_stated_size(seed: int, at: int, bit: int) -> None:
    raw = repetitive(seed, 3000)
    codec, payload = Compressor(3).encode(raw)
    changed = bytearray(payload)
    changed[at % len(changed)] ^= 1 << bit
    try:
        found = Compressor(3).decode(codec, changed, len(raw))
    except Damaged:
        return
    assert len(found) == len(raw)


@given(data=st.binary(max_size=50), codec=st.integers(2, 300))
def test_unknown_codecs_are_of_a_later_version(data: bytes, codec: int) -> None:
    with pytest.raises(UnsupportedFormat):
        Compressor(3).decode(codec, data, len(data))


@given(raw=st.binary(max_size=300), more=st.binary(min_size=1, max_size=20))
def test_data_behind_the_frame_is_refused(raw: bytes, more: bytes) -> None:
    payload = zstandard.ZstdCompressor().compress(b"x" + raw)
    with pytest.raises(Damaged):
        Compressor(3).decode(ZSTD, payload + more, 1 + len(raw))


@given(raw=st.binary(min_size=1, max_size=300), stated=st.integers(0, 400))
def test_another_size_is_refused(raw: bytes, stated: int) -> None:
    payload = zstandard.ZstdCompressor().compress(raw)
    if stated == len(raw):
        return
    for codec, data in ((ZSTD, payload), (STORED, raw)):
        with pytest.raises(Damaged):
            Compressor(3).decode(codec, data, stated)


def bomb(size: int, content_size: int | None, window_log: int) -> bytes:
    """Build a frame of `size` bytes from blocks of four bytes; no library would write it."""
    flags = 0x00 if content_size is None else 0xC0
    head = b"\x28\xb5\x2f\xfd" + bytes([flags, (window_log - 10) << 3])
    if content_size is not None:
        head += content_size.to_bytes(8, "little")
    block = 128 * 1024  # the largest there is
    count = -(-size // block)
    blocks = [(block << 3 | 2).to_bytes(3, "little") + b"b"] * (count - 1)
    last = size - (count - 1) * block
    return head + b"".join(blocks) + (last << 3 | 3).to_bytes(3, "little") + b"b"


GIB = 1 << 30
BOMBS = {
    "no content size": (bomb(GIB, None, 20), 1 * MIB),
    "states the truth": (bomb(GIB, GIB, 20), 1 * MIB),
    "states what the footer does": (bomb(GIB, MIB, 20), 1 * MIB),
    "footer agrees": (bomb(GIB, GIB, 20), GIB),
    "window of 2 GiB": (bomb(MIB, MIB, 31), 1 * MIB),
    "window of 128 MiB": (bomb(MIB, MIB, 27), 1 * MIB),
    "states 2**62": (bomb(GIB, 1 << 62, 20), 1 << 62),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(name: str) -> None:
    payload, raw_size = BOMBS[name]
    assert len(payload) < 40_000
    with pytest.raises(Damaged):
        Compressor(3).decode(ZSTD, payload, raw_size)


def test_bombs_take_no_memory() -> None:
    """All of them under a limit that one of them would break, in a process of their own."""
    code = f"""
import resource, sys
from packstone.codec.compression import ZSTD, Compressor
from packstone.errors import Damaged
resource.setrlimit(resource.RLIMIT_AS, ({400 * MIB}, {400 * MIB}))
for payload, raw_size in {list(BOMBS.values())!r}:
    try:
        Compressor(3).decode(ZSTD, payload, raw_size)
    except Damaged:
        continue
    sys.exit("accepted")
print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "refused\n", done.stderr


def test_the_limit_itself_is_allowed() -> None:
    check_frame(bomb(MAX_RAW_SIZE, MAX_RAW_SIZE, 26), MAX_RAW_SIZE)
    with pytest.raises(Damaged):
        check_frame(bomb(MAX_RAW_SIZE + 1, MAX_RAW_SIZE + 1, 26), MAX_RAW_SIZE + 1)


def test_frames_that_want_a_dictionary_are_refused() -> None:
    samples = [repetitive(number, 400) for number in range(200)]
    dictionary = zstandard.train_dictionary(4096, samples)
    payload = zstandard.ZstdCompressor(dict_data=dictionary).compress(samples[0])
    with pytest.raises(Damaged):
        Compressor(3).decode(ZSTD, payload, len(samples[0]))


def test_threads_share_one_compressor() -> None:
    """Contexts of zstd must not be shared; a Compressor has one for each thread."""
    compressor = Compressor(3)
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for turn in range(40):
            raw = repetitive(number * 1000 + turn, 20_000)
            codec, payload = compressor.encode(raw)
            assert compressor.decode(codec, payload, len(raw)) == raw

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
