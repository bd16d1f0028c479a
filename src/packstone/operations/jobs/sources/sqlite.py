"""SQLite databases: their pages in order as they are at one moment, also while others write.

The stored file is the database, to be opened as it is. See `sqlite_pages` for how it is read.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from packstone.errors import CommandFailed, UsageError
from packstone.operations.jobs.sources.base import Part
from packstone.operations.jobs.sources.client import ClientPouring, blocks
from packstone.operations.jobs.sources.names import file_names, require_distinct
from packstone.operations.jobs.strategy import SqliteSource

# a program of its own, and SQLite is loaded there
_READER = os.path.join(os.path.dirname(__file__), "sqlite_pages.py")
_MAGIC = b"SQLite format 3\0"
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite would take for a part of the database


@dataclass(frozen=True, slots=True)
class SqliteDatabase:
    """One database by its file."""

    name: str
    path: str

    def open(self) -> ClientPouring:
        """Begin to read it; CommandFailed comes from `finish`."""
        return ClientPouring(
            [sys.executable, "-I", _READER, self.path],
            advice=_advice,
            must_print=False,  # an empty file is an empty database
            program=f"SQLite, reading {self.path!r},",
        )

    def load(self, stream: BinaryIO, target: str, *, overwrite: bool = False) -> None:
        """Write it to the file `target`, which must not exist or be empty unless `overwrite`.

        It appears whole or not at all. Raises UsageError, CommandFailed when what is stored is no
        SQLite database or the file cannot be written.
        """
        path = os.path.realpath(target)
        try:
            exists = os.path.getsize(path) > 0
        except OSError:
            exists = False
        if exists and not overwrite:
            raise UsageError(
                f"{target!r} exists", hint="Name another file, or say --overwrite always"
            )
        for ending in _BESIDE:
            if os.path.exists(path + ending):
                raise UsageError(
                    f"{path + ending!r} exists: SQLite would play it into the restored database",
                    hint="End the program that uses the database, then move that file away",
                )
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        try:
            try:
                with open(temporary, "xb", opener=_private) as file:
                    for block in _checked(blocks(stream), target):
                        file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                if os.path.lexists(temporary):
                    os.unlink(temporary)
        except OSError as error:
            raise CommandFailed(f"cannot write {target!r}: {error.strerror}") from error


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)  # rows of others are nobody's business


def _checked(content: Iterator[bytes], target: str) -> Iterator[bytes]:
    first = next(content, b"")
    if first and not first.startswith(_MAGIC):
        raise CommandFailed(
            "what is stored is no SQLite database", hint=f"{target!r} was not written"
        )
    yield first
    yield from content


def _advice(said: str) -> str:
    if "locked" in said:
        return "Another program has kept the database to itself for a minute; run again later"
    if "not a database" in said:
        return "Name an SQLite database; encrypted ones need a command source with their own tool"
    return ""


class SqliteFiles:
    """The databases of a source; nothing is looked at before a part is opened."""

    def __init__(self, source: SqliteSource) -> None:
        self._source = source

    def parts(self) -> list[Part]:
        """Return one part for each file; raises UsageError when two would have one name."""
        paths = list(self._source.files)
        names = file_names(paths)
        require_distinct(names)
        return [
            SqliteDatabase(name, os.path.abspath(path))
            for name, path in zip(names, paths, strict=True)
        ]

    def stored(self) -> list[Part]:
        """Return the same: nothing is needed to read them that is not needed to write them."""
        return self.parts()
