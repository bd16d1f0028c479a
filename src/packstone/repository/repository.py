"""Objects by id: create and open a repository, get readers and writers of it.

Implements docs/format.md §1, §3, §8. Knows nothing of the user's files. Invariant: what is
handed out works on a repository whose format and features this program knows, under a lock.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from packstone.codec.compression import Compressor
from packstone.codec.encryption import Sealer
from packstone.codec.hashing import Hasher, plain_family
from packstone.codec.keys import Argon2, Secrets, check_new
from packstone.errors import (
    Damaged,
    ObjectMissing,
    StorageFull,
    UsageError,
    WrongPassphrase,
)
from packstone.repository import keyring, layout
from packstone.repository.bases import BaseFinder
from packstone.repository.index import Index
from packstone.repository.known import (
    cache_directory,
    index_directory,
    place_digest,
    refuse_downgrade,
    remember,
    remember_index,
)
from packstone.repository.layout import Config, State
from packstone.repository.locks import Waiting
from packstone.repository.opening import prepare_locks, storage_at, take_lock
from packstone.repository.reader import ObjectReader
from packstone.repository.reserve import keep_reserve, release_reserve, room_on
from packstone.repository.snapshots import SnapshotRow, list_snapshots
from packstone.repository.sweep import Sweep, newest, read_newest_state
from packstone.repository.view import discard_view
from packstone.repository.writer import ObjectWriter
from packstone.storage.base import Storage, as_directory, local_path
from packstone.storage.local import LocalStorage
from packstone.storage.urls import is_remote

_LOCATION = "index/location"
_FRESH = 60.0  # seconds for which one listing of packs is new enough, where listings are paid for


class ObjectRepository:
    """An open repository, held under a shared lock until `close`.

    `passphrase` opens an encrypted one; a function is called only if it is one. `warnings`
    collects what went well but should be known.
    """

    def __init__(
        self,
        location: str,
        *,
        passphrase: Passphrase = None,
        index_dir: str | None = None,
        waiting: Waiting | None = None,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.warnings: list[str] = []
        self.storage = _storage_at(location)
        found = layout.read_config(self.storage, self.warnings.append)
        self.repository_id, self.encrypted, self.config = found
        self.lock = take_lock(self.storage, exclusive=False, waiting=waiting)
        self.secrets: Secrets | None = None
        self.slot_id = ""  # of the key slot that opened
        self.sealer = Sealer(self.repository_id)
        try:
            if self.encrypted:
                self._unlock(passphrase)
            else:
                refuse_downgrade(self.storage, self.repository_id, passphrase)
            layout.check_features(self.storage, self.sealer, writing=False)
            self.hasher = Hasher(self.secrets.family if self.secrets else plain_family())
            if self.hasher.fingerprint != self.config.family:
                raise Damaged(
                    "config names another family secret than this repository has",
                    name=layout.CONFIG,
                    expected=self.config.family.hex(),
                    found=self.hasher.fingerprint.hex(),
                )
        except BaseException:
            self.lock.release()
            raise
        self.random = random
        self._refreshed = 0.0
        self._index_dir = index_dir
        self._opening = threading.Lock()
        self._index: Index | None = None
        self._no_room: StorageFull | None = None  # why the index is not where it should be
        self._reader: ObjectReader | None = None
        self.damaged_packs: list[Damaged] = []

    def _unlock(self, passphrase: Passphrase) -> None:
        """Get the secrets, and authenticate with them what was read without them."""
        given = passphrase() if callable(passphrase) else passphrase
        if given is None:
            raise WrongPassphrase(
                f"the repository at {self.storage.url} is encrypted and no passphrase was given",
                hint="Set PACKSTONE_PASSPHRASE_FILE, PACKSTONE_PASSPHRASE_COMMAND or "
                "PACKSTONE_PASSPHRASE",
            )
        self.secrets, self.slot_id = keyring.unlock(
            self.storage, self.repository_id, given, self.warnings.append
        )
        self.sealer = Sealer(self.repository_id, self.secrets.sealing)
        self.config = layout.read_config(self.storage, self.warnings.append, self.sealer).config
        remember(self.storage, self.repository_id, encrypted=True)

    @property
    def index(self) -> Index:
        """The view of the packs, opened and brought up to date at its first use."""
        with self._opening:
            if self._index is None:
                directory = self._index_dir or self._default_index_dir()
                try:
                    self._index = self._open_index(directory)
                except StorageFull as error:
                    # What is on a full disk must be read, and pruned, all the same.
                    elsewhere = os.path.join(cache_directory(), self._index_name())
                    if self._index_dir or elsewhere == directory:
                        raise
                    self._index = self._open_index(elsewhere)
                    self._no_room = error
                    self.warnings.append(f"{error.message}. {elsewhere} is used instead")
                self.warnings.extend(error.message for error in self.damaged_packs)
            return self._index

    def _bring_index_home(self) -> None:
        """Have the index where it belongs before anything is written; raises StorageFull."""
        if self._no_room is not None:
            self._close_index()  # there may be room by now
        _ = self.index
        error = self._no_room
        if error is not None:
            self._close_index()
            raise error

    def _open_index(self, directory: str) -> Index:
        index = Index(directory, self.sealer)
        try:
            self.damaged_packs = index.refresh(self.storage)
            self._refreshed = time.monotonic()
        except BaseException:
            index.close()
            raise
        return index

    def _index_name(self) -> str:
        # A copy of a repository has its id and not its packs: the place is part of the name.
        return f"{self.repository_id.hex()}-{place_digest(self.storage)[:16]}"

    def _default_index_dir(self) -> str:
        name = self._index_name()
        if self.encrypted:
            # It tells ids, sizes and fingerprints: storage has no say in where it goes.
            return os.path.join(index_directory(self.repository_id) or cache_directory(), name)
        directory = as_directory(self.storage)
        if directory is None:
            return os.path.join(index_directory(self.repository_id) or cache_directory(), name)
        location = Path(directory.full_path(_LOCATION))
        if location.is_file():
            chosen = location.read_text().strip()
            if os.path.isdir(chosen):
                return os.path.join(chosen, name)
        elif os.access(directory.path, os.W_OK):
            return directory.full_path("index")
        return os.path.join(cache_directory(), name)

    def discard_index(self) -> None:
        """Delete the view's files, whatever is in them: its next use makes it anew."""
        with self._opening:
            if self._index is not None:
                self._index.close()
            self._index = self._reader = None
            discard_view(self._index_dir or self._default_index_dir())

    @property
    def reader(self) -> ObjectReader:
        """The reader of objects, shared by all who read."""
        if self._reader is None:
            self._reader = ObjectReader(
                self.storage,
                self.index,
                self.hasher,
                self.sealer,
                Compressor(self.config.level),
                self.warnings.append,
            )
        return self._reader

    def bases(self) -> BaseFinder:
        """Return what finds chunks that new ones may be deltas against."""
        return BaseFinder(self.index, self.config.delta_versions)

    def writer(
        self, *, level: int | None = None, dry_run: bool = False, on_full_disk: bool = False
    ) -> ObjectWriter:
        """Begin a writing session; raises UnsupportedFormat when a feature forbids it.

        Raises StorageFull where there was no room for the index, unless `on_full_disk`.
        """
        layout.check_features(self.storage, self.sealer, writing=True)
        generation = self.generation() if dry_run else self._begin_writing()
        if not (dry_run or on_full_disk):
            self._bring_index_home()
        # What others have stored since is not stored again; asking costs where storage is far.
        index = self.index
        if not self.storage.is_far or time.monotonic() - self._refreshed > _FRESH:
            index.refresh(self.storage)
        return ObjectWriter(
            self.storage,
            self.index,
            self.hasher,
            self.sealer,
            self.reader,
            level=level or self.config.level,
            pack_size=self.config.pack_size,
            largest_chunk=4 * self.config.average,
            generation=generation,
            random=self.random,
            dry_run=dry_run,
            lock=self.lock,
        )

    def keep_reserve(self) -> None:
        """Keep room for a prune on a full disk."""
        directory = as_directory(self.storage)
        if directory is not None:
            keep_reserve(directory, self.random)

    def release_reserve(self) -> None:
        """Give that room to whoever prunes."""
        directory = as_directory(self.storage)
        if directory is not None:
            release_reserve(directory)

    def room(self) -> int | None:
        """Return the bytes that packs may take on the disk; None where nobody can say.

        The index is left as much as it has: in the worst case it writes all of its pages anew.
        """
        directory = as_directory(self.storage)
        room = None if directory is None else room_on(directory)
        return None if room is None else room - self.index.size()

    def generation(self) -> bytes:
        """Return the generation; raises Damaged when the state is older than one seen before."""
        return read_newest_state(self.storage, self.sealer).generation

    def _begin_writing(self) -> bytes:
        """Return the generation, by the listing of snapshots where that told it."""
        data = self.storage.get_recent(layout.STATE, layout.MAX_ENVELOPE)
        state = newest(self.storage, self.sealer, data)
        return state.generation if state.sweep is None else self.end_cut_off_sweep()

    def end_cut_off_sweep(self) -> bytes:
        """End a sweep that was cut off, if there is one; return the generation.

        What it meant to delete is forgotten. Raises RepositoryLocked while others work.
        """
        state = read_newest_state(self.storage, self.sealer)
        if state.sweep is None:
            return state.generation
        with self.sweep() as sweep:
            self.warnings.append("a sweep was cut off before; it is ended now")
        return sweep.generation

    def sweep(self) -> Sweep:
        """Exchange the shared lock for the exclusive one, to delete packs; a context manager."""
        layout.check_features(self.storage, self.sealer, writing=True)
        return Sweep(self.storage, self.sealer, self.index, self.lock, self.random)

    def snapshots(self) -> list[SnapshotRow]:
        """Return all readable snapshots, oldest first; damaged ones become warnings."""
        rows, damaged = list_snapshots(self.storage, self.sealer)
        if self._reader is not None:
            self._reader.may_refresh = True
        self.warnings.extend(error.message for error in damaged)
        return rows

    def release_lock(self) -> None:
        """Give the lock back and go on reading: packs may vanish from now on."""
        self.lock.release()

    def close(self) -> None:
        """Release the lock and the view."""
        self._close_index()
        self.lock.release()
        self.storage.close()

    def _close_index(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None
        self._reader = None
        self._no_room = None


def _storage_at(location: str) -> Storage:
    return storage_at(location) if is_remote(location) else LocalStorage(local_path(location))


def _check_directory(storage: LocalStorage) -> None:
    if os.path.lexists(storage.path) and not os.path.isdir(storage.path):
        raise UsageError(f"{storage.path} is not a directory")
    if os.path.isdir(storage.path) and os.listdir(storage.path):
        if os.path.exists(storage.full_path(layout.CONFIG)):
            raise UsageError(f"there is a repository at {storage.path} already")
        raise UsageError(
            f"{storage.path} is not empty and not a repository", hint="Name a new directory"
        )


def _check_prefix(storage: Storage) -> None:
    """Refuse a prefix that holds a repository; what lies beside it is not looked at."""
    try:
        storage.size(layout.CONFIG)
    except ObjectMissing:
        return
    raise UsageError(f"there is a repository at {storage.url} already")


_DEFAULT_COST = Argon2()
Passphrase = str | bytes | Callable[[], str | bytes | None] | None


def init(
    location: str,
    *,
    average: int,
    pack_size: int,
    level: int,
    delta_versions: int = layout.DEFAULT_VERSIONS,
    passphrase: str | bytes | None = None,
    family: bytes | None = None,
    cost: Argon2 = _DEFAULT_COST,
    index_dir: str | None = None,
    clock: Callable[[], int] = time.time_ns,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> dict[str, int]:
    """Create a repository in a directory that is missing or empty; sizes in bytes.

    Returns the requests that its storage was asked, as `Storage.requests` counts them.

    It is encrypted if there is a passphrase, with the family secret of another repository if
    that is given. Raises UsageError for parameters out of bounds and for a directory that is in
    use, StorageError when it cannot be written.
    """
    wrong = layout.check_parameters(average, pack_size, level, delta_versions)
    if wrong:
        raise UsageError(wrong)
    storage = _storage_at(location)
    directory = as_directory(storage)
    if directory is not None:
        _check_directory(directory)
    else:
        _check_prefix(storage)
    if passphrase is not None:
        check_new(passphrase, cost)  # nothing is left behind by what cannot be
    storage.make_directories(layout.DIRECTORIES)
    if directory is None:
        prepare_locks(storage)
    repository_id = random(16)
    created_ns = clock()
    sealer = Sealer(repository_id)
    if passphrase is None:
        family = plain_family()
    else:
        made = Secrets(family or random(32), random(32))
        family = made.family
        sealer = Sealer(repository_id, made.sealing)
        # Before config: a repository that says it is encrypted has a key.
        keyring.store_slot(
            storage,
            made,
            passphrase,
            repository_id=repository_id,
            salt=random(32),
            created_ns=created_ns,
            cost=cost,
        )
    config = Config(
        created_ns=created_ns,
        family=Hasher(family).fingerprint,
        average=average,
        pack_size=pack_size,
        level=level,
        delta_versions=delta_versions,
    )
    if index_dir is not None:
        try:
            os.makedirs(index_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot use {index_dir} for the index: {error.strerror}") from error
        if passphrase is None and directory is not None:
            storage.make_directories(["index"])
            storage.put(_LOCATION, os.path.abspath(index_dir).encode() + b"\n")
        else:
            remember_index(repository_id, os.path.abspath(index_dir))
    if directory is not None:
        storage.put("lock", b"")
    state = State(generation=random(16))
    storage.put(layout.STATE, layout.encode_state(state, sealer, random(32)))
    encoded = layout.encode_config(config, sealer, random(32))
    # config comes last: a repository without it was never finished and is none.
    storage.put(layout.CONFIG_COPY, encoded)
    storage.put(layout.CONFIG, encoded)
    remember(storage, repository_id, encrypted=passphrase is not None)
    return storage.requests()
