"""Work in a process of its own, so that nothing it does or suffers ends the one that waits.

A job that hangs on a dead server, runs out of memory or dies of a signal is one failed job; the
others are done. Forked, so that what is to be done needs no other form; call it before threads
are started and repositories opened.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")

GRACE_S = 30.0  # for putting things away, after the wish to end was told
_KILL_S = 5.0  # for the kernel to end a process; one in the grip of a device may not
_LOOK_S = 1.0
_ONE_WISH_S = 1.0  # a key that is held, or two signals of one shutdown, mean one thing
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class TimedOut(KeyboardInterrupt):
    """The time of a piece of work is over; unwinds as Ctrl-C does."""


class Apart(Generic[Value]):
    """What came of work: its value, or else how its process died."""

    def __init__(self) -> None:
        self.value: Value | None = None
        self.died = ""
        self.interrupted = False


class Wishes:
    """Counts how often the user, or the system, wants an end; a context manager.

    While it listens SIGINT and SIGTERM interrupt nothing by themselves: whatever must be put in
    order after a job is. Outside of the main thread it hears nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        self._last = float("-inf")
        self.fd, self._writer = os.pipe()
        for end in (self.fd, self._writer):
            os.set_blocking(end, False)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Wishes:
        for number in _SIGNALS:
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._writer)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= _ONE_WISH_S:
            self._last = now
            self.count += 1
            with contextlib.suppress(BlockingIOError):
                os.write(self._writer, b"!")

    def forget(self) -> None:
        """Let `fd` be readable again only after the next wish."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 1 << 10)


def run_apart(
    work: Callable[[], Value], wishes: Wishes, limit: float | None = None
) -> Apart[Value]:
    """Run `work` in a process of its own and wait for what it returns.

    `limit`, in seconds, ends it by SIGKILL. A wish to end it is passed on and leaves 30 seconds
    for putting things away; a second one none.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # what is buffered would be written by both
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reader)
        _be_child(work, writer)
    os.close(writer)
    outcome: Apart[Value] = Apart()
    try:
        _wait(pid, reader, wishes, limit, outcome)
    finally:
        os.close(reader)
    return outcome


def _be_child(work: Callable[[], Value], writer: int) -> None:
    code = 1
    try:
        _listen()
        data = pickle.dumps(work())
        with open(writer, "wb") as pipe:
            pipe.write(data)
        code = 0
    except BaseException as error:
        with contextlib.suppress(BaseException):
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
    finally:
        with contextlib.suppress(BaseException):
            sys.stderr.flush()
        os._exit(code)  # what the parent has to do at its end is not ours to do


def _listen() -> None:
    """Unwind at the first SIGINT or SIGTERM, and only then.

    Ctrl-C reaches this process from the terminal, and as SIGTERM again and again from the one
    that waits; a second wish is answered there, with SIGKILL.
    """
    heard = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal heard
        if not heard:
            heard = True
            raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def _wait(
    pid: int, reader: int, wishes: Wishes, limit: float | None, outcome: Apart[Value]
) -> None:
    deadline = float("inf") if limit is None else time.monotonic() + limit
    heard = wishes.count
    wishes.forget()
    parts: list[bytes] = []
    killed = False
    told = float("-inf")
    while True:
        left = deadline - time.monotonic()
        # Looked after every second: two signals at once were seen to leave select asleep, and one
        # sent then not to arrive.
        ready = select.select([reader, wishes.fd], [], [], max(0.0, min(left, _LOOK_S)))[0]
        if wishes.count > heard:
            wishes.forget()
            heard = wishes.count
            deadline = min(deadline, time.monotonic() + (0 if outcome.interrupted else GRACE_S))
            outcome.interrupted = True
        if outcome.interrupted and not killed and time.monotonic() >= told + _LOOK_S:
            told = time.monotonic()
            os.kill(pid, signal.SIGTERM)
        if reader in ready:
            part = os.read(reader, 1 << 20)
            if not part:
                break
            parts.append(part)
        elif ready or time.monotonic() < deadline:
            continue
        elif killed:
            outcome.died = "its process could not be ended, the kernel waits for something"
            return
        else:
            os.kill(pid, signal.SIGKILL)
            killed, deadline = True, time.monotonic() + _KILL_S
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not code and parts:
        outcome.value = pickle.loads(b"".join(parts))
    elif killed:
        outcome.died = "its process did not end in time and was killed"
    elif code < 0:
        outcome.died = f"its process was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            outcome.died += "; was there too little memory?"
    else:
        outcome.died = f"its process ended with {code}"


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise TimedOut when the block takes longer; for the main thread."""
    if seconds is None:
        yield
        return

    def over(_number: int, _frame: FrameType | None) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
