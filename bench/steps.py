"""GB/s of each step alone, and the limit for two threads that follows from them.

Run by run.py as a process of its own; prints a table to stderr and JSON to stdout. Data is half
random, half text, as in BIG, unless a step says otherwise; every step works on the page cache or
on memory, in pieces as packstone's own path has them.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from corpora.big import write_all
from corpora.catalogue import default_work
from corpora.text import Prose
from step_lanes import Lane, chain_pass, cut_pass, hash_pass, memcpy_pass, read_pass
from step_store import compress_pass, decode_pass, lookup_pass, pack_pass
from stopwatch import Pass, rate

GB = 1e9
LANES = 2
SPANS = (1 << 20, 2 << 20, 4 << 20, 8 << 20)  # bytes read at a time in the chain


@dataclass(slots=True)
class Step:
    """One line of the table; `make` prepares a pass over a lane's data."""

    name: str
    make: Callable[[Lane], Pass]
    note: str = ""
    ones: list[float] = field(default_factory=list)
    twos: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)  # processors, by two threads

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name, "note": self.note,
            "one": median(self.ones) / GB, "two": median(self.twos) / GB,
            "used": median(self.used),
            "ones": self.ones, "twos": self.twos,
        }  # fmt: skip


def steps() -> Iterator[Step]:
    """Yield every step that this machine can run."""
    from packstone.chunking import _kernel

    yield Step("memcpy", memcpy_pass, "64 MiB at a time, outside the caches")
    yield Step("read", read_pass, "page cache into one reused buffer of 4 MiB")
    for path in _kernel.paths():
        yield Step(f"cut, {path}", lambda lane, path=path: cut_pass(lane, path))  # type: ignore[misc]
    yield Step("hash", hash_pass, "keyed BLAKE3 of each chunk, average 128 KiB")
    yield Step("look up", lookup_pass, "index of 1,000,000; an id counts as 128 KiB")
    yield Step("compress text", lambda lane: compress_pass(lane, lane.text), "zstd 3 by chunk")
    yield Step("compress random", lambda lane: compress_pass(lane, lane.noise), "is stored")
    yield Step("decode and verify text", lambda lane: decode_pass(lane, lane.text))
    yield Step("decode and verify random", lambda lane: decode_pass(lane, lane.noise))
    yield Step("pack write", pack_pass, "64 MiB packs: written, read back, hashed, renamed")
    for span in SPANS:
        yield Step(
            f"read, cut, hash; {span >> 20} MiB", lambda lane, span=span: chain_pass(lane, span)  # type: ignore[misc]
        )  # fmt: skip


def sample_files(directory: Path, scale: float) -> list[Path]:
    """Return one file for each lane, half text, half random; made once."""
    size = max(16 << 20, int((256 << 20) * scale) & ~0xFFFFF)
    paths = [directory / f"lane-{number}-{size >> 20}.bin" for number in range(LANES)]
    for number, path in enumerate(paths):
        if path.exists():
            continue
        directory.mkdir(parents=True, exist_ok=True)
        prose, rng = Prose(51 + number), random.Random(61 + number)
        partial = path.with_suffix(".part")
        with open(partial, "wb", buffering=0) as file:
            for _ in range(size >> 21):
                write_all(file, prose.block(1 << 20))
            for _ in range(size >> 21):
                write_all(file, rng.randbytes(1 << 20))
        partial.rename(path)
    return paths


def measure(lanes: list[Lane], seconds: float, repeat: int) -> list[Step]:
    """Measure every step on one and on two threads, in turn."""
    found = list(steps())
    for _ in range(repeat):
        for step in found:
            # One step's passes at a time: those of all together would not fit in memory.
            passes = [step.make(lane) for lane in lanes]
            step.ones.append(rate(passes[:1], seconds)[0])
            both, used = rate(passes, seconds)
            step.twos.append(both)
            step.used.append(used)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    work = (arguments.work or default_work()).resolve() / "steps"
    lanes = [
        Lane(path, work / f"scratch-{number}")
        for number, path in enumerate(sample_files(work, arguments.scale))
    ]
    try:
        found = measure(lanes, arguments.seconds, arguments.repeat)
    finally:
        for lane in lanes:
            shutil.rmtree(lane.scratch, ignore_errors=True)
    records = [step.as_dict() for step in found]
    best = max((r for r in records if r["name"].startswith("read, cut")), key=lambda r: r["two"])
    result = {
        "steps": records,
        "limit": best["two"],
        "limit_note": (
            f"Limit for two threads, reading, cutting and hashing data of their own without any "
            f"bookkeeping: **{best['two']:.2f} GB/s** ({best['name']})."
        ),
    }
    for record in records:
        figures = f"{record['one']:8.2f} {record['two']:8.2f} {record['used']:6.2f}"
        print(f"{record['name']:28} {figures}", file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
