"""Create and open repositories: what the Python API begins with.

Translates what callers may pass (text or bytes, paths) and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from packstone.codec.keys import Argon2
from packstone.errors import UsageError
from packstone.model import KIB, MIB
from packstone.operations.facade import Repository
from packstone.repository import repository as objects
from packstone.repository.repository import Passphrase


def init(
    location: str | Path,
    *,
    chunk_size: int | None = None,
    pack_size: int = 64 * MIB,
    level: int = 3,
    delta_versions: int = 64,
    passphrase: str | bytes | None = None,
    like: Repository | None = None,
    argon2: Argon2 | None = None,
    index_dir: str | Path | None = None,
) -> Repository:
    """Create a repository in a new or empty directory and open it.

    With a passphrase it is encrypted, and `argon2` is the cost of guessing it. With `like`
    chunks travel unchanged between the two: the new one cuts and names them alike. Sizes in
    bytes: `chunk_size`, the average, is a power of two from 4 KiB to 8 MiB, by default 256 KiB;
    `pack_size` the target of packs from 1 MiB to 1 GiB; `level` is zstd's, 1 to 19;
    `delta_versions` how many versions of a chunk stand on one whole copy, 2 to 1,024. The index
    goes to `index_dir` if given. Raises UsageError, StorageError.
    """
    family: bytes | None = None
    if like is not None:
        average = like._objects.config.average
        if chunk_size not in (None, average):
            raise UsageError(f"chunk size {chunk_size}: a repository like this one has {average}")
        chunk_size = average
        secrets = like._objects.secrets
        if (secrets is None) != (passphrase is None):
            raise UsageError("of two repositories that are alike both are encrypted, or neither")
        family = secrets.family if secrets else None
    spent = objects.init(
        os.fspath(location),
        average=chunk_size or 256 * KIB,
        pack_size=pack_size,
        level=level,
        delta_versions=delta_versions,
        passphrase=passphrase,
        family=family,
        cost=argon2 or Argon2(),
        index_dir=None if index_dir is None else os.fspath(index_dir),
    )
    made = Repository(location, passphrase=passphrase)
    made._spent = spent
    return made


def open(
    location: str | Path,
    *,
    passphrase: Passphrase = None,
    index_dir: str | Path | None = None,
    threads: int | None = None,
    lock_timeout: float = 0.0,
    waiting: Callable[[str], None] | None = None,
) -> Repository:
    """Open a repository.

    `passphrase` opens an encrypted one; a function is called only when one is needed. `threads`
    is the number of worker threads, by default one for each processor available. `lock_timeout`
    is how many seconds to wait while others hold a lock; `waiting` is told for whom. Raises
    RepositoryMissing, RepositoryLocked, WrongPassphrase, UnsupportedFormat, Damaged,
    StorageError.
    """
    return Repository(
        location,
        passphrase=passphrase,
        index_dir=index_dir,
        threads=threads,
        lock_timeout=lock_timeout,
        waiting=waiting,
    )
