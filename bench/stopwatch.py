"""Rates of small operations on one and two threads.

A step is made ready for each thread on data of its own (a lane), then all threads repeat it
until the time is up. Anything that holds the interpreter's lock shows at once: two threads are
then no faster than one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

Pass = Callable[[], int]  # does the step once over the lane's data; returns what it counts


def rate(passes: Sequence[Pass], seconds: float) -> tuple[float, float]:
    """Return the sum of what all passes counted in a second, and the processors they used.

    One thread each. Fewer processors than threads: they waited for each other's lock, or other
    programs took the processors.
    """
    barrier = threading.Barrier(len(passes))
    rates = [0.0] * len(passes)
    used = [0.0] * len(passes)
    failures: list[BaseException] = []

    def repeat(number: int, step: Pass) -> None:
        try:
            step()  # warm: contexts, tables, page faults
            barrier.wait()
            count = 0
            begin, begin_cpu = time.perf_counter(), time.thread_time()
            while (spent := time.perf_counter() - begin) < seconds:
                count += step()
            rates[number] = count / spent
            used[number] = (time.thread_time() - begin_cpu) / spent
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [
        threading.Thread(target=repeat, args=(number, step)) for number, step in enumerate(passes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise next((e for e in failures if not isinstance(e, threading.BrokenBarrierError)),
                   failures[0])  # fmt: skip
    return sum(rates), sum(used)
