"""A prefix of a bucket as storage: S3 and what speaks like it, Google's and Azure's stores.

A put is atomic and durable when it is answered. Invariants: what was uploaded is compared with
what the store says it got; a listing is believed only if a later name was seen behind it, since
one that was cut short looks like a shorter one; `replace` and `put_if_absent` are one step of the
store's own. Every attempt is counted (requests.py). Implements docs/format.md §1 for stores
without folders: `~end` is the last name below the prefix.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from packstone.errors import Damaged, ObjectMissing, StorageFull, StorageUnavailable
from packstone.model import MIB, Buffer
from packstone.storage.base import Spool, Storage, Version
from packstone.storage.credentials import connect
from packstone.storage.requests import Lost, Pace, Requests, Retrying, is_missing, md5_tag
from packstone.storage.urls import ObjectPlace

END = "~end"  # sorts behind every other name of a repository
_PAGE = 1000  # names in one answer to a listing
_SMALL = MIB  # what a request of ordinary patience carries
_LARGE_TIMEOUT = 20 * 60  # seconds for one large body
# One request is cheaper than many; above this a failure would cost too much to send again.
_PART = 96 * MIB
_IN_MEMORY = 2  # large bodies on their way at once, each held in memory


class Listed(NamedTuple):
    """A stored name as a listing tells it; `modified` is by the store's own clock."""

    name: str
    size: int
    modified: datetime
    tag: str


class ObjectStorage(Storage):
    """Named bytes below one prefix of a bucket."""

    is_far = True

    def __init__(
        self, place: ObjectPlace, *, upload: int | None = None, download: int | None = None
    ) -> None:
        """Connect; `upload` and `download` are bytes per second. Raises UsageError."""
        import obstore

        self._library = obstore
        self.url = place.url
        self._prefix = place.prefix
        self._client = connect(place, place.timeout)
        self._patient = connect(place, max(_LARGE_TIMEOUT, place.timeout))
        self._scheme = place.scheme
        self.counts = Requests()
        self._retrying = Retrying(self.counts, self.url)
        self._upload = Pace(upload)
        self._download = Pace(download)
        self._large = threading.BoundedSemaphore(_IN_MEMORY)

    def requests(self) -> dict[str, int]:
        """Return how many requests were sent, by verb, and their bytes."""
        return self.counts.as_dict()

    def limit(self, upload: int | None, download: int | None) -> None:
        """Hold transfers to these rates, in bytes per second, from now on."""
        self._upload, self._download = Pace(upload), Pace(download)

    def make_directories(self, names: list[str]) -> None:
        """Put the name that ends every listing; there are no folders."""
        self.put(END, b"")

    # -- writing ----------------------------------------------------------------------------

    def _send(self, name: str, data: Buffer, mode: Any) -> str:
        """Upload once and return the tag of what is stored."""
        size = memoryview(data).nbytes
        self._upload.take(size)
        client = self._client if size <= _SMALL else self._patient
        self.counts.count("put", sent=size)
        done = self._library.put(
            client, self._prefix + name, bytes(data), mode=mode, use_multipart=False
        )
        tag = done["e_tag"] or ""
        self._verify(name, data, tag)
        return tag

    def _verify(self, name: str, data: Buffer, tag: str) -> None:
        """Compare what the store says it has with what was sent; raises Lost.

        A tag of 32 digits is the MD5 of the bytes unless the bucket encrypts with keys of its
        own; then, and where there is none, the object is read back.
        """
        plain = tag.strip('"')
        if self._scheme == "s3" and plain == md5_tag(data):
            return
        size = memoryview(data).nbytes
        if self._scheme != "s3" and plain:
            self.counts.count("get")
            if self._library.head(self._client, self._prefix + name)["size"] == size:
                return
        found, _tag = self._fetch(name, 0, size + 1)
        if found != bytes(data):
            raise Lost(f"{name} is not stored as it was sent")

    def put(self, name: str, data: Buffer) -> None:
        """Store `data` under `name`, replacing what was there in one step."""
        size = memoryview(data).nbytes
        holding = self._large if size > _SMALL else contextlib.nullcontext()
        with holding:
            self._retrying.run("store", name, lambda _attempt: self._send(name, data, "overwrite"))

    def put_if_absent(self, name: str, data: Buffer) -> bool:
        """Store `data` unless the name exists; return whether it was stored."""
        exists = self._library.exceptions.AlreadyExistsError

        def send(attempt: int) -> bool:
            try:
                self._send(name, data, "create")
                return True
            except exists as error:
                version = self._current(name)
                if version is None:  # another was just about to: it may have failed
                    raise Lost(f"{name} is neither stored nor free") from error
                # An attempt of ours whose answer was lost has stored it.
                return attempt > 0 and version.data == bytes(data)

        return self._retrying.run("store", name, send)

    def replace(self, name: str, data: Buffer, tag: str) -> str | None:
        """Store `data` if the version of `name` is still that of `tag`; return the new tag."""
        changed = self._library.exceptions.PreconditionError

        def send(attempt: int) -> str | None:
            try:
                return self._send(name, data, {"e_tag": tag})
            except (changed, FileNotFoundError) as error:
                if isinstance(error, FileNotFoundError) and not is_missing(error):
                    raise
                version = self._current(name)
                if version is not None and version.data == bytes(data) and attempt > 0:
                    return version.tag
                if version is not None and version.tag == tag:  # refused for a moment
                    raise Lost(f"{name} could not be replaced") from error
                return None

        return self._retrying.run("replace", name, send)

    def _current(self, name: str) -> Version | None:
        try:
            return Version(*self._fetch(name, 0, _PART))
        except FileNotFoundError as error:
            if is_missing(error):
                return None
            raise

    def spool(self) -> ObjectSpool:
        """Begin a large file whose name is known only at its end."""
        return ObjectSpool(self)

    def put_file(self, name: str, file: Any, size: int) -> None:
        """Store the first `size` bytes of an open file."""
        if size > _PART:
            self._retrying.run("store", name, lambda _attempt: self._send_parts(name, file, size))
            return
        with self._large if size > _SMALL else contextlib.nullcontext():
            data = os.pread(file.fileno(), size, 0)
            while len(data) < size:
                data += os.pread(file.fileno(), size - len(data), len(data))
            self._retrying.run("store", name, lambda _attempt: self._send(name, data, "overwrite"))

    def _send_parts(self, name: str, file: Any, size: int) -> None:
        """Upload a large file in parts, each verified by the store against its checksum."""
        part = 32 * MIB

        def parts() -> Iterator[bytes]:
            done = 0
            while done < size:
                data = os.pread(file.fileno(), min(part, size - done), done)
                if not data:
                    raise StorageUnavailable(f"{name} has become shorter while it was sent")
                self._upload.take(len(data))
                done += len(data)
                yield data

        self.counts.count("put", 2 + -(-size // part), sent=size)
        with self._large:
            self._library.put(
                self._patient,
                self._prefix + name,
                parts(),
                use_multipart=True,
                chunk_size=part,
                max_concurrency=2,
            )
        if self._head(name).size != size:
            raise Lost(f"{name} is not stored as it was sent")

    # -- reading ----------------------------------------------------------------------------

    def _fetch(self, name: str, offset: int, size: int) -> tuple[bytes, str]:
        """Read a range once; return it and the tag of the version it was read from."""
        self.counts.count("get")
        client = self._client if size <= _SMALL else self._patient
        options: Any = {"range": (offset, offset + size)}
        try:
            found = self._library.get(client, self._prefix + name, options=options)
        except Exception as error:
            if "status code: 416" not in str(error):
                raise
            # Nothing of the object lies there: it may be empty.
            known = self._head(name)
            if known.size > offset:
                raise Lost(f"{name} is longer than the store says") from error
            return b"", known.tag
        meta = found.meta
        data = bytes(found.bytes())
        self.counts.count("get", 0, received=len(data))
        self._download.take(len(data))
        start, end = found.range
        if start != offset or len(data) != end - start:
            raise Lost(f"{name} came as {len(data)} bytes of {start} to {end}")
        if len(data) != max(0, min(size, meta["size"] - offset)):
            raise Lost(f"{name} came short: {len(data)} bytes")
        return data, meta["e_tag"] or ""

    def get_pieces(
        self, name: str, offset: int, size: int, piece: int, take: Callable[[bytes], None]
    ) -> None:
        """Hand a range to `take` in pieces as it comes; the last one may be shorter.

        What was handed over is not asked for again when the rest has to be. Memory: a few pieces.
        """
        done = 0

        def read(_attempt: int) -> None:
            nonlocal done
            self.counts.count("get")
            options: Any = {"range": (offset + done, offset + size)}
            found = self._library.get(self._patient, self._prefix + name, options=options)
            start, end = found.range
            if start != offset + done or end != min(offset + size, found.meta["size"]):
                raise Lost(f"{name} came as {start} to {end}")
            waiting = bytearray()
            for data in found.stream(min_chunk_size=piece):
                self.counts.count("get", 0, received=len(data))
                self._download.take(len(data))
                waiting += data
                while len(waiting) >= piece:
                    take(bytes(memoryview(waiting)[:piece]))
                    del waiting[:piece]
                    done += piece
            if offset + done + len(waiting) != end:
                raise Lost(f"{name} came short: it ends at {offset + done + len(waiting)}")
            if waiting:
                take(bytes(waiting))
            done += len(waiting)

        self._retrying.run("read", name, read)

    def _head(self, name: str) -> Listed:
        self.counts.count("get")
        meta = self._library.head(self._client, self._prefix + name)
        return Listed(name, meta["size"], meta["last_modified"], meta["e_tag"] or "")

    def get_version(self, name: str, limit: int) -> Version:
        """Return all bytes and the tag of this version; raises as `get` does."""
        data, tag = self._retrying.run(
            "read", name, lambda _attempt: self._fetch(name, 0, limit + 1)
        )
        if len(data) > limit:
            raise Damaged(f"{name} has more than {limit} bytes, the limit", name=name)
        return Version(data, tag)

    def get(self, name: str, limit: int) -> bytes:
        """Return all bytes; raises ObjectMissing, or Damaged above `limit` bytes."""
        return self.get_version(name, limit).data

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, fewer only where the file ends."""
        if not size:
            self.size(name)
            return b""
        return self._retrying.run("read", name, lambda _attempt: self._fetch(name, offset, size)[0])

    def size(self, name: str) -> int:
        """Return the size in bytes; raises ObjectMissing."""
        return self.head(name).size

    def head(self, name: str) -> Listed:
        """Return what is known of a name; raises ObjectMissing."""
        return self._retrying.run("look at", name, lambda _attempt: self._head(name))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Yield (name, size) of every stored name below the folder `prefix`, in no order."""
        # '0' is what follows '/'.
        for row in self.scan(f"{prefix}/", f"{prefix}0"):
            yield row.name, row.size

    def scan(self, after: str, until: str) -> Sequence[Listed]:
        """Return every name above `after` and below `until`, in order, all or an error."""
        return self._retrying.run(
            "list", after or "all names", lambda _attempt: self._scan(after, until)
        )

    def _scan(self, after: str, until: str) -> Sequence[Listed]:
        rows: deque[Listed] = deque()
        cut = len(self._prefix)
        begin = self._prefix + after
        pages = iter(
            self._library.list(
                self._client,
                prefix=self._prefix.rstrip("/") or None,
                offset=begin or None,
                chunk_size=_PAGE,
            )
        )
        last = ""
        while True:
            self.counts.count("list")
            page = next(pages, None)
            if page is None:
                # The library asks for no page behind the last one: it was counted above.
                self.counts.count("list", -1 if last else 0)
                raise Lost(f"the listing ends after {last or 'nothing'}, before {END}")
            for row in page:
                name = row["path"][cut:]
                if name <= last and last:
                    raise Lost(f"a listing out of order: {name} after {last}")
                last = name
                if name >= until:
                    return rows
                if name > after:
                    rows.append(Listed(name, row["size"], row["last_modified"], row["e_tag"] or ""))

    # -- deleting ---------------------------------------------------------------------------

    def delete(self, name: str) -> None:
        """Remove a name durably; removing one that is gone is no error."""

        def remove(_attempt: int) -> None:
            self.counts.count("delete")
            with contextlib.suppress(FileNotFoundError):
                self._library.delete(self._client, self._prefix + name)

        self._retrying.run("delete", name, remove)

    def delete_many(self, names: Collection[str]) -> None:
        """Remove names, a thousand in one request where the store can."""
        paths = [self._prefix + name for name in names]

        def remove(part: Sequence[str]) -> None:
            self.counts.count("delete", 1 if self._scheme == "s3" else len(part))
            with contextlib.suppress(FileNotFoundError):
                self._library.delete(self._client, part)

        for start in range(0, len(paths), _PAGE):
            part = paths[start : start + _PAGE]
            self._retrying.run("delete", names_of(part), lambda _attempt, part=part: remove(part))  # type: ignore[misc]

    def keep(self, name: str, new_name: str) -> None:
        """Give an object a second name, copied by the store; raises ObjectMissing."""
        wanted = self.size(name)

        def copy(_attempt: int) -> None:
            self.counts.count("put")
            self._library.copy(self._patient, self._prefix + name, self._prefix + new_name)
            if self._head(new_name).size != wanted:
                raise Lost(f"{new_name} is not what {name} is")

        self._retrying.run("copy", name, copy)

    def move(self, name: str, new_name: str) -> None:
        """Give an object another name instead of its own; raises ObjectMissing."""
        self.keep(name, new_name)
        self.delete(name)

    def has_conditions(self, name: str) -> bool:
        """Return whether the store keeps the conditions of writes; uses up `name`."""
        try:
            if not self.put_if_absent(name, b"1"):
                return False
            version = self.get_version(name, 9)
            kept = not self.put_if_absent(name, b"2")
            kept = kept and self.replace(name, b"3", version.tag) is not None
            kept = kept and self.replace(name, b"4", version.tag) is None
            return kept and self.get(name, 9) == b"3"
        except ObjectMissing:
            raise
        except StorageUnavailable:
            return False  # a store that refuses what it does not know
        finally:
            with contextlib.suppress(StorageUnavailable):
                self.delete(name)

    def close(self) -> None:
        """Release what is held: nothing."""


def names_of(paths: list[str]) -> str:
    """Return what to call several names in a message."""
    return paths[0] if len(paths) == 1 else f"{len(paths)} names"


class ObjectSpool(Spool):
    """A file in the directory for temporary files, uploaded when it gets its name."""

    def __init__(self, storage: ObjectStorage) -> None:
        self._storage = storage
        self._size = 0
        try:
            # It has no name: nothing is left of it, however the process ends.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        except OSError as error:
            raise StorageUnavailable(f"no temporary file: {error.strerror}") from error

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        self._size = self._write(self._size, data)

    def _write(self, offset: int, data: Buffer) -> int:
        view = memoryview(data).cast("B")
        try:
            while view:
                written = os.pwrite(self._file.fileno(), view, offset)
                offset += written
                view = view[written:]
        except OSError as error:
            raise StorageFull(
                f"cannot write a temporary file: {error.strerror}",
                hint="Nothing was committed. Free space for temporary files, or set TMPDIR",
            ) from error
        return offset

    def write_at(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes that were written before."""
        self._size = max(self._size, self._write(offset, data))

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes."""
        return os.pread(self._file.fileno(), min(size, max(0, self._size - offset)), offset)

    def commit(self, name: str) -> None:
        """Upload the bytes under the name; the spool is closed."""
        try:
            self._storage.put_file(name, self._file, self._size)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Drop everything; never raises."""
        with contextlib.suppress(OSError):
            self._file.close()
