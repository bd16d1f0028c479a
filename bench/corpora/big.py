"""BIG: 4 GiB in two files, one random, one text; then the same with ten insertions of 1 MiB."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from corpora.base import SwappedCorpus
from corpora.text import Prose

FILE_SIZE = 2 << 30
BLOCK = 1 << 20
INSERTIONS = 5  # in each file


class Big(SwappedCorpus):
    name = "BIG"
    large = True

    def generate(self) -> None:
        prose = Prose(seed=31)
        rng = random.Random(32)
        blocks = max(16, int(FILE_SIZE * self.scale) // BLOCK)
        for version in self.versions:
            (self.root / version).mkdir()
        self._write("random.bin", blocks, lambda: rng.randbytes(BLOCK), rng)
        self._write("text.log", blocks, lambda: prose.block(BLOCK), rng)
        self.notes = f"{INSERTIONS} insertions of 1 MiB in each file"

    def _write(self, name: str, blocks: int, make: Callable[[], bytes], rng: random.Random) -> None:
        # An insertion stands inside a block, never at a multiple of anything.
        places = dict.fromkeys(rng.sample(range(blocks), INSERTIONS), 0)
        for block in places:
            places[block] = rng.randrange(1, BLOCK)
        first, second = (self.root / version / name for version in self.versions)
        with open(first, "wb", buffering=0) as old, open(second, "wb", buffering=0) as new:
            for number in range(blocks):
                data = make()
                write_all(old, data)
                if number in places:
                    at = places[number]
                    data = data[:at] + make() + data[at:]
                write_all(new, data)


def write_all(file: object, data: bytes) -> None:
    """Write all of `data`: a raw file may take less at a time."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]  # type: ignore[attr-defined]


def warm(root: Path) -> None:
    """Read every file below `root` once, so that it is in the page cache."""
    buffer = bytearray(1 << 20)
    for directory, _, names in os.walk(root):  # rglob would remember every path
        for name in names:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass
