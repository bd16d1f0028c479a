"""What in a strategy is allowed and perhaps not meant. Pure: looks at no disk."""

from __future__ import annotations

import os
from itertools import combinations, pairwise

from packstone.operations.jobs.strategy import Job, PathSource, Strategy
from packstone.quantities import duration_text

_SAMPLED = 60  # runs looked at for the longest gap between two of them: two months of days


def find_doubts(strategy: Strategy, now_ns: int) -> list[str]:
    """Return a sentence for each thing that is perhaps not meant.

    Jobs that store the same files, a loss window that the timetable cannot hold, one place under
    two names.
    """
    jobs = strategy.jobs.values()
    found = [text for pair in combinations(jobs, 2) if (text := _overlap(*pair))]
    found += [text for job in jobs if (text := _unheld(job, now_ns))]
    for one, other in combinations(strategy.repositories.values(), 2):
        if (one.location, one.label) == (other.location, other.label):
            found.append(f"repositories {one.name} and {other.name} are one place: {one.location}")
    return found


def _overlap(one: Job, other: Job) -> str | None:
    if one.repository != other.repository:
        return None
    if not isinstance(one.source, PathSource) or not isinstance(other.source, PathSource):
        return None
    for path in one.source.paths:
        for second in other.source.paths:
            if os.path.commonpath((path, second)) in (path, second):
                inner, outer = (second, path) if len(second) >= len(path) else (path, second)
                where = "both store" if inner == outer else f"overlap: {outer} holds"
                return f"jobs {one.name} and {other.name} {where} {inner}"
    return None


def _unheld(job: Job, now_ns: int) -> str | None:
    """Return what to say where a job runs too seldom for what may be lost."""
    if job.rpo_ns is None:
        return None
    if job.every is None:
        return f"job {job.name} is to lose {duration_text(job.rpo_ns)} at most and has no every"
    moments = [now_ns]
    for _ in range(_SAMPLED):
        moments.append(job.every.next_after(moments[-1]))
    longest = max(later - earlier for earlier, later in pairwise(moments[1:]))
    if longest <= job.rpo_ns:
        return None
    return (
        f"job {job.name} is to lose {duration_text(job.rpo_ns)} at most, and up to "
        f"{duration_text(longest)} pass between runs at {job.every_text!r}"
    )
