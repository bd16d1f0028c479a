"""A storage around a storage that tells somebody of every operation, before and after it.

Keeps the contract of storages as the one inside does; what else that one has (a path, say) is
found here, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

from packstone.errors import StorageError
from packstone.model import Buffer
from packstone.storage.base import Spool, Storage


class Observer(Protocol):
    """Whoever is told of operations."""

    def around(self, verb: str, name: str) -> AbstractContextManager[None]:
        """Enter before an operation and leave after it; what raises here takes its place."""


class ObservedSpool(Spool):
    """A spool that tells of every operation."""

    def __init__(self, spool: Spool, observer: Observer) -> None:
        self._inner = spool
        self._observer = observer

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        with self._observer.around("write", "spool"):
            self._inner.write(data)

    def write_at(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes that were written before."""
        with self._observer.around("write_at", "spool"):
            self._inner.write_at(offset, data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes, as the storage gives them back."""
        with self._observer.around("read_at", "spool"):
            return self._inner.read_at(offset, size)

    def commit(self, name: str) -> None:
        """Make the bytes durable, then the name; the spool is closed."""
        begun = False
        try:
            with self._observer.around("commit", name):
                begun = True
                self._inner.commit(name)
        except StorageError:
            if not begun:  # a commit that fails abandons, wherever in it that happens
                self._inner.abandon()
            raise

    def abandon(self) -> None:
        """Drop everything; never raises."""
        self._inner.abandon()


class ObservedStorage(Storage):
    """A storage that tells an observer of every operation and has another one do it.

    A `put` goes through a spool, so that something can happen between the bytes and the name;
    with `whole_puts` the storage's own `put` is used, in one step.
    """

    def __init__(self, storage: Storage, observer: Observer, *, whole_puts: bool = False) -> None:
        self.inner = storage
        self.url = storage.url
        self.is_near = storage.is_near
        self.is_far = storage.is_far
        self._observer = observer
        self._whole_puts = whole_puts

    @property
    def place(self) -> str:
        """Return what names this place and no other."""
        return self.inner.place

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def make_directories(self, names: list[str]) -> None:
        """Create folders, on storages that have a need for them."""
        with self._observer.around("make_directories", ""):
            self.inner.make_directories(names)

    def put(self, name: str, data: Buffer) -> None:
        """Store `data` under `name`, replacing what was there in one step."""
        if self._whole_puts:
            with self._observer.around("put", name):
                self.inner.put(name, data)
            return
        spool = self.spool()
        try:
            spool.write(data)
            spool.commit(name)
        except BaseException:
            spool.abandon()
            raise

    def put_if_absent(self, name: str, data: Buffer) -> bool:
        """Store `data` unless the name exists; return whether it was stored."""
        with self._observer.around("put_if_absent", name):
            return self.inner.put_if_absent(name, data)

    def get(self, name: str, limit: int) -> bytes:
        """Return all bytes; raises ObjectMissing, or Damaged above `limit` bytes."""
        with self._observer.around("get", name):
            return self.inner.get(name, limit)

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only where the file ends."""
        with self._observer.around("get_range", name):
            return self.inner.get_range(name, offset, size)

    def size(self, name: str) -> int:
        """Return the size in bytes; raises ObjectMissing."""
        with self._observer.around("size", name):
            return self.inner.size(name)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (name, size) of every stored name below the folder `prefix`, in no order."""
        with self._observer.around("list", prefix):
            yield from self.inner.list(prefix)

    def delete(self, name: str) -> None:
        """Remove a name durably; removing one that is gone is no error."""
        with self._observer.around("delete", name):
            self.inner.delete(name)

    def move(self, name: str, new_name: str) -> None:
        """Give a file another name instead of its own, durably; raises ObjectMissing."""
        with self._observer.around("move", name):
            self.inner.move(name, new_name)

    def keep(self, name: str, new_name: str) -> None:
        """Give a file a second name, durably; raises ObjectMissing."""
        with self._observer.around("keep", name):
            self.inner.keep(name, new_name)

    def spool(self) -> Spool:
        """Begin a large file whose name is known only at its end."""
        spool: Spool | None = None
        try:
            with self._observer.around("create", "spool"):
                spool = self.inner.spool()
        except BaseException:
            if spool is not None:
                spool.abandon()
            raise
        return ObservedSpool(spool, self._observer)

    def drop_cached(self, name: str) -> bool:
        """Let the next read of a name come from the medium; return whether that was asked for."""
        return self.inner.drop_cached(name)

    def disk_position(self, name: str) -> int:
        """Return what orders names as they lie on the medium; 0 if that is not known."""
        return self.inner.disk_position(name)

    def free(self) -> int | None:
        """Return the bytes that fit in it still, None where that cannot be told."""
        return self.inner.free()

    def close(self) -> None:
        """Release what is held."""
        self.inner.close()
