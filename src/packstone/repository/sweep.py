"""Delete packs, or put them away, under the exclusive lock: generation, marker, then the packs.

Implements the sweep of docs/format.md §7. Invariants: a new generation and the marker are durable
before the first pack goes, so no writer that began before can commit what it thinks is there; a
sweep that was cut off is ended by the next writer, and what it meant to delete is forgotten.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Collection
from types import TracebackType

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged, GenerationChanged, ObjectMissing, StorageError
from packstone.repository.index import Index
from packstone.repository.known import follow_serial
from packstone.repository.layout import (
    MAX_ENVELOPE,
    STATE,
    State,
    decode_state,
    encode_state,
    pack_name,
)
from packstone.repository.locks import HeldLock
from packstone.storage.base import Spool, Storage

_BATCH = 1000  # packs deleted between two looks at the lock, and in one request where that can be

QUARANTINE = "quarantine"  # nothing in it is ever read by this program


def read_newest_state(storage: Storage, sealer: Sealer) -> State:
    """Return the state; raises Damaged when it is older than one that was seen here before."""
    return newest(storage, sealer, storage.get(STATE, MAX_ENVELOPE))


def newest(storage: Storage, sealer: Sealer, data: bytes) -> State:
    """Return what `state` says; raises Damaged when it is older than one that was seen here."""
    state = decode_state(data, sealer)
    seen = follow_serial(storage, sealer.repository_id, state.serial)
    if seen > state.serial:
        # Another process may have swept, and noted it here, since `data` was read.
        state = decode_state(storage.get(STATE, MAX_ENVELOPE), sealer)
    if seen > state.serial:
        raise Damaged(
            f"state is older than one that was here before: number {state.serial}, seen {seen}",
            name=STATE,
            expected=str(seen),
            found=str(state.serial),
            hint="Somebody put an old copy in its place. Nothing was changed",
        )
    return state


class Sweep:
    """The exclusive lock, and what is deleted under it; a context manager.

    Entering it raises RepositoryLocked while anyone else works with the repository. Others may
    have added snapshots, or swept, since the shared lock was exchanged: look again inside.
    """

    def __init__(
        self,
        storage: Storage,
        sealer: Sealer,
        index: Index,
        lock: HeldLock,
        random: Callable[[int], bytes],
    ) -> None:
        self._storage = storage
        self._sealer = sealer
        self._index = index
        self._lock = lock
        self._random = random
        self._begun = False
        self._found = False  # a marker
        self.generation = b""

    def __enter__(self) -> Sweep:
        self._lock.upgrade()
        try:
            version = self._storage.get_version(STATE, MAX_ENVELOPE)
            state = newest(self._storage, self._sealer, version.data)
            self._tag = version.tag
            self.generation, self._serial = state.generation, state.serial
            self._begun = self._found = state.sweep is not None
            self._clear_temporary()
        except BaseException:
            self._lock.downgrade()
            raise
        return self

    def delete(self, pack_ids: Collection[str]) -> None:
        """Delete packs; the caller has proved under this very lock that nobody needs them."""
        if not pack_ids:
            return
        self._begin()
        names = [pack_name(pack_id) for pack_id in sorted(pack_ids)]
        for start in range(0, len(names), _BATCH):
            # Who took this lock for dead counts on what is still there.
            self._lock.check()
            self._storage.delete_many(names[start : start + _BATCH])

    def quarantine(self, names: Collection[str]) -> dict[str, str]:
        """Move stored files out of use, where only people look; return their new names.

        The caller has seen to it that nothing which can be read in them is only there.
        """
        moved: dict[str, str] = {}
        if names:
            self._begin()
        for name in sorted(names):
            moved[name] = self._free_name(name)
            self._storage.move(name, moved[name])
        return moved

    def replace(self, pack_id: str, whole: Spool) -> str:
        """Put a whole file in the place of a damaged pack; return the name that one has now.

        The caller has compared the bytes of `whole` with the id. At no moment is there no pack:
        the damaged one has its second name before it loses its first.
        """
        self._begin()
        name = pack_name(pack_id)
        kept = self._free_name(name)
        self._storage.keep(name, kept)
        whole.commit(name)
        return kept

    def _begin(self) -> None:
        """Make a new generation and the marker durable, once."""
        if not self._begun or self._found:
            self._write(marker=self._random(16))
            self._begun, self._found = True, False

    def _free_name(self, name: str) -> str:
        """Return a name in quarantine that nothing has: a pack may be damaged twice."""
        first, _slash, last = name.partition("/")
        wanted = found = f"{QUARANTINE}/{first}/{last.rpartition('/')[2]}"
        for number in itertools.count(1):
            try:
                self._storage.size(found)
            except ObjectMissing:
                break
            found = f"{wanted}.{number}"
        return found

    def _write(self, marker: bytes | None) -> None:
        if marker is not None:
            self.generation = self._random(16)
        self._serial += 1
        state = State(generation=self.generation, sweep=marker, serial=self._serial)
        self._lock.check(surely=True)
        data = encode_state(state, self._sealer, self._random(32))
        tag = self._storage.replace(STATE, data, self._tag)
        if tag is None:
            raise GenerationChanged(
                "state was changed by somebody else under the exclusive lock",
                hint="Nothing was deleted since. Run the same command again",
            )
        self._tag = tag
        follow_serial(self._storage, self._sealer.repository_id, self._serial)

    def _clear_temporary(self) -> None:
        """Put away what killed writers left: nobody else writes now."""
        if self._storage.is_far:
            return  # what is on its way to an object store is invisible there
        # Listed first: a listing is complete or an error.
        for name, _size in list(self._storage.list("tmp")):
            self._storage.delete(name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self._end()
        finally:
            # What was cut off keeps its marker, and the next writer ends it.
            with contextlib.suppress(StorageError) if error else contextlib.nullcontext():
                self._lock.downgrade()

    def _end(self) -> None:
        """Let the view follow, then take the marker away."""
        if not self._begun:
            return
        self._index.refresh(self._storage)
        if self._found:
            self.generation = self._random(16)  # of the sweep that was cut off, too
        self._write(marker=None)
