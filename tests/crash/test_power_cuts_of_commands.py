"""Row P1: the power is cut while any command runs once, on a real file system.

tests/crash/test_power_cuts.py has snapshots without end; here each command of the table, copies
and repairs begin on a file system of their own, and the power goes at a random moment of them.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import median

import pytest
from campaign import Caught, campaign, control, first_seed, trials
from compare_trees import describe, differences
from crash.commands import COMMANDS, Command, Stage, forget_serials, make_stage
from crash.disks import Disk
from crash.test_repair_steps import Hurt, flip, packs
from faults import storages

import packstone
from packstone.storage.local import LocalStorage
from packstone.testing import UnsyncedCalls

CUTS = trials(1, 300)
TRIES = trials(12, 60)


@dataclass(frozen=True)
class Trial:
    """What runs while the power goes, and what must be true when it is back."""

    name: str
    run: Callable[[], object]
    judge: Callable[[bool], object]


def cut_once(disk: Disk, trial: Trial, after: float, errors: Path) -> bool:
    """Cut the power so many seconds after the command began; return whether it had ended."""
    forget_serials()
    assert disk.begin()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with open(errors, "w") as file:
                os.dup2(file.fileno(), 2)
            os.write(writing, b"begun ")
            trial.run()
            os.write(writing, b"done")
            time.sleep(60)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    try:
        said = os.read(reading, 100)
        time.sleep(after)
        ended, _ = os.waitpid(child, os.WNOHANG)
        assert not ended, f"the command ended: {errors.read_text()}"
        disk.cut()
        while select.select([reading], [], [], 0)[0] and (part := os.read(reading, 100)):
            said += part
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    disk.back()
    forget_serials()  # a state that was written and not synced may be gone again
    done = said.endswith(b"done")
    try:
        trial.judge(done)
    except (AssertionError, packstone.PackstoneError) as error:
        raise Caught(f"cut after {after:.4f} s, done: {done}: {error}") from error
    return done


def duration(disk: Disk, trial: Trial) -> float:
    """Return how long the command takes here, about."""
    took = []
    for _ in range(3 if CUTS > 10 else 1):
        forget_serials()
        assert disk.begin()
        before = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                trial.run()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        took.append(time.monotonic() - before)
    return median(took)


def cut_often(disk: Disk, trial: Trial, place: Path) -> None:
    chance = Random(f"{trial.name} {first_seed()}")
    with campaign("P1", f"{trial.name} (ext4, power cut)") as row:
        longest = 1.2 * duration(disk, trial)
        ended = 0
        for _ in range(CUTS):
            ended += cut_once(disk, trial, chance.random() * longest, place / "errors")
            row.trials += 1
        row.note = f", {row.trials - ended} of them before it had ended"


def of_table(command: Command, disk: Disk, place: Path) -> Trial:
    """Put the stage of a command on the disk; its source stays in memory."""
    home = place / "prepared"
    stage = command.alters(make_stage(home, 1, encrypted=command.encrypted))
    inside = home / "disk"
    inside.mkdir()
    if stage.location.exists():
        stage.location.rename(inside / "repository")
    disk.prepare(inside)
    stage = stage.at(disk.mounted / "repository")
    return Trial(
        command.name,
        lambda: command.run(stage),
        # targets and the like in memory: what is judged is what was on the disk
        lambda done: command.judge(_moved(stage, place), done=done),
    )


def _moved(stage: Stage, place: Path) -> Stage:
    """Copy what the cut has left, so that judging it is quick and the disk is let go."""
    location = place / "left"
    shutil.rmtree(location, ignore_errors=True)
    if stage.location.exists():
        shutil.copytree(stage.location, location)
    return stage.at(location)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_commands(command: Command, disk: Disk, place: Path) -> None:
    cut_often(disk, of_table(command, disk, place), place)


@pytest.mark.parametrize("what", ["files", "directories"])
def test_controls(disk: Disk, place: Path, what: str) -> None:
    """Without one kind of fsync, an acknowledged snapshot is lost."""
    (command,) = [each for each in COMMANDS if each.name == "snapshot"]
    trial = of_table(command, disk, place)

    def make(path: str) -> LocalStorage:
        calls = UnsyncedCalls(files=what == "files", directories=what == "directories")
        return LocalStorage(path, calls)

    stage = Stage(disk.mounted / "repository", place / "prepared" / "source")

    def run() -> None:
        # An index on the same disk would have its syncs flush what ours do not.
        with (
            storages(make),
            packstone.open(stage.location, threads=1, index_dir=place / "elsewhere") as repository,
        ):
            repository.snapshot([stage.source])

    trial = replace(trial, run=run)
    with control("P1", f"snapshot, no fsync of {what}") as row:
        longest = 1.5 * duration(disk, trial)
        for number in range(TRIES):
            cut_once(disk, trial, longest * (1 + number % 3 / 4), place / "errors")
            row.trials += 1


# -- copies and repairs ---------------------------------------------------------------------


def test_copy(disk: Disk, place: Path) -> None:
    stage = make_stage(place / "from")
    first, second = stage.stored
    inside = place / "inside"
    inside.mkdir()
    with stage.open() as source:
        packstone.init(inside / "repository", like=source).close()
        with packstone.open(inside / "repository", threads=1) as target:
            source.copy_to(target, [first])
    disk.prepare(inside)
    there = replace(stage, location=disk.mounted / "repository", stored={})

    def run() -> None:
        with stage.open() as source, there.open() as target:
            source.copy_to(target, [second])

    def judge(done: bool) -> None:
        moved = _moved(there, place)
        with moved.open() as target:
            originals = {row.id for row in target.snapshots()}
            assert len(originals) == 2 or (len(originals) == 1 and not done)
            assert target.check(read_data=True).errors == []
            expected = [stage.stored[first], stage.stored[second]]
            for row, wanted in zip(target.snapshots(), expected, strict=False):
                result = target.restore(row.id, place / "target", path=bytes(stage.source))
                assert result.errors == []
                assert differences(wanted, describe(place / "target", top=False)) == []
                shutil.rmtree(place / "target")

    cut_often(disk, Trial("copy", run, judge), place)


def hurt_on(disk: Disk, place: Path) -> Hurt:
    """Put a repository with a bad record and a pack without footers on the disk."""
    stage = make_stage(place / "from")
    shutil.copytree(stage.location, place / "copy")
    data = [
        path
        for path in sorted((stage.location / "packs").rglob("*"))
        if path.is_file() and path.read_bytes()[10] == 1
    ]
    assert len(data) == 2
    flip(data[0], 20_000)
    last = data[1].read_bytes()
    flip(data[1], 70 + int.from_bytes(last[64:72], "little"))
    flip(data[1], 5)
    inside = place / "inside"
    inside.mkdir()
    stage.location.rename(inside / "repository")
    hurt = Hurt(inside / "repository", place / "copy", stage.source, {})
    hurt.readable = {each: hurt.restored(each) for each in stage.stored}
    disk.prepare(inside)
    return Hurt(disk.mounted / "repository", hurt.copy, hurt.source, hurt.readable)


def left(hurt: Hurt, place: Path) -> Hurt:
    stage = _moved(Stage(hurt.location, hurt.source), place)
    return Hurt(stage.location, hurt.copy, hurt.source, hurt.readable)


@pytest.mark.parametrize("source", ["alone", "from a copy"])
def test_repair_packs(disk: Disk, place: Path, source: str) -> None:
    hurt = hurt_on(disk, place)
    run = packs
    if source != "alone":

        def run(repository: packstone.Repository) -> object:
            with packstone.open(hurt.copy, index_dir=place / "other", threads=1) as other:
                return repository.repair_packs(source=other)

    def judge(done: bool) -> None:
        found = left(hurt, place)
        found.assert_nothing_lost()
        found.repair(run)
        found.assert_nothing_lost()
        with packstone.open(found.location) as repository:
            again = repository.repair_packs()
            assert again.damaged == [] and again.is_whole == (source != "alone")
            repository.repair_snapshots(forget=True)
            assert repository.check(read_data=True).errors == []

    cut_often(disk, Trial(f"repair packs, {source}", lambda: hurt.repair(run), judge), place)


def test_repair_snapshots(disk: Disk, place: Path) -> None:
    hurt = hurt_on(disk, place)
    assert disk.begin()
    hurt.repair(packs)
    shutil.copytree(hurt.location, place / "mended" / "repository")
    disk.prepare(place / "mended")

    def forget(repository: packstone.Repository) -> object:
        return repository.repair_snapshots(forget=True)

    def judge(done: bool) -> None:
        found = left(hurt, place)
        with packstone.open(found.location) as repository:
            there = {row.id: row.snapshot.original_id.hex() for row in repository.snapshots()}
            for each in hurt.readable:
                assert each in there or each in there.values()
        found.repair(forget)
        with packstone.open(found.location) as repository:
            assert len(repository.snapshots()) == len(hurt.readable)
            assert repository.check(read_data=True).errors == []

    cut_often(disk, Trial("repair snapshots", lambda: hurt.repair(forget), judge), place)


def test_repair_index(disk: Disk, place: Path) -> None:
    stage = make_stage(place / "from")
    inside = place / "inside"
    inside.mkdir()
    stage.location.rename(inside / "repository")
    disk.prepare(inside)
    stage = stage.at(disk.mounted / "repository")

    def run() -> None:
        with stage.open() as repository:
            repository.repair_index(force=True)

    def judge(done: bool) -> None:
        from crash.commands import judge

        assert not judge(_moved(stage, place), done=done)

    cut_often(disk, Trial("repair index", run, judge), place)
