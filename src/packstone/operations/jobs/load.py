"""Play dumps of a job back into a database, a file or a command.

A dump streams from the repository to the client; nothing of it is written to a disk here. Roles
of a server are played back only when they are asked for: they change what others may do there.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from packstone.errors import UsageError
from packstone.operations.facade import Repository
from packstone.operations.jobs.plan import chosen_jobs
from packstone.operations.jobs.sources import open_source
from packstone.operations.jobs.sources.base import Part
from packstone.operations.jobs.sources.postgres import PostgresRoles
from packstone.operations.jobs.strategy import Job, Strategy
from packstone.operations.jobs.targets import open_target
from packstone.operations.measured import keep_load
from packstone.operations.results import ProgressFunction, Ticker
from packstone.repository.snapshots import SnapshotRow, resolve


@dataclass(frozen=True, slots=True)
class LoadedPart:
    """One part that was played back: from which snapshot, `bytes_loaded` in how many seconds."""

    name: str
    snapshot_id: str
    time_ns: int
    bytes_loaded: int
    seconds: float


def load_job(
    repository: Repository,
    job: Job,
    target: str,
    *,
    part: str = "",
    snapshot: str = "latest",
    before_ns: int | None = None,
    host: str | None = None,
    roles: bool = False,
    overwrite: bool = False,
    estimated_seconds: float = 0.0,
    progress: ProgressFunction | None = None,
) -> list[LoadedPart]:
    """Play the newest dump of a job, or an older one, back into `target`, which must be empty.

    `snapshot` is an id or `latest~N` among those of the part, `before_ns` looks only at those
    taken until then. With `roles` the roles of the server come first. A job of several databases
    needs `part`, the name of one. How long it took is kept, beside `estimated_seconds`.
    Raises UsageError, CommandFailed with the client's words, Damaged and ObjectMissing: then the
    target was left as the source's `load` says.
    """
    rows = [
        row
        for row in repository.snapshots(host=host, tags=[job.tag])
        if before_ns is None or row.snapshot.time_ns <= before_ns
    ]
    if not part and not snapshot.startswith("latest"):  # an id means a part too
        part = os.fsdecode(resolve(snapshot, rows).snapshot.name)
    *first, main = choose_parts(open_source(job.source).stored(), job, part, roles)
    row = find_dump(rows, job, main.name, snapshot)
    until = [each for each in rows if each.snapshot.time_ns <= row.snapshot.time_ns]
    found = [(each, find_dump(until, job, each.name, "latest")) for each in first]
    loaded = []
    for each, chosen in [*found, (main, row)]:
        started = time.monotonic()
        with _opened(repository, chosen, each.name, progress) as stream:
            each.load(cast(BinaryIO, stream), target, overwrite=overwrite)
            loaded.append(
                LoadedPart(
                    each.name,
                    chosen.id,
                    chosen.snapshot.time_ns,
                    stream.count,
                    time.monotonic() - started,
                )
            )
    keep_load(
        repository._objects,
        job.name,
        size=sum(each.bytes_loaded for each in loaded),
        files=len(loaded),
        seconds=sum(each.seconds for each in loaded),
        estimated=estimated_seconds,
    )
    return loaded


def restore_job(
    strategy: Strategy,
    name: str,
    target: str,
    *,
    source: str = "",
    threads: int | None = None,
    lock_timeout: float = 0.0,
    waiting: Callable[[str], None] | None = None,
    warn: Callable[[str], None] = lambda _text: None,
    **options: Any,
) -> list[LoadedPart]:
    """Play a dump of a job of a strategy back into `target`; further keywords as in `load_job`.

    `source` is the name of the repository to read, one that the job is copied to, by default its
    own. `warn` is told at the end of snapshots that cannot be read: a newer one may be among them.
    Raises UsageError for names that the strategy has not, what opening raises, and what `load_job`
    raises.
    """
    (job,) = chosen_jobs(strategy, [name])
    places = {each.name: each for each in (job.repository, *job.copy_to)}
    place = places.get(source or job.repository.name)
    if place is None:
        raise UsageError(
            f"job {name!r} is not stored in {source!r}", hint=f"It is in {', '.join(places)}"
        )
    with closing(
        open_target(place, threads=threads, lock_timeout=lock_timeout, waiting=waiting)
    ) as repository:
        try:
            return load_job(repository, job, target, **options)
        finally:
            for text in repository.warnings:
                warn(text)


def choose_parts(parts: Sequence[Part], job: Job, name: str, roles: bool) -> list[Part]:
    """Return the parts to play back, in order; raises UsageError when that is not clear."""
    names = ", ".join(part.name for part in parts)
    first = [part for part in parts if roles and isinstance(part, PostgresRoles)]
    if roles and not first:
        raise UsageError(f"job {job.name!r} stores no roles")
    if name:
        wanted = [part for part in parts if part.name == name]
        if not wanted:
            raise UsageError(f"job {job.name!r} has no part {name!r}", hint=f"It has {names}")
    else:
        wanted = [part for part in parts if not isinstance(part, PostgresRoles)]
        if len(wanted) != 1:
            raise UsageError(
                f"job {job.name!r} stores several databases", hint=f"Say --part: one of {names}"
            )
    return [part for part in first if part not in wanted] + wanted


def find_dump(rows: Sequence[SnapshotRow], job: Job, name: str, spec: str) -> SnapshotRow:
    """Return the snapshot of a part that `spec` names; raises UsageError when there is none."""
    own = [row for row in rows if row.snapshot.name == os.fsencode(name)]
    if not own:
        raise UsageError(
            f"there is no dump of {name!r} of job {job.name!r} here",
            hint=f"See what there is: packstone snapshots --tag {job.tag}",
        )
    return resolve(spec, own)


class _Stream:
    """A stored file that counts what is read of it and tells how far it is."""

    def __init__(self, file: BinaryIO, name: str, size: int, tick: Callable[..., None]) -> None:
        self._file = file
        self._name = os.fsencode(name)
        self._size = size
        self._tick = tick
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes; raises Damaged, ObjectMissing."""
        data = self._file.read(size)
        self.count += len(data)
        self._tick(0, self.count, self._name, files_total=1, bytes_total=self._size)
        return data


@contextmanager
def _opened(
    repository: Repository, row: SnapshotRow, name: str, progress: ProgressFunction | None
) -> Iterator[_Stream]:
    with repository.open_file(row.id, name) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield _Stream(cast(BinaryIO, file), name, size, Ticker(progress))
