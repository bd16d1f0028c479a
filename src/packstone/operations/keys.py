"""Key slots as verbs: list, add, replace, remove, export.

Knows the clock and randomness, not files or prompts. Data is never rewritten by any of them:
slots wrap the same two secrets.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from packstone.codec.keys import RECOVERY_BYTES, Argon2, recovery_key
from packstone.errors import UsageError
from packstone.model import KIB
from packstone.repository import keyring
from packstone.repository.repository import ObjectRepository

Random = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key slot as it can be shown; `memory` in bytes, `current` if it opened this session."""

    id: str
    role: str
    label: str
    created_ns: int
    time: int
    memory: int
    lanes: int
    current: bool
    damage: str = ""


def list_keys(repository: ObjectRepository) -> list[ListedKey]:
    """Return all key slots, the damaged ones last."""
    _require_encrypted(repository)
    slots, unusable = keyring.read_slots(repository.storage, repository.repository_id)
    rows = [
        ListedKey(
            id=slot_id,
            role=slot.role,
            label=slot.label,
            created_ns=slot.created_ns,
            time=slot.time,
            memory=slot.memory * KIB,
            lanes=slot.lanes,
            current=slot_id == repository.slot_id,
        )
        for slot_id, slot in slots
    ]
    for slot_id, error in unusable:
        rows.append(ListedKey(slot_id, "?", "", 0, 0, 0, 0, False, error.message))
    return rows


def add_key(
    repository: ObjectRepository,
    passphrase: str | bytes,
    *,
    label: str = "",
    role: str = "passphrase",
    cost: Argon2 | None = None,
    replacing: bool = False,
    clock: Callable[[], int] = time.time_ns,
    random: Random = secrets.token_bytes,
) -> str:
    """Add a slot for another passphrase and return its id."""
    _require_encrypted(repository)
    assert repository.secrets is not None
    return keyring.store_slot(
        repository.storage,
        repository.secrets,
        passphrase,
        repository_id=repository.repository_id,
        salt=random(32),
        created_ns=clock(),
        cost=cost or Argon2(),
        role=role,
        label=label,
        replacing=replacing,
    )


def add_recovery_key(
    repository: ObjectRepository,
    *,
    label: str = "",
    cost: Argon2 | None = None,
    clock: Callable[[], int] = time.time_ns,
    random: Random = secrets.token_bytes,
) -> tuple[str, str]:
    """Add a slot for a key of 160 random bits; return its id and the key, which nobody keeps."""
    _require_encrypted(repository)
    key = recovery_key(random(RECOVERY_BYTES))
    slot_id = add_key(
        repository, key, label=label, role="recovery", cost=cost, clock=clock, random=random
    )
    return slot_id, key


def change_passphrase(
    repository: ObjectRepository,
    passphrase: str | bytes,
    *,
    cost: Argon2 | None = None,
    clock: Callable[[], int] = time.time_ns,
    random: Random = secrets.token_bytes,
) -> str:
    """Replace the slot that opened this session; return the new one's id.

    The new slot is durable before the old one goes, so a crash leaves one of them or both.
    """
    old = repository.slot_id
    row = next((row for row in list_keys(repository) if row.id == old), None)
    if row is not None and row.role == "recovery":
        raise UsageError(
            "this session was opened with a recovery key, which is not to be replaced",
            hint="Run: packstone key add, then remove the key whose passphrase is lost",
        )
    label = row.label if row is not None else ""
    new = add_key(
        repository,
        passphrase,
        label=label,
        cost=cost,
        replacing=True,
        clock=clock,
        random=random,
    )
    keyring.remove_slot(repository.storage, repository.repository_id, old)
    repository.slot_id = new
    return new


def remove_key(repository: ObjectRepository, prefix: str) -> str:
    """Remove the slot whose id starts so, whole or damaged; raises UsageError for the last."""
    _require_encrypted(repository)
    slot_id = keyring.resolve_slot(repository.storage, prefix)
    keyring.remove_slot(repository.storage, repository.repository_id, slot_id)
    return slot_id


def export_key(repository: ObjectRepository, prefix: str = "") -> str:
    """Return a slot, by default the one that opened this session, as text to print and keep."""
    _require_encrypted(repository)
    slot_id = keyring.resolve_slot(repository.storage, prefix) if prefix else repository.slot_id
    return keyring.export_slot(repository.storage, repository.repository_id, slot_id)


def import_key(location: str, text: str) -> str:
    """Put an exported slot back into the repository at a place, which none need open; its id."""
    storage, repository_id = keyring.storage_for_import(location)
    return keyring.import_slot(storage, repository_id, text)


def _require_encrypted(repository: ObjectRepository) -> None:
    if not repository.encrypted:
        raise UsageError("a plain repository has no keys")
