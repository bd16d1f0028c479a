"""Whole small files for a target, many per call.

Never here: extended attributes, directories that hand down ACLs; those files go one by one. The
invariant: every item gets an outcome, in order, whatever happens to the others.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from packstone.errors import TargetError
from packstone.filesystem import _scan
from packstone.filesystem.metadata import losses_of
from packstone.filesystem.placing import Outcome, Placing
from packstone.filesystem.target_directory import TargetDirectory, validate_name
from packstone.model import Buffer, Entry

_DIRECTORIES = 32  # that one batch holds open; several threads write batches

SmallFile = tuple[TargetDirectory, Entry, Buffer]
_Row = tuple[int, bytes, Buffer, int, int, int, int]  # as _scan.write_files takes it


def write_plain(placing: Placing, items: Sequence[SmallFile]) -> list[Outcome]:
    """Write files without extended attributes; one outcome each, in order."""
    outcomes = [Outcome.WRITTEN] * len(items)
    held: dict[TargetDirectory, int] = {}
    rows: list[_Row] = []
    places: list[int] = []
    try:
        for place, (directory, entry, data) in enumerate(items):
            fd = held.get(directory)
            if fd is None:
                if len(held) >= _DIRECTORIES:
                    _write_rows(placing, items, rows, places, outcomes)
                    _release(placing, held)
                try:
                    fd = held[directory] = placing.directories.acquire(directory)
                except TargetError as error:
                    outcomes[place] = placing.failed(directory, entry.name, error)
                    continue
            places.append(place)
            rows.append((fd, entry.name, data, entry.mode, entry.uid, entry.gid, entry.mtime_ns))
        _write_rows(placing, items, rows, places, outcomes)
    finally:
        _release(placing, held)
    return outcomes


def _release(placing: Placing, held: dict[TargetDirectory, int]) -> None:
    for directory in held:
        placing.directories.release(directory)
    held.clear()


def _write_rows(
    placing: Placing,
    items: Sequence[SmallFile],
    rows: list[_Row],
    places: list[int],
    outcomes: list[Outcome],
) -> None:
    """Write the rows gathered so far and empty the list; `places` are theirs in `items`."""
    results = _scan.write_files(
        rows, placing.temporary(), placing.owner, placing.replaces, True, placing.syncs
    )
    if any(results):
        for place, result in zip(places, results, strict=True):
            if result == 0:
                continue
            directory, entry, _ = items[place]
            if result > 0:
                placing.problems.lose(directory.path_of(entry.name), losses_of(result))
            else:
                error = _error_of(-result, entry.name)
                outcomes[place] = placing.failed(directory, entry.name, error)
    rows.clear()
    places.clear()


def _error_of(number: int, name: bytes) -> Exception:
    if number == errno.EINVAL:
        try:
            validate_name(name)
        except TargetError as error:
            return error
    return OSError(number, os.strerror(number))
