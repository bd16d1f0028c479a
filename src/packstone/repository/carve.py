"""Find out what a damaged pack held: footers that nothing leads to, rows that the view knows.

Reads what docs/format.md §4 and §10 make certain: a footer carries its own checksum, and in a
sealed pack its own seal, so one is found wherever it stands. Says what records there were and
never that they can be read: the file may end before them.
"""

from __future__ import annotations

from collections.abc import Iterator

from packstone.codec.encryption import Sealer
from packstone.codec.hashing import checksum
from packstone.errors import Damaged
from packstone.model import MIB
from packstone.repository.layout import pack_name
from packstone.repository.packs import FOOTER_MAGIC, HEADER_SIZE, Pack, read_pack_at
from packstone.storage.base import Storage

_READ = 4 * MIB
_SECTOR = 4096
_MOST = 16  # footers that a file may seem to have: what users store may look like one


def carve(storage: Storage, pack_id: str, size: int, sealer: Sealer) -> list[Pack]:
    """Return what the footers in a file say, wherever they stand, each once.

    Bad sectors are passed over. Raises StorageError.
    """
    found: list[Pack] = []
    for offset in _offsets(storage, pack_name(pack_id), size):
        try:
            pack = read_pack_at(storage, pack_id, size, sealer, offset)
        except Damaged:
            continue
        if all(pack.rows != each.rows for each in found):
            found.append(pack)
            if len(found) == _MOST:
                break
    return found


def is_foreign(storage: Storage, name: str, repository_id: bytes) -> bool:
    """Return whether a whole header says that a pack is another repository's; StorageError."""
    try:
        data = storage.get_range(name, 0, HEADER_SIZE)
    except Damaged:
        return False
    return (
        len(data) == HEADER_SIZE
        and checksum(data[:96]) == data[96:]
        and (data[16:32] != repository_id)
    )


def _offsets(storage: Storage, name: str, size: int) -> Iterator[int]:
    """Yield where a footer may begin; ascending."""
    overlap = len(FOOTER_MAGIC) - 1
    for start in range(0, size, _READ):
        data = _read_around(storage, name, start, min(_READ + overlap, size - start))
        at = data.find(FOOTER_MAGIC)
        while at >= 0:
            yield start + at
            at = data.find(FOOTER_MAGIC, at + 1)


def _read_around(storage: Storage, name: str, start: int, size: int) -> bytes:
    """Return a part of a file with zeros for what cannot be read of it."""
    try:
        return storage.get_range(name, start, size)
    except Damaged:
        pass
    parts: list[bytes] = []
    for offset in range(start, start + size, _SECTOR):
        wanted = min(_SECTOR, start + size - offset)
        try:
            data = storage.get_range(name, offset, wanted)
        except Damaged:
            data = b""
        parts.append(data.ljust(wanted, b"\0"))
    return b"".join(parts)
