"""Rows of docs/durability.md as tests: how many trials, and one line for each at the end.

Every day a campaign runs its short form; `make soak` asks for the long one. A control is a
deliberate defect that the same trials must find.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

IS_SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"
# printed when the tests are over: (row, command or control, trials, outcome)
LINES: list[tuple[str, str, int, str]] = []


def trials(short: int, long: int) -> int:
    """Return how many trials to make; PACKSTONE_TEST_TRIALS asks for another number."""
    return int(os.environ.get("PACKSTONE_TEST_TRIALS", "0")) or (long if IS_SOAK else short)


def first_seed() -> int:
    """Return where seeds begin: PACKSTONE_TEST_SEED goes on behind an earlier run, in parts."""
    return int(os.environ.get("PACKSTONE_TEST_SEED", "0"))


def seeds(count: int) -> range:
    """Return so many seeds, from the first one on."""
    return range(first_seed(), first_seed() + count)


@dataclass
class Campaign:
    """Counts what was done."""

    trials: int = 0
    note: str = ""


@contextlib.contextmanager
def campaign(row: str, command: str) -> Iterator[Campaign]:
    """Count trials of a row; whatever leaves the block with an exception is a failure."""
    counted = Campaign()
    try:
        yield counted
    except BaseException:
        LINES.append((row, command, counted.trials, "FAILED"))
        raise
    LINES.append((row, command, counted.trials, f"0 failures{counted.note}"))


@contextlib.contextmanager
def control(row: str, defect: str) -> Iterator[Campaign]:
    """Run trials with a defect, which must fail: an AssertionError ends them and is wanted."""
    counted = Campaign()
    try:
        yield counted
    except Caught:
        LINES.append((row, f"control: {defect}", counted.trials + 1, "caught"))
        return
    LINES.append((row, f"control: {defect}", counted.trials, "NOT CAUGHT"))
    raise AssertionError(f"{row} does not notice: {defect}")


def try_seeds(row: Campaign, count: int, trial: Callable[[int], object], scratch: Path) -> None:
    """Make trials of seeds, with `scratch` removed after each; what fails says its seed."""
    for seed in seeds(count):
        try:
            trial(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        row.trials += 1
        shutil.rmtree(scratch, ignore_errors=True)


class Caught(Exception):
    """Raised by a trial under control that found the defect."""
