"""Whether it pays to fetch bases of deltas from a storage whose bytes are paid for.

A base that lies in the cache costs nothing. Another is fetched with what lies around it, which is
what the next chunks want if a dump was edited, and is nothing worth if one small file was. Which
of the two it is, is found out by trying: a session may fetch a little, and go on as long as what
deltas saved is in proportion to what was received for it.
"""

from __future__ import annotations

import threading

from packstone.model import MIB
from packstone.storage.base import Storage

_CREDIT = 16 * MIB  # that may be received before anything was saved
# Bytes received that one byte not stored is worth. Amazon's prices: a byte out costs as much as one
# kept for four months, and it is kept for years; within a region and at others it costs nothing.
_WORTH = 2


class Fetching:
    """What one session spent and saved; safe to use from several threads."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._lock = threading.Lock()
        self._received_before: int | None = None
        self._packs: set[str] = set()
        self._saved = 0

    def may_fetch(self, pack_id: str) -> bool:
        """Return whether to fetch a base from a pack, and note that it will be."""
        received = self._storage.requests().get("bytes_received", 0)
        with self._lock:
            if self._received_before is None:
                self._received_before = received
            if received - self._received_before > _CREDIT + _WORTH * self._saved:
                return False
            self._packs.add(pack_id)
            return True

    def note_saved(self, pack_id: str, size: int) -> None:
        """Count bytes that a delta against a chunk in a pack saved, if that was fetched."""
        with self._lock:
            if pack_id in self._packs:
                self._saved += size
