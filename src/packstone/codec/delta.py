"""Deltas: a chunk as instructions that make it from one to three base chunks.

Implements the codecs 2 and 3 of docs/format.md §4. Never here: which chunks are bases, lineage,
the decision between a delta and a whole chunk. Never trusts a payload: instructions are checked
against the sizes of the bases and of the chunk before a byte is allocated for it.
Invariant: what `decode` returns has exactly the stated raw size, or it raises Damaged. A wrong
base of the right size gives wrong bytes, so readers compare the id, as they always do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import zstandard

from packstone.codec import _delta
from packstone.codec.compression import MAX_RAW_SIZE, STORED, ZSTD, Compressor
from packstone.errors import Damaged, UnsupportedFormat
from packstone.model import Buffer

DELTA = 2  # the body as it is
DELTA_ZSTD = 3  # the body in a zstd frame
DELTA_CODECS = frozenset((DELTA, DELTA_ZSTD))

MAX_BASES = 3

Text = bytes | _delta.Pieces  # of a base: in one piece, or as pieces of its own bases

# With a larger share than one part in this of new bytes, a delta saves less than half.
_MOST_NEW = 2

# A body of this share of the chunk is as good as it gets: no further base is asked for.
_ENOUGH = 32

# A base must give one byte in this many: it costs 32 bytes of footer and its decoding.
_MIN_SHARE = 256

_SAMPLES = 3
_SAMPLE_SIZE = 8 * 1024


class Delta(NamedTuple):
    """A chunk in terms of its bases."""

    codec: int
    payload: bytes
    bases: tuple[int, ...]  # positions in what `encode` was given, in the order `decode` needs
    body_size: int  # bytes before compression: nearly all of them literals, the chunk's new bytes


class DeltaCoder:
    """Encode chunks against bases and decode them; safe to share between threads."""

    def __init__(self, compressor: Compressor) -> None:
        self._compressor = compressor

    def encode(self, chunk: Buffer, bases: Iterable[Buffer]) -> Delta | None:
        """Return the delta of a chunk, or None if more than half of it is in none of the bases.

        The likeliest base comes first. The next is taken from `bases`, which may decode it only
        then, when those before leave more than a little. Bases of no use are left out; at most
        three are used, and a caller who has more to offer decides how many are worth a try.
        """
        used: list[tuple[int, Buffer]] = []
        body = b""
        for offered in enumerate(bases):
            trial = [*used, offered]
            found, copied = _delta.encode(chunk, [base for _, base in trial])
            useful = [
                each
                for each, size in zip(trial, copied, strict=True)
                if size * _MIN_SHARE >= len(chunk)
            ]
            if not useful or useful[-1] is not offered:
                continue
            if len(useful) < len(trial):
                found, _ = _delta.encode(chunk, [base for _, base in useful])
            used, body = useful, found
            if len(body) * _ENOUGH <= len(chunk) or len(used) == MAX_BASES:
                break
        if not used or len(body) * _MOST_NEW > len(chunk):
            return None
        codec, payload = self._compressor.encode(body)
        places = tuple(place for place, _ in used)
        return Delta(DELTA if codec == STORED else DELTA_ZSTD, payload, places, len(body))

    def estimate(self, chunk: Buffer) -> int:
        """Return about how many bytes the whole chunk would take, from samples of it.

        Costs a tenth of compressing it. What repeats only over long distances is not seen, so
        the estimate is rather high.
        """
        view = memoryview(chunk)
        if len(view) <= _SAMPLES * _SAMPLE_SIZE:
            return len(self._compressor.encode(view)[1])
        step = (len(view) - _SAMPLE_SIZE) // (_SAMPLES - 1)
        sample = b"".join(
            view[place * step : place * step + _SAMPLE_SIZE] for place in range(_SAMPLES)
        )
        return len(self._compressor.encode(sample)[1]) * len(view) // len(sample)

    def decode(self, codec: int, payload: Buffer, bases: Sequence[Buffer], raw_size: int) -> bytes:
        """Return the chunk that a delta makes from the raw bytes of its bases.

        Raises Damaged for anything but exactly `raw_size` bytes, and UnsupportedFormat for a
        codec that is no delta.
        """
        body = self._body(codec, payload, len(bases), raw_size)
        try:
            return _delta.decode(body, bases, raw_size)
        except ValueError as error:
            raise Damaged(f"delta does not decode: {error}") from error

    def compose(self, codec: int, payload: Buffer, bases: Sequence[Text], raw_size: int) -> Text:
        """Return the chunk as pieces of its bases, to be a base itself; raises as `decode`.

        However long a chain is, the bytes of its last chunk are copied once.
        """
        body = self._body(codec, payload, len(bases), raw_size)
        try:
            made = _delta.compose(body, bases, raw_size)
            if made is not None:
                return made
            return _delta.decode(body, [joined(base) for base in bases], raw_size)
        except ValueError as error:
            raise Damaged(f"delta does not decode: {error}") from error

    def _body(self, codec: int, payload: Buffer, base_count: int, raw_size: int) -> bytes:
        """Return instructions and literals, no more than a chunk of `raw_size` may have."""
        if codec not in DELTA_CODECS:
            raise UnsupportedFormat(f"record codec {codec} is not known to this version")
        if not 1 <= base_count <= MAX_BASES:
            raise Damaged(f"delta has {base_count} bases, expected 1 to {MAX_BASES}")
        if raw_size > MAX_RAW_SIZE:
            raise Damaged(f"delta of {raw_size} bytes is above the limit of {MAX_RAW_SIZE}")
        if codec == DELTA_ZSTD:
            return bytes(self._compressor.decode(ZSTD, payload, _body_size(payload, raw_size)))
        if len(payload) > raw_size:
            raise Damaged(f"delta has {len(payload)} bytes for a chunk of {raw_size}")
        return bytes(payload)


def joined(text: Text) -> bytes:
    """Return a chunk in one piece."""
    return text if isinstance(text, bytes) else text.tobytes()


def _body_size(payload: Buffer, raw_size: int) -> int:
    """Return the content size that a frame states, once it is known to be small enough."""
    try:
        size: int = zstandard.get_frame_parameters(bytes(payload[:18])).content_size
    except zstandard.ZstdError as error:
        raise Damaged(f"not a zstd frame: {error}") from error
    # A frame without content size states 2**64 - 1 here.
    if size > raw_size:
        raise Damaged(f"delta states {size} bytes for a chunk of {raw_size}")
    return size
