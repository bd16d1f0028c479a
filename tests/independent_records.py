"""History and bundles read with nothing but docs/format.md §12 and §13, beside independent_reader.

Never here: imports of the package. Invariant: whatever the page does not allow is refused.
"""

import re
from typing import Any, NamedTuple

import msgspec
from blake3 import blake3
from independent_reader import MIB, Reader, need, open_envelope

WHATS = {"restore", "verified", "stream", "check", "load"}
BUNDLE = re.compile("bundles/([1-9][0-9]*)-([0-9a-f]{64})")


class Rate(NamedTuple):
    """One sample, by the table of §12."""

    time: int
    what: str
    bytes: int
    files: int
    elapsed: int
    host: str = ""
    storage: str = ""
    job: str = ""
    estimated: int = 0


def read_history(reader: Reader, name: str, data: bytes) -> tuple[str, list[Any]]:
    """Return the kind of an object, and its samples or dates; refuses what §12 does not allow."""
    need(name == "history/" + blake3(data).hexdigest(), "name")
    payload = open_envelope(data, 5, reader.owner, reader.sealing)
    need(list(payload) == ["kind", "time_ns", "data"] and payload["time_ns"] > 0, "keys")
    rows = payload["data"]
    if payload["kind"] == "verified":
        need(0 < len(rows) <= 1024, "rows of dates")
        for time_ns, packs in rows:
            need(0 < time_ns <= payload["time_ns"] and len(packs) % 8 == 0, "row of dates")
        need(sum(len(packs) for _time, packs in rows) <= 8 * 262_144, "packs with dates")
        return "verified", rows
    need(payload["kind"] == "rates" and 0 < len(rows) <= 512, "rates")
    for row in rows:
        types = [int, str, int, int, int, str, str, str, int]
        need(len(row) >= 5 and list(map(type, row[:9])) == types[: len(row)], "types")
        rate = Rate(*row[:9])
        texts = rate.what, rate.host, rate.storage, rate.job
        need(rate.what in WHATS and all(len(text) <= 100 for text in texts), "texts")
        need(rate.elapsed > 0 <= min(rate.time, rate.bytes, rate.files, rate.estimated), "numbers")
    return "rates", [Rate(*row[:9]) for row in rows]


def read_bundle(reader: Reader, name: str, data: bytes) -> list[tuple[bytes, int, bytes]]:
    """Return the rows of a bundle; refuses what §13 does not allow."""
    count, digest = need(BUNDLE.fullmatch(name), "name").groups()
    need(digest == blake3(data).hexdigest() and len(data) <= 96 + 16 * MIB, "name")
    payload = open_envelope(data, 7, reader.owner, reader.sealing)
    need(list(payload) == ["packs"], "keys")
    rows = msgspec.convert(payload["packs"], list[tuple[bytes, int, bytes]])
    need(len(rows) == int(count) <= 65_536, "count")
    need(all(len(pack_id) == 32 for pack_id, _size, _footer in rows), "ids")
    return rows


def footers_of(reader: Reader, pack: bytes) -> set[bytes]:
    """Return the copies of the footer in a pack by its trailer and its header (§4)."""
    found = set()
    for at in (64, len(pack) - 56):
        offset, size = (int.from_bytes(pack[at + n : at + n + 8], "little") for n in (0, 8))
        found.add(need(pack[offset : offset + size], "footer"))
    return found
