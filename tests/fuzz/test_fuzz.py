"""Row F1 in short: every target blindly on some hundred inputs, and a defect for each control.

`make soak-fuzz` has the long form, guided by coverage. Each target runs in a process of its own,
which gets no more than 512 MiB of memory.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from campaign import Caught, campaign, control, trials
from faults import in_child

from fuzz.__main__ import run_plain
from fuzz.defects import DEFECTS
from fuzz.targets import TARGETS, stored

RUNS = trials(400, 20_000)
_SLOW = {"footer": 4, "index": 8, "pack": 4, "lock-note": 2, "bundle": 4}  # so many times fewer


@pytest.fixture(scope="module", autouse=True)
def repositories() -> Iterator[None]:
    """Make the seeds once, before any process is forked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", "")  # put back afterwards
        assert stored(False).lists and stored(True).records
        yield
    stored.cache_clear()


@pytest.mark.parametrize("name", TARGETS)
def test_decoders_take_any_bytes(name: str) -> None:
    with campaign("F1", name) as row:
        runs = RUNS // _SLOW.get(name, 1)
        assert in_child(lambda: run_plain(name, runs, 0, seed=RUNS)) == 0, "see above"
        row.trials = runs


@pytest.mark.parametrize("defect", DEFECTS)
def test_controls(defect: str) -> None:
    target = DEFECTS[defect].target

    def run() -> None:
        DEFECTS[defect].put_in()
        run_plain(target, 3000, 0, seed=1)

    with control("F1", f"{target}: {defect}"):
        if in_child(run):
            raise Caught
