"""Chunk ends and cut-point keys of bytes in memory, and chunks of a stream (docs/format.md §5).

What lives here: the parameters, the class through which everything else cuts, a simple stream
API. Never here: opening files, hashing, compression. Invariant: a cut depends only on bytes
before it and after its chunk's start, so it is the same however the bytes are split up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from packstone.chunking import _kernel

if TYPE_CHECKING:
    from typing_extensions import Buffer

KIB = 1024
MIB = 1024 * KIB

SECRET_SIZE = 64
SMALLEST_AVERAGE = 4 * KIB
LARGEST_AVERAGE = 8 * MIB
READ_SIZE = MIB

PATH_VARIABLE = "PACKSTONE_KERNEL"


@dataclass(frozen=True, slots=True)
class ChunkerParams:
    """How a repository cuts: the average chunk size in bytes and the cutting secret.

    Raises ValueError unless `average` is a power of two from 4 KiB to 8 MiB and `secret` has
    64 bytes.
    """

    average: int
    secret: bytes = field(repr=False)  # not in logs or tracebacks

    def __post_init__(self) -> None:
        average = self.average
        if not SMALLEST_AVERAGE <= average <= LARGEST_AVERAGE or average & (average - 1):
            raise ValueError(
                f"average is {average}, expected a power of two "
                f"from {SMALLEST_AVERAGE} to {LARGEST_AVERAGE}"
            )
        if len(self.secret) != SECRET_SIZE:
            raise ValueError(f"secret has {len(self.secret)} bytes, expected {SECRET_SIZE}")

    @property
    def minimum(self) -> int:
        """Return the smallest size of a chunk, in bytes; only the last one may be smaller."""
        return self.average // 2

    @property
    def maximum(self) -> int:
        """Return the largest size of a chunk, in bytes."""
        return self.average * 4

    @property
    def centre(self) -> int:
        """Return the size in bytes from which cuts become sixteen times as likely."""
        return self.average * 13 // 16


class Chunker:
    """Find chunk ends and cut-point keys; without state, so any number of streams may share it.

    `path` forces a scan path: "portable", "avx2", "avx512" or "neon"; without it the environment
    variable PACKSTONE_KERNEL does, and without that the best one of this machine is taken. All
    give the same cuts. Raises ValueError for a path that this machine does not have.
    """

    __slots__ = ("_cutter", "params")

    def __init__(self, params: ChunkerParams, path: str | None = None) -> None:
        self.params = params
        forced = path or os.environ.get(PATH_VARIABLE) or None
        self._cutter = _kernel.Cutter(params.secret, params.average, forced)

    @property
    def path(self) -> str:
        """Return the name of the scan path in use."""
        return self._cutter.path

    @property
    def average(self) -> int:
        """Return the average size of chunks, in bytes."""
        return self.params.average

    @property
    def minimum(self) -> int:
        """Return the smallest size of a chunk, in bytes; only the last one may be smaller."""
        return self.params.minimum

    @property
    def maximum(self) -> int:
        """Return the largest size of a chunk, in bytes."""
        return self.params.maximum

    def cut(self, buffer: Buffer, begin: int, end: int, final: bool) -> list[int]:
        """Return the ends of the chunks of buffer[begin:end], ascending.

        A chunk starts at `begin`; ends are positions in `buffer`, any contiguous bytes-like
        object. Unless `final`, stop at the last end that no byte from `end` on could change: what
        follows it is the start of a chunk still to be cut. If `final`, `end` is the run's end and
        the last element, and the list is empty only if begin == end. Releases the GIL. Raises
        ValueError unless 0 <= begin <= end <= len(buffer).
        """
        return self._cutter.cut(buffer, begin, end, final)

    def keys(self, buffer: Buffer, positions: Sequence[int], begin: int, end: int) -> list[int]:
        """Return the 64-bit cut-point key of each position of the run buffer[begin:end].

        A key depends on the 32 bytes before its position and the 32 after, fewer at the ends of
        the run. Raises ValueError for a position outside begin..end.
        """
        return self._cutter.keys(buffer, positions, begin, end)


def iter_chunks(read: Callable[[int], bytes], params: ChunkerParams) -> Iterator[bytes]:
    """Yield the chunks of a stream: one run, from `read(size)` until that returns no bytes.

    Keeps at most about two chunks of the largest size, or 1 MiB if that is more, in memory.
    """
    chunker = Chunker(params)
    # twice the maximum: what is scanned again with the next bytes is less than what was new
    want = max(2 * params.maximum, READ_SIZE)
    held = b""
    final = False
    while not final:
        pieces = [held]
        size = len(held)
        while size < want and not final:
            piece = read(want - size)
            final = not piece
            pieces.append(piece)
            size += len(piece)
        data = b"".join(pieces)
        begin = 0
        for end in chunker.cut(data, 0, len(data), final):
            yield data[begin:end]
            begin = end
        held = data[begin:]
