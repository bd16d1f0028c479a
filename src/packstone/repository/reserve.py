"""A file that only takes room, so that prune can work on a disk that is full.

Released by prune and by nobody else; made again as soon as there is much room. What is in it is
never read. Implements `reserve` of docs/format.md §1.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable

from packstone.errors import ObjectMissing, StorageError, StorageFull
from packstone.model import MIB
from packstone.storage.local import LocalStorage

RESERVE = "reserve"
# What a sweep needs: a few transactions of the index, and state.
RESERVE_SIZE = MIB
# On a disk with less room than this many times its size it would be in the way.
_MUCH = 16


def keep_reserve(storage: LocalStorage, random: Callable[[int], bytes]) -> None:
    """Make the reserve unless it is there; where there is no room for it, go on without."""
    with contextlib.suppress(StorageFull, OSError):
        try:
            storage.size(RESERVE)
        except ObjectMissing:
            if shutil.disk_usage(storage.path).free >= _MUCH * RESERVE_SIZE:
                # Random, for file systems that compress.
                storage.put(RESERVE, random(RESERVE_SIZE))


def release_reserve(storage: LocalStorage) -> None:
    """Give the room of the reserve to whoever prunes, if the disk is nearly full."""
    with contextlib.suppress(StorageError, OSError):
        if shutil.disk_usage(storage.path).free < 2 * RESERVE_SIZE:
            storage.delete(RESERVE)


def room_on(storage: LocalStorage) -> int | None:
    """Return the free bytes of a disk without what a sweep needs; None where it does not say."""
    try:
        return shutil.disk_usage(storage.path).free - 2 * RESERVE_SIZE
    except OSError:
        return None
