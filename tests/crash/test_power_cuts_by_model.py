"""Row P2: all states that a power cut may leave, by a model that keeps no more than POSIX does.

Every command runs once on a CrashStorage; each state that could be left at any moment of it is
written to a directory, opened and judged. Commits of LMDB are atomic here and durable in turn:
what its own syncs are worth is for row P1, on a real file system.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from random import Random

import pytest
from campaign import Caught, campaign, control, first_seed, trials
from crash.commands import COMMANDS, Command, Stage, forget_serials, judge, make_stage
from faults import storages, watching_index

import packstone
from packstone.repository.view import View
from packstone.testing import CrashState, CrashStorage, WriteList

STATES = trials(24, 50_000 // len(COMMANDS))  # for each command
DONE = "done"


def record(command: Command, stage: Stage) -> CrashStorage:
    """Run a command and write down what it does to its storage."""
    storage = CrashStorage(str(stage.location))

    @contextlib.contextmanager
    def mark_index(view: View) -> Iterator[None]:
        yield
        if Path(view.directory).parent == stage.location:
            storage.mark("index", Path(view.directory, "data.mdb").read_bytes())

    with storages(lambda path: storage), watching_index(mark_index):
        command.run(stage)
    storage.mark(DONE)
    return storage


def write_index(state: CrashState, location: Path, chance: Random) -> None:
    """Leave the index of that moment, or none, or the one that an earlier trial has left."""
    choice = chance.randrange(3)
    if choice == 2:
        return
    shutil.rmtree(location / "index", ignore_errors=True)
    commits = [mark.payload for mark in state.marks if mark.text == "index"]
    if choice == 1 and commits and state.directories:
        (location / "index").mkdir()
        (location / "index" / "data.mdb").write_bytes(commits[-1])


def is_done(state: CrashState) -> bool:
    return any(mark.text == DONE for mark in state.marks)


def judge_states(
    command: Command, stage: Stage, states: Iterator[CrashState], seed: int
) -> Iterator[bool]:
    """Judge states one by one; yield whether the new thing was there."""
    chance = Random(seed)
    after = stage.at(stage.location.with_name("after"))
    previous: CrashState | None = None
    shutil.rmtree(after.location, ignore_errors=True)
    for state in states:
        state.write_to(str(after.location), previous)
        write_index(state, after.location, chance)
        forget_serials()
        try:
            yield command.judge(after, done=is_done(state))
        except (AssertionError, packstone.PackstoneError) as error:
            raise Caught(f"{error}; not applied: {state.lost}") from error
        # init makes what was missing; the others leave the storage as it was
        previous = None if command.name.startswith("init") else state
    shutil.rmtree(after.location, ignore_errors=True)


def run(command: Command, place: Path, seed: int, deaf_to: Collection[str] = ()) -> Iterator[bool]:
    """Make a stage of its own for a seed and judge all states of the command on it."""
    here = place / str(seed)
    stage = command.alters(make_stage(here, seed, encrypted=command.encrypted))
    storage = record(command, stage)
    # With syncs there are few states, and all of them are judged; without, more than anyone can.
    # An init makes 260 directories before its first sync: of those, some.
    is_init = command.name.startswith("init")
    states = storage.states(
        seed=seed, samples=2 if is_init else 20, exhaustive=4 if is_init else 12, deaf_to=deaf_to
    )
    if is_init:
        chance = Random(seed)
        states = (state for state in states if is_done(state) or chance.random() < 0.02)
    yield from judge_states(command, stage, states, seed)
    shutil.rmtree(here)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_state(command: Command, place: Path) -> None:
    with campaign("P2", command.name) as row:
        found: list[bool] = []
        for seed in itertools.count(first_seed()):
            found += run(command, place, seed)
            row.trials = len(found)
            if row.trials >= STATES:
                break
        # a prune makes nothing new: all that was there must stay
        assert command.judge is judge or {True, False} <= set(found), "no state before, or after"


@pytest.mark.parametrize("deaf_to", ["files", "directories"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_controls(command: Command, place: Path, deaf_to: str) -> None:
    """Without one kind of fsync, there is a state that loses what was acknowledged."""
    if command.name in ("key remove", "forget") and deaf_to == "files":
        pytest.skip("it writes no file")
    with control("P2", f"{command.name}, no fsync of {deaf_to}") as row:
        for _ in itertools.islice(run(command, place, 1, [deaf_to]), 5000):
            row.trials += 1


def test_directories_of_a_new_repository_are_durable(place: Path) -> None:
    """`init a/b/c`: each directory that was made has its name synced."""
    (command,) = [each for each in COMMANDS if each.name == "init"]
    stage = Stage(place / "a" / "b" / "repository", place / "source")
    stage.source.mkdir()
    writes = WriteList(str(stage.location))
    assert not writes.directories >= {"."} and os.path.isdir(place)
    storage = record(command, stage)
    done = [state for state in storage.states(exhaustive=0, samples=1) if is_done(state)]
    assert done and all("config" in state.files for state in done)
