"""Key slots of one made-up repository, as cheap as they can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from contract.storage_suite import MemoryStorage

from packstone.codec.hashing import checksum
from packstone.codec.keys import Argon2, Secrets
from packstone.model import KIB
from packstone.repository import keyring
from packstone.storage.base import Storage

OWNER = bytes(range(16))
SECRETS = Secrets(bytes(range(100, 132)), bytes(range(200, 232)))
CHEAP = Argon2(time=1, memory=8 * KIB, lanes=1)
_salts = itertools.count()


def add(storage: Storage, passphrase: str, created_ns: int = 0, **options: Any) -> str:
    """Store a slot and return its id."""
    return keyring.store_slot(
        storage,
        SECRETS,
        passphrase,
        repository_id=OWNER,
        salt=checksum(b"%d" % next(_salts)),
        created_ns=created_ns,
        cost=CHEAP,
        **options,
    )


def unlock(
    storage: Storage, passphrase: str, warn: Callable[[str], Any] = pytest.fail
) -> tuple[Secrets, str]:
    return keyring.unlock(storage, OWNER, passphrase, warn)


def flip(storage: MemoryStorage, slot_id: str) -> None:
    data = bytearray(storage.files[f"keys/{slot_id}"])
    data[100] ^= 1
    storage.files[f"keys/{slot_id}"] = bytes(data)
