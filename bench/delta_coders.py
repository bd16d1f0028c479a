"""Compare delta coders on two versions of a file: stored bytes, and speeds of both directions.

What lives here: the search for bases (offline, over both whole files), the coders, the table.
Run: python bench/delta_coders.py OLD NEW [--averages 64,128,256] [--every 4] [--coders WORD]

Both files are cut and hashed; chunks of NEW that OLD lacks get up to three bases: the chunk with
the same start key, that with the same end key, those beside it, or else those at the same place,
following along. Prefix coders need backports.zstd, or Python 3.14, and are left out without.
"""

from __future__ import annotations

import argparse
import mmap
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import zstandard
from blake3 import blake3

from packstone.chunking.chunker import Chunker, ChunkerParams
from packstone.codec import _delta
from packstone.codec.compression import Compressor
from packstone.codec.delta import DeltaCoder
from packstone.codec.hashing import Hasher, plain_family
from packstone.model import KIB

try:
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    try:
        from backports import zstd  # type: ignore[import-not-found,no-redef,unused-ignore]
    except ImportError:
        zstd = None  # type: ignore[assignment,unused-ignore]

MB = 1e6
Span = tuple[int, int]

# Of a footer's row, which a pack holds twice: offsets and sizes, object, keys; and each base.
ROW, ROW_BASE, COPIES = 75, 34, 2


class New(NamedTuple):
    """A chunk of the new version that the old one lacks, and its bases there, likeliest first."""

    span: Span
    bases: list[Span]


class Version:
    """A file, mapped and cut."""

    def __init__(self, path: str, chunker: Chunker) -> None:
        with open(path, "rb") as file:
            self.data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self.ends = chunker.cut(self.data, 0, len(self.data), True)
        self.starts = [0, *self.ends[:-1]]
        self.keys = chunker.keys(self.data, [0, *self.ends], 0, len(self.data))
        self.ids = [blake3(self.data[a:b]).digest() for a, b in self.spans()]

    def spans(self) -> Iterator[Span]:
        return zip(self.starts, self.ends, strict=True)


def find_bases(old: Version, new: Version) -> list[New]:
    """Return the new chunks in order; equal ones once."""
    ids, starting, ending = defaultdict(list), defaultdict(list), defaultdict(list)
    for place, chunk_id in enumerate(old.ids):
        ids[chunk_id].append(place)
        starting[old.keys[place]].append(place)
        ending[old.keys[place + 1]].append(place)
    found = []
    seen = set()
    expected = 0  # where the old version should go on

    def nearest(places: list[int]) -> int | None:
        return min(places, key=lambda place: abs(old.starts[place] - expected), default=None)

    for place, (begin, end) in enumerate(new.spans()):
        same = nearest(ids.get(new.ids[place], []))
        if same is not None:
            expected = old.ends[same]
            continue
        first = nearest(starting.get(new.keys[place], []))
        last = nearest(ending.get(new.keys[place + 1], []))
        aligned = min(bisect_right(old.ends, expected), len(old.ends) - 1)
        if first is not None and last is not None:
            wanted = [first, first + 1, first - 1] if first == last else [first, last, first + 1]
        elif first is not None:
            wanted = [first, first + 1, first + 2]
        elif last is not None:
            wanted = [last, last - 1, last - 2]
        else:
            wanted = [aligned, aligned + 1, aligned - 1]
        if last is not None:
            expected = old.ends[last]
        else:
            expected = (expected if first is None else old.starts[first]) + end - begin
        if new.ids[place] not in seen:
            seen.add(new.ids[place])
            spans = [(old.starts[n], old.ends[n]) for n in wanted if 0 <= n < len(old.ends)]
            found.append(New((begin, end), spans))
    return found


# -- coders: chunk, bases → (payload, how many bases, a function that decodes it) ---------------

Decode = Callable[[], object]
Coder = Callable[[bytes, Sequence[bytes]], tuple[bytes, int, Decode | None]]


def plain(level: int) -> Coder:
    compressor = zstandard.ZstdCompressor(level=level)
    decompressor = zstandard.ZstdDecompressor()

    def code(chunk: bytes, bases: Sequence[bytes]) -> tuple[bytes, int, Decode | None]:
        payload = compressor.compress(chunk)
        return payload, 0, partial(decompressor.decompress, payload)

    return code


def prefix(level: int, count: int, long: bool) -> Coder:
    """zstd with the bases as a prefix; the likeliest one last, where offsets are smallest."""
    names = zstd.CompressionParameter

    def code(chunk: bytes, bases: Sequence[bytes]) -> tuple[bytes, int, Decode | None]:
        text = b"".join(reversed(bases[:count]))
        options = {
            names.compression_level: level,
            names.window_log: max(17, (len(text) + len(chunk) - 1).bit_length()),
            names.enable_long_distance_matching: int(long),
        }
        as_prefix = zstd.ZstdDict(text, is_raw=True).as_prefix
        payload = zstd.compress(chunk, options=options, zstd_dict=as_prefix)

        def decode() -> object:
            again = b"".join(reversed(bases[:count]))
            return zstd.decompress(payload, zstd_dict=zstd.ZstdDict(again, is_raw=True).as_prefix)

        return payload, len(bases[:count]), decode

    return code


def dictionary(level: int, count: int) -> Coder:
    """zstd with the bases as a raw-content dictionary that is loaded."""

    def load(bases: Sequence[bytes]) -> Any:
        text = b"".join(reversed(bases[:count]))
        return zstandard.ZstdCompressionDict(text, dict_type=zstandard.DICT_TYPE_RAWCONTENT)

    def code(chunk: bytes, bases: Sequence[bytes]) -> tuple[bytes, int, Decode | None]:
        payload = zstandard.ZstdCompressor(level=level, dict_data=load(bases)).compress(chunk)

        def decode() -> object:
            return zstandard.ZstdDecompressor(dict_data=load(bases)).decompress(payload)

        return payload, len(bases[:count]), decode

    return code


def copies(level: int, count: int) -> Coder:
    """The kernel with so many bases at once, and zstd for what is left."""
    compressor = zstandard.ZstdCompressor(level=level)
    decompressor = zstandard.ZstdDecompressor()

    def code(chunk: bytes, bases: Sequence[bytes]) -> tuple[bytes, int, Decode | None]:
        payload = compressor.compress(_delta.encode(chunk, bases[:count])[0])

        def decode() -> object:
            return _delta.decode(decompressor.decompress(payload), bases[:count], len(chunk))

        return payload, len(bases[:count]), decode

    return code


def copies_then_prefix(level: int, count: int) -> Coder:
    """The kernel, and for what is left zstd with the bases as a prefix, if it is much."""
    without, with_prefix = copies(level, count), prefix(level, count, False)

    def code(chunk: bytes, bases: Sequence[bytes]) -> tuple[bytes, int, Decode | None]:
        body = _delta.encode(chunk, bases[:count])[0]
        if len(body) * 10 < len(chunk):
            return without(chunk, bases)
        payload, used, _decode = with_prefix(body, bases)
        return payload, used, None

    return code


def packstone(level: int) -> Coder:
    """What packstone does: bases one by one while they pay, plain where no delta does."""
    coder, whole = DeltaCoder(Compressor(level)), plain(level)

    def code(chunk: bytes, bases: Sequence[bytes]) -> tuple[bytes, int, Decode | None]:
        delta = coder.encode(chunk, bases)
        if delta is None:
            return whole(chunk, bases)
        used = [bases[place] for place in delta.bases]
        return (
            delta.payload,
            len(used),
            partial(coder.decode, delta.codec, delta.payload, used, len(chunk)),
        )

    return code


def all_coders() -> dict[str, Coder]:
    coders = {"packstone": packstone(3), "plain zstd 3": plain(3)}
    for level in (3, 6, 9):
        coders[f"copies, zstd {level}, 3 bases"] = copies(level, 3)
    coders["copies, zstd 3, 1 base"] = copies(3, 1)
    if zstd is not None:
        for level in (1, 2, 3, 4, 6):
            for count in (1, 2, 3):
                coders[f"prefix {level}, {count} bases"] = prefix(level, count, False)
        for level in (1, 3):
            coders[f"prefix {level}, 3 bases, long"] = prefix(level, 3, True)
        coders["copies, then prefix 3, 3 bases"] = copies_then_prefix(3, 3)
    for count in (1, 3):
        coders[f"loaded dictionary 3, {count} bases"] = dictionary(3, count)
    return coders


# -- measuring ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Sums:
    """What one coder did with all chunks: bytes, and seconds of this thread."""

    raw: int = 0
    payloads: int = 0
    footers: int = 0
    encoding: float = 0.0
    decoding: float = 0.0


def measure(coder: Coder, old: Version, new: Version, chunks: Sequence[New]) -> Sums:
    sums = Sums()
    for (begin, end), spans in chunks:
        chunk = bytes(new.data[begin:end])
        bases = [bytes(old.data[a:b]) for a, b in spans]
        start = time.thread_time()
        payload, used, decode = coder(chunk, bases)
        sums.encoding += time.thread_time() - start
        sums.raw += len(chunk)
        sums.payloads += len(payload)
        sums.footers += COPIES * (ROW + ROW_BASE * used)
        if decode is not None:
            start = time.thread_time()
            again = decode()
            sums.decoding += time.thread_time() - start
            if again != chunk:
                sys.exit("a coder gave other bytes")
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--averages", default="64,128,256", help="of chunks, in KiB")
    parser.add_argument("--every", type=int, default=1, help="take one new chunk in so many")
    parser.add_argument("--coders", default="", help="only those whose name has this in it")
    options = parser.parse_args()
    secret = Hasher(plain_family()).cutting_secret
    for average in map(int, options.averages.split(",")):
        chunker = Chunker(ChunkerParams(average * KIB, secret))
        old, new = Version(options.old, chunker), Version(options.new, chunker)
        chunks = find_bases(old, new)
        size = sum(end - begin for (begin, end), _ in chunks)
        print(
            f"\naverage {average} KiB: {len(new.ids):,} chunks, {len(chunks):,} new ones "
            f"of {size / MB:,.1f} MB, {size / len(new.data):.1%}\n"
            f"{'':32}{'payload':>9}{'footers':>9}{'sum MB':>9}{'encode':>9}{'decode':>9} MB/s"
        )
        for name, coder in all_coders().items():
            if options.coders not in name:
                continue
            sums = measure(coder, old, new, chunks[:: options.every])
            scale = size / sums.raw / MB
            decoding = f"{sums.raw / sums.decoding / MB:9,.0f}" if sums.decoding else ""
            print(
                f"{name:32}{sums.payloads * scale:9.2f}{sums.footers * scale:9.2f}"
                f"{(sums.payloads + sums.footers) * scale:9.2f}"
                f"{sums.raw / sums.encoding / MB:9,.0f}{decoding}",
                flush=True,
            )


if __name__ == "__main__":
    main()
