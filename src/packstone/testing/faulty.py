"""Storages that fail at the k-th operation, and one that writes down what is done to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from packstone.storage.base import Storage
from packstone.testing.observed import ObservedStorage
from packstone.testing.plan import Plan


class _Folders:
    """Asks a plan about operations by the folder of a name: names of objects are random."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @contextlib.contextmanager
    def around(self, verb: str, name: str) -> Iterator[None]:
        with self._plan.around(verb, name.split("/")[0]):
            yield


class FaultyStorage(ObservedStorage):
    """A storage that asks a plan around every operation, and lets another one do it."""

    def __init__(self, storage: Storage, plan: Plan, *, whole_puts: bool = False) -> None:
        """Ask `plan` about verbs and folders: `commit packs`, `done commit packs`, …"""
        super().__init__(storage, _Folders(plan), whole_puts=whole_puts)


class Operation(NamedTuple):
    """One operation of a storage: a verb of its interface, and the name it was for."""

    verb: str
    name: str


class _Record:
    def __init__(self) -> None:
        self.operations: list[Operation] = []

    @contextlib.contextmanager
    def around(self, verb: str, name: str) -> Iterator[None]:
        yield
        self.operations.append(Operation(verb, name))


class RecordingStorage(ObservedStorage):
    """A storage that writes down the operations that were done, in their order."""

    def __init__(self, storage: Storage, *, whole_puts: bool = False) -> None:
        self._record = _Record()
        super().__init__(storage, self._record, whole_puts=whole_puts)

    @property
    def operations(self) -> list[Operation]:
        """What was done so far; operations that failed are left out."""
        return self._record.operations
