"""Take a snapshot of source paths, or of a stream: match a parent, store, commit.

Implements the frame of "Snapshot, step by step" of the design and the order of
docs/format.md §7. An error of the repository ends the snapshot and nothing is committed.
"""

from __future__ import annotations

import grp
import os
import pwd
import socket
import stat as stat_module
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import msgspec

from packstone.chunking.chunker import Chunker, ChunkerParams
from packstone.errors import CommandFailed, Damaged, ObjectMissing, UsageError
from packstone.model import Entry, Snapshot
from packstone.operations.browse import find_path
from packstone.operations.build_tree import TreeBuilder
from packstone.operations.options import SnapshotOptions
from packstone.operations.parent import Parent
from packstone.operations.processes import end_process, told_end
from packstone.operations.results import SnapshotResult, Ticker
from packstone.operations.storing import ChunkStore, Workers, drain
from packstone.repository.contents import ContentWriter
from packstone.repository.fetching import Fetching
from packstone.repository.publishing import publish_footers
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import find_parent, resolve
from packstone.repository.trees import DirectoryWriter
from packstone.repository.writer import ObjectWriter
from packstone.storage.base import as_directory
from packstone.version import VERSION


class _Session:
    """One snapshot being taken: writer, workers, parent, and the snapshot's first draft."""

    def __init__(
        self,
        repository: ObjectRepository,
        options: SnapshotOptions,
        paths: list[bytes],
        name: bytes,
    ) -> None:
        self._repository = repository
        self.options = options
        self.started = time.monotonic()
        started_ns = options.clock()
        self.draft = Snapshot(
            time_ns=started_ns if options.time_ns is None else options.time_ns,
            host=options.host or socket.gethostname(),
            paths=paths,
            tree=b"",
            user=_user_name(os.geteuid()),
            name=name,
            tags=list(options.tags),
            program=f"packstone {VERSION}",
            excludes=list(options.rules.patterns),
            # The clock of the machine, whatever time the snapshot is said to have.
            summary={"started_ns": started_ns},
        )
        rows = repository.snapshots()
        row = resolve(options.parent, rows) if options.parent else find_parent(rows, self.draft)
        self.result = SnapshotResult(time_ns=self.draft.time_ns, parent_id=row.id if row else None)
        self.row = row
        self.writer: ObjectWriter = repository.writer(level=options.level, dry_run=options.dry_run)
        if not options.dry_run:
            repository.keep_reserve()
        self.workers = Workers(options.threads)
        params = ChunkerParams(repository.config.average, repository.hasher.cutting_secret)
        wants_deltas = options.delta
        if wants_deltas is None:
            storage = repository.storage
            wants_deltas = storage.is_near or storage.is_far
            if storage.is_far:
                self.writer.fetching = Fetching(storage)
        self.store = ChunkStore(
            self.writer,
            repository.hasher,
            Chunker(params),
            self.workers,
            repository.bases() if wants_deltas else None,
        )
        self.parent = Parent(repository, row, self.writer.generation, repository.warnings.append)
        self.writer.present = self.parent.pages_met

    def commit(self, tree: bytes, owners: set[int], groups: set[int]) -> SnapshotResult:
        """Put the snapshot object, unless it was only to be tried, and complete the result."""
        result, options, row = self.result, self.options, self.row
        self.workers.close()
        if options.dry_run or (options.skip_if_unchanged and self._is_unchanged(tree)):
            self.writer.finish()
        else:
            self.writer.finish()  # now it is known what the snapshot takes
            snapshot = msgspec.structs.replace(
                self.draft,
                tree=tree,
                parent=bytes.fromhex(row.id) if row else b"",
                users={uid: name for uid in sorted(owners) if (name := _user_name(uid))},
                groups={gid: name for gid in sorted(groups) if (name := _group_name(gid))},
                summary={
                    **self.draft.summary,
                    "files": result.files_new + result.files_changed + result.files_unmodified,
                    "dirs": result.dirs,
                    "bytes_total": result.bytes_total,
                    "errors": len(result.errors),
                    # what a later estimate of time and growth is made from
                    "bytes_read": result.bytes_read,
                    "bytes_stored": self.writer.bytes_stored,
                    "duration_ns": int((time.monotonic() - self.started) * 1e9),
                },
            )
            result.snapshot_id = self.writer.commit(snapshot)
            publish_footers(self._repository, self.writer.packs_written)
        result.bytes_added = self.writer.bytes_added
        result.bytes_stored = self.writer.bytes_stored
        result.chunks_new = self.writer.chunks_new
        result.chunks_delta = self.writer.chunks_delta
        result.bytes_delta = self.writer.bytes_delta
        result.bytes_delta_stored = self.writer.bytes_delta_stored
        result.chunks_total = self.store.chunks_total
        result.seconds = time.monotonic() - self.started
        return result

    def _is_unchanged(self, tree: bytes) -> bool:
        """Return whether every source is what it is in the parent.

        What stands above the sources does not count: somebody always writes beside them.
        """
        if self.row is None:
            return False
        self.writer.finish()  # the new trees are read below
        old, new = self.row.snapshot, msgspec.structs.replace(self.draft, tree=tree)
        reader = self._repository.reader
        try:
            return all(
                find_path(reader, old, path) == find_path(reader, new, path)
                for path in self.draft.paths
            )
        except (Damaged, ObjectMissing, UsageError):  # a source that came or went
            return False


@contextmanager
def _session(
    repository: ObjectRepository, options: SnapshotOptions, paths: list[bytes], name: bytes = b""
) -> Iterator[_Session]:
    """Run a session; whatever ends it early leaves no snapshot and no half-written pack."""
    session = _Session(repository, options, paths, name)
    try:
        yield session
    finally:
        session.workers.close()
        session.writer.abandon()


def take_snapshot(
    repository: ObjectRepository, paths: Sequence[bytes], options: SnapshotOptions
) -> SnapshotResult:
    """Take a snapshot of `paths`; see the module for what errors do.

    Raises UsageError when nothing is named or nothing named exists, StorageError, Damaged.
    """
    sources = sorted({os.path.abspath(path) for path in paths})
    if not sources:
        raise UsageError("no source path is named")
    if not any(os.path.lexists(path) for path in sources):
        raise UsageError(
            f"no source path exists: {os.fsdecode(sources[0])!r}",
            hint="Nothing was committed",
        )
    rules = options.rules
    directory = as_directory(repository.storage)
    if directory is not None:
        own = os.stat(directory.path)
        rules = replace(rules, exclude_paths=(*rules.exclude_paths, (own.st_dev, own.st_ino)))
    with _session(repository, replace(options, rules=rules), sources) as session:
        builder = TreeBuilder(session.store, session.parent, session.options, session.result)
        tree = builder.build(sources)
        return session.commit(tree, builder.owners, builder.groups)


def take_stream(
    repository: ObjectRepository,
    stream: BinaryIO,
    name: bytes,
    options: SnapshotOptions,
    finish: Callable[[], None] = lambda: None,
) -> SnapshotResult:
    """Take a snapshot of one file's content from a stream.

    `finish` is called at the stream's end, before anything is committed, and may raise.
    """
    if not name or b"/" in name or b"\0" in name or len(name) > 255 or name in (b".", b".."):
        raise UsageError(f"{os.fsdecode(name)!r} cannot be the name of a file")
    with _session(repository, options, [b"/" + name], name) as session:
        result, store = session.result, session.store
        tick = Ticker(options.progress)
        old = session.parent.root().upto(name).get(name)
        version = session.parent.old_version(old)

        def read(view: memoryview) -> int:
            done = 0
            while done < len(view):
                # Unbuffered streams return what is there: only 0 is the end.
                count = stream.readinto(view[done:])  # type: ignore[attr-defined]
                if count is None:
                    raise UsageError("the stream does not block: its end cannot be told")
                if not count:
                    break
                done += count
                result.bytes_read += count
                tick(0, result.bytes_read, name)
            return done

        content = ContentWriter(store.writer.put)
        spans: deque[Any] = deque()
        size = store.store_run(content, spans, read, version)
        drain(content, spans, wait=True)
        finish()
        now = session.options.clock()
        entry = Entry(
            name,
            stat_module.S_IFREG | 0o644,
            os.geteuid(),
            os.getegid(),
            size,
            now,
            now,
            0,
            content.finish(),
            None,
        )
        directory = DirectoryWriter(store.writer.put)
        directory.extend([entry])
        same = old is not None and (old.size, old.content) == (entry.size, entry.content)
        if old is None:
            result.files_new = 1
        elif same:
            result.files_unmodified = 1
        else:
            result.files_changed = 1
        result.bytes_total = size
        return session.commit(directory.finish(), {entry.uid}, {entry.gid})


def take_command(
    repository: ObjectRepository, argv: Sequence[str], name: bytes, options: SnapshotOptions
) -> SnapshotResult:
    """Take a snapshot of what a command prints; it must exit with 0 or nothing is committed.

    Its stderr goes where ours goes. Raises CommandFailed, UsageError for an empty command.
    """
    if not argv:
        raise UsageError("no command is named")
    try:
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, bufsize=0)
    except OSError as error:
        raise CommandFailed(
            f"cannot run {argv[0]}: {error.strerror}", hint="Nothing was committed"
        ) from error
    assert process.stdout is not None

    def finish() -> None:
        code = process.wait()
        if code:
            raise CommandFailed(
                f"{argv[0]} {told_end(code)}", hint="Nothing was committed; see its messages above"
            )

    try:
        with process.stdout as stdout:
            return take_stream(repository, stdout, name, options, finish)  # type: ignore[arg-type]
    finally:
        end_process(process)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""
