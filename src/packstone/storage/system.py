"""The calls of the operating system that a directory as storage makes.

The module `os` is what makes them. packstone.testing has others: they fail at one call, or
write down all of them to find out what a power cut could leave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from packstone.model import Buffer


class SystemCalls(Protocol):
    """The functions of `os`, by the same names, through which LocalStorage reaches a disk."""

    def open(self, path: str, flags: int, mode: int = ..., /) -> int:
        """Open or create a file, or open a directory; return a descriptor."""

    def close(self, fd: int, /) -> None:
        """Close a descriptor."""

    def write(self, fd: int, data: Buffer, /) -> int:
        """Append; return how many bytes were taken, perhaps fewer than given."""

    def pwrite(self, fd: int, data: Buffer, offset: int, /) -> int:
        """Write at a place; return how many bytes were taken, perhaps fewer than given."""

    def pread(self, fd: int, size: int, offset: int, /) -> bytes:
        """Read at a place, perhaps less than asked for."""

    def fsync(self, fd: int, /) -> None:
        """Make a file's bytes, or a directory's names, durable."""

    def rename(self, source: str, target: str, /) -> None:
        """Give a file another name, replacing what has it."""

    def link(self, source: str, target: str, /) -> None:
        """Give a file one more name; fails where the name is taken."""

    def unlink(self, path: str, /) -> None:
        """Remove a name."""

    def makedirs(self, name: str, mode: int = ..., exist_ok: bool = ...) -> None:
        """Make a directory and those above it."""

    def stat(self, path: str, /) -> os.stat_result:
        """Return what is known of a file."""

    def scandir(self, path: str, /) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        """List a directory."""
