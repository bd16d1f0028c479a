"""Compare the scheme of docs/format.md §5 with keyed FastCDC: new bytes after small changes.

What lives here: the measurement and its table. Never here: anything the package imports.
Run: PYTHONPATH=src python bench/chunkers/compare.py [--size-mib 128] [--keys 8] [--json FILE]

For each corpus and key both versions are cut; new bytes are those of chunks of the second version
that the first does not have. FastCDC is tuned on the first version to the mean chunk size that
the scheme has there, so that both spend the same number of index rows. The last column is FastCDC
tuned on random data once and used everywhere, which shows what the scheme loses where its chunks
grow to the maximum.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from blake3 import blake3
from corpora import CORPORA, random_bytes

from packstone.chunking.chunker import Chunker, ChunkerParams

Cut = Callable[[bytes, bytes], list[int]]  # (key, data) -> chunk ends


class Shape(Protocol):
    """A FastCDC whose sizes all scale with one number, the size that is tuned."""

    def __call__(self, size: float) -> Cut: ...


@dataclass(frozen=True)
class Row:
    """One scheme on one corpus; shares are of the second version's bytes."""

    corpus: str
    scheme: str
    mean_size: float
    new_share: float
    standard_error: float
    forced_share: float  # of chunks that have the maximal size


def load_fastcdc(folder: Path) -> ctypes.CDLL:
    """Compile fastcdc.c and return it."""
    target = folder / "fastcdc.so"
    source = Path(__file__).with_name("fastcdc.c")
    flags = ["-O3", "-funroll-loops", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, str(source), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    library.fastcdc_cut.restype = ctypes.c_size_t
    return library


def fastcdc(library: ctypes.CDLL, minimum: float, centre: float) -> Shape:
    """Return FastCDC with minimum and centre as parts of its size, and a maximum of 4 times it."""

    def shaped(size: float) -> Cut:
        limits = [int(size * minimum), int(size * centre), int(size * 4)]
        thresholds = [int(2**64 / size / 4), int(2**64 / size * 4)]

        def cut(key: bytes, data: bytes) -> list[int]:
            gear = blake3(key).digest(length=2048)
            ends = (ctypes.c_size_t * (len(data) // max(1, limits[0]) + 2))()
            count = library.fastcdc_cut(
                gear,
                data,
                *map(ctypes.c_size_t, [len(data), *limits]),
                *map(ctypes.c_uint64, thresholds),
                ends,
            )
            return ends[:count]

        return cut

    return shaped


def scheme(average: int) -> Cut:
    """Return the scheme of the format."""

    def cut(key: bytes, data: bytes) -> list[int]:
        secret = blake3(key).digest(length=64)
        return Chunker(ChunkerParams(average, secret)).cut(data, 0, len(data), True)

    return cut


def mean_size(cut: Cut, keys: Sequence[bytes], data: bytes) -> float:
    """Return the mean chunk size over all keys, in bytes."""
    return len(data) * len(keys) / sum(len(cut(key, data)) for key in keys)


def tune(shape: Shape, keys: Sequence[bytes], data: bytes, wanted: float) -> Cut:
    """Return the shape with the size that gives the wanted mean, to a part in 200 if possible."""
    size = wanted
    best = (float("inf"), size)
    for _ in range(12):
        mean = mean_size(shape(size), keys, data)
        best = min(best, (abs(mean / wanted - 1), size))
        if best[0] < 0.005:
            break
        size *= wanted / mean
    return shape(best[1])


def digests(ends: Sequence[int], data: bytes) -> list[tuple[bytes, int]]:
    """Return the hash and the size of each chunk."""
    view = memoryview(data)
    begins = [0, *ends[:-1]]
    return [(blake3(view[a:b]).digest(), b - a) for a, b in zip(begins, ends, strict=True)]


def measure(
    corpus: str, name: str, cut: Cut, keys: Sequence[bytes], pair: tuple[bytes, bytes]
) -> Row:
    """Cut both versions under every key and count what is new in the second."""
    shares, sizes = [], []
    for key in keys:
        first, second = (digests(cut(key, data), data) for data in pair)
        known = {digest for digest, _ in first}
        shares.append(sum(size for digest, size in second if digest not in known) / len(pair[1]))
        sizes += [size for _, size in first]
    largest = max(sizes)
    return Row(
        corpus,
        name,
        statistics.fmean(sizes),
        statistics.fmean(shares),
        statistics.stdev(shares) / len(shares) ** 0.5 if len(shares) > 1 else 0.0,
        sizes.count(largest) / len(sizes) if sizes.count(largest) > len(keys) else 0.0,
    )


def main(arguments: Sequence[str]) -> None:
    """Measure, print a table, and write the figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--size-mib", type=int, default=128)
    parser.add_argument("--average", type=int, default=65536, help="bytes, a power of two")
    parser.add_argument("--keys", type=int, default=8)
    parser.add_argument("--corpus", action="append", help="part of a name; may be repeated")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    size = options.size_mib << 20
    keys = [b"key %d" % number for number in range(options.keys)]
    ours = scheme(options.average)
    rows: list[Row] = []

    with tempfile.TemporaryDirectory() as folder:
        library = load_fastcdc(Path(folder))
        shapes = {
            "FastCDC /4": fastcdc(library, 1 / 4, 1),
            "FastCDC /2": fastcdc(library, 1 / 2, 13 / 16),
        }
        noise = random_bytes(random.Random(1), size)
        fixed = tune(shapes["FastCDC /4"], keys, noise, mean_size(ours, keys, noise))
        print(f"{'corpus':24}{'scheme':18}{'mean KiB':>10}{'new %':>8}{'±':>6}{'forced %':>10}")
        for corpus, make in CORPORA.items():
            if options.corpus and not any(part in corpus for part in options.corpus):
                continue
            pair = make(random.Random(f"{corpus} {size}"), size)
            wanted = mean_size(ours, keys, pair[0])
            cuts = {"format.md §5": ours}
            cuts |= {name: tune(shape, keys, pair[0], wanted) for name, shape in shapes.items()}
            cuts["FastCDC /4 untuned"] = fixed
            for name, cut in cuts.items():
                row = measure(corpus, name, cut, keys, pair)
                rows.append(row)
                print(
                    f"{corpus:24}{name:18}{row.mean_size / 1024:10.1f}{row.new_share * 100:8.2f}"
                    f"{row.standard_error * 100:6.2f}{row.forced_share * 100:10.1f}",
                    flush=True,
                )
    if options.json:
        report = {
            "size": size,
            "average": options.average,
            "keys": options.keys,
            "rows": [asdict(row) for row in rows],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
