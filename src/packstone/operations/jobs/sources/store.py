"""Store the parts of a source, each as a snapshot of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packstone.errors import CommandFailed, SourceError, UsageError
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
