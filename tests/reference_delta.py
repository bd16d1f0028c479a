"""The deltas of docs/format.md §4 in readable Python.

What lives here: `decode`, written from the format alone, and `encode`, which finds the same copies
as the kernel, place by place, as slow as it likes to be. Never here: anything of the packstone
package. Invariant: where `decode` and the kernel differ, the kernel is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Damage(Exception):
    """A body that a reader must refuse."""


def decode(body: bytes, bases: Sequence[bytes], raw_size: int) -> bytes:
    """Return the chunk that a body makes from its bases."""
    text = b"".join(bases)
    size, place = take_number(body, 0)
    instructions, literals = body[place : place + size], body[place + size :]
    if len(instructions) < size:
        raise Damage("instructions cut off")
    chunk = bytearray()
    place = copied_to = inserted = 0
    while len(chunk) < raw_size:
        count, place = take_number(instructions, place)
        if inserted + count > len(literals) or len(chunk) + count > raw_size:
            raise Damage("too many literals")
        chunk += literals[inserted : inserted + count]
        inserted += count
        if len(chunk) == raw_size:
            break
        count, place = take_number(instructions, place)
        distance, place = take_number(instructions, place)
        start = copied_to + (-(distance + 1) // 2 if distance % 2 else distance // 2)
        if count == 0 or start < 0 or start + count > len(text) or len(chunk) + count > raw_size:
            raise Damage("copy outside the bases or the chunk")
        chunk += text[start : start + count]
        copied_to = start + count
    if place < len(instructions) or inserted < len(literals):
        raise Damage("bytes left over")
    return bytes(chunk)


def take_number(data: bytes, place: int) -> tuple[int, int]:
    """Return the number at `place` and the place behind it."""
    number = 0
    for count in range(5):
        if place + count >= len(data):
            raise Damage("number cut off")
        byte = data[place + count]
        number |= (byte & 127) << 7 * count
        if byte < 128:
            if number >= 1 << 32:
                raise Damage("number above 32 bits")
            return number, place + count + 1
    raise Damage("number of more than five bytes")


# -- encoding --------------------------------------------------------------------------------

ANCHOR = 32
STRIDE = 16
SKIP = 4096
SAMPLES = 16
SAMPLE_SIZE = 2048
LONG_SEARCH = 65536
FACTORS = (0x243F6A8885A308D3, 0x13198A2E03707345, 0xA4093822299F31D1, 0x082EFA98EC4E6C89)


class Edit(NamedTuple):
    literals: bytes
    copied: int
    start: int


def encode(chunk: bytes, bases: Sequence[bytes]) -> bytes:
    """Return the body that the kernel makes, on a machine whose bytes are little-endian."""
    edits = list(find_edits(chunk, b"".join(bases)))
    instructions = bytearray()
    copied_to = 0
    for edit in edits:
        instructions += number_bytes(len(edit.literals))
        if edit.copied:
            distance = edit.start - copied_to
            instructions += number_bytes(edit.copied)
            instructions += number_bytes(2 * distance if distance >= 0 else -2 * distance - 1)
            copied_to = edit.start + edit.copied
    literals = b"".join(edit.literals for edit in edits)
    return number_bytes(len(instructions)) + bytes(instructions) + literals


def number_bytes(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out) + bytes([number])


def find_edits(chunk: bytes, text: bytes) -> Iterator[Edit]:
    run = copied_to = 0
    anchors: Anchors | None = None
    while run < len(chunk):
        found = None if anchors else near(chunk, text, run, copied_to)
        if not found:
            if not anchors:
                anchors = Anchors(text)
                if not promising(chunk, text, run, anchors):
                    yield Edit(chunk[run:], 0, 0)
                    return
            found = anywhere(chunk, text, run, copied_to, anchors)
        if not found:
            yield Edit(chunk[run:], 0, 0)
            return
        place, start = found
        while place > run and start > 0 and chunk[place - 1] == text[start - 1]:
            place, start = place - 1, start - 1
        size = 0
        while (
            chunk[place + size : place + size + 1] == text[start + size : start + size + 1] != b""
        ):
            size += 1
        yield Edit(chunk[run:place], size, start)
        run, copied_to = place + size, start + size


def same(chunk: bytes, place: int, text: bytes, start: int) -> bool:
    wanted = chunk[place : place + ANCHOR]
    return len(wanted) == ANCHOR and wanted == text[start : start + ANCHOR]


def near(chunk: bytes, text: bytes, run: int, copied_to: int) -> tuple[int, int] | None:
    for skip in range(ANCHOR + 1):
        if same(chunk, run + skip, text, copied_to + skip):
            return run + skip, copied_to + skip
    for skip in range(1, SKIP + 1):
        if same(chunk, run, text, copied_to + skip):
            return run, copied_to + skip
    return None


def promising(chunk: bytes, text: bytes, run: int, anchors: Anchors) -> bool:
    left = len(chunk) - run
    return left < LONG_SEARCH or any(
        anchors.at(chunk, run + left // SAMPLES * sample + place, text) is not None
        for sample in range(SAMPLES)
        for place in range(SAMPLE_SIZE)
    )


def anywhere(
    chunk: bytes, text: bytes, run: int, copied_to: int, anchors: Anchors
) -> tuple[int, int] | None:
    for place in range(run, len(chunk) - ANCHOR + 1):
        along = copied_to + place - run
        if same(chunk, place, text, along):
            return place, along
        start = anchors.at(chunk, place, text)
        if start is not None:
            return place, start
    return None


class Anchors:
    """The table of the text's anchors: the last one stays where several share a slot."""

    def __init__(self, text: bytes) -> None:
        self.bits = 8
        while 1 << self.bits < 2 * len(text) // STRIDE:
            self.bits += 1
        self.slots: dict[int, int] = {}
        for start in range(0, len(text) - ANCHOR + 1, STRIDE):
            self.slots[self.slot(text[start : start + ANCHOR])] = start

    def slot(self, anchor: bytes) -> int:
        words = [int.from_bytes(anchor[i : i + 8], "little") for i in range(0, ANCHOR, 8)]
        total = sum(word * factor for word, factor in zip(words, FACTORS, strict=True))
        return total % (1 << 64) >> (64 - self.bits)

    def at(self, chunk: bytes, place: int, text: bytes) -> int | None:
        """Return where the text has the 32 bytes of the chunk at `place`."""
        start = self.slots.get(self.slot(chunk[place : place + ANCHOR]))
        return start if start is not None and same(chunk, place, text, start) else None
