"""Store the parts of a source, each as a snapshot of its own, and see what was stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packstone.errors import CommandFailed, SourceError, UsageError
from packstone.model import Flag
from packstone.operations.browse import find_path
from packstone.operations.facade import Repository
from packstone.operations.jobs.sources.base import StreamedSource
from packstone.operations.results import SnapshotResult


@dataclass(frozen=True, slots=True)
class StoredPart:
    """What became of one part: the snapshot, or the error that left none."""

    name: str
    result: SnapshotResult | None
    error: CommandFailed | SourceError | UsageError | None = None
    warnings: Sequence[str] = ()


def store_parts(
    repository: Repository, source: StreamedSource, **options: Any
) -> Iterator[StoredPart]:
    """Store one part after the other and yield what became of each; keywords as in SnapshotOptions.

    A part that fails leaves no snapshot and does not stop the others. Raises UsageError when a
    client is missing, and what ends every snapshot: StorageError, Damaged.
    """
    for part in source.parts():
        try:
            pouring = part.open()
        except (CommandFailed, SourceError, UsageError) as error:
            yield StoredPart(part.name, None, error)
            continue
        try:
            result = repository.snapshot_stream(
                pouring.stream, part.name, finish=pouring.finish, **options
            )
            stored = StoredPart(part.name, result, None, pouring.warnings)
        except (CommandFailed, SourceError, UsageError) as error:
            stored = StoredPart(part.name, None, error, pouring.warnings)
        finally:
            pouring.close()
        yield stored


def is_stored(repository: Repository, snapshot_id: str, path: bytes) -> bool:
    """Return whether a snapshot holds what stands at a path, with its content.

    Raises Damaged, ObjectMissing, StorageError.
    """
    row = repository.find_snapshot(snapshot_id)
    try:
        entry = find_path(repository._objects.reader, row.snapshot, path)
    except UsageError:  # there is none
        return False
    return entry is None or entry.extras is None or not entry.extras.flags & Flag.UNREADABLE
