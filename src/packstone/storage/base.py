"""What every storage can do, and nothing more.

Names are `/`-separated ASCII. Invariants: a name holds either all bytes of one `put` or
nothing; after `put` or `Spool.commit` returned, the bytes and the name survive a power cut;
a listing is complete or raises. Errors are StorageError only. The order of writes of
docs/format.md §7 rests on this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from packstone.errors import UsageError
from packstone.model import Buffer


class Spool(Protocol):
    """A file being written, invisible until it is committed under a name."""

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""

    def write_at(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes that were written before."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, as the storage gives them back."""

    def commit(self, name: str) -> None:
        """Make the bytes durable, then the name; the spool is closed."""

    def abandon(self) -> None:
        """Drop everything; never raises."""


class Storage(ABC):
    """Named bytes; see the module's invariants. Safe to use from several threads."""

    url: str
    is_near = False  # whether reading back is so cheap that it may save room

    @abstractmethod
    def put(self, name: str, data: Buffer) -> None:
        """Store `data` under `name`, replacing what was there in one step."""

    @abstractmethod
    def put_if_absent(self, name: str, data: Buffer) -> bool:
        """Store `data` unless the name exists; return whether it was stored."""

    @abstractmethod
    def get(self, name: str, limit: int) -> bytes:
        """Return all bytes; raises ObjectMissing, or Damaged above `limit` bytes."""

    @abstractmethod
    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only where the file ends."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return the size in bytes; raises ObjectMissing."""

    @abstractmethod
    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (name, size) of every stored name below the folder `prefix`, in no order."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a name durably; removing one that is gone is no error."""

    @abstractmethod
    def move(self, name: str, new_name: str) -> None:
        """Give a file another name instead of its own, durably; raises ObjectMissing.

        Its folder is made if need be. The caller knows that nothing is there.
        """

    @abstractmethod
    def keep(self, name: str, new_name: str) -> None:
        """Give a file a second name, durably, so that it outlives the first; ObjectMissing.

        Where a file cannot have two names it is copied, with zeros for what cannot be read.
        """

    @abstractmethod
    def spool(self) -> Spool:
        """Begin a large file whose name is known only at its end."""

    def drop_cached(self, name: str) -> bool:
        """Let the next read of a name come from the medium; return whether that was asked for."""
        return False

    def disk_position(self, name: str) -> int:
        """Return what orders names as they lie on the medium; 0 if that is not known."""
        return 0

    def free(self) -> int | None:
        """Return the bytes that fit in it still, None where that cannot be told."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Release what is held."""


def local_path(location: str) -> str:
    """Return the path in a location, a path or a `file://` URL; raises UsageError for others."""
    if location.startswith("file://"):
        return location[len("file://") :]
    scheme, separator, _ = location.partition("://")
    if separator and scheme.isalnum():
        raise UsageError(f"no storage for {scheme}:// in this version", hint="use a path")
    return location
