"""The nouns: what a repository holds, as frozen values without any I/O.

Implements the payloads of docs/format.md §3 and §6; encoding and validation of whole
pages live in repository/trees.py.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

ID_SIZE = 32

Buffer = bytes | bytearray | memoryview
SMALL_OBJECT = 16 * KIB  # objects below this share records (docs/format.md §4)


class ObjectType(enum.IntEnum):
    """What an id names; the number is stored in pack footers."""

    CHUNK = 1
    TREE = 2
    CHUNK_LIST = 3


class Flag(enum.IntFlag):
    """What went wrong with an entry, when it was stored or later."""

    CHANGED = 1  # the file changed while it was read
    UNREADABLE = 2  # there is no content
    LOST = 4  # content was lost in the repository: with 2 all of it, else part of a directory


# Stored numbers are checked while they are decoded, before anything is computed with them.
Unsigned16 = Annotated[int, Meta(ge=0, lt=1 << 16)]
Unsigned32 = Annotated[int, Meta(ge=0, lt=1 << 32)]
Size = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Extras(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """What few entries have: flags, the hard-link group, extended attributes."""

    flags: int = 0
    link: bytes = b""
    xattrs: list[tuple[bytes, bytes]] = []


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One name in a directory; times in nanoseconds, size in bytes, mode as `st_mode`.

    `content` depends on the type in `mode` (docs/format.md §6).
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    content: bytes | list[Any] | None
    extras: Extras | None


class Stat(NamedTuple):
    """What lstat says of one file; times in nanoseconds, `blocks` of 512 bytes."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    nlink: int
    device: int
    rdev: int
    blocks: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The root of a full tree; `id` is the hex name of its file, empty before it is stored."""

    time_ns: int
    host: str
    paths: list[bytes]
    tree: bytes
    user: str = ""
    name: bytes = b""
    tags: list[str] = []
    parent: bytes = b""
    original_id: bytes = b""
    program: str = ""
    excludes: list[str] = []
    users: dict[int, str] = {}
    groups: dict[int, str] = {}
    summary: dict[str, int] = {}


class Problem(NamedTuple):
    """One source or target file that could not be dealt with; the rest went on."""

    path: bytes
    message: str
