"""What a restore would cost: losses, times, the order, targets, and what is not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs.planning_scene import DAY, HOUR, NOW, SECOND, Scene

import packstone
from packstone.model import GIB
from packstone.operations.jobs.strategy import Priority, RepositoryTarget
from packstone.repository.rates import CHECK, LOAD, RESTORE, STREAM


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_the_loss_is_the_time_since_the_last_good_snapshot(scene: Scene) -> None:
    job = scene.job("crm", rpo_ns=2 * HOUR)
    scene.snapshot(job, 3 * HOUR)
    scene.snapshot(job, HOUR // 2, errors=3)
    (plan,) = scene.plan()
    assert plan.loss == 3 * 3600
    assert plan.newest_ns == NOW - HOUR // 2
    assert plan.rpo_missed and plan.missed == ["rpo"]
    assert plan.overdue == 2 * 3600
    assert any("3 errors" in note for note in plan.notes)
    scene.snapshot(job, HOUR // 4)
    (plan,) = scene.plan()
    assert plan.loss == 900 and not plan.missed and plan.overdue is None


def test_the_oldest_part_counts(scene: Scene) -> None:
    job = scene.job("sql", streamed=True, rpo_ns=HOUR)
    with scene.open() as repository:
        for hours in (5, 4, 3):
            scene.store(repository, job, hours * HOUR, part="a.sql")
            scene.store(repository, job, hours * HOUR - SECOND, part="b.sql")
        scene.store(repository, job, HOUR // 2, part="a.sql")
    (plan,) = scene.plan()
    assert len(plan.snapshots) == 2
    assert plan.loss == 3 * 3600 - 1 and plan.rpo_missed


def test_a_part_that_is_stored_no_more_is_not_waited_for(scene: Scene) -> None:
    job = scene.job("sql", streamed=True, rpo_ns=HOUR)
    with scene.open() as repository:
        scene.store(repository, job, 40 * DAY, part="gone.sql")
        for day in (4, 3, 2, 1):
            scene.store(repository, job, day * DAY, part="a.sql")
    (plan,) = scene.plan()
    assert [row.snapshot.name for row in plan.snapshots] == [b"a.sql"]


def test_back_one_after_the_other_by_priority(scene: Scene) -> None:
    low = scene.job("archive", priority=Priority.LOW, rto_ns=HOUR)
    first = scene.job("crm", priority=Priority.URGENT, rto_ns=HOUR)
    second = scene.job("files")
    for job, size in ((low, 100 * GIB), (first, 300 * GIB), (second, 50 * GIB)):
        scene.snapshot(job, HOUR, size=size)
    scene.measured(RESTORE, 100 * GIB, 1000)
    scene.measured(RESTORE, 10 * GIB, 100, time_ns=5)
    plans = scene.plan()
    assert [plan.job.name for plan in plans] == ["crm", "files", "archive"]
    assert [round(plan.back or 0) for plan in plans] == [3000, 3500, 4500]
    assert [plan.missed for plan in plans] == [[], [], ["rto"]], "it waits for the others"
    assert plans[2].back_low is not None and plans[2].back_low < 4500 < (plans[2].back_high or 0)
    (alone,) = scene.plan("archive")
    assert round(alone.back or 0) == 4500, "the others come back first all the same"
    with pytest.raises(packstone.UsageError, match="none"):
        scene.plan("none")


def test_what_was_never_measured_is_not_made_up(scene: Scene) -> None:
    job = scene.job("crm", rto_ns=HOUR)
    scene.snapshot(job, HOUR, size=GIB)
    (plan,) = scene.plan()
    assert plan.estimate is None and plan.back is None
    assert plan.missed == [] and plan.unknown == ["rto"]
    assert any("packstone rehearse crm" in note for note in plan.notes)
    scene.measured(CHECK, 10 * GIB, 50)
    (plan,) = scene.plan()
    assert plan.back == pytest.approx(5)
    assert plan.estimate is not None and "check" in plan.estimate.basis
    assert any("packstone rehearse crm" in note for note in plan.notes)


def test_after_an_unknown_time_all_later_ones_are_at_least(scene: Scene) -> None:
    first = scene.job("new", priority=Priority.URGENT)
    second = scene.job("crm", rto_ns=HOUR)
    scene.snapshot(second, HOUR, size=10 * GIB)
    scene.measured(RESTORE, 10 * GIB, 100)
    plans = scene.plan()
    assert plans[0].job is first and plans[0].loss is None
    assert plans[1].back_is_least and plans[1].unknown == ["rto"]


def test_databases_are_loaded_at_their_own_rate(scene: Scene) -> None:
    job = scene.job("sql", streamed=True)
    with scene.open() as repository:
        scene.store(repository, job, HOUR, size=10 * GIB, part="a.sql")
    scene.measured(RESTORE, 10 * GIB, 100)
    scene.measured(STREAM, 10 * GIB, 50, job="sql")
    (plan,) = scene.plan()
    assert plan.back == pytest.approx(50)
    assert any("--to-database" in note for note in plan.notes)
    scene.measured(LOAD, 10 * GIB, 900, job="sql")
    scene.measured(LOAD, 10 * GIB, 100, job="other")
    (plan,) = scene.plan()
    assert plan.back == pytest.approx(900)
    assert not any("--to-database" in note for note in plan.notes)


def test_how_far_estimates_were_off(scene: Scene) -> None:
    job, other = scene.job("crm"), scene.job("other")
    for each in (job, other):
        scene.snapshot(each, HOUR, size=GIB)
    for number, said in enumerate((110, 80, 101)):
        scene.measured(
            RESTORE, 10 * GIB, 100, job="crm", estimated_ns=said * SECOND, time_ns=number
        )
    plans = {plan.job.name: plan for plan in scene.plan()}
    assert (plans["crm"].off, plans["crm"].judged) == (pytest.approx(0.1), 3)
    assert (plans["other"].off, plans["other"].judged) == (pytest.approx(0.1), 0)


def test_a_repository_that_is_not_there_leaves_the_others(scene: Scene, tmp_path: Path) -> None:
    here = scene.job("here")
    gone = RepositoryTarget(name="cupboard", location=str(tmp_path / "nowhere"))
    scene.job("there", repository=gone)
    scene.snapshot(here, HOUR)
    plans = {plan.job.name: plan for plan in scene.plan()}
    assert plans["here"].loss == 3600
    assert plans["there"].loss is None
    assert any("cupboard" in note for note in plans["there"].notes)


def test_a_snapshot_from_the_future_hides_nothing(scene: Scene) -> None:
    """A clock that was ahead once must not make a loss look like none."""
    job = scene.job("crm", rpo_ns=HOUR)
    scene.snapshot(job, 5 * HOUR)
    scene.snapshot(job, -10 * DAY)
    (plan,) = scene.plan()
    assert plan.loss == 5 * 3600 and plan.rpo_missed


def test_a_database_that_fails_for_long_stays_the_loss(scene: Scene) -> None:
    """It is named by the job: that nobody could store it for weeks is no reason to leave it out."""
    job = scene.job("sql", streamed=True, rpo_ns=3 * HOUR)  # of x.db
    with scene.open() as repository:
        scene.store(repository, job, 40 * HOUR, part="x.db")
        for hours in range(40, 0, -1):
            scene.store(repository, job, hours * HOUR, part="other.db")
    (plan,) = scene.plan()
    assert plan.loss == 40 * 3600 and plan.missed == ["rpo"]
    assert {row.snapshot.name for row in plan.snapshots} == {b"x.db", b"other.db"}


def test_snapshots_that_cannot_be_read_are_said(scene: Scene) -> None:
    """Else "no snapshot yet" would be all that is said of a store whose snapshots rot."""
    scene.snapshot(scene.job("crm"), HOUR)
    (stored,) = (scene.place / "main" / "snapshots").iterdir()
    stored.chmod(0o600)
    stored.write_bytes(bytes(stored.stat().st_size))
    (plan,) = scene.plan()
    assert any(stored.name[:8] in note for note in plan.notes), plan.notes
    (advice,) = packstone.advise_jobs(scene.strategy)
    assert any(stored.name[:8] in note for note in advice.notes), advice.notes


def test_rates_that_cannot_be_read_are_said(scene: Scene) -> None:
    scene.snapshot(scene.job("crm"), HOUR)
    scene.measured(RESTORE, GIB, 100)
    (plan,) = scene.plan()
    assert plan.estimate is not None
    history = scene.place / "main" / "history"
    history.rename(scene.place / "moved")
    history.symlink_to(history)  # a listing that fails, also for root
    (plan,) = scene.plan()
    assert plan.estimate is None
    assert any("what was measured cannot be read" in note for note in plan.notes), plan.notes
