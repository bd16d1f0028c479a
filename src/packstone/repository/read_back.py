"""Read a pack back before it gets its name, and compare it with what was meant to be written.

Knows parts of files, not what is in them. A bit that flips after a record was verified, in
memory or on the way to the disk, must not become part of the pack's name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from blake3 import blake3

from packstone.codec.hashing import checksum
from packstone.errors import Damaged
from packstone.model import KIB
from packstone.storage.base import Spool

_PIECE = 256 * KIB  # read at once: it is hashed twice and should still be in the processor's cache


class Part(NamedTuple):
    """A stretch of a file as it was meant: records, or `data`, else padding that nobody reads.

    `data` ends with its own checksum.
    """

    size: int
    data: bytes | None = None
    is_records: bool = False


def read_back(spool: Spool, parts: Sequence[Part], records_digest: bytes) -> str:
    """Return the BLAKE3 of a file as the storage gives it back, in hexadecimal.

    `records_digest` is that of all records before they were verified. Raises Damaged where the
    file is not what was meant, and nothing may refer to it then.
    """
    hasher, records = blake3(), blake3()
    offset = 0
    for part in parts:
        # What is kept in memory for comparing may have changed, too.
        same = part.data is None or checksum(memoryview(part.data)[:-32]) == part.data[-32:]
        done = 0
        while done < part.size:
            data = spool.read_at(offset, min(_PIECE, part.size - done))
            if not data:
                break
            hasher.update(data)
            if part.is_records:
                records.update(data)
            elif part.data is not None:
                same = same and part.data[done : done + len(data)] == data
            done += len(data)
            offset += len(data)
        if not same:
            raise _otherwise("a header, footer or trailer is not the one that was made")
    size = offset + len(spool.read_at(offset, 1))
    expected_size = sum(part.size for part in parts)
    if size != expected_size:
        raise Damaged(
            f"a pack of {expected_size} bytes reads back as {size} bytes",
            hint="Nothing was committed. Check the repository's disk",
        )
    found = records.digest()
    if found != records_digest:
        raise _otherwise(
            f"its records hash to {found.hex()[:12]}…, expected {records_digest.hex()[:12]}…"
        )
    return hasher.hexdigest()


def _otherwise(what: str) -> Damaged:
    return Damaged(
        f"a pack reads back otherwise than it was written: {what}",
        hint="Nothing was committed. This points at memory, processor or the repository's disk: "
        "test them",
    )
