"""What tests of the target share: entries of every kind, and who runs the tests."""

from __future__ import annotations

import os
from typing import Any

from packstone.model import Entry, Extras

UID, GID = os.geteuid(), os.getegid()
TIME_NS = 1_600_000_000_123_456_789

FILE, DIRECTORY, LINK = 0o100644, 0o040755, 0o120777
FIFO, CHARACTER, BLOCK = 0o010640, 0o020660, 0o060660


def entry(
    name: bytes,
    mode: int = FILE,
    content: Any = b"",
    *,
    size: int = 0,
    uid: int = UID,
    gid: int = GID,
    mtime_ns: int = TIME_NS,
    xattrs: list[tuple[bytes, bytes]] | None = None,
) -> Entry:
    """Build an entry that belongs to whoever runs the test."""
    extras = Extras(xattrs=xattrs) if xattrs else None
    return Entry(name, mode, uid, gid, size, mtime_ns, 0, 0, content, extras)


def file_entry(name: bytes, data: bytes, mode: int = FILE, **rest: Any) -> Entry:
    """Build an entry of a regular file with this content."""
    return entry(name, mode, b"\x01" * 32, size=len(data), **rest)
