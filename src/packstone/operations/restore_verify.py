"""Read restored files back from the disk and compare them with the hashes of their chunks.

Writes nothing. What the system still has in memory is written out and dropped first, so that
the bytes compared are, as far as that is possible, those of the disk.
"""

from __future__ import annotations

from packstone.errors import Damaged, ObjectMissing
from packstone.filesystem.confine import Target, TargetDirectory
from packstone.model import Entry
from packstone.operations.restore_over import ChunkId
from packstone.repository.contents import iter_content
from packstone.repository.trees import Get


def verify_file(
    target: Target, directory: TargetDirectory, entry: Entry, get: Get, chunk_id_of: ChunkId
) -> str | None:
    """Return what is wrong with the content of a restored file, None if it is right."""
    existing = target.existing_file(directory, entry.name)
    if existing is None:
        return "verification failed: it cannot be read back"
    with existing:
        try:
            existing.drop_cached()
        except OSError as error:
            return f"verification failed: the disk does not take it: {error.strerror}"
        if existing.size != entry.size:
            return f"verification failed: {existing.size} bytes, expected {entry.size}"
        position = 0
        try:
            for chunk_id, size in iter_content(get, entry):
                if chunk_id:
                    data = existing.read(position, size)
                    sound = data is not None and chunk_id_of(data) == chunk_id
                else:
                    sound = existing.is_zero(position, size)
                if not sound:
                    return f"verification failed: wrong content at byte {position}"
                position += size
        except (Damaged, ObjectMissing) as error:
            return f"verification failed: {error.message}"
    return None
