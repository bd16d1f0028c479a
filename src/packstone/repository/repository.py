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
from packstone.codec.hashing import Hasher, plain_family
from packstone.errors import Damaged, UnsupportedFormat, UsageError
from packstone.repository import layout
from packstone.repository.index import Index
from packstone.repository.layout import Config, State
from packstone.repository.locks import Lock
from packstone.repository.reader import ObjectReader
from packstone.repository.snapshots import SnapshotRow, list_snapshots
from packstone.repository.writer import ObjectWriter
from packstone.storage.base import local_path
from packstone.storage.local import LocalStorage

_LOCATION = "index/location"


class ObjectRepository:
    """An open repository, held under a shared lock until `close`.

    `warnings` collects what went well but should be known.
    """

    def __init__(
        self,
        location: str,
        *,
        index_dir: str | None = None,
        random: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.warnings: list[str] = []
        self.storage = LocalStorage(local_path(location))
        self.repository_id, self.config = layout.read_config(self.storage, self.warnings.append)
        self.lock = Lock(self.storage, exclusive=False)
        try:
            layout.check_features(self.storage, self.repository_id, writing=False)
            self.hasher = Hasher(plain_family())
            if self.hasher.fingerprint != self.config.family:
                raise UnsupportedFormat(
                    "the repository is encrypted, which this version does not support"
                )
        except BaseException:
            self.lock.release()
            raise
        self._random = random
        self._index_dir = index_dir
        self._opening = threading.Lock()
        self._index: Index | None = None
        self._reader: ObjectReader | None = None
        self.damaged_packs: list[Damaged] = []

    @property
    def index(self) -> Index:
        """The view of the packs, opened and brought up to date at its first use."""
        with self._opening:
            if self._index is None:
                directory = self._index_dir or self._default_index_dir()
                index = Index(directory, self.repository_id)
                self.damaged_packs = index.refresh(self.storage)
                self.warnings.extend(error.message for error in self.damaged_packs)
                self._index = index
            return self._index

    def _default_index_dir(self) -> str:
        location = Path(self.storage.full_path(_LOCATION))
        if location.is_file():
            chosen = location.read_text().strip()
            if os.path.isdir(chosen):
                return os.path.join(chosen, self.repository_id.hex())
        elif os.access(self.storage.path, os.W_OK):
            return self.storage.full_path("index")
        return os.path.join(_cache_directory(), self.repository_id.hex())

    @property
    def reader(self) -> ObjectReader:
        """The reader of objects, shared by all who read."""
        if self._reader is None:
            self._reader = ObjectReader(
                self.storage,
                self.index,
                self.hasher,
                self.repository_id,
                Compressor(self.config.level),
                self.warnings.append,
            )
        return self._reader

    def writer(self, *, level: int | None = None, dry_run: bool = False) -> ObjectWriter:
        """Begin a writing session; raises UnsupportedFormat when a feature forbids it."""
        layout.check_features(self.storage, self.repository_id, writing=True)
        self.index.refresh(self.storage)  # what others have stored since is not stored again
        return ObjectWriter(
            self.storage,
            self.index,
            self.hasher,
            self.repository_id,
            level=level or self.config.level,
            pack_size=self.config.pack_size,
            random=self._random,
            dry_run=dry_run,
        )

    def snapshots(self) -> list[SnapshotRow]:
        """Return all readable snapshots, oldest first; damaged ones become warnings."""
        rows, damaged = list_snapshots(self.storage, self.repository_id)
        if self._reader is not None:
            self._reader.may_refresh = True
        self.warnings.extend(error.message for error in damaged)
        return rows

    def close(self) -> None:
        """Release the lock and the view."""
        if self._index is not None:
            self._index.close()
            self._index = None
        self._reader = None
        self.lock.release()


def init(
    location: str,
    *,
    average: int,
    pack_size: int,
    level: int,
    index_dir: str | None = None,
    clock: Callable[[], int] = time.time_ns,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """Create a plain repository in a directory that is missing or empty; sizes in bytes.

    Raises UsageError for parameters out of bounds and for a directory that is in use,
    StorageError when it cannot be written.
    """
    wrong = layout.check_parameters(average, pack_size, level)
    if wrong:
        raise UsageError(wrong)
    storage = LocalStorage(local_path(location))
    if os.path.lexists(storage.path) and not os.path.isdir(storage.path):
        raise UsageError(f"{storage.path} is not a directory")
    if os.path.isdir(storage.path) and os.listdir(storage.path):
        if os.path.exists(storage.full_path(layout.CONFIG)):
            raise UsageError(f"there is a repository at {storage.path} already")
        raise UsageError(
            f"{storage.path} is not empty and not a repository", hint="Name a new directory"
        )
    storage.make_directories(layout.DIRECTORIES)
    repository_id = random(16)
    config = Config(
        created_ns=clock(),
        family=Hasher(plain_family()).fingerprint,
        average=average,
        pack_size=pack_size,
        level=level,
    )
    if index_dir is not None:
        try:
            os.makedirs(index_dir, mode=0o700, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot use {index_dir} for the index: {error.strerror}") from error
        storage.make_directories(["index"])
        storage.put(_LOCATION, os.path.abspath(index_dir).encode() + b"\n")
    storage.put("lock", b"")
    state = State(generation=random(16))
    storage.put(layout.STATE, layout.encode_state(state, repository_id, random(32)))
    encoded = layout.encode_config(config, repository_id, random(32))
    # config comes last: a repository without it was never finished and is none.
    storage.put(layout.CONFIG_COPY, encoded)
    storage.put(layout.CONFIG, encoded)


def _cache_directory() -> str:
    """Return where derived data of repositories goes that must not carry it themselves."""
    chosen = os.environ.get("PACKSTONE_CACHE_DIR")
    if chosen:
        return chosen
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "packstone")
