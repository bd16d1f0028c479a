"""What is to happen at which step: a plan counts operations and acts at one of them."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Collection, Iterator

from packstone.errors import StorageFull, StorageUnavailable

Action = Callable[[str], None]

EXIT_CODE = 77  # of a process that a plan has ended
WRITES = frozenset(
    {
        "make_directories", "create", "write", "write_at", "commit", "put", "put_if_absent",
        "delete", "move", "keep", "index",
    }
)  # what a full disk refuses; `index` are transactions of the index  # fmt: skip


class Plan:
    """Count operations, each by a verb and a name; act at the `at`-th, or from it on.

    An operation is asked about before it is done and, as `done VERB`, after it. Without `at`
    it only counts: `steps` then lists them all, so that a test can go through each of them.
    """

    def __init__(
        self,
        action: Action | None = None,
        at: int = -1,
        *,
        onwards: bool = False,
        verbs: Collection[str] | None = None,
    ) -> None:
        """`verbs` are the operations that count, by default all of them."""
        self._action = action
        self._at = at
        self._onwards = onwards
        self._verbs = verbs
        self.steps: list[str] = []
        self.fired = False

    def step(self, verb: str, name: str) -> None:
        """Ask whether something is to happen here."""
        if self._verbs is not None and verb not in self._verbs:
            return
        number = len(self.steps)
        self.steps.append(f"{verb} {name}")
        if self._action is not None and (
            number == self._at or (self._onwards and number > self._at >= 0)
        ):
            self.fired = True
            self._action(f"{verb} {name}")

    @contextlib.contextmanager
    def around(self, verb: str, name: str) -> Iterator[None]:
        """Ask before and after an operation."""
        self.step(verb, name)
        yield
        self.step(f"done {verb}", name)


def leave(step: str) -> None:
    """End the process at once, as `kill -9` does; with EXIT_CODE."""
    os._exit(EXIT_CODE)


def interrupt(step: str) -> None:
    """Act as Ctrl-C does."""
    raise KeyboardInterrupt(step)


def full(step: str) -> None:
    """Act as a storage does that is full."""
    raise StorageFull(f"cannot {step}: No space left on device")


def unavailable(step: str) -> None:
    """Act as a storage does that gives errors."""
    raise StorageUnavailable(f"cannot {step}: Input/output error")


def system_error(number: int = errno.EIO) -> Action:
    """Return what makes a call of the operating system fail with an error number."""

    def fail(step: str) -> None:
        raise OSError(number, os.strerror(number), step)

    return fail
