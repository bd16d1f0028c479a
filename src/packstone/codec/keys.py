"""Key slots: the two secrets of an encrypted repository, wrapped under a passphrase.

Implements docs/format.md §11. Pure: no files, no prompts. Invariants: a damaged slot and a
wrong passphrase are told apart (the envelope's checksum is tested before, the check value
after Argon2id); parameters above the limits are refused before anything is computed.
"""

from __future__ import annotations

import base64
import hmac
import re
import unicodedata
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn

import msgspec
from msgspec import Meta

from packstone.codec.hashing import checksum
from packstone.errors import Damaged, UnsupportedFormat, UsageError
from packstone.model import GIB, KIB, MIB, Unsigned32

SECRET_SIZE = 32
SALT_SIZE = 32
KDF = "argon2id"
# Above these a slot is refused: it would only hold up whoever opens it.
MAX_TIME, MAX_MEMORY, MAX_LANES = 32, GIB, 64
MAX_PASSPHRASE = 64 * KIB
MAX_LABEL = KIB

RECOVERY_BYTES = 20  # 160 random bits
_RECOVERY_FORM = re.compile(r"[A-Z2-7]{36}")
_CHECK_DIGITS = 4  # of a recovery key: a slip of the pen is told before Argon2id runs
_MISREAD = str.maketrans("018", "OIB")
_BOUND = b"packstone v1 key slot"


@dataclass(frozen=True, slots=True)
class Secrets:
    """What opens a repository: the family secret (ids, cutting), the sealing secret (packs)."""

    family: bytes = field(repr=False)  # never in logs or tracebacks
    sealing: bytes = field(repr=False)

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled")


@dataclass(frozen=True, slots=True)
class Argon2:
    """The cost of one guess: passes, bytes of memory, lanes (RFC 9106)."""

    time: int = 3
    memory: int = 64 * MIB
    lanes: int = 4

    def wrong(self) -> str:
        """Return what is out of bounds, or an empty text."""
        if not 1 <= self.time <= MAX_TIME:
            return f"time {self.time}: expected 1 to {MAX_TIME}"
        if not 1 <= self.lanes <= MAX_LANES:
            return f"lanes {self.lanes}: expected 1 to {MAX_LANES}"
        least = 8 * KIB * self.lanes
        if not least <= self.memory <= MAX_MEMORY or self.memory % KIB:
            return f"memory of {self.memory} bytes: expected {least} to {MAX_MEMORY}, whole KiB"
        return ""


class KeySlot(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a stored slot; `memory` in KiB as RFC 9106 counts it."""

    kdf: str
    time: Unsigned32
    memory: Unsigned32
    lanes: Unsigned32
    salt: Annotated[bytes, Meta(min_length=SALT_SIZE, max_length=SALT_SIZE)]
    check: Annotated[bytes, Meta(min_length=32, max_length=32)]
    wrapped: Annotated[bytes, Meta(min_length=80, max_length=80)]
    created_ns: int
    role: str = "passphrase"
    label: str = ""


def passphrase_bytes(passphrase: str | bytes) -> bytes:
    """Return the bytes that a passphrase stands for: UTF-8 of its composed form (NFC).

    A recovery key counts the same in any case, with or without separators. Raises UsageError
    for an empty or endless one.
    """
    try:
        text = passphrase if isinstance(passphrase, str) else passphrase.decode()
    except UnicodeDecodeError as error:
        return _bounded(error.object)
    recovery = _recovery_digits(text)
    if recovery is not None and _recovery_check(recovery[:-_CHECK_DIGITS]) == recovery[-4:]:
        return recovery.encode()
    try:
        return _bounded(unicodedata.normalize("NFC", text).encode())
    except UnicodeEncodeError:
        pass
    try:
        return _bounded(text.encode(errors="surrogateescape"))
    except UnicodeEncodeError as error:
        raise UsageError("the passphrase has characters that stand for no bytes") from error


def _bounded(data: bytes) -> bytes:
    if not data:
        raise UsageError("the passphrase is empty")
    if len(data) > MAX_PASSPHRASE:
        raise UsageError(f"the passphrase has {len(data)} bytes, the limit is {MAX_PASSPHRASE}")
    return data


def _recovery_digits(text: str) -> str | None:
    # 0, 1 and 8 are no digits of base 32: they were misread.
    digits = re.sub(r"[\s-]", "", text).upper().translate(_MISREAD)
    return digits if _RECOVERY_FORM.fullmatch(digits) else None


def _recovery_check(digits: str) -> str:
    return base64.b32encode(checksum(digits.encode())).decode()[:_CHECK_DIGITS]


def recovery_key(random: bytes) -> str:
    """Return a printable key of 20 random bytes: nine groups of four, the last checks the rest."""
    if len(random) != RECOVERY_BYTES:
        raise ValueError(f"recovery key: expected {RECOVERY_BYTES} bytes, got {len(random)}")
    digits = base64.b32encode(random).decode()
    digits += _recovery_check(digits)
    return "-".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def looks_mistyped(passphrase: str | bytes) -> bool:
    """Return whether this has the form of a recovery key and its check digits do not fit."""
    text = passphrase if isinstance(passphrase, str) else passphrase.decode(errors="replace")
    digits = _recovery_digits(text)
    return digits is not None and _recovery_check(digits[:-_CHECK_DIGITS]) != digits[-4:]


def wrap(
    secrets: Secrets,
    passphrase: str | bytes,
    *,
    repository_id: bytes,
    salt: bytes,
    created_ns: int,
    cost: Argon2,
    role: str = "passphrase",
    label: str = "",
) -> KeySlot:
    """Return a slot that gives the secrets to whoever has the passphrase.

    `salt` is 32 random bytes, new for each slot. Raises UsageError for a cost out of bounds.
    """
    check_new(passphrase, cost)
    if not label.isprintable() or len(label.encode()) > MAX_LABEL:
        raise UsageError(f"a label is printable text of {MAX_LABEL} bytes at most")
    key, check = _derive(passphrase_bytes(passphrase), salt, cost)
    bound = _bound(repository_id, created_ns, role, label)
    return KeySlot(
        kdf=KDF,
        time=cost.time,
        memory=cost.memory // KIB,
        lanes=cost.lanes,
        salt=salt,
        check=check,
        wrapped=_siv(key).encrypt(bytes(12), secrets.family + secrets.sealing, bound),
        created_ns=created_ns,
        role=role,
        label=label,
    )


def check_new(passphrase: str | bytes, cost: Argon2) -> None:
    """Raise UsageError for a passphrase or a cost that no slot can have."""
    passphrase_bytes(passphrase)
    if wrong := cost.wrong():
        raise UsageError(f"Argon2 {wrong}")


def refusal(slot: KeySlot) -> str:
    """Return why a slot is not to be tried, or an empty text."""
    if slot.kdf != KDF:
        return f"key derivation {slot.kdf!r}"
    wrong = Argon2(slot.time, slot.memory * KIB, slot.lanes).wrong()
    return f"Argon2 {wrong}" if wrong else ""


def unwrap(slot: KeySlot, passphrase: bytes, repository_id: bytes, name: str) -> Secrets | None:
    """Return the secrets in a slot, None if it is not of this passphrase.

    `passphrase` comes from `passphrase_bytes`, `name` is for messages. Raises UnsupportedFormat
    for another key derivation or a cost above the limits, Damaged for a slot that was altered.
    """
    from cryptography.exceptions import InvalidTag

    if reason := refusal(slot):
        raise UnsupportedFormat(f"{name}: {reason}", hint="Nothing was computed with it")
    cost = Argon2(slot.time, slot.memory * KIB, slot.lanes)
    try:
        key, check = _derive(passphrase, slot.salt, cost)
    except MemoryError as error:
        raise UnsupportedFormat(
            f"{name}: Argon2 wants {cost.memory} bytes of memory, which are not to be had here",
            hint="Open the repository on a larger machine and add a key that costs less",
        ) from error
    if not hmac.compare_digest(check, slot.check):
        return None
    bound = _bound(repository_id, slot.created_ns, slot.role, slot.label)
    try:
        opened = _siv(key).decrypt(bytes(12), slot.wrapped, bound)
    except InvalidTag as error:
        raise Damaged(f"{name} was altered: its secrets do not open", name=name) from error
    return Secrets(opened[:SECRET_SIZE], opened[SECRET_SIZE:])


def _bound(repository_id: bytes, created_ns: int, role: str, label: str) -> bytes:
    return _BOUND + repository_id + msgspec.msgpack.encode([created_ns, role, label])


def _siv(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV

    return AESGCMSIV(key)


def _derive(passphrase: bytes, salt: bytes, cost: Argon2) -> tuple[bytes, bytes]:
    """Return wrapping key and check value, the halves of 64 bytes of Argon2id."""
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    derived = Argon2id(
        salt=salt,
        length=64,
        iterations=cost.time,
        lanes=cost.lanes,
        memory_cost=cost.memory // KIB,
    ).derive(passphrase)
    return derived[:32], derived[32:]
