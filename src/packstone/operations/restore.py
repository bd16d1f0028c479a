"""Restore a snapshot, or a path in it, below a target directory or where it was.

The frame of "Restore, step by step" of the design: find what is asked for, refuse what could
hurt, then let restore_tree do it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from packstone.errors import PackstoneError, TargetError, UsageError
from packstone.filesystem.confine import Target
from packstone.model import Entry, Problem
from packstone.operations.browse import directory_id, find_path, split_path
from packstone.operations.measured import keep_restore
from packstone.operations.options import RestoreOptions
from packstone.operations.restore_parents import Parents
from packstone.operations.restore_tree import TreeRestorer, has_lost
from packstone.operations.results import RestoreResult
from packstone.operations.selection import Selection
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow
from packstone.repository.trees import Get, find_entry, is_directory_mode, iter_entries


def restore_snapshot(
    repository: ObjectRepository,
    row: SnapshotRow,
    target: bytes | None,
    path: bytes,
    options: RestoreOptions,
) -> RestoreResult:
    """Restore what stands at `path` (the root if empty) into the directory `target`.

    Without a target everything goes where it was, existing files only with `overwrite`. Raises
    UsageError for a path that is not there, for a target that is not empty without `overwrite`
    and for a `delete` that could only empty, TargetError for one that cannot be used,
    StorageError.
    """
    started = time.monotonic()
    if options.delete and options.overwrite not in ("changed", "always"):
        raise UsageError(
            "--delete makes a directory what the snapshot has of it",
            hint="Say what happens to other files that are there: --overwrite changed, or always",
        )
    result = RestoreResult()
    if target is None:
        _restore_in_place(repository, row, path, options, result)
    else:
        _restore_below(repository, row, target, path, options, result)
    result.seconds = time.monotonic() - started
    keep_restore(repository, row, options, result)
    return result


def _restore_below(
    repository: ObjectRepository,
    row: SnapshotRow,
    target: bytes,
    path: bytes,
    options: RestoreOptions,
    result: RestoreResult,
) -> None:
    """Restore the content of a directory, or one other entry, directly into a target."""
    only = find_path(repository.reader, row.snapshot, path)
    names = split_path(path)
    tree_id: bytes | None = row.snapshot.tree
    if only is not None:
        tree_id = directory_id(only) if is_directory_mode(only.mode) else None
    base = b"".join(b"/" + name for name in (names if tree_id is not None else names[:-1]))
    if options.delete and tree_id is not None:
        if not names and os.path.isdir(target) and os.path.samefile(target, b"/"):
            raise UsageError(
                "--delete would make this whole machine what the snapshot has",
                hint="Say --in-place: then only what is below the snapshot's paths is deleted",
            )
        below = [each for each in row.snapshot.paths if split_path(each)[: len(names)] == names]
        for root in (path, *below):
            _refuse_to_empty(repository, row, root)
        _refuse_without_a_match(repository.reader.get, tree_id, base, options)
    with _open_target(target, options) as place:
        if options.overwrite is None and place.names(place.root):
            raise UsageError(
                f"{os.fsdecode(target)!r} is not empty",
                hint="Name a new directory, or say what happens to files that are there: "
                "--overwrite changed, never or always",
            )
        restorer = TreeRestorer(repository, row, place, options, result, base)
        if tree_id is not None:
            restorer.run(tree_id, whole=_is_whole(repository.reader.get, row, only))
        elif only is not None:
            restorer.run_entry(only)
        result.errors += place.problems


def _restore_in_place(
    repository: ObjectRepository,
    row: SnapshotRow,
    path: bytes,
    options: RestoreOptions,
    result: RestoreResult,
) -> None:
    """Restore each path that the snapshot was taken of, or `path`, where it was.

    The directories above it are ways to it, which the user has as he likes: followed where they
    are links, never changed, made where they are missing.
    """
    if row.snapshot.name:
        raise UsageError("this snapshot came from a pipe and was nowhere", hint="Say: --target DIR")
    wanted = [path] if split_path(path) else list(_topmost(row.snapshot.paths))
    places: list[tuple[bytes, Entry | None]] = []
    for each in wanted:
        try:
            places.append((each, find_path(repository.reader, row.snapshot, each)))
        except UsageError as error:
            if len(wanted) == 1:
                raise
            result.errors.append(Problem(each, error.message))
        if options.delete:
            _refuse_to_empty(repository, row, each)
    for each, entry in places:
        names = split_path(each)
        above = b"/" + b"/".join(names[:-1])
        parents = Parents(repository.reader, row, names[:-1], pretend=options.dry_run)
        with _open_target(above, options) as place:
            base = above.rstrip(b"/")
            restorer = TreeRestorer(repository, row, place, options, result, base)
            if entry is None:
                whole = _is_whole(repository.reader.get, row, None)
                restorer.run(row.snapshot.tree, whole=whole)
            else:
                restorer.run_entry(entry)
            result.errors += place.problems
        result.errors += parents.finish(owner=options.owner and os.geteuid() == 0)


def _open_target(target: bytes, options: RestoreOptions) -> Target:
    try:
        return Target(
            target,
            owner=options.owner and os.geteuid() == 0,
            overwrite=options.overwrite,
            sparse=options.sparse,
            pretend=options.dry_run,
        )
    except TargetError as error:
        raise PackstoneError(
            f"cannot restore into {os.fsdecode(target)!r}: {error.message}",
            hint="Nothing was written",
        ) from error


def _topmost(paths: list[bytes]) -> Iterator[bytes]:
    """Yield the paths that are not below another one."""
    last: list[bytes] | None = None
    for names in sorted(split_path(path) for path in paths):
        if last is None or names[: len(last)] != last:
            last = names
            yield b"/" + b"/".join(names)


def _is_whole(get: Get, row: SnapshotRow, entry: Entry | None) -> bool:
    """Return whether a snapshot has all entries of a directory, its root for None.

    No entry says so of the root: where a repair may have left some out, what the paths of the
    snapshot begin with must be there.
    """
    if entry is not None:
        return not has_lost(entry)
    if not row.snapshot.original_id:
        return True
    firsts = [split_path(path)[:1] for path in row.snapshot.paths]
    return all(
        names and find_entry(get, row.snapshot.tree, names[0]) is not None for names in firsts
    )


def _refuse_to_empty(repository: ObjectRepository, row: SnapshotRow, path: bytes) -> None:
    """Raise UsageError if a directory of the snapshot is empty: a disk that was not mounted."""
    try:
        entry = find_path(repository.reader, row.snapshot, path)
    except UsageError:
        return  # a source that could not be read is not in the snapshot, and is not deleted in
    if entry is not None and (not is_directory_mode(entry.mode) or entry.content is None):
        return
    tree_id = row.snapshot.tree if entry is None else directory_id(entry)
    if next(iter_entries(repository.reader.get, tree_id), None) is None:
        raise UsageError(
            f"{os.fsdecode(path) or '/'!r} is empty in this snapshot: --delete would remove "
            "everything there",
            hint="Nothing was changed. If it is meant to be empty, remove what is there yourself",
        )


def _refuse_without_a_match(get: Get, tree_id: bytes, base: bytes, options: RestoreOptions) -> None:
    """Raise UsageError if patterns take nothing: a typo must not delete."""
    select = Selection(options.include, options.exclude)
    if select.everything:
        return
    stack = [(b"", iter_entries(get, tree_id))]
    where = base
    while stack:
        name, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            where = where[: -len(name) - 1]
            continue
        is_directory = is_directory_mode(entry.mode)
        if select.excludes(where, entry.name, is_directory):
            continue
        if select.includes(where, entry.name, is_directory):
            return
        if is_directory and isinstance(entry.content, bytes):
            stack.append((entry.name, iter_entries(get, entry.content)))
            where += b"/" + entry.name
    raise UsageError(
        "nothing in the snapshot matches: --delete would only remove",
        hint="Nothing was changed. Patterns are on stored paths: packstone ls -R",
    )
