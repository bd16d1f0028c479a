"""A storage whose requests are paid for, behind a bounded cache on this machine's disk.

Knows the names of docs/format.md §1: what never changes under its name (snapshots, packs) is kept
and not asked for again; what changes (state, locks, listings) always comes from the store. Never
trusted: each cached piece carries a checksum and is fetched again when it does not fit. Deleting
the cache loses nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from packstone.codec.hashing import checksum
from packstone.errors import Damaged, ObjectMissing, StorageError, StorageUnavailable
from packstone.model import GIB, MIB, Buffer
from packstone.repository.ahead import Ahead, Piece
from packstone.repository.known import cache_directory, place_digest
from packstone.storage.base import Spool, Storage, Version
from packstone.storage.objects import Listed, ObjectStorage

BLOCK = 2 * MIB  # of a pack: what one request reads around a wanted record
CACHE_SIZE = GIB  # bytes on disk, unless PACKSTONE_CACHE_SIZE says otherwise
FETCHES = 16  # small requests on their way at once
_FRESH = 60.0  # seconds for which the listing made with the lock tells of the folders below
_SURVEYED = ("bundles", "features", "history", "keys")
_IMMUTABLE = ("config", "config.bak")
_SUM = 32
_UNREAD = 256 * MIB  # of packs that were fetched before they are read
_AROUND = 8  # blocks of one request at most, when few were announced
_SPARE = 365 * 86400  # seconds by which what is spare is older than it is


class CachedStorage(Storage):
    """An object store as seen through a cache; safe to use from several threads."""

    is_far = True

    def __init__(self, inner: ObjectStorage, *, budget: int | None = None) -> None:
        self.inner = inner
        self.url = inner.url
        self._disk = _DiskCache(
            os.path.join(cache_directory(), "objects", place_digest(inner)),
            _budget() if budget is None else budget,
        )
        self._memory: dict[str, bytes] = {}
        self._surveyed: Sequence[Listed] = []
        self._survey_time = -_FRESH
        self._state_tag = ""
        self._locks: dict[str, threading.Lock] = {}
        # Pack, block beside what was fetched → in which direction, how many blocks that was.
        self._edges: dict[tuple[str, int], tuple[int, int]] = {}
        self._guard = threading.Lock()
        most_unread = min(_UNREAD, self._disk.budget // 4) // BLOCK
        self._ahead = Ahead(self._stream, self._keep_piece, most_unread)

    @property
    def place(self) -> str:
        """Return what names this place and no other."""
        return self.inner.place

    def requests(self) -> dict[str, int]:
        """Return how many requests were sent, by verb, and their bytes."""
        return self.inner.requests()

    def limit(self, upload: int | None, download: int | None) -> None:
        """Hold transfers to these rates, in bytes per second."""
        self.inner.limit(upload, download)

    def make_directories(self, names: list[str]) -> None:
        """Prepare a new repository."""
        self.inner.make_directories(names)

    # -- listings ---------------------------------------------------------------------------

    def scan(self, after: str, until: str) -> Sequence[Listed]:
        """Return the names between two; with the locks come other small things, unasked."""
        if after != "locks/":
            return self.inner.scan(after, until)
        rows = self.inner.scan("", "packs/")  # the same request, a few names more
        self._surveyed, self._survey_time = rows, time.monotonic()
        return [row for row in rows if row.name.startswith("locks/")]

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (name, size) of every stored name below the folder `prefix`."""
        rows: Sequence[Listed]
        if prefix in _SURVEYED and time.monotonic() - self._survey_time < _FRESH:
            rows = [row for row in self._surveyed if row.name.startswith(prefix + "/")]
        elif prefix == "snapshots":
            known = self._disk.names("snapshots")  # before: others of this machine go on
            rows = self.inner.scan("snapshots/", "statf")  # to see the version of state behind it
            self._state_tag = next((row.tag for row in rows if row.name == "state"), "")
            rows = [row for row in rows if row.name.startswith("snapshots/")]
            for name in known.difference(row.name for row in rows):
                self._require_gone(name)
            self._fetch_snapshots([row.name for row in rows])
        else:
            rows = self.inner.scan(f"{prefix}/", f"{prefix}0")
        for row in rows:
            yield row.name, row.size

    def _fetch_snapshots(self, names: Sequence[str]) -> None:
        """Get snapshots that this machine has not seen, many at once."""
        unseen = [name for name in names if not self._disk.has(name)]
        if len(unseen) < 2:
            return

        def fetch(name: str) -> None:
            # What fails, or is larger, is asked for again, and told, by whoever needs it.
            with contextlib.suppress(StorageError, Damaged):
                self._keep_snapshot(name, self.inner.get(name, BLOCK))

        with ThreadPoolExecutor(FETCHES) as pool:
            list(pool.map(fetch, unseen))

    # -- small objects ----------------------------------------------------------------------

    def get(self, name: str, limit: int) -> bytes:
        """Return all bytes; raises ObjectMissing, or Damaged above `limit` bytes."""
        if name in self._memory:
            return self._memory[name]
        snapshot = name.startswith("snapshots/")
        if snapshot:
            found = self._disk.get(name)
            if found is not None and len(found) <= limit:
                return found
        version = self.get_version(name, limit)
        if name in _IMMUTABLE:
            self._memory[name] = version.data
        elif snapshot and not self._keep_snapshot(name, version.data):
            # Not what its name says: on the way, perhaps.
            version = self.get_version(name, limit)
            self._keep_snapshot(name, version.data)
        return version.data

    def _require_gone(self, name: str) -> None:
        """Refuse a listing without a snapshot that this machine has seen and that is there."""
        with contextlib.suppress(ObjectMissing):
            self.inner.head(name)
            raise StorageUnavailable(
                f"{self.url} does not list {name}, which is there",
                hint="Nothing was changed. A store whose listings lag cannot hold a repository",
            )
        self._disk.forget(name)

    def _keep_snapshot(self, name: str, data: bytes) -> bool:
        """Keep a snapshot's bytes if they are those that it is named by; return whether."""
        is_sound = checksum(data).hex() == _flat(name)
        if is_sound:
            self._disk.put(name, data)
        return is_sound

    def get_version(self, name: str, limit: int) -> Version:
        """Return all bytes and the tag of this version; raises as `get` does."""
        version = self.inner.get_version(name, limit)
        if name == "state":
            self._keep_state(version)
        return version

    def _keep_state(self, version: Version) -> None:
        # The tag of a version never comes again for other bytes: they hold a random salt.
        self._disk.put("state", version.tag.encode() + b"\n" + version.data)

    def get_recent(self, name: str, limit: int) -> bytes:
        """Return the bytes that a name had at the last listing that told of it, or has now."""
        tag, self._state_tag = self._state_tag, ""
        if name == "state" and tag:
            known, _, data = (self._disk.get("state") or b"").partition(b"\n")
            if known.decode("ascii", "replace") == tag and len(data) <= limit:
                return data
        return self.get(name, limit)

    def put(self, name: str, data: Buffer) -> None:
        """Store `data` under `name`, replacing what was there in one step."""
        self._memory.pop(name, None)
        if name.startswith(_SURVEYED):
            self._survey_time = -_FRESH
        self.inner.put(name, data)
        if name.startswith("snapshots/"):
            self._disk.put(name, bytes(data))

    def put_if_absent(self, name: str, data: Buffer) -> bool:
        """Store `data` unless the name exists; return whether it was stored."""
        if name.startswith(_SURVEYED):
            self._survey_time = -_FRESH
        return self.inner.put_if_absent(name, data)

    def replace(self, name: str, data: Buffer, tag: str) -> str | None:
        """Store `data` if the version of `name` is still that of `tag`; return the new tag."""
        found = self.inner.replace(name, data, tag)
        if found is not None and name == "state":
            self._keep_state(Version(bytes(data), found))
        return found

    def size(self, name: str) -> int:
        """Return the size in bytes; raises ObjectMissing."""
        return self.inner.size(name)

    def head(self, name: str) -> Listed:
        """Return what is known of a name; raises ObjectMissing."""
        return self.inner.head(name)

    # -- packs ------------------------------------------------------------------------------

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only where the file ends.

        A small range is read with what lies around it, for that is what is wanted next.
        """
        if not name.startswith("packs/") or size <= 0 or not self._disk.budget:
            return self.inner.get_range(name, offset, size)
        first, last = offset // BLOCK, (offset + size - 1) // BLOCK
        for number in range(first, last + 1):
            self._ahead.wait(name, number)
        fetched = self._fetch_missing(name, first, last)
        parts: list[bytes] = []
        for number in range(first, last + 1):
            block = fetched.get(number)
            if block is None:
                block = self._disk.get(f"{name}-{number}")
            if block is None:  # it went when room was needed, or was damaged
                block = self.inner.get_range(name, number * BLOCK, BLOCK)
            parts.append(block)
            if len(block) < BLOCK:
                break
        start = offset - first * BLOCK
        return b"".join(parts)[start : start + size]

    def _missing(self, name: str, first: int, last: int) -> Sequence[int]:
        return [n for n in range(first, last + 1) if not self._disk.has(f"{name}-{n}")]

    def _fetch_missing(self, name: str, first: int, last: int) -> dict[int, bytes]:
        """Fetch from the first to the last block that is not cached, in one request."""
        if not self._missing(name, first, last):
            return {}
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:  # two threads that want the same ask for it once
            missing = self._missing(name, first, last)
            if not missing:
                return {}
            if first == last:
                # Another process may have fetched them since that look.
                missing = self._around(name, first) or missing
            begin, end = missing[0], missing[-1] + 1
            data = self.inner.get_range(name, begin * BLOCK, (end - begin) * BLOCK)
            fetched = {n: data[(n - begin) * BLOCK :][:BLOCK] for n in range(begin, end)}
            for number, block in fetched.items():
                if block:
                    self._disk.put(f"{name}-{number}", block)
            return fetched

    def _around(self, name: str, number: int) -> Sequence[int]:
        """Return what to fetch with a block: more and more where one goes on beside the last.

        So are pages of trees read, from the end of a pack and from its beginning, and bases.
        """
        step, width = self._edges.pop((name, number), (1, 0))
        width = min(2 * width, _AROUND) or 1
        numbers = [number + step * n for n in range(width) if number + step * n >= 0]
        self._edges[name, numbers[-1] + step] = (step, width)
        self._edges.setdefault((name, number - step), (-step, width))
        return self._missing(name, min(numbers), max(numbers))

    def announce(self, ranges: Iterable[tuple[str, int, int]]) -> None:
        """Fetch ranges of packs that will be read soon, many in one request."""
        if not self._disk.budget:
            return  # nowhere to put them

        def pieces() -> Iterator[Piece]:
            for name, offset, size in ranges:
                for number in range(offset // BLOCK, (offset + max(size, 1) - 1) // BLOCK + 1):
                    if not self._disk.has(f"{name}-{number}"):
                        yield name, number

        self._ahead.announce(pieces())

    def _stream(self, name: str, first: int, last: int, take: Callable[[int, bytes], None]) -> None:
        numbers = itertools.count(first)
        self.inner.get_pieces(
            name,
            first * BLOCK,
            (last - first + 1) * BLOCK,
            BLOCK,
            lambda data: take(next(numbers), data),
        )

    def _keep_piece(self, name: str, number: int, data: bytes) -> None:
        self._disk.put(f"{name}-{number}", data, is_spare=True)

    def is_quick(self, name: str, offset: int, size: int) -> bool:
        """Return whether a range of a pack can be read without a request."""
        blocks = range(offset // BLOCK, (offset + max(size, 1) - 1) // BLOCK + 1)
        return all(self._disk.has(f"{name}-{number}") for number in blocks)

    def get_once(self, name: str, offset: int, size: int) -> bytes:
        """Return a range as `get_range` does, that nobody will want again."""
        return self.inner.get_range(name, offset, size)

    # -- bundles of footers -------------------------------------------------------------------

    def unbundled(self) -> Sequence[str]:
        """Return ids of packs that this machine wrote and no bundle tells of yet."""
        ids = self._disk.get("unbundled") or b""
        return [ids[at : at + 32].hex() for at in range(0, len(ids), 32)]

    def note_unbundled(self, pack_ids: Sequence[str]) -> None:
        """Remember which these are, and forget the footers of others."""
        self._disk.keep_only("footers", set(pack_ids))
        self._disk.put("unbundled", b"".join(map(bytes.fromhex, pack_ids)))

    def footer(self, pack_id: str, read: Callable[[], bytes]) -> bytes:
        """Return the footer of a pack, kept for its bundle while its records may go."""
        name = f"footers/{pack_id}"
        found = self._disk.get(name)
        if found is None:
            found = read()
            self._disk.put(name, found)
        return found

    def spool(self) -> Spool:
        """Begin a large file; what was uploaded stays in the cache as long as there is room."""
        return _KeptSpool(self.inner.spool(), self._disk)

    def keep(self, name: str, new_name: str) -> None:
        """Give a file a second name; raises ObjectMissing."""
        self.inner.keep(name, new_name)

    def move(self, name: str, new_name: str) -> None:
        """Give a file another name instead of its own; raises ObjectMissing."""
        self.inner.move(name, new_name)
        self._disk.forget(name)

    def drop_cached(self, name: str) -> bool:
        """Let the next read of a name come from the store."""
        self._disk.forget(name)
        return True

    # -- deleting ---------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Remove a name durably; removing one that is gone is no error."""
        self._memory.pop(name, None)
        if name.startswith(_SURVEYED):
            self._survey_time = -_FRESH
        self.inner.delete(name)
        self._disk.forget(name)

    def delete_many(self, names: Collection[str]) -> None:
        """Remove names durably; those that are gone are no error."""
        self._survey_time = -_FRESH
        self.inner.delete_many(names)
        for name in names:
            self._disk.forget(name)

    def close(self) -> None:
        """Release what is held, and keep the cache in its bounds."""
        self._ahead.close()
        self._disk.shrink()
        self.inner.close()


class _KeptSpool:
    """A spool whose bytes go to the cache after they were uploaded."""

    def __init__(self, inner: Spool, disk: _DiskCache) -> None:
        self._inner = inner
        self._disk = disk
        self.write = inner.write
        self.write_at = inner.write_at
        self.read_at = inner.read_at
        self.abandon = inner.abandon

    def commit(self, name: str) -> None:
        """Upload the bytes under the name; the spool is closed."""
        # Before: the upload closes the file. A name is that of these bytes, stored or not.
        number = 0
        while data := self._inner.read_at(number * BLOCK, BLOCK):
            self._disk.put(f"{name}-{number}", data)
            number += 1
        self._inner.commit(name)


def _budget() -> int:
    said = os.environ.get("PACKSTONE_CACHE_SIZE", "")
    return int(said) if said.isdecimal() else CACHE_SIZE


def _flat(name: str) -> str:
    return name.rpartition("/")[2]


class _DiskCache:
    """Files of at most `budget` bytes in all, the least recently used go first.

    Errors of its disk make it forget, and nothing else.
    """

    def __init__(self, directory: str, budget: int) -> None:
        self._directory = directory
        self.budget = budget
        self._written = budget  # since the last look at how much there is: look soon
        self._lock = threading.Lock()

    def _path(self, name: str) -> str:
        folder, _, last = name.rpartition("/")
        return os.path.join(self._directory, folder.replace("/", os.sep), last)

    def has(self, name: str) -> bool:
        """Return whether there is something for a name."""
        return os.path.exists(self._path(name))

    def get(self, name: str) -> bytes | None:
        """Return what was put, or None; what does not fit its checksum is deleted."""
        path = self._path(name)
        try:
            with open(path, "rb") as file:
                stored = file.read()
                if 600 < time.time() - os.fstat(file.fileno()).st_mtime < _SPARE:
                    os.utime(path)
        except OSError:
            return None
        data = stored[_SUM:]
        if checksum(name.encode() + data) != stored[:_SUM]:
            self._remove(path)
            return None
        return data

    def put(self, name: str, data: bytes, *, is_spare: bool = False) -> None:
        """Keep bytes, in one step for whoever reads them meanwhile.

        What is spare, read once as a rule, goes before everything else when room is needed.
        """
        if not self.budget:
            return
        path = self._path(name)
        temp = f"{path}.{secrets.token_hex(4)}"
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(temp, "xb", opener=_private) as file:
                file.write(checksum(name.encode() + data))
                file.write(data)
                if is_spare:
                    file.flush()
                    long_ago = time.time() - 2 * _SPARE
                    os.utime(file.fileno(), (long_ago, long_ago))
            os.replace(temp, path)
        except OSError:
            self._remove(temp)
        with self._lock:
            self._written += len(data)
            due = self._written > self.budget // 8
        if due:
            self.shrink()

    def forget(self, name: str) -> None:
        """Drop what there is of a stored name."""
        path = self._path(name)
        self._remove(path)
        if name.startswith("packs/"):
            folder, last = os.path.split(path)
            with contextlib.suppress(OSError):
                for entry in os.listdir(folder):
                    if entry.startswith(f"{last}-"):
                        self._remove(os.path.join(folder, entry))

    def names(self, folder: str) -> set[str]:
        """Return the names that are kept in a folder."""
        try:
            entries = os.listdir(os.path.join(self._directory, folder))
        except OSError:
            return set()
        return {f"{folder}/{entry}" for entry in entries if "." not in entry}  # those are whole

    def keep_only(self, folder: str, names: set[str]) -> None:
        """Drop from a folder what the store does not list any more."""
        with contextlib.suppress(OSError):
            for entry in os.listdir(os.path.join(self._directory, folder)):
                if entry not in names:
                    self._remove(os.path.join(self._directory, folder, entry))

    def shrink(self) -> None:
        """Delete the least recently used until there is room again."""
        with self._lock:
            self._written = 0
            found: list[tuple[float, int, str]] = []
            for folder, _folders, files in os.walk(self._directory):
                for file in files:
                    path = os.path.join(folder, file)
                    with contextlib.suppress(OSError):
                        state = os.stat(path)
                        found.append((state.st_mtime, state.st_size, path))
            total = sum(size for _time, size, _path in found)
            if total <= self.budget:
                return
            for _time, size, path in sorted(found):
                self._remove(path)
                total -= size
                if total <= self.budget * 0.8:
                    return

    @staticmethod
    def _remove(path: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
