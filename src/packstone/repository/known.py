"""What this machine remembers of repositories: which are encrypted, how new their state was.

Lives in the user's cache directory, away from the storage. Losing it loses a warning, no data.
"""

from __future__ import annotations

import os

from packstone.codec.hashing import checksum
from packstone.errors import PackstoneError
from packstone.storage.base import Storage


def cache_directory() -> str:
    """Return where derived data of repositories goes that must not carry it themselves."""
    chosen = os.environ.get("PACKSTONE_CACHE_DIR")
    if chosen:
        return chosen
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "packstone")


def _memory(storage: Storage) -> str:
    """Return the file that remembers what kind of repository is at a place."""
    return os.path.join(cache_directory(), "known", place_digest(storage))


def place_digest(storage: Storage) -> str:
    """Return what stands for the place of a storage in names of files, 32 digits."""
    return checksum(os.fsencode(storage.place)).hex()[:32]


def remember(storage: Storage, repository_id: bytes, encrypted: bool) -> None:
    """Note what is at this place; without a cache to note it in, go on."""
    noted = f"{'encrypted' if encrypted else 'plain'} {repository_id.hex()}\n"
    if _known(storage) != noted:
        _note(_memory(storage), noted)


def follow_serial(storage: Storage, repository_id: bytes, serial: int) -> int:
    """Return the largest serial of `state` that was seen at a place, this one included."""
    place = checksum(storage.url.encode("utf-8", "surrogateescape")).hex()[:16]
    path = os.path.join(cache_directory(), "serials", f"{repository_id.hex()}-{place}")
    try:
        with open(path, encoding="ascii") as file:
            seen = int(file.read(32))
    except (OSError, ValueError):
        seen = 0
    if serial > seen:
        _note(path, f"{serial}\n")
    return max(serial, seen)


def _note(path: str, text: str) -> None:
    """Write a small file; without a cache to write it to, go on."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        pass


def remember_index(repository_id: bytes, directory: str) -> None:
    """Note where the index of an encrypted repository is to be."""
    path = os.path.join(cache_directory(), "indexes", repository_id.hex())
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "wb") as file:
        file.write(os.fsencode(directory))


def index_directory(repository_id: bytes) -> str | None:
    """Return where the index of an encrypted repository was to be, None if nothing was said."""
    try:
        with open(os.path.join(cache_directory(), "indexes", repository_id.hex()), "rb") as file:
            chosen = os.fsdecode(file.read(4096))
    except OSError:
        return None
    return chosen if os.path.isdir(chosen) else None


def _known(storage: Storage) -> str:
    try:
        with open(_memory(storage), encoding="ascii", errors="replace") as file:
            return file.read(256)
    except OSError:
        return ""


def refuse_downgrade(storage: Storage, repository_id: bytes, passphrase: object) -> None:
    """Refuse a plain repository where an encrypted one is expected.

    Whoever can write to the storage could put a plain one there and wait for the next snapshot.
    Expected is what was here before, and an encrypted one by whoever gives a passphrase, unless
    this very repository was made or used as a plain one from here.
    """
    known = _known(storage)
    if known.startswith("encrypted "):
        reason = "an encrypted one was here before"
        hint = f"If you replaced it yourself, delete {_memory(storage)}"
    elif isinstance(passphrase, (str, bytes)) and known != f"plain {repository_id.hex()}\n":
        reason = "a passphrase is configured"
        hint = "If it is meant to be plain, use it once without any passphrase configured"
    else:
        remember(storage, repository_id, encrypted=False)
        return
    raise PackstoneError(
        f"the repository at {storage.url} is not encrypted, but {reason}: nothing was read from "
        "it or written to it",
        hint=hint,
    )
