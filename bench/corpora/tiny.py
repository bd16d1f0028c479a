"""TINY: 200,000 files of 200 to 3,000 bytes in 1,000 directories; then 1 % edited, 0.5 % new."""

from __future__ import annotations

import os
from pathlib import Path

from corpora.base import EditedCorpus
from corpora.text import Prose

FILES = 200_000
DIRECTORIES = 1_000
FIRST_NS = 1_760_000_000_000_000_000
DAY_NS = 86_400_000_000_000


class Tiny(EditedCorpus):
    name = "TINY"

    def generate(self) -> None:
        prose = Prose(seed=11)
        rng = prose.rng
        files = max(200, int(FILES * self.scale))
        directories = max(10, int(DIRECTORIES * self.scale))
        for number in range(directories):
            (self.source / directory_name(number)).mkdir(parents=True)
        # One long text, cut at random places: joining phrases for each file would take minutes.
        text = prose.block(max(8 << 20, int((64 << 20) * self.scale)))

        def content() -> bytes:
            size = rng.randrange(200, 3001)
            at = rng.randrange(len(text) - size)
            return b"%016x\n" % rng.getrandbits(64) + text[at : at + size - 17]

        names = [
            f"{directory_name(rng.randrange(directories))}/{number:06d}-{rng.choice(prose.words)}.txt"
            for number in range(files)
        ]
        for number, name in enumerate(names):
            write(self.source / name, content(), FIRST_NS + number * 1_000_003)
        (self.root / "changes" / "v1").mkdir(parents=True)
        for name in rng.sample(names, files // 100):
            old = (self.source / name).read_bytes()
            at = rng.randrange(17, len(old))
            new = old[:at] + prose.sentence(2).encode() + old[at + rng.randrange(40) :]
            keep(self.root / "changes" / "v1" / name, old, os.stat(self.source / name).st_mtime_ns)
            keep(self.root / "changes" / "v2" / name, new, FIRST_NS + DAY_NS)
        for number in range(files // 200):
            name = f"{directory_name(rng.randrange(directories))}/new-{number:06d}.txt"
            keep(self.root / "changes" / "v2" / name, content(), FIRST_NS + DAY_NS)
        (self.root / "current").write_text("v1")
        self.notes = "version 2 is made by editing in place"


def directory_name(number: int) -> str:
    return f"{number % 20:02d}/{number // 20:03d}"


def write(path: Path, data: bytes, mtime_ns: int) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def keep(path: Path, data: bytes, mtime_ns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, data, mtime_ns)
