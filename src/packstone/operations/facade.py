"""The Python API: one object with the verbs, usable without the command line.

Translates what callers may pass (text or bytes, paths) and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from packstone.operations.facade_keep import KeepingRepository
from packstone.operations.facade_look import LookingRepository
from packstone.operations.facade_open import AnyPath

if TYPE_CHECKING:
    from packstone.operations.estimate import Estimate
    from packstone.operations.options import SnapshotOptions
    from packstone.operations.results import RestoreResult, SnapshotResult


class Repository(LookingRepository, KeepingRepository):
    """An open repository, under a shared lock until it is closed; a context manager.

    `warnings` lists what should be known though it stopped nothing.
    """

    def snapshot(self, paths: Sequence[AnyPath], **options: Any) -> SnapshotResult:
        """Take a snapshot of files and directories; keywords as in SnapshotOptions.

        Files that cannot be read are named in the result's `errors`; everything else is
        stored. Raises UsageError, StorageError, Damaged: then nothing was committed.
        """
        from packstone.operations import snapshot

        sources = [os.fsencode(path) for path in paths]
        return snapshot.take_snapshot(self._objects, sources, self._snapshot_options(options))

    def snapshot_stream(
        self,
        stream: BinaryIO,
        name: str | bytes,
        *,
        finish: Callable[[], None] = lambda: None,
        **options: Any,
    ) -> SnapshotResult:
        """Take a snapshot of one file, `name`, whose bytes come from a stream until its end.

        `finish` is called after the last byte; if it raises, nothing is committed.
        """
        from packstone.operations import snapshot

        return snapshot.take_stream(
            self._objects, stream, os.fsencode(name), self._snapshot_options(options), finish
        )

    def snapshot_command(
        self, argv: Sequence[str], name: str | bytes, **options: Any
    ) -> SnapshotResult:
        """Take a snapshot of what a command prints, under `name`.

        Raises CommandFailed when it does not exit with 0: then nothing was committed.
        """
        from packstone.operations import snapshot

        return snapshot.take_command(
            self._objects, argv, os.fsencode(name), self._snapshot_options(options)
        )

    def _snapshot_options(self, options: dict[str, Any]) -> SnapshotOptions:
        from packstone.operations.options import SnapshotOptions

        return SnapshotOptions(threads=self._threads, clock=self._clock, **options)

    def restore(
        self, snapshot: str, target: AnyPath | None, *, path: str | bytes = b"", **options: Any
    ) -> RestoreResult:
        """Restore a snapshot, or what stands at `path` in it, below `target`.

        Without a target everything goes where it was. Keywords as in RestoreOptions. Files that
        cannot be written or whose chunks are damaged are named in the result's `errors`; nothing
        damaged is written as good.
        Raises UsageError (a target that is not empty without `overwrite`), StorageError.
        """
        from packstone.operations import restore
        from packstone.operations.options import RestoreOptions

        row = self.find_snapshot(snapshot)
        return restore.restore_snapshot(
            self._objects,
            row,
            None if target is None else os.fsencode(target),
            os.fsencode(path),
            RestoreOptions(threads=self._threads, **options),
        )

    def estimate_restore(
        self, snapshot: str, *, path: str | bytes = b"", **options: Any
    ) -> Estimate | None:
        """Return how long a restore will take by what was measured here, None if that is unknown.

        Keywords: `include`, `exclude`, `verify` as in RestoreOptions; `content`, bytes and files,
        where it is known how much it is.
        """
        from packstone.operations.restore_estimate import estimate_restore

        row = self.find_snapshot(snapshot)
        return estimate_restore(self._objects, row, os.fsencode(path), **options)
