"""When a job is due, from what is remembered of it. Pure.

A missed time is made up once: only the newest good run counts, not how many times have passed
since. A clock that jumped costs one run at most: what lies in its future is taken for not
remembered, and the run writes the time down anew.
"""

from __future__ import annotations

from packstone.operations.jobs.memory import Memory
from packstone.operations.jobs.strategy import Every

MINUTE_NS = 60_000_000_000
FIRST_PAUSE_NS = 5 * MINUTE_NS
LONGEST_PAUSE_NS = 6 * 60 * MINUTE_NS
NEVER_RAN = 0


def due_at(every: Every | None, memory: Memory, now_ns: int) -> int | None:
    """Return from when on a job is due, NEVER_RAN for one without a good run, None for never.

    After failures it is tried again after 5 minutes, 10, 20 and so on up to 6 hours, but at the
    latest when it would have been its turn anyway.
    """
    if every is None:
        return None
    good = memory.good_ns
    due = every.next_after(good) if 0 < good <= now_ns else NEVER_RAN
    if not memory.failures or memory.began_ns > now_ns:
        return due
    pause = min(FIRST_PAUSE_NS << min(memory.failures - 1, 10), LONGEST_PAUSE_NS)
    return max(due, min(memory.began_ns + pause, every.next_after(memory.began_ns)))
