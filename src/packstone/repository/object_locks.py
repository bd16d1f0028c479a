"""Locks of a repository in an object store: objects that expire unless they are renewed.

Each holder has an object `locks/<kind>-<lifetime>-<random>` of its own, kind `s` shared, `x`
exclusive, `k` for key slots, lifetime in seconds. Whoever wants a lock first puts its object and
then lists all: of two who exclude each other at least one sees the other. Time is the store's
own: an object is as old as its time of modification is behind that of the object just put, in one
and the same listing; no local clock is ever compared with another.

Invariants: whoever goes on in spite of an expired lock has deleted it first, and lists snapshots
after that; a holder makes sure that its object is there after its snapshot is, and withdraws the
snapshot otherwise. So nobody commits under a lock that another took for dead.
Implements docs/format.md §1, locks.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import secrets
import socket
import threading
import time
from datetime import UTC, datetime

import msgspec

from packstone.errors import (
    GenerationChanged,
    ObjectMissing,
    PackstoneError,
    RepositoryLocked,
    StorageError,
    StorageUnavailable,
)
from packstone.repository.cached import CachedStorage
from packstone.repository.locks import NOTE_SIZE, Holder, Waiting, decode_note
from packstone.storage.objects import Listed

FOLDER = "locks"
ALONE = "locks/alone"  # the store keeps no conditions: one at a time, whatever it does
LIFETIME = 15 * 60  # seconds that a lock lives after it was renewed last
_SHARED, _EXCLUSIVE, _KEYS = "s", "x", "k"
_NAME = re.compile(r"locks/([sxk])-([1-9][0-9]{0,5})-[0-9a-f]{16}")
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 5.0  # seconds between two tries
_PROVED = 4  # parts of a lifetime for which one look at the own lock is enough


def _elapsed() -> float:
    """Return seconds on a clock that also runs while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class _Own:
    """One lock object of this process."""

    def __init__(self, kind: str, lifetime: int) -> None:
        self.kind = kind
        self.name = f"{FOLDER}/{kind}-{lifetime}-{secrets.token_hex(8)}"
        self.data = b""
        self.tag = ""


class ObjectLock:
    """A held lock, renewed by a thread of its own until `release`."""

    def __init__(
        self,
        storage: CachedStorage,
        *,
        exclusive: bool,
        keys: bool = False,
        waiting: Waiting | None = None,
        lifetime: int | None = None,
    ) -> None:
        """Take the lock; raises RepositoryLocked when it is not free in time, StorageError."""
        self._storage = storage
        self._waiting = waiting or Waiting()
        given = lifetime or int(os.environ.get("PACKSTONE_LOCK_LIFETIME", LIFETIME))
        self._lifetime = max(2, min(given, 999_999))
        self._held: list[_Own] = []
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self._lost: PackstoneError | None = None
        self._alone = False
        self._proved = 0.0
        kind = _KEYS if keys else _EXCLUSIVE if exclusive else _SHARED
        self._take(kind)
        self._renewer = threading.Thread(target=self._renew_all, daemon=True)
        self._renewer.start()

    # -- taking -----------------------------------------------------------------------------

    def _put(self, kind: str) -> _Own:
        own = _Own(kind, self._lifetime)
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        holder = Holder(socket.gethostname(), os.getpid(), now, kind != _SHARED)
        own.data = msgspec.json.encode(holder)
        begun = _elapsed()
        if not self._storage.put_if_absent(own.name, own.data):
            raise StorageUnavailable(f"a random name, {own.name}, is taken")
        self._proved = begun
        return own

    def _take(self, kind: str) -> None:
        deadline = time.monotonic() + self._waiting.timeout
        pause = _FIRST_WAIT
        told = False
        while True:
            own = self._put(kind)
            try:
                others = self._others(own)
            except BaseException:
                self._drop(own)
                raise
            if not others:
                with self._changing:
                    self._held.append(own)
                return
            self._drop(own)
            left = deadline - time.monotonic()
            if left <= 0:
                raise RepositoryLocked(
                    f"another process holds a lock on {self._storage.url} that excludes "
                    f"{_called(kind)} one: {self._whose(others)}",
                    hint="Run again when it has finished, or wait for it with --lock-timeout; "
                    "the lock of a process that is gone expires by itself",
                )
            if not told:
                told = True
                self._waiting.tell(
                    f"waiting for {_called(kind)} lock on {self._storage.url}: "
                    f"{self._whose(others)}"
                )
            # Two that met would meet again after equal pauses.
            time.sleep(min(left, pause * (0.5 + random.random())))
            pause = min(2 * pause, _LONGEST_WAIT)

    def _others(self, own: _Own) -> list[tuple[Listed, float]]:
        """Return who excludes `own`, and in how many seconds each expires; the dead are deleted."""
        rows = self._storage.scan(f"{FOLDER}/", f"{FOLDER}0")
        mine = [row for row in rows if row.name == own.name]
        if not mine:
            raise StorageUnavailable(
                f"{self._storage.url} does not list what was just stored",
                hint="Nothing was changed. A store whose listings lag cannot hold a repository",
            )
        own.tag = mine[0].tag
        now = mine[0].modified
        alone = self._alone = any(row.name == ALONE for row in rows)
        held = {each.name for each in self._held}
        found: list[tuple[Listed, float]] = []
        for row in rows:
            parts = _NAME.fullmatch(row.name)
            if parts is None or row.name == own.name or row.name in held:
                continue
            left = int(parts[2]) - (now - row.modified).total_seconds()
            if left <= 0:
                # Deleted before anything is done in spite of it: see the module.
                self._storage.delete(row.name)
            elif alone or _excludes(own.kind, parts[1]):
                found.append((row, left))
        return found

    def _whose(self, others: list[tuple[Listed, float]]) -> str:
        texts: list[str] = []
        for row, left in others[:3]:
            until = f"its lock expires in {_minutes(left)} unless it is renewed"
            try:
                holder = decode_note(self._storage.get(row.name, NOTE_SIZE))
            except ObjectMissing:
                who = "one that has just gone"
            except PackstoneError:
                who = "one that cannot be read"
            else:
                who = "one that cannot be read"
                if holder is not None:
                    kind = " (exclusive)" if holder.exclusive else ""
                    who = f"process {holder.pid} on {holder.host} since {holder.since}{kind}"
            texts.append(f"{who}, {until}")
        more = len(others) - len(texts)
        return "; ".join(texts) + (f"; and {more} more" if more else "")

    def _drop(self, own: _Own) -> None:
        with contextlib.suppress(StorageError):
            self._storage.delete(own.name)

    # -- holding ----------------------------------------------------------------------------

    def _renew_all(self) -> None:
        while not self._ended.wait(self._lifetime / 5):
            with self._changing:
                for own in self._held:
                    if self._ended.is_set():
                        return
                    try:
                        begun = _elapsed()
                        if self._alone:  # nothing tells a lock that is gone from one that is not
                            self._storage.head(own.name)
                        tag = self._storage.replace(own.name, own.data, own.tag)
                    except ObjectMissing:
                        tag = None
                    except StorageError:
                        continue  # it lives on for now; `check` asks the store itself
                    if tag is None:
                        self._lose(own)
                    else:
                        own.tag = tag
                        self._proved = begun

    def _lose(self, own: _Own) -> None:
        self._lost = GenerationChanged(
            f"the lock {own.name} expired and is gone: this process was held up for too long",
            hint="Nothing was committed. Run the same command again",
        )

    def check(self, *, surely: bool = False) -> None:
        """Raise unless the lock is still held; asks the store if `surely` or it is long ago."""
        if self._lost is not None:
            raise self._lost
        if not surely and 0 <= _elapsed() - self._proved < self._lifetime / _PROVED:
            return
        with self._changing:
            for own in self._held:
                begun = _elapsed()
                try:
                    self._storage.head(own.name)
                except ObjectMissing:
                    self._lose(own)
                    assert self._lost is not None
                    raise self._lost from None
                self._proved = begun

    def upgrade(self) -> None:
        """Take the exclusive lock beside the shared one; raises RepositoryLocked."""
        self.check()
        self._take(_EXCLUSIVE)

    def downgrade(self) -> None:
        """Give the exclusive lock back and keep the shared one."""
        with self._changing:
            given = [own for own in self._held if own.kind == _EXCLUSIVE]
            self._held = [own for own in self._held if own.kind != _EXCLUSIVE]
        for own in given:
            self._drop(own)

    def release(self) -> None:
        """Give the lock back; calling it again does nothing."""
        self._ended.set()
        with self._changing:
            held, self._held = self._held, []
        for own in held:
            self._drop(own)


def holders(storage: CachedStorage) -> list[Holder]:
    """Return who says to hold a lock of the repository, the dead among them."""
    found: list[Holder] = []
    for name, _size in storage.list(FOLDER):
        with contextlib.suppress(PackstoneError):
            if (holder := decode_note(storage.get(name, NOTE_SIZE))) is not None:
                found.append(holder)
    return found


def _excludes(kind: str, other: str) -> bool:
    if _KEYS in (kind, other):
        return kind == other
    return _EXCLUSIVE in (kind, other)


def _called(kind: str) -> str:
    return {"s": "a shared", "x": "an exclusive", "k": "a key slot"}[kind]


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
