"""The directories above what is restored in place: made where they are missing.

Those that are there are the user's and stay as they are, links among them included. Those that
are made get the attributes that the snapshot has of them when all below is done.
"""

from __future__ import annotations

import os

from packstone.errors import Damaged, ObjectMissing, UsageError
from packstone.filesystem.metadata import apply_attributes
from packstone.model import Entry, Problem
from packstone.operations.browse import find_path
from packstone.operations.owners import Owners
from packstone.repository.reader import ObjectReader
from packstone.repository.snapshots import SnapshotRow


class Parents:
    """The missing ones of the directories that `names` lead through."""

    def __init__(
        self, reader: ObjectReader, row: SnapshotRow, names: list[bytes], *, pretend: bool
    ) -> None:
        """Look which are missing and make them; OSError is left to whoever opens the last."""
        self._row = row
        self._made: list[tuple[bytes, int, Entry]] = []
        path = b""
        for depth, name in enumerate(names):
            path += b"/" + name
            if pretend or os.path.lexists(path):
                continue
            try:
                entry = find_path(reader, row.snapshot, b"/".join(names[: depth + 1]))
                os.mkdir(path, 0o700)
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except (OSError, UsageError, Damaged, ObjectMissing):
                return
            assert entry is not None
            self._made.append((path, fd, entry))

    def finish(self, *, owner: bool) -> list[Problem]:
        """Set the attributes of those that were made, from the innermost out; say what failed."""
        problems: list[Problem] = []
        owners = Owners(self._row, owner, [])
        while self._made:
            path, fd, entry = self._made.pop()
            try:
                for loss in apply_attributes(fd, owners.here(entry), owner=owner):
                    problems.append(Problem(path, loss.reason))
            except OSError as error:
                problems.append(Problem(path, f"attributes could not be set: {error.strerror}"))
            finally:
                os.close(fd)
        return problems
