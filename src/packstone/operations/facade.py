"""The Python API: one object with the verbs, usable without the command line.

Translates what callers may pass (text or bytes, paths) and nothing else.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from packstone.codec.keys import Argon2
from packstone.errors import UsageError
from packstone.operations import (
    browse,
    check,
    check_choice,
    copy,
    diff,
    diff_disk,
    find,
    forget,
    keys,
    mount,
    prune,
    restore,
    rewrite,
    snapshot,
    stats,
    tag,
    unique,
)
from packstone.operations.diff import DiffResult, Place
from packstone.operations.find import FindOptions, FoundPath
from packstone.operations.options import RestoreOptions, SnapshotOptions
from packstone.operations.repair_index import RepairIndexResult, repair_index
from packstone.operations.repair_packs import RepairPacksResult, repair_packs
from packstone.operations.repair_snapshots import RepairSnapshotsResult, repair_snapshots
from packstone.operations.results import (
    CheckResult,
    ListedEntry,
    ProgressFunction,
    RestoreResult,
    SnapshotResult,
)
from packstone.operations.rewrite import RewriteResult
from packstone.operations.stats import Growth, SnapshotStats
from packstone.operations.tag import TagResult
from packstone.repository import repository as objects
from packstone.repository.locks import Waiting
from packstone.repository.repository import Passphrase
from packstone.repository.retention import GROUP_BY, Retention, RetentionGroup, group_snapshots
from packstone.repository.snapshots import SnapshotRow, newest, resolve, select

AnyPath = str | bytes | Path


class Repository:
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

    def __enter__(self) -> Repository:
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

    def keys(self) -> list[keys.ListedKey]:
        """Return the key slots; raises UsageError for a plain repository."""
        return keys.list_keys(self._objects)

    def add_key(
        self, passphrase: str | bytes, *, label: str = "", argon2: Argon2 | None = None
    ) -> str:
        """Let another passphrase open the repository too; return the id of its slot."""
        return keys.add_key(self._objects, passphrase, label=label, cost=argon2, clock=self._clock)

    def add_recovery_key(self, *, label: str = "", argon2: Argon2 | None = None) -> tuple[str, str]:
        """Add a slot for a random printable key; return the slot's id and the key.

        The key opens the repository like a passphrase and is kept nowhere.
        """
        return keys.add_recovery_key(self._objects, label=label, cost=argon2, clock=self._clock)

    def change_passphrase(self, passphrase: str | bytes, *, argon2: Argon2 | None = None) -> str:
        """Replace the passphrase that opened this session; return the new slot's id."""
        return keys.change_passphrase(self._objects, passphrase, cost=argon2, clock=self._clock)

    def remove_key(self, slot: str) -> str:
        """Remove the slot whose id starts so; raises UsageError for the last whole one."""
        return keys.remove_key(self._objects, slot)

    def export_key(self, slot: str = "") -> str:
        """Return a slot as text to print and keep, by default the one that opened."""
        return keys.export_key(self._objects, slot)

    def snapshot(self, paths: Sequence[AnyPath], **options: Any) -> SnapshotResult:
        """Take a snapshot of files and directories; keywords as in SnapshotOptions.

        Files that cannot be read are named in the result's `errors`; everything else is
        stored. Raises UsageError, StorageError, Damaged: then nothing was committed.
        """
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
        return snapshot.take_stream(
            self._objects, stream, os.fsencode(name), self._snapshot_options(options), finish
        )

    def snapshot_command(
        self, argv: Sequence[str], name: str | bytes, **options: Any
    ) -> SnapshotResult:
        """Take a snapshot of what a command prints, under `name`.

        Raises CommandFailed when it does not exit with 0: then nothing was committed.
        """
        return snapshot.take_command(
            self._objects, argv, os.fsencode(name), self._snapshot_options(options)
        )

    def _snapshot_options(self, options: dict[str, Any]) -> SnapshotOptions:
        return SnapshotOptions(threads=self._threads, clock=self._clock, **options)

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

    def ls(
        self, snapshot: str, path: str | bytes = b"", *, recursive: bool = False
    ) -> Iterator[ListedEntry]:
        """Yield the entries of a directory of a snapshot, or one file; names ascending."""
        row = self.find_snapshot(snapshot)
        return browse.list_entries(
            self._objects.reader, row.snapshot, os.fsencode(path), recursive=recursive
        )

    def open_file(self, snapshot: str, path: str | bytes) -> io.BufferedReader:
        """Open a file of a snapshot for reading; seekable, reads only what is asked for.

        Raises UsageError when there is no such file; reading raises Damaged, ObjectMissing.
        """
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
        row = self.find_snapshot(snapshot)
        where = os.fsencode(os.path.abspath(disk) if path is None else path)
        return diff_disk.diff_disk(
            self._objects,
            Place.find(self._objects.reader, row, where),
            os.fsencode(disk),
            exclude=row.snapshot.excludes if exclude is None else exclude,
            read_data=read_data,
        )

    def tag(
        self,
        snapshots: Sequence[str] = (),
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        replace: Sequence[str] | None = None,
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
    ) -> TagResult:
        """Change the tags of snapshots: those named, or all of a host, with paths, with tags.

        A changed snapshot has a new id and names the first one as `original_id`. Raises
        UsageError, StorageError.
        """
        rows = self._choose(snapshots, host, paths, tags, everything=False)
        return tag.tag_snapshots(self._objects, rows, add=add, remove=remove, replace=replace)

    def rewrite(
        self,
        snapshots: Sequence[str] = (),
        *,
        exclude: Sequence[str],
        forget: bool = False,
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
        dry_run: bool = False,
    ) -> RewriteResult:
        """Store versions of snapshots without what patterns match, chosen as in `tag`.

        With `forget` the old ones are deleted, each after its new version is durable; the bytes
        stay in packs until a prune. Raises UsageError, Damaged, ObjectMissing, StorageError.
        """
        rows = self._choose(snapshots, host, paths, tags, everything=False)
        return rewrite.rewrite_snapshots(
            self._objects, rows, exclude=exclude, forget=forget, dry_run=dry_run
        )

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
        mount.mount(
            self._objects,
            os.fsdecode(directory),
            threads=self._threads,
            warn=warn,
            allow_other=allow_other,
        )

    def restore(
        self, snapshot: str, target: AnyPath | None, *, path: str | bytes = b"", **options: Any
    ) -> RestoreResult:
        """Restore a snapshot, or what stands at `path` in it, below `target`.

        Without a target everything goes where it was. Keywords as in RestoreOptions. Files that
        cannot be written or whose chunks are damaged are named in the result's `errors`; nothing
        damaged is written as good.
        Raises UsageError (a target that is not empty without `overwrite`), StorageError.
        """
        row = self.find_snapshot(snapshot)
        return restore.restore_snapshot(
            self._objects,
            row,
            None if target is None else os.fsencode(target),
            os.fsencode(path),
            RestoreOptions(threads=self._threads, **options),
        )

    def forget(
        self,
        snapshots: Sequence[str] = (),
        *,
        keep: Retention | None = None,
        group_by: Sequence[str] = GROUP_BY,
        allow_empty: bool = False,
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
        dry_run: bool = False,
    ) -> forget.ForgetResult:
        """Forget the snapshots that are named, or those that the policy `keep` does not keep.

        Only snapshots of `host` holding all `paths` with all `tags` are looked at. A policy is
        applied to each group of equal `group_by` ("host", "paths", "tags", "name"); one that
        would empty a group is refused unless `allow_empty`. What snapshots reached stays stored.
        Raises UsageError: then nothing was forgotten; StorageError says how far it came.
        """
        if isinstance(snapshots, str):  # its letters would be taken for the starts of ids
            snapshots = [snapshots]
        if bool(snapshots) == (keep is not None):
            raise UsageError(
                "either snapshots or a policy say what to forget",
                hint="Say what to keep, for example --keep-daily 7, or name snapshots",
            )
        wanted = forget.Filter(host=host, paths=[os.fsencode(path) for path in paths], tags=tags)
        if keep is None:
            return forget.forget_named(self._objects, snapshots, wanted, dry_run=dry_run)
        return forget.forget_by_policy(
            self._objects,
            keep,
            wanted,
            now_ns=self._clock(),
            group_by=group_by,
            allow_empty=allow_empty,
            dry_run=dry_run,
        )

    def stats(self) -> stats.Stats:
        """Return how much there is and what it takes; raises Damaged, ObjectMissing."""
        return stats.collect_stats(self._objects)

    def snapshot_stats(self, snapshots: Sequence[str]) -> list[SnapshotStats]:
        """Return what snapshots hold, brought, and need alone; oldest first."""
        rows = self._choose(snapshots, None, (), ()) if snapshots else []
        return stats.collect_snapshot_stats(self._objects, rows)

    def growth(self) -> list[Growth]:
        """Return what each snapshot added to the older ones; oldest first."""
        return stats.collect_growth(self._objects)

    def freed_by(self, snapshots: Sequence[str]) -> int:
        """Return the bytes that forgetting snapshots, and a prune, would free."""
        rows = self._choose(snapshots, None, (), ()) if snapshots else []
        return unique.freed_by(self._objects, {row.id for row in rows})

    def copy_to(
        self,
        target: Repository,
        snapshots: Sequence[str] = (),
        *,
        verify: bool = False,
        dry_run: bool = False,
        announce: Callable[[copy.CopyResult], None] = lambda _result: None,
    ) -> copy.CopyResult:
        """Copy snapshots, by default all, to another repository; `verify` reads them back there.

        `announce` is told what it will take, before anything is written.
        What is there already does not travel. Raises StorageFull before anything is written when
        it does not fit, Damaged and ObjectMissing where this one cannot be read, StorageError.
        """
        rows = self.snapshots()
        if snapshots:
            wanted = {resolve(spec, rows).id for spec in snapshots}
            rows = [row for row in rows if row.id in wanted]
        return copy.copy_snapshots(
            self._objects,
            target._objects,
            rows,
            threads=self._threads,
            verify=verify,
            dry_run=dry_run,
            announce=announce,
        )

    def prune(
        self,
        *,
        max_unused: float = prune.MAX_UNUSED,
        rebase: bool = False,
        dry_run: bool = False,
        without: Sequence[str] = (),
    ) -> prune.PruneResult:
        """Delete what no snapshot needs; packs are written anew where more is wasted.

        `max_unused` is the part of a pack, 0 to 1. With `rebase` nothing stays of what no snapshot
        names, not even as the base of a delta. A dry run looks at what would be were the snapshots
        of `without`, ids, forgotten. Raises RepositoryLocked while others work, Damaged and
        ObjectMissing when it is not known what is needed, StorageError.
        """
        return prune.prune_repository(
            self._objects,
            max_unused=max_unused,
            rebase=rebase,
            dry_run=dry_run,
            without=without,
            threads=self._threads,
        )

    def repair_index(self, *, force: bool = False) -> RepairIndexResult:
        """Compare the index with the packs' footers and make it anew where it is wrong.

        With `force` it is made anew in any case, unopened. Raises Damaged where only the index
        tells what is in a pack, StorageError.
        """
        return repair_index(self._objects, force=force)

    def repair_packs(
        self,
        packs: Sequence[str] = (),
        *,
        source: Repository | None = None,
        progress: ProgressFunction | None = None,
    ) -> RepairPacksResult:
        """Save what can be read of damaged packs, put these away, and say what is lost.

        `packs` are the beginnings of ids, by default all are read. From `source`, a copy of this
        repository or one of its family, comes what is damaged or missing. Nothing is deleted.
        Raises UsageError, RepositoryLocked while others work, StorageError.
        """
        return repair_packs(
            self._objects,
            packs=packs,
            other=None if source is None else source._objects,
            threads=self._threads,
            progress=progress,
        )

    def repair_snapshots(
        self, snapshots: Sequence[str] = (), *, forget: bool = False, dry_run: bool = False
    ) -> RepairSnapshotsResult:
        """Write snapshots that have lost something again, without it and saying so.

        The old ones stay until `forget` moves them to quarantine. Raises UsageError, Damaged,
        RepositoryLocked while others work, StorageError.
        """
        return repair_snapshots(self._objects, snapshots=snapshots, forget=forget, dry_run=dry_run)

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
        return check.check_repository(
            self._objects,
            read_data=read_data,
            choice=check_choice.Choice(subset, max_seconds, packs),
            threads=self._threads,
            progress=progress,
            clock=self._clock,
        )
