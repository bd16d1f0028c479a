"""Footers of many packs in few objects, for a machine that has not seen those packs.

Implements docs/format.md §13. Derived and optional: any bundle may be missing, damaged or deleted
at any time. Invariants: what a bundle says of a pack counts only while a pack of that name and
size is listed; the view remembers that it has it from there, and whoever is about to count on
such a pack, or to delete or move anything, has read the pack's own footer. A damaged bundle is
passed over: the footers are read from the packs then.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope, seal_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, StorageError, UnsupportedFormat
from packstone.model import ID_SIZE, MIB
from packstone.repository.layout import MAX_ENVELOPE, decode_payload, list_ids
from packstone.repository.packs import Pack, open_footer
from packstone.storage.base import Storage

FOLDER = "bundles"
FEW = 32  # packs that are asked one by one, and that are not worth a bundle
_FULL = 12 * MIB  # of footers in one bundle: sealing and padding must leave it below the limit
_MOST_PACKS = 65_536  # in one bundle
_AT_ONCE, _FOOTERS_AT_ONCE = 4, 16
_NAME = re.compile(r"bundles/([1-9][0-9]{0,5})-([0-9a-f]{64})")


class Row(msgspec.Struct, frozen=True, array_like=True):
    """What a bundle says of one pack; `footer` are the bytes of either copy in it."""

    pack_id: bytes
    size: int
    footer: bytes


class _Bundle(msgspec.Struct, frozen=True):
    packs: list[Row]


class Listed(NamedTuple):
    """A bundle as its name tells it."""

    name: str
    pack_count: int


def list_bundles(storage: Storage) -> list[Listed]:
    """Return the bundles that are there; what is not named as one is left alone."""
    found: list[Listed] = []
    for name, _size in storage.list(FOLDER):
        parts = _NAME.fullmatch(name)
        if parts is not None:
            found.append(Listed(name, int(parts[1])))
    return sorted(found)


def read_bundle(storage: Storage, sealer: Sealer, name: str) -> list[Row]:
    """Return the rows of a bundle; raises Damaged, UnsupportedFormat, StorageError."""
    data = storage.get(name, MAX_ENVELOPE)
    if not name.endswith(checksum(data).hex()):
        raise Damaged(f"{name} is not what its name says", name=name)
    payload = open_envelope(data, Kind.BUNDLE, name, sealer).payload
    rows = decode_payload(payload, _Bundle, name).packs
    if len(rows) > _MOST_PACKS or any(len(row.pack_id) != ID_SIZE for row in rows):
        raise Damaged(f"{name} lists no sound packs", name=name)
    return rows


def bundled_packs(
    storage: Storage, sealer: Sealer, wanted: Collection[str], sizes: Mapping[str, int]
) -> Iterator[Pack]:
    """Yield what bundles say of wanted packs, each once; `sizes` are those in the listing.

    Reads bundles, few at once, until all that is wanted was found. Never raises for what is
    wrong with them.
    """
    left = set(wanted)

    def read(bundle: Listed) -> list[Row]:
        if not left:
            return []
        with contextlib.suppress(Damaged, UnsupportedFormat, StorageError):
            return read_bundle(storage, sealer, bundle.name)
        return []

    try:
        listed = sorted(list_bundles(storage), key=lambda bundle: -bundle.pack_count)
    except StorageError:
        return
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bundles") as pool:
        for start in range(0, len(listed), _AT_ONCE):  # memory: so many at once
            for rows in pool.map(read, listed[start : start + _AT_ONCE]):
                for row in rows:
                    pack_id = row.pack_id.hex()
                    if pack_id not in left or row.size != sizes[pack_id]:
                        continue
                    with contextlib.suppress(Damaged, UnsupportedFormat):
                        yield open_footer(pack_id, row.size, row.footer, sealer)
                        left.discard(pack_id)


def write_bundles(
    storage: Storage, sealer: Sealer, random: Callable[[int], bytes], rows: Iterable[Row]
) -> None:
    """Store footers in as few bundles as hold them; raises StorageError."""
    part: list[Row] = []
    size = 0
    for row in rows:
        if len(row.footer) > _FULL:
            continue
        if part and (size + len(row.footer) > _FULL or len(part) == _MOST_PACKS):
            _write(storage, sealer, random(32), part)
            part, size = [], 0
        part.append(row)
        size += len(row.footer) + 64
    if part:
        _write(storage, sealer, random(32), part)


def _write(storage: Storage, sealer: Sealer, salt: bytes, rows: list[Row]) -> None:
    payload = msgspec.msgpack.encode({"packs": rows})
    data = seal_envelope(Kind.BUNDLE, sealer, salt, payload)
    storage.put(f"{FOLDER}/{len(rows)}-{checksum(data).hex()}", data)


def renew_bundles(
    storage: Storage,
    sealer: Sealer,
    random: Callable[[int], bytes],
    footer_of: Callable[[str, int], bytes],
) -> None:
    """Let bundles say all of the packs that are there, and little of others; StorageError.

    Those of which most is of use stay as they are. New ones are stored before old ones go.
    `footer_of` returns the footer of a pack of that size, or raises Damaged.
    """
    there = dict(list_ids(storage, "packs"))
    bundled: set[str] = set()
    stale: list[str] = []
    for bundle in list_bundles(storage):
        try:
            rows = read_bundle(storage, sealer, bundle.name)
        except UnsupportedFormat:
            continue  # of a later version, which knows what it is for
        except Damaged:
            stale.append(bundle.name)
            continue
        new = {row.pack_id.hex() for row in rows if there.get(row.pack_id.hex()) == row.size}
        new -= bundled
        if 4 * len(new) < 3 * len(rows):
            stale.append(bundle.name)
        else:
            bundled |= new
    lacking = sorted(there.keys() - bundled)

    def row_of(pack_id: str) -> Row | None:
        with contextlib.suppress(Damaged, UnsupportedFormat):
            size = there[pack_id]
            return Row(bytes.fromhex(pack_id), size, footer_of(pack_id, size))
        return None

    def rows_of() -> Iterator[Row]:
        with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="bundles") as pool:
            for start in range(0, len(lacking), _FOOTERS_AT_ONCE):
                found = pool.map(row_of, lacking[start : start + _FOOTERS_AT_ONCE])
                yield from (row for row in found if row is not None)

    if len(lacking) > FEW or stale:
        if len(there) > FEW:
            write_bundles(storage, sealer, random, rows_of())
        storage.delete_many(stale)
