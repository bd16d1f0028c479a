"""The cutting scheme in readable Python, written from docs/format.md §5 alone.

What lives here: the scheme, position by position, as slow as it likes to be. Never here: anything
of the packstone package. Invariant: where this file and the kernel differ, the kernel is wrong,
unless docs/format.md says otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import NamedTuple

MASK = (1 << 64) - 1


def siphash24(key: bytes, data: bytes) -> int:
    """Return SipHash-2-4 of `data` under a key of 16 bytes (Aumasson and Bernstein, 2012)."""
    k0 = int.from_bytes(key[:8], "little")
    k1 = int.from_bytes(key[8:16], "little")
    v = [
        k0 ^ 0x736F6D6570736575,
        k1 ^ 0x646F72616E646F6D,
        k0 ^ 0x6C7967656E657261,
        k1 ^ 0x7465646279746573,
    ]

    def rotate(x: int, n: int) -> int:
        return (x << n | x >> (64 - n)) & MASK

    def sip_round() -> None:
        v[0] = (v[0] + v[1]) & MASK
        v[1] = rotate(v[1], 13) ^ v[0]
        v[0] = rotate(v[0], 32)
        v[2] = (v[2] + v[3]) & MASK
        v[3] = rotate(v[3], 16) ^ v[2]
        v[0] = (v[0] + v[3]) & MASK
        v[3] = rotate(v[3], 21) ^ v[0]
        v[2] = (v[2] + v[1]) & MASK
        v[1] = rotate(v[1], 17) ^ v[2]
        v[2] = rotate(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for offset in range(0, len(padded), 8):
        word = int.from_bytes(padded[offset : offset + 8], "little")
        v[3] ^= word
        sip_round()
        sip_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(4):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


class Candidate(NamedTuple):
    """A position that the filter lets through, with its decision."""

    position: int
    decision: int


class Reference:
    """The scheme for one average and one cutting secret of 64 bytes."""

    def __init__(self, average: int, secret: bytes) -> None:
        self.average = average
        self.minimum = average // 2
        self.maximum = 4 * average
        self.centre = 13 * average // 16
        self.four_tests = average >= 32 * 1024
        self.spacing = 4096 if self.four_tests else 512  # D
        self.threshold = (1 << 64) * self.spacing // average  # T
        lo, hi = secret[0:16], secret[16:32]
        self.decision_key, self.window_key = secret[32:48], secret[48:64]
        self.gear = [siphash24(self.decision_key, bytes([b])) for b in range(256)]  # G
        self.bits = average.bit_length() - 1  # log2 of the average
        self.substitute = [(lo[b & 15] + hi[b >> 4]) % 256 for b in range(256)]  # S

    def is_candidate(self, run: bytes) -> Callable[[int], bool]:
        """Return the filter for the positions of a run; only from 80 on may it be asked."""
        g = [0] * len(run)
        for i in range(7, len(run)):
            g[i] = sum(self.substitute[run[i - j]] << j for j in range(8)) % 256
        f = [0] * len(run)
        for i in range(63, len(run)):
            f[i] = sum(g[i - 8 * m] for m in range(8)) % 256

        def a(i: int) -> bool:
            return f[i] < 32

        def b(i: int) -> bool:
            return 32 <= f[i] < 64

        def test(i: int) -> bool:
            return a(i) and b(i - 5) and a(i - 11) and (not self.four_tests or b(i - 17))

        return test

    def candidates(self, run: bytes) -> list[Candidate]:
        """Return the candidates of a whole run with their decisions, ascending.

        Neither depends on where chunks start, so one list serves every length of the run. The
        first look back 80 bytes; nothing shorter can be cut there anyway.
        """
        test = self.is_candidate(run)
        return [
            Candidate(i, siphash24(self.decision_key, run[i - 63 : i + 1]))
            for i in range(80, len(run))
            if test(i)
        ]

    def cuts(self, length: int, candidate: Candidate) -> bool:
        """Return whether a candidate ends the chunk that has this length with it."""
        if length < self.minimum or length > self.maximum:
            return False
        if length < self.centre:
            return candidate.decision < self.threshold // 4
        return candidate.decision < 4 * self.threshold

    def second_look(self, run: bytes, start: int) -> int:
        """Return the end of a chunk of whose first 4A bytes no candidate cuts any."""
        total = 0
        for position in range(start + self.minimum - 64, start + self.maximum):
            # what is older than 64 bytes has been shifted out
            total = ((total << 1) + self.gear[run[position]]) & MASK
            length = position + 1 - start
            bits = self.bits + 2 if length < self.centre else self.bits - 2
            if length >= self.minimum and total >> (64 - bits) == 0:
                return position + 1
        return start + self.maximum

    def ends_among(
        self, run: bytes, candidates: list[Candidate], begin: int, end: int, final: bool = True
    ) -> list[int]:
        """Return the chunk ends of run[begin:end], the run's candidates being given.

        Unless `final`, more bytes may follow, and only ends that they cannot change count.
        """
        ends: list[int] = []
        start = begin
        while start < end:
            stop = self._first_end(run, candidates, start, end)
            if stop is None and final:
                stop = end
            if stop is None:
                break
            ends.append(stop)
            start = stop
        return ends

    def _first_end(
        self, run: bytes, candidates: list[Candidate], start: int, end: int
    ) -> int | None:
        """Return the end of the chunk that starts at `start`, or None if it goes on past `end`."""
        first = bisect_left(candidates, start + self.minimum - 1, key=lambda c: c.position)
        for candidate in candidates[first:]:
            length = candidate.position + 1 - start
            if start + length > end or length > self.maximum:
                break
            if self.cuts(length, candidate):
                return start + length
        return self.second_look(run, start) if start + self.maximum <= end else None

    def ends(self, run: bytes) -> list[int]:
        """Return the chunk ends of a whole run."""
        return self.ends_among(run, self.candidates(run), 0, len(run))

    def key(self, run: bytes, position: int) -> int:
        """Return the key of the cut between run[position - 1] and run[position]."""
        window = run[max(0, position - 32) : min(len(run), position + 32)]
        return siphash24(self.window_key, window)
