"""Say how long a restore will take before it begins, and never be in its way.

Looks at few entries: what it would take long to count is not estimated.
"""

from __future__ import annotations

import socket
import stat
from collections.abc import Sequence

from packstone.errors import PackstoneError
from packstone.operations.browse import directory_id, find_path
from packstone.operations.estimate import Estimate, estimate_seconds
from packstone.operations.measured import job_of, known_rates
from packstone.operations.selection import Selection
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import Get, is_directory_mode, iter_entries

_MOST_ENTRIES = 20_000  # looked at: a fraction of a second


def estimate_restore(
    repository: ObjectRepository,
    row: SnapshotRow,
    path: bytes,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    verify: bool = False,
    content: tuple[int, int] | None = None,
) -> Estimate | None:
    """Return how long a restore of what stands at `path` will take, None if it is not known.

    `content`, bytes and files, says how much it is where that is known. It is not known without
    rates, nor of parts with very many entries. Never raises.
    """
    known = known_rates(repository)
    if not known:
        return None
    try:
        if content is None:
            content = _measure(repository, row, path, Selection(include, exclude))
    except PackstoneError:  # the restore will say it better
        return None
    if content is None:
        return None
    size, files = content
    host = socket.gethostname()
    return estimate_seconds(known, size, files, job=job_of(row), host=host, verify=verify)


def _measure(
    repository: ObjectRepository, row: SnapshotRow, path: bytes, select: Selection
) -> tuple[int, int] | None:
    """Return bytes and number of files at a path, None where counting would take long."""
    summary = row.snapshot.summary
    entry = find_path(repository.reader, row.snapshot, path)
    if entry is None and select.everything:
        size, files = summary.get("bytes_total"), summary.get("files")
        if size is not None and files is not None:
            return size, files
    if entry is not None and not is_directory_mode(entry.mode):
        return entry.size, 1
    tree_id = row.snapshot.tree if entry is None else directory_id(entry)
    return _count(repository.reader.get, tree_id, path.rstrip(b"/"), select)


def _count(get: Get, tree_id: bytes, where: bytes, select: Selection) -> tuple[int, int] | None:
    size = files = entries = 0
    waiting = [(where, tree_id, select.everything)]
    while waiting:
        where, tree_id, included = waiting.pop()
        for entry in iter_entries(get, tree_id):
            entries += 1
            if entries > _MOST_ENTRIES:
                return None
            is_directory = is_directory_mode(entry.mode)
            if select.excludes(where, entry.name, is_directory):
                continue
            wanted = included or select.includes(where, entry.name, is_directory)
            if is_directory and isinstance(entry.content, bytes):
                waiting.append((where + b"/" + entry.name, entry.content, wanted))
            elif wanted and stat.S_ISREG(entry.mode):
                size += entry.size
                files += 1
    return size, files
