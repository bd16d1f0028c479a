"""Every command of the table, ended at every call of the operating system that it makes.

Rows K1 (death), K3 (Ctrl-C), E1 (a full disk), E3 (a disk with errors) and E4 (half of what was
asked for). Every day some calls, `make soak` all of them. tests/crash/test_steps.py goes through
the operations of the storage, and those of the index, for snapshot and init.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import faults
import pytest
from campaign import IS_SOAK, Caught, campaign, control
from crash.commands import COMMANDS, Command, Stage, copies, judge, make_stage
from faults import Plan, faulty_calls, in_child, storages

import packstone
from packstone.storage.local import LocalStorage
from packstone.testing import ShortCalls

A_DAY = 6  # calls at which each command is ended, every day
SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True)
class Fault:
    """What happens at a call, and which row of the plan that is."""

    row: str
    action: faults.Action
    expected: tuple[type[BaseException], ...] = ()
    verbs: frozenset[str] | None = None
    onwards: bool = False


# UsageError: a snapshot that does not read is named in a warning and cannot be found
ERRORS = (packstone.StorageError, packstone.Damaged, packstone.UsageError)
FAULTS = {
    "death": Fault("K1", faults.leave),
    "Ctrl-C": Fault("K3", faults.interrupt, (KeyboardInterrupt,)),
    "ENOSPC once": Fault(
        "E1", faults.system_error(errno.ENOSPC), (packstone.StorageFull,), faults.CALLS_THAT_WRITE
    ),
    "ENOSPC from then on": Fault(
        "E1", faults.system_error(errno.ENOSPC), (packstone.StorageFull,),
        faults.CALLS_THAT_WRITE, True,
    ),
    "EIO": Fault("E3", faults.system_error(errno.EIO), ERRORS),
    "EIO from then on": Fault("E3", faults.system_error(errno.EIO), ERRORS, None, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stage]]:
    """A stage for each command, to be copied."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir=SHARED) as place:
        patch.setenv("PACKSTONE_CACHE_DIR", f"{place}/cache")
        yield {
            command.name: command.alters(
                make_stage(Path(place, command.name), encrypted=command.encrypted)
            )
            for command in COMMANDS
        }


def chosen(count: int) -> range:
    """Return the numbers of the calls that have their turn."""
    return range(0, count, 1 if IS_SOAK else max(1, count // A_DAY))


def strike(command: Command, stage: Stage, fault: Fault, at: int) -> bool:
    """Run a command that meets a fault; return whether it said that it was done."""
    plan = Plan(fault.action, at, onwards=fault.onwards, verbs=fault.verbs)
    is_error = fault.expected not in ((), (KeyboardInterrupt,))

    def run() -> None:
        with faulty_calls(plan, index=not is_error):
            command.run(stage)

    if not fault.expected:
        code = in_child(run)
        assert code in (0, faults.EXIT_CODE), f"exit code {code}"
        return code == 0
    try:
        run()
    except fault.expected:
        left = list((stage.location / "tmp").glob("*"))
        assert not left or fault.onwards, f"{len(left)} files are left in tmp/"
        return False
    return True


def calls_of(command: Command, stage: Stage, fault: Fault) -> list[str]:
    plan = Plan(verbs=fault.verbs)
    with faulty_calls(plan, index=fault.expected in ((), (KeyboardInterrupt,))):
        command.run(stage)
    return plan.steps


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_call(command: Command, name: str, stages: dict[str, Stage]) -> None:
    fault = FAULTS[name]
    with (
        campaign(fault.row, f"{command.name}, {name}") as row,
        copies(stages[command.name]) as copy,
    ):
        steps = calls_of(command, copy(), fault)
        found = set()
        for at in chosen(len(steps)):
            stage = copy()
            try:
                done = strike(command, stage, fault, at)
                found.add(command.judge(stage, done=done))
            except BaseException as error:
                error.add_note(f"at {at} of {len(steps)}: {steps[at]}")
                raise
            row.trials += 1
        assert False in found or not IS_SOAK or len(steps) < 3 or command.judge is judge


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_half_of_every_call(command: Command, stages: dict[str, Stage]) -> None:
    """Row E4: a write or read that does less than it was asked for loses nothing."""
    with (
        campaign("E4", f"{command.name}, half a call") as row,
        copies(stages[command.name]) as copy,
    ):
        counting = ShortCalls(-1)
        with storages(lambda path: LocalStorage(path, counting)):
            command.run(copy())
        for at in [None, *chosen(counting.count)]:
            stage = copy()
            calls = ShortCalls(at)
            with storages(lambda path: LocalStorage(path, calls)):
                command.run(stage)
                command.judge(stage, done=True)
            row.trials += 1


# -- controls -------------------------------------------------------------------------------


def test_half_a_write_would_be_noticed(
    stages: dict[str, Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    from packstone.storage import local

    monkeypatch.setattr(
        local, "write_all", lambda fd, data, calls: calls.write(fd, memoryview(data))
    )
    command = next(each for each in COMMANDS if each.name == "snapshot")
    with (
        control("E4", "what write() returns is ignored") as row,
        copies(stages["snapshot"]) as copy,
    ):
        for at in range(200):
            stage = copy()
            calls = ShortCalls(at)
            try:
                with storages(lambda path: LocalStorage(path, calls)):
                    command.run(stage)
                    command.judge(stage, done=True)
            except (AssertionError, packstone.PackstoneError) as error:
                raise Caught from error
            row.trials += 1


def test_a_commit_that_comes_too_early_would_be_noticed(
    stages: dict[str, Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot before its packs."""
    from packstone.repository.writer import ObjectWriter

    finish = ObjectWriter.finish
    monkeypatch.setattr(ObjectWriter, "finish", lambda self: None)
    commit = ObjectWriter.commit

    def early(self: ObjectWriter, snapshot: packstone.Snapshot) -> str:
        monkeypatch.setattr(self._index, "present", lambda ids: [True] * len(ids))
        snapshot_id = commit(self, snapshot)
        finish(self)
        return snapshot_id

    monkeypatch.setattr(ObjectWriter, "commit", early)
    command = next(each for each in COMMANDS if each.name == "snapshot")
    fault = FAULTS["death"]
    with control("K1", "the snapshot before its packs") as row, copies(stages["snapshot"]) as copy:
        steps = calls_of(command, copy(), fault)
        for at in range(steps.index("done rename snapshots"), len(steps)):
            stage = copy()
            done = strike(command, stage, fault, at)
            with monkeypatch.context() as patch:
                patch.setattr(ObjectWriter, "finish", finish)
                patch.setattr(ObjectWriter, "commit", commit)
                try:
                    command.judge(stage, done=done)
                except (AssertionError, packstone.PackstoneError) as error:
                    raise Caught from error
            row.trials += 1


def test_a_swallowed_interrupt_would_be_noticed(
    stages: dict[str, Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`except BaseException: pass` around the end of a pack: Ctrl-C costs files and no more."""
    from packstone.repository.index import Index
    from packstone.repository.writer import ObjectWriter

    finish = ObjectWriter._finish

    def deaf(self: ObjectWriter, pack: object) -> None:
        try:
            finish(self, pack)  # type: ignore[arg-type]
        except BaseException:
            self._failure = None

    monkeypatch.setattr(ObjectWriter, "_finish", deaf)
    present = Index.present
    monkeypatch.setattr(
        Index, "present", lambda self, ids: present(self, ids) if len(ids) > 1 else [True]
    )
    command = next(each for each in COMMANDS if each.name == "snapshot")
    fault = FAULTS["Ctrl-C"]
    with control("K3", "except BaseException: pass") as row, copies(stages["snapshot"]) as copy:
        steps = calls_of(command, copy(), fault)
        for at in range(steps.index("rename packs"), len(steps)):
            stage = copy()
            try:
                done = strike(command, stage, fault, at)
                command.judge(stage, done=done)
            except (AssertionError, packstone.PackstoneError) as error:
                raise Caught from error
            row.trials += 1


def test_an_error_taken_for_a_warning_would_be_noticed(
    stages: dict[str, Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What borg did until 2026: a full disk cost a file and not the snapshot."""
    from packstone.repository.index import Index
    from packstone.repository.writer import ObjectWriter

    finish = ObjectWriter._finish

    def mild(self: ObjectWriter, pack: object) -> None:
        try:
            finish(self, pack)  # type: ignore[arg-type]
        except packstone.StorageError:
            self._failure = None

    monkeypatch.setattr(ObjectWriter, "_finish", mild)
    present = Index.present
    monkeypatch.setattr(
        Index, "present", lambda self, ids: present(self, ids) if len(ids) > 1 else [True]
    )
    command = next(each for each in COMMANDS if each.name == "snapshot")
    fault = FAULTS["ENOSPC once"]
    with control("E1", "a storage error as a warning") as row, copies(stages["snapshot"]) as copy:
        for at in range(len(calls_of(command, copy(), fault))):
            stage = copy()
            try:
                done = strike(command, stage, fault, at)
                command.judge(stage, done=done)
            except (AssertionError, packstone.PackstoneError) as error:
                raise Caught from error
            row.trials += 1
