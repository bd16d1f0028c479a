"""Put the fault tools of packstone.testing under repositories that a test opens or creates.

`faulty` and `storages` change what a repository takes for its storage, for as long as a block
lasts; `in_child` runs something in a process that may die.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from packstone.repository import repository as repository_module
from packstone.repository.view import View
from packstone.storage.base import Storage
from packstone.storage.local import LocalStorage
from packstone.testing import (
    EXIT_CODE,
    WRITES,
    Action,
    FaultyCalls,
    FaultyStorage,
    Plan,
    full,
    interrupt,
    leave,
    system_error,
    unavailable,
)

__all__ = [
    "CALLS_THAT_WRITE", "EXIT_CODE", "WRITES", "Action", "FaultyStorage", "Plan", "faulty",
    "faulty_calls", "full", "in_child", "interrupt", "leave", "storages", "system_error",
    "unavailable", "watching_index",
]  # fmt: skip

T = TypeVar("T")
# what a full disk refuses
CALLS_THAT_WRITE = frozenset({"create", "write", "pwrite", "fsync", "rename", "link", "makedirs"})


@contextlib.contextmanager
def storages(make: Callable[[str], Storage]) -> Iterator[None]:
    """Give repositories that are opened or created meanwhile a storage that `make` makes."""
    original = repository_module.LocalStorage
    repository_module.LocalStorage = make  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        repository_module.LocalStorage = original  # type: ignore[misc]


@contextlib.contextmanager
def watching_index(
    around: Callable[[View], contextlib.AbstractContextManager[None]],
) -> Iterator[None]:
    """Enter `around` for every transaction that writes to an index meanwhile."""
    write = View.write

    def write_watched(self: View, change: Callable[[Any], T]) -> T:
        with around(self):
            return write(self, change)

    View.write = write_watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        View.write = write  # type: ignore[method-assign]


@contextlib.contextmanager
def faulty(plan: Plan) -> Iterator[None]:
    """Give repositories that are opened or created meanwhile a storage that asks the plan.

    Transactions of the index are operations too. A plan acts only inside this block.
    """
    with storages(lambda path: FaultyStorage(LocalStorage(path), plan)):
        with watching_index(lambda view: plan.around("index", "")):
            yield


@contextlib.contextmanager
def faulty_calls(plan: Plan, *, index: bool = True) -> Iterator[None]:
    """The same for every call of the operating system that the storage makes.

    Without `index`, its transactions are not asked about: they know no OSError.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(storages(lambda path: LocalStorage(path, FaultyCalls(path, plan))))
        if index:
            stack.enter_context(watching_index(lambda view: plan.around("index", "")))
        yield


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
