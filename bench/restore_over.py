"""Restoring over a large file of which little changed, against writing it anew.

    .venv/bin/python bench/restore_over.py [--directory DIR] [--size MIB] [--rounds N]

A file of random bytes is stored, then 1 % of it is overwritten in many places, and it is
restored: `changed` over what is there, `always` over it, and into an empty directory. Rows are
interleaved. Told are medians of wall and processor seconds, bytes that came from the
repository and bytes that this process had written to the file system (less where that shares
blocks: give a --directory on one that does).
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import packstone

MIB = 1 << 20
RANGE = 16 * 1024  # bytes changed at each place


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=Path, default=None)
    parser.add_argument("--size", type=int, default=1024, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="packstone-over-", dir=arguments.directory))
    try:
        measure(place, arguments.size * MIB, arguments.rounds)
    finally:
        shutil.rmtree(place)


def measure(place: Path, size: int, rounds: int) -> None:
    """Run all rows `rounds` times in `place`."""
    source, target, empty = (place / name for name in ("source", "target", "empty"))
    for path in (source, target):
        path.mkdir()
    chance = random.Random(1)
    with open(source / "data", "wb") as file:
        for _ in range(size // MIB):
            file.write(chance.randbytes(MIB))
    packstone.init(place / "repository").close()
    with packstone.open(place / "repository") as repository:
        snapshot_id = repository.snapshot([source]).snapshot_id or ""
    found: dict[str, list[tuple[float, ...]]] = {}
    for number in range(rounds):
        for row in ("changed", "always", "empty"):
            shutil.rmtree(empty, ignore_errors=True)
            if row != "empty":
                shutil.copyfile(source / "data", target / "data")
                change(target / "data", size // 100, random.Random(number))
            os.sync()
            before = (time.perf_counter(), time.process_time(), written())
            with packstone.open(place / "repository") as repository:
                result = repository.restore(
                    snapshot_id,
                    empty if row == "empty" else target,
                    path=bytes(source),
                    overwrite=None if row == "empty" else row,
                )
            after = (time.perf_counter(), time.process_time(), written())
            assert not result.errors
            seconds, processor, disk = (b - a for a, b in zip(before, after, strict=True))
            found.setdefault(row, []).append(
                (seconds, processor, result.bytes_written / MIB, disk / MIB)
            )
    print(f"{size // MIB} MiB, 1 % changed in {size // 100 // RANGE} places, {rounds} rounds")
    print("row      wall s  processor s  MiB fetched  MiB written")
    for row, runs in found.items():
        wall, processor, fetched, disk = (
            statistics.median(column) for column in zip(*runs, strict=True)
        )
        print(f"{row:8} {wall:6.2f}  {processor:11.2f}  {fetched:11.1f}  {disk:11.1f}")


def change(path: Path, total: int, chance: random.Random) -> None:
    """Overwrite `total` bytes of a file in ranges at random places."""
    size = path.stat().st_size
    with open(path, "r+b") as file:
        for _ in range(total // RANGE):
            file.seek(chance.randrange(size - RANGE))
            file.write(chance.randbytes(RANGE))


def written() -> int:
    """Return the bytes this process caused to be written to file systems."""
    with open("/proc/self/io", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("write_bytes")).split()[1])


if __name__ == "__main__":
    main()
