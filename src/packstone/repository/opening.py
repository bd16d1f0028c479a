"""Where a repository is: its storage, with a cache if that costs, and the lock that fits it."""

from __future__ import annotations

import secrets

from packstone.repository.locks import HeldLock, Lock, Waiting
from packstone.storage.base import Storage, as_directory, open_storage


def storage_at(location: str) -> Storage:
    """Return the storage of the repository at a path or URL; raises UsageError."""
    storage = open_storage(location)
    return _cached(storage) if storage.is_far else storage


def _cached(storage: Storage) -> Storage:
    from packstone.repository.cached import CachedStorage
    from packstone.storage.objects import ObjectStorage

    assert isinstance(storage, ObjectStorage)
    return CachedStorage(storage)


def take_lock(
    storage: Storage, *, exclusive: bool, keys: bool = False, waiting: Waiting | None = None
) -> HeldLock:
    """Take the lock of a repository, or of its key slots; raises RepositoryLocked."""
    directory = as_directory(storage)
    if directory is not None:
        if keys:
            return Lock(directory, exclusive=exclusive, name="keys", waiting=waiting)
        return Lock(directory, exclusive=exclusive, waiting=waiting)
    from packstone.repository.cached import CachedStorage
    from packstone.repository.object_locks import ObjectLock

    assert isinstance(storage, CachedStorage)
    return ObjectLock(storage, exclusive=exclusive, keys=keys, waiting=waiting)


def prepare_locks(storage: Storage) -> None:
    """Find out at `init` whether the store keeps conditions; if not, all must work alone."""
    from packstone.repository.cached import CachedStorage
    from packstone.repository.object_locks import ALONE

    assert isinstance(storage, CachedStorage)
    if not storage.inner.has_conditions(f"tmp/{secrets.token_hex(16)}"):
        storage.put(ALONE, b"this store keeps no conditions of writes: one process at a time\n")
