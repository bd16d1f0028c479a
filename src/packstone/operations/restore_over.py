"""What is there already, compared with what is to be restored: by the snapshot's own chunks.

Reads the target and lists of chunks, never chunks themselves: which of them must be fetched is
what is found out here. The invariant: bytes of an old file enter a new one only out of the
buffer that was hashed, or from an inode that nobody else can write to.
"""

from __future__ import annotations

from collections.abc import Callable

from packstone.errors import TargetError
from packstone.filesystem.confine import ExistingFile, Target, TargetDirectory, TargetFile
from packstone.model import Buffer, Entry
from packstone.repository.contents import iter_content
from packstone.repository.trees import Get

ChunkId = Callable[[Buffer], bytes]


def has_content(existing: ExistingFile, entry: Entry, get: Get, chunk_id_of: ChunkId) -> bool:
    """Return whether a file's bytes are those of an entry; raises Damaged, ObjectMissing.

    Holes and written zeros are the same content.
    """
    if existing.size != entry.size:
        return False
    position = 0
    for chunk_id, size in iter_content(get, entry):
        if chunk_id:
            data = existing.read(position, size)
            if data is None or chunk_id_of(data) != chunk_id:
                return False
        elif not existing.is_zero(position, size):
            return False
        position += size
    return True


def missing_size(
    existing: ExistingFile | None, entry: Entry, get: Get, chunk_id_of: ChunkId
) -> tuple[int, int]:
    """Return how many bytes of an entry must be fetched and how many are there already.

    Raises Damaged, ObjectMissing.
    """
    fetched = reused = position = 0
    for chunk_id, size in iter_content(get, entry):
        if chunk_id:
            data = existing.read(position, size) if existing is not None else None
            if data is not None and chunk_id_of(data) == chunk_id:
                reused += size
            else:
                fetched += size
        position += size
    return fetched, reused


class Reuse:
    """The beginning of a file that takes over what is right already.

    `leftover` is a temporary file that a killed restore left: it is gone on with. `existing` is
    the file to be replaced: cloned where the file system shares blocks, else read.
    """

    def __init__(
        self,
        target: Target,
        directory: TargetDirectory,
        entry: Entry,
        existing: ExistingFile | None,
        leftover: bytes | None,
        chunk_id_of: ChunkId,
    ) -> None:
        """Create the temporary file; raises TargetError."""
        self._chunk_id_of = chunk_id_of
        self._existing = existing
        self._has_content = False
        self.file: TargetFile
        if leftover is not None:
            try:
                self.file = target.create_file(directory, entry.name, entry.size, leftover)
                self._has_content = True
                return
            except TargetError:
                pass  # it is not what it was a moment ago
        self.file = target.create_file(directory, entry.name, entry.size)
        if existing is not None and self.file.clone(existing):
            self._has_content, self._existing = True, None

    def take(self, position: int, size: int, chunk_id: bytes) -> bool:
        """Have a chunk in its place if it is there already; else it must be fetched."""
        if self._has_content:
            data = self.file.read(position, size)
            if data is not None and self._chunk_id_of(data) == chunk_id:
                return True
        if self._existing is not None:
            data = self._existing.read(position, size)
            if data is not None and self._chunk_id_of(data) == chunk_id:
                self.file.write_at(position, data)
                return True
        return False

    def hole(self, position: int, size: int) -> None:
        """Have a hole in its place."""
        if self._has_content:
            self.file.clear(position, size)
