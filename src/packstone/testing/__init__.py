"""Tools to find out what a storage, or a program on top of one, does when things go wrong.

    from packstone.testing import CrashStorage, FaultyStorage, Plan, unavailable

    storage = FaultyStorage(MyStorage(...), Plan(unavailable, at=17))   # the 17th step fails
    storage = CrashStorage("/dev/shm/store")                            # what a power cut leaves
    for state in storage.states():
        state.write_to("/dev/shm/after")

For tests, of Packstone and of storages that others write. It stands left of all layers: it may
import any of them and none imports it.
"""

from __future__ import annotations

from packstone.testing.clock import Clock
from packstone.testing.crash import CrashState, CrashStorage, crash_states
from packstone.testing.faulty import FaultyStorage, RecordingStorage
from packstone.testing.interleaving import Interleaving
from packstone.testing.observed import ObservedStorage, Observer
from packstone.testing.plan import (
    EXIT_CODE,
    WRITES,
    Action,
    Plan,
    full,
    interrupt,
    leave,
    system_error,
    unavailable,
)
from packstone.testing.system_calls import FaultyCalls, ShortCalls, UnsyncedCalls
from packstone.testing.write_list import WriteList

__all__ = [
    "EXIT_CODE",
    "WRITES",
    "Action",
    "Clock",
    "CrashState",
    "CrashStorage",
    "FaultyCalls",
    "FaultyStorage",
    "Interleaving",
    "ObservedStorage",
    "Observer",
    "Plan",
    "RecordingStorage",
    "ShortCalls",
    "UnsyncedCalls",
    "WriteList",
    "crash_states",
    "full",
    "interrupt",
    "leave",
    "system_error",
    "unavailable",
]
