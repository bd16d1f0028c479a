"""Restore a snapshot, or a path in it, below a target directory.

The frame of "Restore, step by step" of the design: find what is asked for, refuse what could
hurt, then let restore_tree do it.
"""

from __future__ import annotations

import os
import stat
import time

from packstone.errors import PackstoneError, TargetError, UsageError
from packstone.filesystem.confine import Target
from packstone.model import Entry
from packstone.operations.browse import directory_id, find_path, split_path
from packstone.operations.options import RestoreOptions
from packstone.operations.restore_tree import Level, TreeRestorer
from packstone.operations.results import RestoreResult
from packstone.operations.selection import Selection
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import is_directory_mode, iter_entries


def restore_snapshot(
    repository: ObjectRepository,
    row: SnapshotRow,
    target: bytes,
    path: bytes,
    options: RestoreOptions,
) -> RestoreResult:
    """Restore what stands at `path` (the root if empty) into the directory `target`.

    Raises UsageError for a path that is not there and for a target that is not empty
    without `overwrite`, TargetError for one that cannot be used, StorageError.
    """
    started = time.monotonic()
    result = RestoreResult()
    only = find_path(repository.reader, row.snapshot, path)
    base = b"/" + b"/".join(split_path(path)) if only is not None else b""
    tree_id: bytes | None = row.snapshot.tree
    if only is not None:
        is_directory = is_directory_mode(only.mode)
        tree_id = directory_id(only) if is_directory else None
        only = None if is_directory else only
    if options.dry_run:
        _count_only(repository, tree_id, only, base, options, result)
    else:
        owner = options.owner and os.geteuid() == 0
        try:
            place = Target(target, owner=owner, overwrite=options.overwrite, sparse=options.sparse)
        except TargetError as error:
            raise PackstoneError(
                f"cannot restore into {os.fsdecode(target)!r}: {error.message}",
                hint="Nothing was written",
            ) from error
        with place:
            if options.overwrite is None and place.names(place.root):
                raise UsageError(
                    f"{os.fsdecode(target)!r} is not empty",
                    hint="Name a new directory, or say what happens to files that are there: "
                    "--overwrite changed, never or always",
                )
            TreeRestorer(repository, row, place, options, result).run(tree_id, only, base)
            result.errors += place.problems
    result.seconds = time.monotonic() - started
    return result


def _count_only(
    repository: ObjectRepository,
    tree_id: bytes | None,
    only: Entry | None,
    base: bytes,
    options: RestoreOptions,
    result: RestoreResult,
) -> None:
    """Count what a restore into an empty target would write."""
    if only is not None:
        result.files_restored, result.bytes_written = 1, only.size
    if tree_id is None:
        return
    select = Selection(options.include, options.exclude)
    get = repository.reader.get
    stack = [Level(None, None, iter_entries(get, tree_id), select.everything)]
    where = base
    while stack:
        level = stack[-1]
        entry = next(level.entries, None)
        if entry is None:
            stack.pop()
            if level.entry is not None:
                where = where[: -len(level.entry.name) - 1]
            continue
        is_directory = is_directory_mode(entry.mode)
        if select.excludes(where, entry.name, is_directory):
            continue
        included = level.included or select.includes(where, entry.name, is_directory)
        if is_directory:
            if isinstance(entry.content, bytes):
                stack.append(Level(level, entry, iter_entries(get, entry.content), included))
                where += b"/" + entry.name
        elif included and (entry.content is not None or stat.S_ISFIFO(entry.mode)):
            result.files_restored += 1
            result.bytes_written += entry.size
