"""The key slots of a repository: unlock it, add, remove, export and put back slots.

Implements docs/format.md §11 on a storage. Never sees packs. Invariants: a slot is durable
before another that it replaces is removed; the last whole slot is never removed.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope, seal_envelope
from packstone.codec.hashing import checksum
from packstone.codec.keys import (
    Argon2,
    KeySlot,
    Secrets,
    looks_mistyped,
    passphrase_bytes,
    refusal,
    unwrap,
    wrap,
)
from packstone.errors import Damaged, ObjectMissing, UnsupportedFormat, UsageError, WrongPassphrase
from packstone.model import KIB
from packstone.repository.layout import decode_payload, key_name, list_ids, read_config
from packstone.repository.opening import storage_at, take_lock
from packstone.storage.base import Storage

MAX_SLOT = 64 * KIB
MAX_SLOTS = 64
# Whoever fills `keys/` with slots must not make every open run Argon2id for hours: KiB × passes.
MAX_SPENT = 64 * 3 * 64 * KIB
_PAPER_HEAD = "packstone key slot"
_PAPER_BYTES = 25  # of a line: 40 characters of base 32


class UnusableSlot(NamedTuple):
    """The id of a key slot that is damaged or of a later version, and what is wrong."""

    id: str
    error: Damaged | UnsupportedFormat


class StoredSlot(NamedTuple):
    """A key slot and the id it is stored under, in hexadecimal."""

    id: str
    slot: KeySlot


def read_slots(
    storage: Storage, repository_id: bytes
) -> tuple[list[StoredSlot], list[UnusableSlot]]:
    """Return all whole slots, the cheapest to try first, and the errors of the others."""
    slots: list[StoredSlot] = []
    unusable: list[UnusableSlot] = []
    try:
        names = [slot_id for slot_id, _size in list_ids(storage, "keys")]
    except ObjectMissing:
        names = []  # the folder is lost, and all slots with it
    for slot_id in names:
        name = key_name(slot_id)
        try:
            slots.append(
                StoredSlot(slot_id, _open_slot(storage.get(name, MAX_SLOT), name, repository_id))
            )
        except ObjectMissing:
            continue  # another has just removed it
        except (Damaged, UnsupportedFormat) as error:
            unusable.append(UnusableSlot(slot_id, error))
    # Whoever can write to the storage can forge slots that cost a minute each: they come last.
    slots.sort(key=lambda stored: (_cost(stored.slot), -stored.slot.created_ns, stored.id))
    return slots, unusable


def _cost(slot: KeySlot) -> int:
    return slot.time * slot.memory


def _open_slot(data: bytes, name: str, repository_id: bytes) -> KeySlot:
    payload = open_envelope(data, Kind.KEY_SLOT, name, Sealer(repository_id)).payload
    found = checksum(data).hex()
    if key_name(found) != name:
        raise Damaged(
            f"{name} is not what it is called: its bytes hash to {found[:12]}…", name=name
        )
    return decode_payload(payload, KeySlot, name)


def unlock(
    storage: Storage,
    repository_id: bytes,
    passphrase: str | bytes,
    warn: Callable[[str], None],
) -> tuple[Secrets, str]:
    """Return the secrets of a repository and the id of the slot that opened.

    Raises WrongPassphrase when whole slots are there and none opens, Damaged when that may be
    because a slot is damaged or all are gone, UnsupportedFormat for slots that ask too much.
    """
    slots, unusable = read_slots(storage, repository_id)
    damaged = [each.error for each in unusable]
    wanted = passphrase_bytes(passphrase)
    failure: UnsupportedFormat | Damaged | None = damaged[0] if damaged else None
    spent = untried = 0
    for slot_id, slot in slots:
        if spent > MAX_SPENT:
            untried += 1
            continue
        spent += _cost(slot)
        try:
            secrets = unwrap(slot, wanted, repository_id, key_name(slot_id))
        except (UnsupportedFormat, Damaged) as error:
            failure = failure or error
            continue
        if secrets is not None:
            for each in damaged:
                warn(f"{each.message}. Other slots are whole: remove it, add a new one")
            return secrets, slot_id
    if untried:
        raise Damaged(
            f"{untried} of {len(slots)} key slots were not tried: together they ask for too much",
            name="keys/",
            hint="Somebody has put slots there. Move away those that `key list` did not know",
        )
    if isinstance(failure, UnsupportedFormat):
        raise failure
    if failure is not None:
        raise Damaged(
            f"no whole key slot opens with this passphrase, and {failure.message}",
            name=failure.name,
            hint="The packs are unaffected. Put back an export of the slot: packstone key import",
        )
    if not slots:
        raise Damaged(
            "there is no key slot: nothing in this repository can be read without one",
            name="keys/",
            hint="The packs are unaffected. Put back an export of a slot: packstone key import",
        )
    hint = "Nothing was changed. Try another passphrase, or a recovery key"
    if looks_mistyped(passphrase):
        hint = "It looks like a recovery key with a wrong character"
    raise WrongPassphrase(f"none of {len(slots)} key slots opens with this passphrase", hint=hint)


def store_slot(
    storage: Storage,
    secrets: Secrets,
    passphrase: str | bytes,
    *,
    repository_id: bytes,
    salt: bytes,
    created_ns: int,
    cost: Argon2,
    role: str = "passphrase",
    label: str = "",
    replacing: bool = False,
) -> str:
    """Make a new slot durable and return its id; `salt` is 32 random bytes.

    The slot is opened again before it is written: one that does not open would lock out its user.
    """
    _check_room(read_slots(storage, repository_id)[0], cost, replacing)
    slot = wrap(
        secrets,
        passphrase,
        repository_id=repository_id,
        salt=salt,
        created_ns=created_ns,
        cost=cost,
        role=role,
        label=label,
    )
    payload = msgspec.msgpack.encode(slot)
    # The envelope's salt only makes its name; the slot has one of its own.
    data = seal_envelope(Kind.KEY_SLOT, Sealer(repository_id), checksum(salt), payload)
    slot_id = checksum(data).hex()
    written = _open_slot(data, key_name(slot_id), repository_id)
    if unwrap(written, passphrase_bytes(passphrase), repository_id, "new slot") != secrets:
        raise Damaged(
            "a new key slot does not open with its own passphrase",
            hint="Nothing was changed. This points at memory or processor: test them",
        )
    storage.put(key_name(slot_id), data)
    return slot_id


def _check_room(slots: Sequence[StoredSlot], cost: Argon2, replacing: bool) -> None:
    """Raise UsageError where one more slot would keep another from being tried."""
    spent = sorted([*(_cost(stored.slot) for stored in slots), cost.time * cost.memory // KIB])
    full = len(slots) >= MAX_SLOTS and not replacing
    if full or sum(spent[:-1]) > MAX_SPENT:
        raise UsageError(
            f"there are {len(slots)} key slots; with one more some would never be tried",
            hint="Remove one first: packstone key remove; or let this one cost less",
        )


def remove_slot(storage: Storage, repository_id: bytes, slot_id: str) -> None:
    """Remove a slot, a damaged one too; raises UsageError for the last whole one."""
    lock = take_lock(storage, exclusive=True, keys=True)  # two at once could remove both of two
    try:
        slots, _unusable = read_slots(storage, repository_id)
        if not any(stored.id != slot_id and not refusal(stored.slot) for stored in slots):
            raise UsageError(
                f"{slot_id[:12]}… is the last whole key slot: without it nothing can be read",
                hint="Add another first: packstone key add",
            )
        storage.delete(key_name(slot_id))
    finally:
        lock.release()


def resolve_slot(storage: Storage, prefix: str) -> str:
    """Return the id of the slot that a prefix of it names, whole or damaged; raises UsageError."""
    found = [slot_id for slot_id, _size in list_ids(storage, "keys") if slot_id.startswith(prefix)]
    if len(found) != 1 or not prefix:
        wrong = "is ambiguous" if found and prefix else "names none"
        raise UsageError(f"key slot {prefix!r} {wrong}", hint="Run: packstone key list")
    return found[0]


def export_slot(storage: Storage, repository_id: bytes, slot_id: str) -> str:
    """Return a slot as text to print or to keep in a file; each line has a check of its own."""
    name = key_name(slot_id)
    data = storage.get(name, MAX_SLOT)
    _open_slot(data, name, repository_id)
    lines = [f"{_PAPER_HEAD} {slot_id}", f"of repository {repository_id.hex()}"]
    for number, at in enumerate(range(0, len(data), _PAPER_BYTES), 1):
        part = data[at : at + _PAPER_BYTES]
        text = base64.b32encode(part).decode().rstrip("=")
        groups = " ".join(text[start : start + 5] for start in range(0, len(text), 5))
        lines.append(f"{number:3}: {groups} / {_line_check(number, part)}")
    return "\n".join(lines) + "\n"


def _line_check(number: int, part: bytes) -> str:
    return f"{zlib.crc32(number.to_bytes(2, 'little') + part) & 0xFFFFF:05x}"


def parse_export(text: str) -> bytes:
    """Return the bytes of a slot from its export; raises UsageError naming the line at fault."""
    parts: list[bytes] = []
    for line in text.splitlines():
        if len(parts) * _PAPER_BYTES > MAX_SLOT:
            raise UsageError("the export has more lines than a key slot")
        number_text, colon, rest = line.strip().partition(":")
        if not colon:
            continue
        groups, _, check = rest.partition("/")
        digits = groups.replace(" ", "").upper()
        number = len(parts) + 1
        try:
            part = base64.b32decode(digits + "=" * (-len(digits) % 8))
            right = int(number_text) == number and check.strip().lower() == _line_check(
                number, part
            )
        except ValueError:
            right = False
        if not right:
            raise UsageError(f"line {number} of the export is not as it was printed")
        parts.append(part)
    if not parts:
        raise UsageError(f"no lines of a key slot: an export starts with {_PAPER_HEAD!r}")
    return b"".join(parts)


def storage_for_import(location: str) -> tuple[Storage, bytes]:
    """Return the storage of an encrypted repository, and its id; needs no passphrase."""
    storage = storage_at(location)
    repository_id, encrypted, _config = read_config(storage, lambda text: None)
    if not encrypted:
        raise UsageError(f"the repository at {storage.url} is plain and has no keys")
    return storage, repository_id


def import_slot(storage: Storage, repository_id: bytes, text: str) -> str:
    """Put an exported slot back and return its id; raises UsageError for one of another store."""
    data = parse_export(text)
    slot_id = checksum(data).hex()
    try:
        _open_slot(data, key_name(slot_id), repository_id)
    except Damaged as error:
        raise UsageError(
            f"this export is of no use here: {error.message}", hint="Nothing was changed"
        ) from error
    storage.make_directories(["keys"])  # all of it may have been lost
    storage.put(key_name(slot_id), data)
    return slot_id


def check_slots(storage: Storage, repository_id: bytes) -> Sequence[str]:
    """Return what is wrong with the slots, by their checksums and names."""
    slots, unusable = read_slots(storage, repository_id)
    texts = [each.error.message for each in unusable]
    if not slots:
        texts.append("keys/ holds no whole key slot: nothing can be read without an export of one")
    return texts
