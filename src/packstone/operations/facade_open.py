"""An open repository: what every verb begins with, and how snapshots are named and chosen.

The facade's modules import each verb when it is first asked for: a command line that needs one
of them should not wait for the rest.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from packstone.errors import UsageError
from packstone.repository import repository as objects
from packstone.repository.locks import Waiting
from packstone.repository.repository import Passphrase
from packstone.repository.retention import GROUP_BY, RetentionGroup, group_snapshots
from packstone.repository.snapshots import SnapshotRow, newest, resolve, select

AnyPath = str | bytes | Path


class OpenRepository:
    """An open repository, under a shared lock until it is closed; a context manager.

    `warnings` lists what should be known though it stopped nothing.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        passphrase: Passphrase = None,
        index_dir: str | Path | None = None,
        threads: int | None = None,
        lock_timeout: float = 0.0,
        waiting: Callable[[str], None] | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._spent: dict[str, int] = {}  # what making it has cost
        self._objects = objects.ObjectRepository(
            os.fspath(location),
            passphrase=passphrase,
            index_dir=None if index_dir is None else os.fspath(index_dir),
            waiting=Waiting(lock_timeout, waiting or (lambda _text: None)),
        )
        self._threads = threads or len(os.sched_getaffinity(0))
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock and the index."""
        self._objects.close()

    @property
    def id(self) -> str:
        """The repository's id, 32 hexadecimal digits."""
        return self._objects.repository_id.hex()

    @property
    def location(self) -> str:
        """Where the repository is."""
        return self._objects.storage.url

    def requests(self) -> dict[str, int]:
        """Return how many requests this repository has cost so far, and their bytes; by name.

        Keys: put, get, list, delete, retries, bytes_sent, bytes_received. Empty for a directory.
        """
        found = self._objects.storage.requests()
        return {name: number + self._spent.get(name, 0) for name, number in found.items()}

    def limit_transfer(self, upload: int | None = None, download: int | None = None) -> None:
        """Hold transfers to these rates in bytes per second; a directory has none."""
        self._objects.storage.limit(upload, download)

    @property
    def warnings(self) -> list[str]:
        """What should be known though it stopped nothing."""
        return self._objects.warnings

    @property
    def is_encrypted(self) -> bool:
        """Whether the repository is encrypted."""
        return self._objects.encrypted

    def snapshots(
        self,
        *,
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
        latest: int | None = None,
    ) -> list[SnapshotRow]:
        """Return the snapshots of a host, holding all paths, with all tags; oldest first.

        With `latest` only the newest so many of each host and source.
        """
        wanted = [os.fsencode(path) for path in paths]
        rows = select(self._objects.snapshots(), host=host, paths=wanted, tags=tags)
        if latest is None:
            return rows
        groups = group_snapshots(rows)
        ids = {row.id for group in groups.values() for row in newest(group, latest)}
        return [row for row in rows if row.id in ids]

    def snapshot_groups(
        self, group_by: Sequence[str] = GROUP_BY, *, latest: int | None = None, **wanted: Any
    ) -> list[tuple[RetentionGroup, Sequence[SnapshotRow]]]:
        """Return snapshots by what they have in common: "host", "paths", "tags", "name".

        With `latest` the newest so many of each group; further keywords as in `snapshots`.
        """
        groups = group_snapshots(self.snapshots(**wanted), group_by)
        if latest is None:
            return list(groups.items())
        return [(group, newest(rows, latest)) for group, rows in groups.items()]

    def find_snapshot(
        self,
        spec: str,
        *,
        host: str | None = None,
        path: AnyPath | None = None,
        tag: str | None = None,
    ) -> SnapshotRow:
        """Return the snapshot that an id prefix, `latest` or `latest~N` names.

        Raises UsageError when there is none or several.
        """
        rows = self.snapshots(
            host=host, paths=() if path is None else (path,), tags=() if tag is None else (tag,)
        )
        return resolve(spec, rows)

    def _choose(
        self,
        snapshots: Sequence[str],
        host: str | None,
        paths: Sequence[AnyPath],
        tags: Sequence[str],
        *,
        everything: bool = True,
    ) -> list[SnapshotRow]:
        """Return the snapshots that are named, or else all that the rest lets through.

        Without `everything` an empty list does not mean all of them.
        """
        if isinstance(snapshots, str):  # its letters would be taken for the starts of ids
            snapshots = [snapshots]
        if not (everything or snapshots or host or paths or tags):
            raise UsageError("no snapshot is named", hint="Say SNAPSHOT…, --host, --path or --tag")
        rows = self.snapshots(host=host, paths=paths, tags=tags)
        if not snapshots:
            return rows
        ids = {resolve(spec, rows).id for spec in snapshots}
        return [row for row in rows if row.id in ids]
