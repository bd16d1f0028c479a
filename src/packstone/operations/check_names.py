"""Verify what can be verified without a passphrase: every file against the hash in its name.

Reads only; in plain and encrypted repositories alike (docs/format.md §1). Says nothing of
what the files hold: whoever can write to the storage can make files with fitting names.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future

from blake3 import blake3

from packstone.codec.envelope import Kind
from packstone.errors import Damaged, StorageError
from packstone.model import MIB
from packstone.operations.results import CheckResult, Finding, ProgressFunction, Ticker
from packstone.operations.storing import Workers
from packstone.repository import keyring, layout
from packstone.repository.layout import check_sum, list_ids, pack_name, snapshot_name
from packstone.repository.opening import storage_at, take_lock
from packstone.storage.base import Storage

_READ = 4 * MIB


def hash_file(storage: Storage, name: str, take: Callable[[bytes], None]) -> str:
    """Return the BLAKE3 of a stored file in hexadecimal, passing its bytes on as they come."""
    hasher = blake3()
    done = 0
    while data := storage.get_once(name, done, _READ):
        hasher.update(data)
        take(data)
        done += len(data)
    return hasher.hexdigest()


def check_names(
    location: str, *, threads: int | None = None, progress: ProgressFunction | None = None
) -> CheckResult:
    """Check names of packs, snapshots and key slots, and the checksums of other small objects.

    Raises RepositoryMissing, StorageError when a listing fails.
    """
    started = time.monotonic()
    result = CheckResult()
    storage = storage_at(location)
    repository_id, encrypted, _config = layout.read_config(storage, result.warnings.append)
    lock = take_lock(storage, exclusive=False)
    try:
        for text in _small_objects(storage, repository_id, encrypted):
            result.errors.append(Finding("config", text))
        _hash_all(storage, result, threads, Ticker(progress))
    finally:
        lock.release()
    result.seconds = time.monotonic() - started
    return result


def _small_objects(storage: Storage, repository_id: bytes, encrypted: bool) -> Iterator[str]:
    kinds = [("config", Kind.CONFIG), ("config.bak", Kind.CONFIG), ("state", Kind.STATE)]
    kinds += [(name, Kind.FEATURE) for name, _size in storage.list("features")]
    for name, kind in kinds:
        try:
            check_sum(storage, name, kind, repository_id)
        except (Damaged, StorageError) as error:
            yield error.message
    if encrypted:
        yield from keyring.check_slots(storage, repository_id)


def _hash_all(storage: Storage, result: CheckResult, threads: int | None, tick: Ticker) -> None:
    files = [
        ("snapshot", name, snapshot_name(name), size)
        for name, size in list_ids(storage, "snapshots")
    ]
    result.snapshots_checked = len(files)
    packs = [("pack", name, pack_name(name), size) for name, size in list_ids(storage, "packs")]
    files += packs
    total = sum(size for *_names, size in files)
    workers = Workers(threads or len(os.sched_getaffinity(0)))
    waiting: deque[tuple[str, str, int, Future[str]]] = deque()

    def take() -> None:
        kind, expected, size, future = waiting.popleft()
        pack = expected if kind == "pack" else None
        try:
            found = future.result()
        except (Damaged, StorageError) as error:
            result.errors.append(Finding(error.kind, error.message, pack))
        else:
            result.bytes_read += size
            if found != expected:
                text = f"{kind} {expected[:12]}… is damaged: its bytes hash to {found[:12]}…"
                result.errors.append(Finding(kind, text, pack))
        result.packs_checked += kind == "pack"
        tick(result.packs_checked, result.bytes_read, files_total=len(packs), bytes_total=total)

    try:
        for kind, expected, name, size in sorted(files):
            waiting.append(
                (kind, expected, size, workers.submit(hash_file, storage, name, lambda data: None))
            )
            while waiting and waiting[0][3].done():
                take()
        while waiting:
            take()
    finally:
        workers.close()
