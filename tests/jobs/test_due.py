"""When jobs are due: missed times once, failures with pauses, clocks that jump, lost memory."""

from __future__ import annotations

import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs_scene import HOUR, SECOND, Interval, Scene

import packstone
from packstone.operations.jobs.due import NEVER_RAN, due_at
from packstone.operations.jobs.memory import JobFiles, Memory
from packstone.operations.jobs.strategy import SqliteSource

NOW = 1_800_000_000 * SECOND
MINUTE = 60 * SECOND


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = time.time_ns()

    def __call__(self) -> int:
        self.now += 1
        return self.now


def runs(scene: Scene, clock: Clock) -> int:
    report = scene.run(due=True, clock=clock)
    return sum(each.status != "skipped" for each in report.jobs)


@pytest.mark.parametrize(
    "memory,expected",
    [
        (Memory(), NEVER_RAN),
        (Memory(good_ns=NOW - MINUTE), NOW - MINUTE + HOUR),
        (Memory(good_ns=NOW - 50 * HOUR), NOW - 49 * HOUR),
        (Memory(good_ns=NOW + 1), NEVER_RAN),
        # never well: after pauses that grow, at the latest in its turn
        (Memory(failures=1, began_ns=NOW), NOW + 5 * MINUTE),
        (Memory(failures=2, began_ns=NOW), NOW + 10 * MINUTE),
        (Memory(failures=9, began_ns=NOW), NOW + HOUR),
        (Memory(failures=999, began_ns=NOW), NOW + HOUR),
        # a failure from the future is forgotten
        (Memory(failures=3, began_ns=NOW + HOUR), NEVER_RAN),
        # a failure by hand does not bring the next time forward
        (Memory(good_ns=NOW - MINUTE, failures=1, began_ns=NOW), NOW - MINUTE + HOUR),
    ],
)
def test_from_when(memory: Memory, expected: int) -> None:
    assert due_at(Interval(), memory, NOW) == expected
    assert due_at(None, memory, NOW) is None


@given(
    step=st.integers(SECOND, 400 * 24 * HOUR),
    good=st.integers(0, 2 * NOW),
    began=st.integers(0, 2 * NOW),
    failures=st.integers(0, 10_000),
)
def test_a_run_that_is_good_is_followed_by_a_whole_pause(
    step: int, good: int, began: int, failures: int
) -> None:
    """Whatever was remembered, by whatever clock."""
    memory = Memory(good_ns=good, began_ns=began, failures=failures)
    at = due_at(Interval(step), memory, NOW)
    assert at is not None
    # nor is anything put off for longer than its own rhythm, or the longest pause
    assert at <= NOW + step
    memory = Memory(good_ns=NOW, began_ns=NOW)
    assert due_at(Interval(step), memory, NOW) == NOW + step


def test_missed_runs_are_made_up_once(scene: Scene) -> None:
    clock = Clock()
    scene.add("crm")
    assert [runs(scene, clock) for _ in range(3)] == [1, 0, 0]
    clock.now += 100 * HOUR
    assert [runs(scene, clock) for _ in range(3)] == [1, 0, 0]
    assert len(scene.snapshots()) == 2


@pytest.mark.parametrize("jump", [HOUR * 24 * 365, -HOUR * 24 * 365, HOUR // 2, -HOUR // 2])
def test_a_clock_that_jumps_causes_no_storm(scene: Scene, jump: int) -> None:
    clock = Clock()
    scene.add("crm")
    assert runs(scene, clock) == 1
    clock.now += jump
    there = [runs(scene, clock) for _ in range(3)]
    clock.now -= jump
    back = [runs(scene, clock) for _ in range(3)]
    assert sum(there) <= 1 and sum(back) <= 1
    assert there[1:] == back[1:] == [0, 0]
    clock.now += HOUR
    assert runs(scene, clock) == 1, "it goes on as ever"


def test_failures_are_tried_again_but_not_at_once(scene: Scene) -> None:
    clock = Clock()
    scene.command("crm", "exit 1")
    assert [runs(scene, clock) for _ in range(3)] == [1, 0, 0]
    clock.now += 5 * MINUTE
    assert [runs(scene, clock) for _ in range(2)] == [1, 0]
    clock.now += 5 * MINUTE
    assert runs(scene, clock) == 0
    scene.command("crm", "echo rows")
    clock.now += 5 * MINUTE
    assert [runs(scene, clock) for _ in range(2)] == [1, 0]
    clock.now += 59 * MINUTE
    assert runs(scene, clock) == 0


def test_by_hand_it_runs_whenever_it_is_told(scene: Scene) -> None:
    scene.add("crm")
    assert [scene.one("crm").status for _ in range(2)] == ["done", "done"]
    assert scene.run(due=True).jobs == []


def test_without_every_it_is_never_due(scene: Scene) -> None:
    scene.add("crm", every=None)
    assert scene.run(due=True).jobs == [] and scene.run().jobs == []
    assert scene.one("crm").status == "done"


@pytest.mark.parametrize("damage", ["gone", "empty", "garbage", "other", "list"])
def test_lost_memory_costs_a_look(scene: Scene, damage: str) -> None:
    scene.add("crm")
    scene.one()
    state = next((scene.place / "state").glob("*.json"))
    if damage == "gone":
        state.unlink()
    else:
        text = {"empty": b"", "garbage": b"\xff{", "other": b'{"job": 7, "good_ns": []}'}
        state.write_bytes(text.get(damage, b"[]"))
    assert scene.run(due=True).jobs == [], "the repository knows when it was last done"
    later = time.time_ns() + 2 * HOUR
    assert [each.status for each in scene.run(due=True, clock=lambda: later).jobs] == ["done"]
    assert JobFiles(scene.strategy, "crm").load() is not None


def test_memory_of_the_dead(scene: Scene) -> None:
    """A run was killed after its snapshot: what it left says running, the repository says when."""
    scene.add("crm")
    scene.one()
    files = JobFiles(scene.strategy, "crm")
    memory = files.load()
    assert memory is not None
    memory.running, memory.failures, memory.good_ns = True, 1, 0
    files.save(memory)
    assert scene.run(due=True).jobs == []


def test_a_run_that_died_between_two_databases_is_made_up(scene: Scene) -> None:
    """One part that is new says nothing of the others: else they would wait for the next turn."""
    files = [str(scene.write(name, "")) for name in ("crm.db", "billing.db")]
    job = scene.add("sql", SqliteSource(files=files))
    scene.one()
    memory_of = JobFiles(scene.strategy, "sql")
    memory = memory_of.load()
    assert memory is not None
    later = time.time_ns() + 2 * HOUR
    with packstone.open(scene.main.location) as repository:
        repository.snapshot_stream(io.BytesIO(), "crm.db", tags=[job.tag], time_ns=later)
    memory.running, memory.failures, memory.began_ns = True, 1, later
    memory_of.save(memory)
    assert memory.good_ns < later
    (report,) = scene.run(due=True, clock=lambda: later + 10 * MINUTE).jobs
    names = [taken.name for taken in report.snapshots]
    assert report.complete and names == ["crm.db", "billing.db"]


def test_strategies_and_jobs_do_not_share_memory(scene: Scene) -> None:
    names = ["crm", "c/rm", "c%2Frm", "CRM", "x" * 300, "x" * 301, "é", "."]
    for name in names:
        JobFiles(scene.strategy, name).save(Memory(job=name, good_ns=hash(name)))
    for name in names:
        memory = JobFiles(scene.strategy, name).load()
        assert memory is not None and (memory.job, memory.good_ns) == (name, hash(name))
    assert len(list((scene.place / "state").iterdir())) == len(names)


def test_a_state_directory_that_cannot_be(scene: Scene) -> None:
    scene.add("crm")
    (scene.place / "state").write_text("a file")
    report = scene.one()
    assert report.status == "failed" and str(scene.place / "state") in report.message
    assert "state_dir" in report.errors[0].hint


def test_where_state_is_kept(scene: Scene, monkeypatch) -> None:
    from packstone.operations.jobs.memory import state_directory
    from packstone.operations.jobs.strategy import Strategy

    bare = Strategy(path="x")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert state_directory(bare) == "/state/packstone"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert state_directory(bare) == "/home/ada/.local/state/packstone"
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert state_directory(bare) == "/var/lib/packstone"
    assert state_directory(scene.strategy) == scene.strategy.state_dir


def test_a_skipped_run_leaves_what_was_known(scene: Scene) -> None:
    """The run before was killed: the next that finds the disk must still look what it stored."""
    target = packstone.RepositoryTarget(name="disk", location="store", label="no-such-label")
    job = scene.add("crm", repository=target, before=["true"])
    files = JobFiles(scene.strategy, job.name)
    known = Memory(job=job.name, began_ns=5, running=True, failures=2, good_ns=3)
    files.lock().release()  # makes the directory
    files.save(known)
    assert scene.one("crm").status == "skipped"
    assert files.load() == known
