"""`--delete`: remove from a restored directory what the snapshot does not have in it.

Decides what may go; how it goes is filesystem/removing.py. Invariants: nothing is removed from
a directory whose listing in the snapshot cannot be read in full, nothing that patterns leave
out, of this restore or of the snapshot when it was taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from packstone.errors import Damaged, ObjectMissing, TargetError
from packstone.filesystem.confine import Target, TargetDirectory
from packstone.operations.options import RestoreOptions
from packstone.operations.selection import Selection
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import Get, iter_entries


class Deleter:
    """Removes what a snapshot has not; `base` is the stored path of the target's root."""

    def __init__(
        self, row: SnapshotRow, target: Target, get: Get, options: RestoreOptions, base: bytes
    ) -> None:
        self._target = target
        self._get = get
        self._base = base.rstrip(b"/")
        self._select = Selection(options.include, options.exclude)
        self._left_out = Selection((), row.snapshot.excludes)

    def judge(self, where: bytes, name: bytes, is_directory: bool, wanted: bool) -> bool | None:
        """Say whether a name may go, as filesystem/removing.py asks it."""
        where = self._base + b"/" + where
        for selection in (self._select, self._left_out):
            if selection.excludes(where, name, is_directory):
                return None
        return wanted or self._select.includes(where, name, is_directory)

    def clean(self, directory: TargetDirectory, tree_id: bytes, wanted: bool) -> str | None:
        """Remove what is in a directory of the target and not in the tree; say why if not."""
        try:
            there = self._target.names(directory)
            if there:
                for name in list(self._foreign(there, tree_id)):
                    self._target.remove(directory, name, wanted)
        except (Damaged, ObjectMissing, TargetError) as error:
            return f"nothing was deleted in it: {error.message}"
        return None

    def _foreign(self, there: list[bytes], tree_id: bytes) -> Iterator[bytes]:
        """Yield the names that the tree has not; both are in order."""
        stored = (entry.name for entry in iter_entries(self._get, tree_id))
        name = next(stored, None)
        for found in there:
            while name is not None and name < found:
                name = next(stored, None)
            if name != found:
                yield found
