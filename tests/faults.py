"""Make things fail at an exact moment: the k-th operation of a repository's storage or index.

`Plan` counts operations and acts at one of them; `faulty` puts a storage that asks the plan
between a repository and its disk. Nothing here knows what should happen then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from packstone.errors import StorageError, StorageFull, StorageUnavailable
from packstone.model import Buffer
from packstone.repository import repository as repository_module
from packstone.repository.view import View
from packstone.storage.local import LocalSpool, LocalStorage

T = TypeVar("T")
Action = Callable[[str], None]

EXIT_CODE = 77  # of a child that a plan has ended
WRITES = frozenset(
    {"make_directories", "create", "write", "write_at", "commit", "delete", "move", "keep", "index"}
)  # what a full disk refuses


class Plan:
    """Count operations, each by a verb and a name; act at the `at`-th, or from it on.

    An operation is asked about before it is done and, as `done VERB`, after it. Without `at`
    it only counts: `steps` then lists them all.
    """

    def __init__(
        self,
        action: Action | None = None,
        at: int = -1,
        *,
        onwards: bool = False,
        verbs: frozenset[str] | None = None,
    ) -> None:
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
    """End the process at once, as `kill -9` and a crash of the machine's program do."""
    os._exit(EXIT_CODE)


def interrupt(step: str) -> None:
    """Act as Ctrl-C does."""
    raise KeyboardInterrupt(step)


def full(step: str) -> None:
    """Act as a full disk does."""
    raise StorageFull(f"cannot {step}: No space left on device")


def unavailable(step: str) -> None:
    """Act as a disk does that gives errors."""
    raise StorageUnavailable(f"cannot {step}: Input/output error")


class FaultySpool(LocalSpool):
    """A spool that asks a plan around every operation."""

    def __init__(self, storage: LocalStorage, plan: Plan) -> None:
        self._plan = plan
        plan.step("create", "spool")
        super().__init__(storage)

    def write(self, data: Buffer) -> None:
        with self._plan.around("write", "spool"):
            super().write(data)

    def write_at(self, offset: int, data: Buffer) -> None:
        with self._plan.around("write_at", "spool"):
            super().write_at(offset, data)

    def read_at(self, offset: int, size: int) -> bytes:
        with self._plan.around("read_at", "spool"):
            return super().read_at(offset, size)

    def commit(self, name: str) -> None:
        kind = name.split("/")[0]
        try:
            self._plan.step("commit", kind)
        except StorageError:  # as where it comes from in truth: inside
            self.abandon()
            raise
        super().commit(name)
        self._plan.step("done commit", kind)


class FaultyStorage(LocalStorage):
    """A directory as storage that asks a plan around every operation."""

    def __init__(self, path: str, plan: Plan) -> None:
        super().__init__(path)
        self._plan = plan

    def make_directories(self, names: list[str]) -> None:
        with self._plan.around("make_directories", ""):
            super().make_directories(names)

    def get(self, name: str, limit: int) -> bytes:
        with self._plan.around("get", name.split("/")[0]):
            return super().get(name, limit)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        if "/" in prefix:  # a part of a listing that was asked about already
            yield from super().list(prefix)
            return
        with self._plan.around("list", prefix):
            yield from super().list(prefix)

    def delete(self, name: str) -> None:
        with self._plan.around("delete", name.split("/")[0]):
            super().delete(name)

    def move(self, name: str, new_name: str) -> None:
        with self._plan.around("move", name.split("/")[0]):
            super().move(name, new_name)

    def keep(self, name: str, new_name: str) -> None:
        with self._plan.around("keep", name.split("/")[0]):
            super().keep(name, new_name)

    def spool(self) -> LocalSpool:
        return FaultySpool(self, self._plan)


@contextlib.contextmanager
def faulty(plan: Plan) -> Iterator[None]:
    """Give repositories that are opened or created meanwhile a storage that asks the plan.

    Transactions of the index are operations too. A plan acts only inside this block.
    """
    write = View.write
    make: Any = lambda path: FaultyStorage(path, plan)  # noqa: E731

    def write_asking(self: View, change: Callable[[Any], T]) -> T:
        with plan.around("index", ""):
            return write(self, change)

    original = repository_module.LocalStorage
    repository_module.LocalStorage = make
    View.write = write_asking  # type: ignore[method-assign]
    try:
        yield
    finally:
        repository_module.LocalStorage = original  # type: ignore[misc]
        View.write = write  # type: ignore[method-assign]


def in_child(function: Callable[[], object], *, kill_after: float | None = None) -> int:
    """Run `function` in a forked process; return its exit code, negative for a signal.

    `kill_after` seconds it gets SIGKILL. No repository may be open here: locks and mapped
    files are not for two processes.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if kill_after is not None:
        with contextlib.suppress(ProcessLookupError):
            signal.sigtimedwait([signal.SIGCHLD], kill_after)
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
