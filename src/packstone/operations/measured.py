"""Keep how long restores and checks took, and find what was kept.

Never an error and never in the way: where nothing can be read there is no estimate, and where
nothing can be written (a read-only disk, a full one) the measurement is lost. Only whole,
undisturbed work counts: what met problems says nothing of the next time, and a disk that fails
is better not written to. No lock is taken beyond the one that is held.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from packstone.errors import PackstoneError
from packstone.operations.jobs.strategy import JOB_TAG
from packstone.operations.options import RestoreOptions
from packstone.operations.results import CheckResult, RestoreResult
from packstone.repository.layout import check_features
from packstone.repository.rates import (
    CHECK,
    LOAD,
    RESTORE,
    VERIFIED_RESTORE,
    Sample,
    is_small,
    keep_rates,
    read_rates,
)
from packstone.repository.repository import ObjectRepository
from packstone.repository.snapshots import SnapshotRow

_SMALL_KEPT = 8  # of one host: more would not tell more, and each costs a write


def known_rates(
    repository: ObjectRepository,
    clock: Callable[[], int] = time.time_ns,
    warn: Callable[[str], None] = lambda _text: None,
) -> list[Sample]:
    """Return what was measured in this repository, oldest first; never raises.

    `warn` is told what could not be read: nothing known is not nothing measured.
    """
    try:
        return read_rates(repository.storage, repository.sealer, clock(), warn)
    except PackstoneError as error:
        warn(f"what was measured cannot be read: {error.message}")
    except OSError as error:
        warn(f"what was measured cannot be read: {error.strerror}")
    return []


def keep_restore(
    repository: ObjectRepository,
    row: SnapshotRow,
    options: RestoreOptions,
    result: RestoreResult,
    clock: Callable[[], int] = time.time_ns,
) -> None:
    """Keep how long a restore took, if it wrote everything it went over; never raises."""
    found_there = result.files_skipped or result.bytes_reused or result.files_deleted
    if options.dry_run or result.errors or found_there or not result.files_restored:
        return
    sample = made_sample(
        repository,
        VERIFIED_RESTORE if options.verify else RESTORE,
        size=result.bytes_written,
        files=result.files_restored,
        seconds=result.seconds,
        job=job_of(row),
        estimated=options.estimated_seconds,
        clock=clock,
    )
    keep_sample(repository, sample)


def keep_check(
    repository: ObjectRepository,
    result: CheckResult,
    size: int,
    seconds: float,
    clock: Callable[[], int] = time.time_ns,
) -> None:
    """Keep how long it took to read and decode `size` bytes of objects; never raises."""
    if size and not result.errors:
        sample = made_sample(
            repository,
            CHECK,
            size=size,
            files=0,
            seconds=seconds,
            clock=clock,
        )
        if not is_small(sample):
            keep_sample(repository, sample)


def keep_load(
    repository: ObjectRepository,
    job: str,
    *,
    size: int,
    files: int,
    seconds: float,
    estimated: float = 0.0,
    clock: Callable[[], int] = time.time_ns,
) -> None:
    """Keep how long it took to play dumps of a job into a database; never raises."""
    sample = made_sample(
        repository,
        LOAD,
        size=size,
        files=files,
        seconds=seconds,
        job=job,
        estimated=estimated,
        clock=clock,
    )
    keep_sample(repository, sample)


def job_of(row: SnapshotRow) -> str:
    """Return the name of the job that a snapshot is of, empty if of none."""
    tags = (tag for tag in row.snapshot.tags if tag.startswith(JOB_TAG))
    return next(tags, JOB_TAG).removeprefix(JOB_TAG)


def storage_kind(repository: ObjectRepository) -> str:
    """Return what holds a repository: "directory", or the scheme of its URL."""
    if not repository.storage.is_far:
        return "directory"
    return repository.storage.url.partition("://")[0]


def made_sample(
    repository: ObjectRepository,
    what: str,
    *,
    size: int,
    files: int,
    seconds: float,
    job: str = "",
    estimated: float = 0.0,
    clock: Callable[[], int] = time.time_ns,
) -> Sample:
    """Return a sample of this host, as of now."""
    return Sample(
        time_ns=max(0, clock()),
        what=what,
        bytes=size,
        files=files,
        elapsed_ns=max(1, round(seconds * 1e9)),
        host=socket.gethostname(),
        storage=storage_kind(repository),
        job=job,
        estimated_ns=max(0, round(estimated * 1e9)),
    )


def keep_sample(repository: ObjectRepository, sample: Sample) -> bool:
    """Store one sample, of small ones a few only; return whether it is stored; never raises."""
    storage, sealer = repository.storage, repository.sealer
    try:
        if is_small(sample):
            known = read_rates(storage, sealer, sample.time_ns)
            alike = [each for each in known if is_small(each) and each.host == sample.host]
            if len(alike) >= _SMALL_KEPT:
                return False
        check_features(storage, sealer, writing=True)
        keep_rates(storage, sealer, [sample], sample.time_ns, repository.random)
    except (PackstoneError, OSError):
        return False
    return True
