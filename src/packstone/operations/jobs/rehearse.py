"""Rehearse a restore: really do it, to a scratch place, and keep how long it took.

Files go to a new directory of their own, are read back from the disk and removed; streams are
read to their end, and into a database where one is named. Packs are dropped from the system's
memory first, so that the disk is measured and not what a snapshot just left there. Never
touches anything that it has not made itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from packstone.errors import Damaged, ObjectMissing, UsageError
from packstone.model import MIB, Problem
from packstone.operations.estimate import Estimate
from packstone.operations.facade import Repository
from packstone.operations.jobs.load import choose_parts, load_job
from packstone.operations.jobs.parts import newest_parts, of_job
from packstone.operations.jobs.plan import (
    OpenTarget,
    chosen_jobs,
    estimate_job,
    estimates_off,
    named_parts,
)
from packstone.operations.jobs.sources import open_source
from packstone.operations.jobs.strategy import Job, PathSource, Strategy
from packstone.operations.jobs.targets import open_target
from packstone.operations.measured import keep_sample, known_rates, made_sample
from packstone.operations.results import ProgressFunction
from packstone.repository.rates import STREAM, is_small
from packstone.repository.snapshots import SnapshotRow

_PREFIX = "packstone-rehearsal-"
_PER_FILE = 4096  # bytes that a small file takes on a disk, at least
_READ = 4 * MIB


@dataclass(slots=True)
class Rehearsal:
    """What a rehearsal did: `seconds` are those of the restore, verifying comes on top.

    `off` is the relative error of the estimate that was made before, None without one;
    `off_median` that of all known ones, of `judged`. `kept_rate` says whether this one counts
    from now on: what took less than a second tells no rate. `place` is what was kept, empty if
    it was removed.
    """

    job: Job
    snapshots: list[SnapshotRow] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    verify_seconds: float = 0.0
    files_verified: int = 0
    loaded: bool = False
    estimate: Estimate | None = None
    off: float | None = None
    off_median: float | None = None
    judged: int = 0
    kept_rate: bool = False
    place: str = ""
    errors: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def rehearse_job(
    strategy: Strategy,
    name: str,
    *,
    open_target: OpenTarget = open_target,
    opening: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Rehearsal:
    """Rehearse the restore of a job; keywords as in `rehearse_in`, which raises the rest.

    `opening` are keywords for `open_target`. Raises UsageError for an unknown name, and
    whatever opening its repository raises.
    """
    (job,) = chosen_jobs(strategy, [name])
    with contextlib.closing(open_target(job.repository, **opening)) as repository:
        result = rehearse_in(repository, job, **options)
        result.warnings = list(dict.fromkeys([*repository.warnings, *result.warnings]))
        return result


def rehearse_in(
    repository: Repository,
    job: Job,
    *,
    target: str | None = None,
    keep: bool = False,
    database: str = "",
    part: str = "",
    progress: ProgressFunction | None = None,
    clock: Callable[[], int] = time.time_ns,
) -> Rehearsal:
    """Restore the newest snapshot of each part of a job to a scratch place, verify, measure.

    The place is a new directory in `target`, by default in that for temporary files. A stream
    is read to its end; with `database`, which must be empty, one is played into that: of several
    the one called `part`. Raises UsageError where there is nothing to restore or nowhere to, and
    what `load_job` raises; what could not be restored is in `errors`.
    """
    begun_ns = clock()
    rows = of_job(repository.snapshots(), job)
    rows = newest_parts(rows, now_ns=begun_ns, named=named_parts(job))
    streamed = not isinstance(job.source, PathSource)
    if (database or part) and not streamed:
        raise UsageError(f"job {job.name!r} stores files, which go into no database")
    if part:
        rows = [row for row in rows if row.snapshot.name == os.fsencode(part)]
    if not rows:
        raise UsageError(
            f"job {job.name!r} has no snapshot{f' of {part!r}' if part else ''}",
            hint=f"Run: packstone run {job.name}",
        )
    if database:  # roles and other databases stay out of it
        names = [
            each.name for each in choose_parts(open_source(job.source).stored(), job, part, False)
        ]
        rows = [row for row in rows if os.fsdecode(row.snapshot.name) in names]
    result = Rehearsal(job, rows)
    size = sum(row.snapshot.summary.get("bytes_total", 0) for row in rows)
    files = sum(row.snapshot.summary.get("files", 0) for row in rows)
    known = known_rates(repository._objects, clock)
    result.estimate = estimate_job(job, known, size, files)
    estimated = result.estimate.seconds if result.estimate is not None else 0.0
    _forget_packs(repository)
    if database:
        loaded = load_job(
            repository, job, database, part=part, estimated_seconds=estimated, progress=progress
        )
        result.loaded = True
        result.seconds = sum(each.seconds for each in loaded)
        result.bytes = sum(each.bytes_loaded for each in loaded)
        result.files = result.files_verified = len(loaded)
    elif streamed:
        for row in rows:
            _pour(repository, row, result)
        _keep_stream(repository, result, estimated, clock)
    else:
        with _scratch(target, size + files * _PER_FILE, keep, result) as place:
            for number, row in enumerate(rows):
                share = row.snapshot.summary.get("bytes_total", 0) / size if size else 0.0
                where = os.path.join(place, str(number))
                _restore(repository, row, where, estimated * share, progress, result)
    _judge(repository, result, begun_ns, clock)
    return result


def _forget_packs(repository: Repository) -> None:
    """Let packs be read from the medium, as they would be after a loss."""
    storage = repository._objects.storage
    for name, _size in storage.list("packs"):
        storage.drop_cached(name)


@contextlib.contextmanager
def _scratch(target: str | None, needed: int, keep: bool, result: Rehearsal) -> Iterator[str]:
    """Make a new directory with room for so many bytes, and remove it; raises UsageError."""
    above = target or tempfile.gettempdir()
    try:
        free = shutil.disk_usage(above).free
        if free < needed:
            raise UsageError(
                f"{above} has room for {free:,} bytes, the rehearsal needs {needed:,}",
                hint="Nothing was written. Name a larger place: --target DIR",
            )
        place = tempfile.mkdtemp(prefix=_PREFIX, dir=above)
    except OSError as error:
        raise UsageError(
            f"cannot rehearse in {above}: {error.strerror}",
            hint="Nothing was written. Name another place: --target DIR",
        ) from error
    result.place = place if keep else ""
    try:
        yield place
    finally:
        if not keep:
            _remove(place)
            if os.path.lexists(place):
                result.warnings.append(f"{place} could not be removed: remove it yourself")


def _remove(place: str) -> None:
    """Remove what was restored, also from directories that nobody may write to."""
    for where, names, _files in os.walk(place):
        os.chmod(where, stat.S_IRWXU)
        for name in names:
            path = os.path.join(where, name)
            if not os.path.islink(path):
                os.chmod(path, stat.S_IRWXU)
    shutil.rmtree(place, ignore_errors=True)


def _restore(
    repository: Repository,
    row: SnapshotRow,
    place: str,
    estimated: float,
    progress: ProgressFunction | None,
    result: Rehearsal,
) -> None:
    """Restore one snapshot, then read it back: two times, of which the first is the rate."""
    restored = repository.restore(row.id, place, progress=progress, estimated_seconds=estimated)
    result.seconds += restored.seconds
    result.files += restored.files_restored
    result.bytes += restored.bytes_written
    result.errors += restored.errors
    result.warnings += restored.warnings
    verified = repository.restore(
        row.id, place, overwrite="changed", verify=True, progress=progress
    )
    result.verify_seconds += verified.seconds
    result.files_verified += verified.files_verified
    result.errors += [each for each in verified.errors if each not in restored.errors]
    if verified.files_restored:  # what was right when it was written is not any more
        count = verified.files_restored
        result.errors.append(Problem(os.fsencode(place), f"{count} files had to be restored twice"))


def _pour(repository: Repository, row: SnapshotRow, result: Rehearsal) -> None:
    """Read a stored stream to its end; every chunk is compared with its hash on the way."""
    name = row.snapshot.name
    started = time.monotonic()
    size = 0
    try:
        with repository.open_file(row.id, name) as stream:
            while data := stream.read(_READ):
                size += len(data)
    except (Damaged, ObjectMissing) as error:
        result.errors.append(Problem(name, error.message))
        return
    result.seconds += time.monotonic() - started
    result.files += 1
    result.bytes += size
    result.files_verified += 1
    expected = row.snapshot.summary.get("bytes_total", size)
    if size != expected:
        text = f"{size:,} bytes came back, expected {expected:,}"
        result.errors.append(Problem(name, text))


def _keep_stream(
    repository: Repository, result: Rehearsal, estimated: float, clock: Callable[[], int]
) -> None:
    """Keep how long it took to read streams, if all of them were good."""
    if result.seconds and not result.errors:
        sample = made_sample(
            repository._objects,
            STREAM,
            size=result.bytes,
            files=result.files,
            seconds=result.seconds,
            job=result.job.name,
            estimated=estimated,
            clock=clock,
        )
        keep_sample(repository._objects, sample)


def _judge(
    repository: Repository, result: Rehearsal, begun_ns: int, clock: Callable[[], int]
) -> None:
    """Compare the estimate with what it took, and say how good those before were."""
    if result.estimate is not None and result.seconds:
        result.off = (result.estimate.seconds - result.seconds) / result.seconds
    known = known_rates(repository._objects, clock)
    name = result.job.name
    result.kept_rate = any(
        each.job == name and each.time_ns >= begun_ns and not is_small(each) for each in known
    )
    result.off_median, result.judged = estimates_off(known, name)
