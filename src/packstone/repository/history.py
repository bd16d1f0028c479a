"""What is worth keeping and cannot be derived: when which pack was verified.

The rates that were measured stand in objects of the same kind of file: `rates`.

Implements docs/format.md §12. Hints only: no byte counts as good because of what stands here,
and what is damaged, unknown or gone costs a verification more. Invariants: a reader takes a
bounded number of bytes whatever the storage holds, and objects are merged before they get many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

import msgspec

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope, seal_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, ObjectMissing, UnsupportedFormat
from packstone.model import MIB, Size
from packstone.repository.layout import MAX_ENVELOPE, decode_payload, history_name, list_ids
from packstone.storage.base import Storage

VERIFIED = "verified"
PREFIX_SIZE = 8  # bytes of a pack's id: enough to tell the packs of one repository apart
MOST_READ, MOST_OBJECTS = 256 * MIB, 4096  # of all together: far above what any writer leaves
MERGED_FROM = 16  # objects of a kind on, they become as few as possible
_MOST_PREFIXES = 262_144  # in one object: 2 MiB
_MOST_ROWS = 1024  # dates in one object

T = TypeVar("T")


class Record(msgspec.Struct, frozen=True):
    """The payload of one object; what `data` holds depends on the kind."""

    kind: str
    time_ns: Size
    data: msgspec.Raw


class Stored(NamedTuple, Generic[T]):
    """An object that was read: its name, when it was written, what it says."""

    name: str
    time_ns: int
    data: T


Rows = list[tuple[Size, bytes]]  # Unix time in ns, prefixes of ids end to end


def read_records(
    storage: Storage,
    sealer: Sealer,
    kind: str,
    decode: Callable[[bytes, str], T],
    warn: Callable[[str], None],
    *,
    largest: int = MAX_ENVELOPE,
) -> Iterator[Stored[T]]:
    """Yield the readable objects of a kind; what is damaged is warned of. StorageError.

    `decode` turns the data of this kind, and a name for messages, into a value or raises Damaged.
    Objects above `largest` bytes are passed over unread.
    """
    left = MOST_READ
    damaged: list[Damaged] = []
    try:
        listed = sorted(list_ids(storage, "history"))
    except ObjectMissing:  # nothing else is lost with the folder
        return
    for object_id, size in listed[:MOST_OBJECTS]:
        if size > largest:
            continue
        name = history_name(object_id)
        left -= size
        if left < 0:
            break
        try:
            envelope = open_envelope(storage.get(name, MAX_ENVELOPE), Kind.HISTORY, name, sealer)
            record = decode_payload(envelope.payload, Record, name)
            if record.kind == kind:
                yield Stored(name, record.time_ns, decode(bytes(record.data), name))
        except ObjectMissing:  # merged by another check meanwhile
            continue
        except UnsupportedFormat:  # of a later version, which knows what it is for
            continue
        except Damaged as error:
            damaged.append(error)
    if damaged:
        more = f" and {len(damaged) - 1} more like it" if len(damaged) > 1 else ""
        warn(f"{damaged[0].message}{more}; ignored: delete it, only dates and rates are lost")
    if left < 0 or len(listed) > MOST_OBJECTS:
        warn("history/ holds more than is read of it; delete it, only dates and rates are lost")


def write_record(
    storage: Storage, sealer: Sealer, salt: bytes, kind: str, time_ns: int, data: object
) -> None:
    """Store one object durably; `salt` is 32 random bytes. Raises StorageError."""
    payload = msgspec.msgpack.encode({"kind": kind, "time_ns": max(0, time_ns), "data": data})
    sealed = seal_envelope(Kind.HISTORY, sealer, salt, payload)
    storage.put(history_name(checksum(sealed).hex()), sealed)


def decode_rows(data: bytes, name: str) -> Rows:
    """Return the dates in an object of the kind `verified`; raises Damaged."""
    rows = decode_payload(data, Rows, name)
    if len(rows) > _MOST_ROWS or any(len(prefixes) % PREFIX_SIZE for _, prefixes in rows):
        raise Damaged(f"{name} lists no sound dates", name=name)
    return rows


class VerifiedDates:
    """When each pack was last found whole, as far as is known; Unix time in ns."""

    def __init__(
        self,
        storage: Storage,
        sealer: Sealer,
        pack_ids: Iterable[str],
        now_ns: int,
        warn: Callable[[str], None],
    ) -> None:
        """Read the dates of packs that are there; those later than `now_ns` count for nothing.

        Raises StorageError when the listing fails.
        """
        self._storage = storage
        self._sealer = sealer
        self._now_ns = now_ns
        self._dates = {_prefix(pack_id): 0 for pack_id in pack_ids}
        self._read: list[str] = []
        for stored in read_records(storage, sealer, VERIFIED, decode_rows, warn):
            self._read.append(stored.name)
            for time_ns, prefixes in stored.data:
                if time_ns <= now_ns:
                    self._take(prefixes, time_ns)

    def _take(self, prefixes: bytes, time_ns: int) -> None:
        dates = self._dates
        for start in range(0, len(prefixes), PREFIX_SIZE):
            prefix = prefixes[start : start + PREFIX_SIZE]
            if dates.get(prefix, time_ns) < time_ns:
                dates[prefix] = time_ns

    def of(self, pack_id: str) -> int:
        """Return when a pack was last verified, 0 if that is not known."""
        return self._dates.get(_prefix(pack_id), 0)

    def keep(self, pack_ids: Iterable[str], random: Callable[[int], bytes]) -> None:
        """Store that these packs are verified as of now; merge objects that have become many.

        Raises StorageError: then the dates are lost and nothing else.
        """
        new = {_prefix(pack_id): self._now_ns for pack_id in pack_ids}
        if not new:
            return
        self._dates |= new
        merges = len(self._read) + 1 >= MERGED_FROM + len(self._dates) // _MOST_PREFIXES
        for rows in _in_objects(self._dates if merges else new):
            write_record(self._storage, self._sealer, random(32), VERIFIED, self._now_ns, rows)
        if merges:  # only what is stored anew, and only after it
            for name in self._read:
                self._storage.delete(name)
            self._read.clear()


def _prefix(pack_id: str) -> bytes:
    return bytes.fromhex(pack_id[: 2 * PREFIX_SIZE])


def _in_objects(dates: Mapping[bytes, int]) -> Iterator[list[tuple[int, bytes]]]:
    """Group packs by date, in as few objects as their bounds allow; packs without one left out."""
    by_date: dict[int, list[bytes]] = {}
    for prefix, time_ns in dates.items():
        if time_ns:
            by_date.setdefault(time_ns, []).append(prefix)
    rows: list[tuple[int, bytes]] = []
    count = 0
    for time_ns, prefixes in sorted(by_date.items()):
        prefixes.sort()
        while prefixes:
            if len(rows) == _MOST_ROWS or count == _MOST_PREFIXES:
                yield rows
                rows, count = [], 0
            part = prefixes[: _MOST_PREFIXES - count]
            del prefixes[: len(part)]
            rows.append((time_ns, b"".join(part)))
            count += len(part)
    if rows:
        yield rows
