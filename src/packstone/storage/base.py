"""What every storage can do, and nothing more.

Names are `/`-separated ASCII. Invariants: a name holds either all bytes of one `put` or
nothing; after `put` or `Spool.commit` returned, the bytes and the name survive a power cut;
a listing is complete or raises. Errors are StorageError only. The order of writes of
docs/format.md §7 rests on this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from packstone.errors import ObjectMissing, UsageError
from packstone.model import Buffer
from packstone.storage.urls import is_remote

if TYPE_CHECKING:
    from packstone.storage.local import LocalStorage

_MOST_REPLACED = 16 * 1024 * 1024 + 128  # bytes: only small objects are replaced


def checksum(data: Buffer) -> str:
    """Return what tells one version of a name from another."""
    return sha256(data).hexdigest()


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


class Version(NamedTuple):
    """The bytes of a name, and what tells them from every other version of it."""

    data: bytes
    tag: str


class Storage(ABC):
    """Named bytes; see the module's invariants. Safe to use from several threads."""

    url: str
    is_near = False  # whether reading back is so cheap that it may save room
    is_far = False  # whether each request takes long and is paid for

    @property
    def place(self) -> str:
        """Return what names this place and no other, on this machine."""
        return self.url

    def requests(self) -> dict[str, int]:
        """Return how many requests were paid for, by verb, and their bytes; empty if free."""
        return {}

    def limit(self, upload: int | None, download: int | None) -> None:  # noqa: B027
        """Hold transfers to these rates in bytes per second; nothing to do where none are."""

    @abstractmethod
    def make_directories(self, names: list[str]) -> None:
        """Prepare the folders of a new repository, durably; existing ones are fine."""

    @abstractmethod
    def put(self, name: str, data: Buffer) -> None:
        """Store `data` under `name`, replacing what was there in one step."""

    @abstractmethod
    def put_if_absent(self, name: str, data: Buffer) -> bool:
        """Store `data` unless the name exists; return whether it was stored."""

    def get_version(self, name: str, limit: int) -> Version:
        """Return all bytes and the tag of this version; raises as `get` does."""
        data = self.get(name, limit)
        return Version(data, checksum(data))

    def get_recent(self, name: str, limit: int) -> bytes:
        """Return the bytes that a name had at the last listing that told of it, or has now."""
        return self.get(name, limit)

    def get_once(self, name: str, offset: int, size: int) -> bytes:
        """Return a range as `get_range` does, that nobody will want again."""
        return self.get_range(name, offset, size)

    def announce(self, ranges: Iterable[tuple[str, int, int]]) -> None:  # noqa: B027
        """Learn that ranges (name, offset, size) will be read soon, about in this order."""

    def is_quick(self, name: str, offset: int, size: int) -> bool:
        """Return whether a range can be read without waiting or paying for it."""
        return self.is_near

    def replace(self, name: str, data: Buffer, tag: str) -> str | None:
        """Store `data` if the version of `name` is still that of `tag`.

        Returns the new tag, None if another version was there or none.

        Where locks are held by the kernel the caller's exclusive lock makes this one step; a
        storage without such locks must do it in one step itself.
        """
        try:
            if self.get_version(name, _MOST_REPLACED).tag != tag:
                return None
        except ObjectMissing:
            return None
        self.put(name, data)
        return checksum(data)

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

    def delete_many(self, names: Collection[str]) -> None:
        """Remove names durably; those that are gone are no error."""
        for name in names:
            self.delete(name)

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


def as_directory(storage: Storage) -> LocalStorage | None:
    """Return a storage that is a directory, or that stands before one, as such; else None."""
    return None if storage.is_far else cast("LocalStorage", storage)


def open_storage(location: str) -> Storage:
    """Return the storage that a path or URL names; raises UsageError for what nobody knows."""
    if is_remote(location):
        from packstone.storage.objects import ObjectStorage
        from packstone.storage.urls import parse_place

        return ObjectStorage(parse_place(location))
    from packstone.storage.local import LocalStorage

    return LocalStorage(local_path(location))
