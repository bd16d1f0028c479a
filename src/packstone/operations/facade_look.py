"""The verbs that look into a repository and change nothing in it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from packstone.errors import UsageError
from packstone.operations.facade_open import AnyPath, OpenRepository

if TYPE_CHECKING:
    from packstone.operations import stats
    from packstone.operations.diff import DiffResult
    from packstone.operations.find import FoundPath
    from packstone.operations.results import CheckResult, ListedEntry, ProgressFunction
    from packstone.operations.stats import Growth, SnapshotStats


class LookingRepository(OpenRepository):
    """An open repository that can be looked into."""

    def ls(
        self, snapshot: str, path: str | bytes = b"", *, recursive: bool = False
    ) -> Iterator[ListedEntry]:
        """Yield the entries of a directory of a snapshot, or one file; names ascending."""
        from packstone.operations import browse

        row = self.find_snapshot(snapshot)
        return browse.list_entries(
            self._objects.reader, row.snapshot, os.fsencode(path), recursive=recursive
        )

    def open_file(self, snapshot: str, path: str | bytes) -> io.BufferedReader:
        """Open a file of a snapshot for reading; seekable, reads only what is asked for.

        Raises UsageError when there is no such file; reading raises Damaged, ObjectMissing.
        """
        from packstone.operations import browse

        row = self.find_snapshot(snapshot)
        entry = browse.find_path(self._objects.reader, row.snapshot, os.fsencode(path))
        if entry is None:
            raise UsageError("the root of a snapshot is a directory")
        return browse.open_stored(self._objects.reader, entry)

    def find(
        self,
        patterns: Sequence[str] = (),
        *,
        snapshots: Sequence[str] = (),
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
        **options: Any,
    ) -> Iterator[FoundPath]:
        """Yield the paths that fit patterns in some snapshots, by default all, with their history.

        Further keywords as in FindOptions. Raises UsageError; Damaged, ObjectMissing on the way.
        """
        from packstone.operations import find
        from packstone.operations.find import FindOptions

        rows = self._choose(snapshots, host, paths, tags)
        return find.find_paths(
            self._objects.reader, rows, FindOptions(patterns=tuple(patterns), **options)
        )

    def diff(
        self,
        old: str,
        new: str,
        *,
        path: str | bytes = b"",
        old_path: str | bytes | None = None,
    ) -> DiffResult:
        """Compare two snapshots, or what stands at `path`, formerly `old_path`, in them.

        Raises UsageError, Damaged, ObjectMissing.
        """
        from packstone.operations import diff
        from packstone.operations.diff import Place

        reader = self._objects.reader
        before = path if old_path is None else old_path
        return diff.diff_places(
            reader,
            Place.find(reader, self.find_snapshot(old), os.fsencode(before)),
            Place.find(reader, self.find_snapshot(new), os.fsencode(path)),
        )

    def diff_disk(
        self,
        snapshot: str,
        disk: AnyPath,
        *,
        path: str | bytes | None = None,
        exclude: Sequence[str] | None = None,
        read_data: bool = False,
    ) -> DiffResult:
        """Compare what stands at `path` in a snapshot, by default at `disk`, with the disk.

        Files are read where size or mtime differ, with `read_data` always. `exclude` are
        patterns of names that count on neither side, by default those of the snapshot. What
        could not be read is in the result's `errors`. Raises UsageError, Damaged, ObjectMissing.
        """
        from packstone.operations import diff_disk
        from packstone.operations.diff import Place

        row = self.find_snapshot(snapshot)
        where = os.fsencode(os.path.abspath(disk) if path is None else path)
        return diff_disk.diff_disk(
            self._objects,
            Place.find(self._objects.reader, row, where),
            os.fsencode(disk),
            exclude=row.snapshot.excludes if exclude is None else exclude,
            read_data=read_data,
        )

    def stats(self) -> stats.Stats:
        """Return how much there is and what it takes; raises Damaged, ObjectMissing."""
        from packstone.operations import stats

        return stats.collect_stats(self._objects)

    def snapshot_stats(self, snapshots: Sequence[str]) -> list[SnapshotStats]:
        """Return what snapshots hold, brought, and need alone; oldest first."""
        from packstone.operations import stats

        rows = self._choose(snapshots, None, (), ()) if snapshots else []
        return stats.collect_snapshot_stats(self._objects, rows)

    def growth(self) -> list[Growth]:
        """Return what each snapshot added to the older ones; oldest first."""
        from packstone.operations import stats

        return stats.collect_growth(self._objects)

    def freed_by(self, snapshots: Sequence[str]) -> int:
        """Return the bytes that forgetting snapshots, and a prune, would free."""
        from packstone.operations import unique

        rows = self._choose(snapshots, None, (), ()) if snapshots else []
        return unique.freed_by(self._objects, {row.id for row in rows})

    def mount(
        self,
        directory: AnyPath,
        *,
        allow_other: bool = False,
        warn: Callable[[str], None] = lambda _text: None,
    ) -> None:
        """Show all snapshots as read-only directories until they are unmounted.

        Gives the lock back. Needs the extra `mount`; raises UsageError where it cannot be done.
        """
        from packstone.operations import mount

        mount.mount(
            self._objects,
            os.fsdecode(directory),
            threads=self._threads,
            warn=warn,
            allow_other=allow_other,
        )

    def check(
        self,
        *,
        read_data: bool = False,
        subset: str | int | None = None,
        max_seconds: float | None = None,
        packs: Sequence[str] = (),
        progress: ProgressFunction | None = None,
    ) -> CheckResult:
        """Verify names, footers, index, trees and chunks; with `read_data` every object.

        `subset` reads the data of a part of the packs: `5%` of the bytes, a number of bytes, or
        `2/7`, the second of seven parts. `max_seconds` reads for that long, what was verified
        longest ago first; `packs` reads those whose ids begin so, and checks nothing else.
        """
        from packstone.operations import check, check_choice

        return check.check_repository(
            self._objects,
            read_data=read_data,
            choice=check_choice.Choice(subset, max_seconds, packs),
            threads=self._threads,
            progress=progress,
            clock=self._clock,
        )
