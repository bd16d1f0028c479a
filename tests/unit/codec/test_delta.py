"""Chunks come back from their bases as they were, and no payload makes the decoder do harm."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import reference_delta
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from reference_delta import number_bytes

from packstone.codec import _delta
from packstone.codec.compression import MAX_RAW_SIZE, Compressor
from packstone.codec.delta import DELTA, DELTA_ZSTD, MAX_BASES, DeltaCoder, joined
from packstone.errors import Damaged, UnsupportedFormat

MIB = 1 << 20
CODER = DeltaCoder(Compressor(3))


def text(seed: int, size: int) -> bytes:
    """Return rows of a table."""
    rng = random.Random(seed)
    rows = []
    while size > 0:
        name = rng.choice(("Ada", "Grace", "Edsger", "Barbara"))
        rows.append(f"{len(rows)}\t{name}\t{rng.randrange(10**6)}\t{rng.random():.4f}\n".encode())
        size -= len(rows[-1])
    return b"".join(rows)


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def edited(data: bytes, rng: random.Random, edits: int) -> bytes:
    """Insert, delete, move and replace at random places."""
    for _ in range(edits):
        begin = rng.randrange(len(data) + 1)
        end = min(len(data), begin + rng.choice((1, 3, 20, 60, 300, 5000)))
        kind = rng.randrange(4)
        if kind == 0:
            data = data[:begin] + rng.randbytes(end - begin) + data[begin:]
        elif kind == 1:
            data = data[:begin] + data[end:]
        elif kind == 2:
            rest = data[:begin] + data[end:]
            to = rng.randrange(len(rest) + 1)
            data = rest[:to] + data[begin:end] + rest[to:]
        else:
            data = data[:begin] + rng.randbytes(end - begin) + data[end:]
    return data


def family(seed: int, size: int, edits: int, bases: int) -> tuple[bytes, list[bytes]]:
    """Return a chunk and the pieces of an older version that it came from."""
    rng = random.Random(seed)
    old = (text, noise)[seed % 2](seed, size)
    cuts = sorted(rng.randrange(len(old) + 1) for _ in range(bases - 1))
    pieces = [old[a:b] for a, b in zip([0, *cuts], [*cuts, len(old)], strict=True)]
    return edited(old, rng, edits), pieces


cases = st.builds(
    family,
    seed=st.integers(0, 1 << 32),
    size=st.sampled_from((0, 1, 31, 32, 33, 100, 1000, 5000)),
    edits=st.integers(0, 12),
    bases=st.integers(1, MAX_BASES),
)


def check_round_trip(chunk: bytes, bases: Sequence[bytes]) -> None:
    body, copied = _delta.encode(chunk, bases)
    assert _delta.decode(body, bases, len(chunk)) == chunk
    assert reference_delta.decode(body, bases, len(chunk)) == chunk
    assert len(copied) == len(bases)
    delta = CODER.encode(memoryview(bytearray(chunk)), iter(bases))
    if delta is None:
        return
    used = [bases[place] for place in delta.bases]
    assert CODER.decode(delta.codec, delta.payload, used, len(chunk)) == chunk
    body = delta.payload
    if delta.codec == DELTA_ZSTD:
        body = zstandard.ZstdDecompressor().decompress(body)
    assert len(body) == delta.body_size
    assert reference_delta.decode(body, used, len(chunk)) == chunk


@given(case=cases)
def test_decode_undoes_encode(case: tuple[bytes, list[bytes]]) -> None:
    check_round_trip(*case)


@given(
    chunk=st.binary(max_size=300), bases=st.lists(st.binary(max_size=300), min_size=1, max_size=3)
)
def test_decode_undoes_encode_of_anything(chunk: bytes, bases: list[bytes]) -> None:
    check_round_trip(chunk, bases)


@given(
    unit=st.binary(min_size=1, max_size=40),
    chunk=st.lists(st.integers(0, 200), min_size=1, max_size=5),
    base=st.integers(0, 4000),
)
def test_decode_undoes_encode_of_what_repeats(unit: bytes, chunk: list[int], base: int) -> None:
    check_round_trip(b"!".join(unit * count for count in chunk), [unit * base])


@pytest.mark.parametrize("make", [text, noise])
def test_large_chunks(make: object) -> None:
    assert callable(make)
    rng = random.Random(1)
    for edits in (0, 10, 200, 2000):
        old = make(edits, 700_000)
        check_round_trip(
            edited(old, rng, edits), [old[:250_000], old[250_000:480_000], old[480_000:]]
        )


@given(case=cases)
def test_the_reference_finds_the_same_copies(case: tuple[bytes, list[bytes]]) -> None:
    chunk, bases = case
    assert _delta.encode(chunk, bases)[0] == reference_delta.encode(chunk, bases)


@given(unit=st.binary(min_size=1, max_size=70), count=st.integers(1, 60), seed=st.integers(0, 99))
def test_the_reference_finds_the_same_copies_in_what_repeats(
    unit: bytes, count: int, seed: int
) -> None:
    base = unit * count
    chunk = edited(base, random.Random(seed), 3)
    assert _delta.encode(chunk, [base])[0] == reference_delta.encode(chunk, [base])


@pytest.mark.parametrize("shared", [0, 30, 3000, 40_000])
def test_the_reference_gives_up_in_the_same_place(shared: int) -> None:
    """A long search is begun only where samples promise something."""
    old = noise(1, 50_000)
    chunk = old[:1000] + noise(2, 70_000) + old[3000 : 3000 + shared]
    assert _delta.encode(chunk, [old])[0] == reference_delta.encode(chunk, [old])


# -- what is found ----------------------------------------------------------------------------


def test_few_edits_cost_few_bytes() -> None:
    old = text(5, 256_000)
    rows = old.splitlines(keepends=True)
    gone = b"".join(row for number, row in enumerate(rows) if number % 100)
    replaced = b"".join(row if n % 100 else row[:-3] + b"??\n" for n, row in enumerate(rows))
    inserted = b"".join(row if n % 100 else b"new\n" + row for n, row in enumerate(rows))
    for chunk in (gone, replaced, inserted):
        delta = CODER.encode(chunk, [old])
        assert delta is not None and delta.bases == (0,)
        assert len(delta.payload) < len(chunk) // 200


def test_moved_rows_are_found() -> None:
    rows = [noise(number, 60).hex().encode() + b"\n" for number in range(1000)]
    old = b"".join(rows)
    random.Random(3).shuffle(rows)
    body, copied = _delta.encode(b"".join(rows), [old])
    assert copied == (len(old),)
    assert len(body) < 10_000


def test_bases_are_asked_for_only_when_needed() -> None:
    old = noise(1, 100_000)

    def bases() -> Iterator[bytes]:
        yield old
        pytest.fail("the first base holds all of it")

    assert CODER.encode(old[:50_000] + b"!" + old[50_000:], bases()) is not None


def test_bases_of_no_use_are_left_out() -> None:
    old, other = noise(1, 100_000), noise(2, 100_000)
    delta = CODER.encode(old, [other, old])
    assert delta is not None and delta.bases == (1,)
    assert CODER.decode(delta.codec, delta.payload, [old], len(old)) == old
    later = CODER.encode(old, [other, noise(4, 9000), noise(5, 9000), noise(6, 9000), old])
    assert later is not None and later.bases == (4,)
    halves = CODER.encode(old[20_000:] + other[:60_000], [old, noise(3, 5000), other])
    assert halves is not None and halves.bases == (0, 2)


def test_a_chunk_that_is_mostly_new_has_no_delta() -> None:
    old, new = noise(1, 100_000), noise(2, 100_000)
    assert CODER.encode(new, [old]) is None
    assert CODER.encode(old[:45_000] + new[:55_000], [old]) is None
    assert CODER.encode(old[:55_000] + new[:45_000], [old]) is not None
    assert CODER.encode(b"", [old]) is None
    assert CODER.encode(old, []) is None


def test_half_a_chunk_is_found_wherever_it_is() -> None:
    old, new = noise(1, 100_000), noise(2, 100_000)
    for chunk in (
        old[60_000:] + new[:36_000],
        new[:36_000] + old[60_000:],
        new[:18_000] + old[60_000:] + new[18_000:36_000],
        b"".join(new[n : n + 90] + old[n : n + 100] for n in range(0, 100_000, 100)),
    ):
        assert CODER.encode(chunk, [old]) is not None


def test_the_estimate_is_near() -> None:
    plain = zstandard.ZstdCompressor(level=3)
    for data in (text(1, 300_000), noise(1, 300_000), text(2, 9000), b"x"):
        assert len(plain.compress(data)) * 0.9 - 20 < CODER.estimate(data)
        assert CODER.estimate(data) < len(plain.compress(data)) * 1.4 + 20


# -- what is refused --------------------------------------------------------------------------


VECTORS = [
    each
    for each in json.loads((Path(__file__).parents[2] / "vectors" / "format.json").read_text())
    if each["what"] == "delta" and each["codec"] == DELTA and 1 <= len(each["bases"]) <= MAX_BASES
]
BASE = bytes(range(100))


def body_of(instructions: Sequence[int], literals: bytes = b"") -> bytes:
    data = b"".join(number_bytes(number) for number in instructions)
    return number_bytes(len(data)) + data + literals


@pytest.mark.parametrize("each", VECTORS, ids=lambda each: each["name"])
def test_the_reference_agrees_with_the_vectors(each: dict[str, Any]) -> None:
    body = bytes.fromhex(each["data"])
    bases = [bytes.fromhex(base) for base in each["bases"]]
    if each["expect"] == "ok":
        assert reference_delta.decode(body, bases, each["raw_size"]).hex() == each["chunk"]
    elif len(body) <= each["raw_size"] <= MAX_RAW_SIZE:
        with pytest.raises(reference_delta.Damage):
            reference_delta.decode(body, bases, each["raw_size"])


@given(
    numbers=st.lists(st.one_of(st.integers(0, 12), st.integers(0, (1 << 32) - 1)), max_size=12),
    literals=st.binary(max_size=12),
    raw_size=st.integers(0, 40),
)
def test_reader_and_reference_accept_the_same(
    numbers: list[int], literals: bytes, raw_size: int
) -> None:
    body = body_of(numbers, literals)
    bases = [BASE[:3], BASE[3:7], BASE[7:20]]
    try:
        expected = reference_delta.decode(body, bases, raw_size)
    except reference_delta.Damage:
        with pytest.raises(ValueError, match="delta"):
            _delta.decode(body, bases, raw_size)
    else:
        assert _delta.decode(body, bases, raw_size) == expected


@given(
    data=st.binary(max_size=200),
    codec=st.sampled_from((DELTA, DELTA_ZSTD)),
    size=st.integers(0, 300),
)
def test_garbage_is_damage(data: bytes, codec: int, size: int) -> None:
    try:
        assert len(CODER.decode(codec, data, [BASE], size)) == size
    except Damaged:
        pass


@given(case=cases, where=st.integers(0, 1 << 20), bit=st.integers(0, 7), cut=st.booleans())
def test_changed_payloads_are_damage_or_of_the_stated_size(
    case: tuple[bytes, list[bytes]], where: int, bit: int, cut: bool
) -> None:
    chunk, bases = case
    delta = CODER.encode(chunk, bases)
    if delta is None:
        return
    payload = bytearray(delta.payload)
    where %= len(payload)
    if cut:
        del payload[where:]
    else:
        payload[where] ^= 1 << bit
    try:
        found = CODER.decode(delta.codec, payload, [bases[n] for n in delta.bases], len(chunk))
    except Damaged:
        return
    assert not cut and len(found) == len(chunk)


@given(case=cases, seed=st.integers(0, 1 << 16), size=st.integers(0, 6000))
def test_wrong_bases_give_damage_or_other_bytes(
    case: tuple[bytes, list[bytes]], seed: int, size: int
) -> None:
    """The id, which every reader compares, tells other bytes."""
    chunk, bases = case
    delta = CODER.encode(chunk, bases)
    if delta is None:
        return
    try:
        found = CODER.decode(delta.codec, delta.payload, [noise(seed, size)], len(chunk))
    except Damaged:
        return
    assert len(found) == len(chunk)


# -- pieces ---------------------------------------------------------------------------------


@given(seed=st.integers(0, 1 << 16), steps=st.integers(1, 6), size=st.integers(0, 9000))
def test_a_chain_in_pieces_is_the_chain(seed: int, steps: int, size: int) -> None:
    """Each version on one to three before it, whole or in pieces."""
    rng = random.Random(seed)
    whole = [text(seed, size), noise(seed, size // 2)]
    made: list[Any] = list(whole)
    for _ in range(steps):
        chosen = [rng.randrange(len(whole)) for _ in range(rng.randint(1, 3))]
        chunk = edited(b"".join(whole[at] for at in chosen), rng, rng.randint(0, 30))
        found, _ = _delta.encode(chunk, [whole[at] for at in chosen])
        pieces = _delta.compose(found, [made[at] for at in chosen], len(chunk))
        whole.append(chunk)
        made.append(chunk if pieces is None else pieces)
    assert [len(each) for each in made] == [len(each) for each in whole]
    assert [joined(each) for each in made] == whole


@given(
    instructions=st.lists(st.integers(0, 90) | st.integers(0, (1 << 32) - 1), max_size=12),
    literals=st.binary(max_size=40),
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=3),
    raw_size=st.integers(0, 200),
)
def test_pieces_and_bytes_refuse_the_same(
    instructions: list[int], literals: bytes, sizes: list[int], raw_size: int
) -> None:
    bases = [noise(at, size) for at, size in enumerate(sizes)]
    body = body_of(instructions, literals)
    try:
        expected: bytes | str = _delta.decode(body, bases, raw_size)
    except ValueError as error:
        expected = str(error)
    try:
        made = _delta.compose(body, bases, raw_size)
        assert made is not None
        found: bytes | str = made.tobytes()
    except ValueError as error:
        found = str(error)
    assert found == expected


def test_very_small_pieces_are_copied() -> None:
    """The list of pieces never takes more than an eighth of the chunk's own bytes."""
    base = noise(1, 2000)
    instructions = [0, 16, 0]
    for at in range(999):  # 16 bytes from the front, 16 from further behind, and so on
        instructions += [0, 16, 2 * 1000 if at % 2 == 0 else 2 * 1032 - 1]
    body = body_of(instructions)
    assert len(body) < 16_000
    assert _delta.compose(body, [base], 16_000) is None
    made = CODER.compose(DELTA, body, [base], 16_000)
    assert isinstance(made, bytes) and made == _delta.decode(body, [base], 16_000)
    above = CODER.compose(DELTA, body_of([0, 16_000, 0]), [made], 16_000)
    assert not isinstance(above, bytes) and joined(above) == made


def test_pieces_are_made_of_nothing_else() -> None:
    pieces = _delta.compose(body_of([0, 5, 0]), [b"hello"], 5)
    assert pieces is not None and (len(pieces), pieces.tobytes()) == (5, b"hello")
    with pytest.raises(TypeError):
        _delta.compose(body_of([0, 5, 0]), [memoryview(b"hello")], 5)  # type: ignore[list-item]
    with pytest.raises(TypeError):
        type(pieces)()
    for bases in ([], [b""] * 4):
        with pytest.raises(ValueError, match="bases"):
            _delta.compose(b"\0", bases, 0)
    again: Any = pieces
    for _ in range(64):  # each holds the one before; nothing is freed too early or too deep
        again = _delta.compose(body_of([1, 4, 2], b"j"), [again], 5)
    del pieces
    assert again.tobytes() == b"jello"


def test_wrong_counts_of_bases_are_damage() -> None:
    for bases in ([], [BASE] * (MAX_BASES + 1)):
        with pytest.raises(Damaged):
            CODER.decode(DELTA, body_of([0, 10, 0]), bases, 10)


@pytest.mark.parametrize("codec", [0, 1, 4, 15, 300])
def test_other_codecs_are_no_deltas(codec: int) -> None:
    with pytest.raises(UnsupportedFormat):
        CODER.decode(codec, body_of([0, 10, 0]), [BASE], 10)


def test_frames_that_lie_are_refused() -> None:
    body = body_of([0, 10, 0])
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(body)
    for payload in (unsized, zstandard.compress(body) + b"x", zstandard.compress(body)[:-1], body):
        with pytest.raises(Damaged):
            CODER.decode(DELTA_ZSTD, payload, [BASE], 10)


def test_a_body_may_not_be_longer_than_its_chunk() -> None:
    body = body_of([1, 1, 0, 1, 1, 0, 1, 1, 0], b"abc")
    assert _delta.decode(body, [BASE], 6) == b"a\x00b\x01c\x02"
    for codec, payload in ((DELTA, body), (DELTA_ZSTD, zstandard.compress(body))):
        with pytest.raises(Damaged):
            CODER.decode(codec, payload, [BASE], 6)


def test_bombs_take_no_memory() -> None:
    """Sizes that lie, under a limit that any of them would break, in a process of their own."""
    huge = zstandard.compress(bytes(MAX_RAW_SIZE * 8))
    attempts = [
        (DELTA_ZSTD, huge, MAX_RAW_SIZE),
        (DELTA_ZSTD, huge, MAX_RAW_SIZE * 8),
        (DELTA, body_of([0, (1 << 32) - 1, 0]), MAX_RAW_SIZE),
        (DELTA, body_of([(1 << 32) - 1]), MAX_RAW_SIZE),
        (DELTA, body_of([0, 10, 0]), MAX_RAW_SIZE),
        (DELTA, body_of([0, 10, 0]), 1 << 40),
        (DELTA, body_of([0, 10, 0]), 1 << 62),
    ]
    code = f"""
import resource, sys
from packstone.codec.compression import Compressor
from packstone.codec.delta import DeltaCoder
from packstone.errors import Damaged
coder = DeltaCoder(Compressor(3))
with open("/proc/self/statm") as statm:
    now = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + {MAX_RAW_SIZE // 2}, now + {MAX_RAW_SIZE // 2}))
for codec, payload, raw_size in {attempts!r}:
    try:
        coder.decode(codec, payload, [bytes(100)], raw_size)
    except Damaged:
        continue
    sys.exit("accepted")
print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "refused\n", done.stderr


# -- the kernel's own doors -------------------------------------------------------------------


def test_the_kernel_refuses_what_it_cannot_hold() -> None:
    for bases in ([], [BASE] * 4):
        with pytest.raises(ValueError, match="bases"):
            _delta.encode(BASE, bases)
    for size in (-1, MAX_RAW_SIZE + 1):
        with pytest.raises(ValueError, match="outside"):
            _delta.decode(b"", [BASE], size)
    big = bytes(MAX_RAW_SIZE + 1)
    with pytest.raises(ValueError, match="above"):
        _delta.encode(big, [BASE])
    with pytest.raises(ValueError, match="above"):
        _delta.encode(BASE, [big])
    with pytest.raises(TypeError):
        _delta.encode(BASE, ["text"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        _delta.decode(bytearray(b"\x00"), [BASE], 0)  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        _delta.encode(memoryview(BASE)[::2], [BASE])


def test_the_kernel_lets_go_of_its_buffers() -> None:
    chunk, base = bytearray(BASE * 10), bytearray(BASE * 10)
    body, _copied = _delta.encode(chunk, [base])
    _delta.decode(body, [base], 1000)
    with pytest.raises(ValueError, match="delta"):
        _delta.decode(b"", [base], 1000)
    with pytest.raises(TypeError):
        _delta.encode(chunk, [base, None])  # type: ignore[list-item]
    chunk.clear()
    base.clear()


def test_the_largest_chunk() -> None:
    base = noise(1, MIB) * 64
    chunk = base[: 20 * MIB] + b"new" + base[20 * MIB : -3]
    assert len(chunk) == MAX_RAW_SIZE
    delta = CODER.encode(chunk, [base])
    assert delta is not None and len(delta.payload) < 100
    assert CODER.decode(delta.codec, delta.payload, [base], len(chunk)) == chunk


def test_time_is_linear() -> None:
    """Bytes that mislead every search: rows that share all but their ends, and shuffled ones."""
    rows = [b"the same start of every row, thirty-two and more " + noise(n, 5) for n in range(4000)]
    chunk = [*rows]
    random.Random(1).shuffle(chunk)
    for one, other in ((rows, chunk), ([b"\0" * 60 + b"\1"] * 4000, [b"\0" * 61] * 4000)):
        check_round_trip(b"".join(one), [b"".join(other)])


def test_threads_share_one_coder() -> None:
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for turn in range(30):
            chunk, bases = family(number * 1000 + turn, 40_000, 3, 1 + turn % 3)
            delta = CODER.encode(chunk, bases)
            assert delta is not None
            used = [bases[place] for place in delta.bases]
            assert CODER.decode(delta.codec, delta.payload, used, len(chunk)) == chunk

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
