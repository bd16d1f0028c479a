"""Advice on simulated histories whose truth is known, and on those too short for any."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs.planning_scene import HOUR, Run, Scene

import packstone
from packstone.model import GIB, MIB
from packstone.operations.jobs.proposals import _EVERY, propose_every, propose_keep, reach_days
from packstone.repository.retention import Retention


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def daily(
    rng: Random,
    count: int,
    *,
    grows: float = GIB,
    stores: float = 2 * GIB,
    start: float = 500 * GIB,
) -> list[Run]:
    """Return a run a day: the data grows, and every run stores more than that for what changed."""
    size = 500.0 * GIB
    runs = [Run(float(count), size, size / 2)]
    for day in range(1, count):
        size += rng.gauss(grows, grows / 2)
        runs.append(Run(float(count - day), size, stores * rng.uniform(0.8, 1.2), 600))
    return runs


def only(advice: list[packstone.RepositoryAdvice]) -> packstone.RepositoryAdvice:
    assert len(advice) == 1
    return advice[0]


def limited(scene: Scene, left: float) -> None:
    """Let so much fit into the repository still."""
    size = sum(path.stat().st_size for path in (scene.place / "main" / "packs").rglob("*/*"))
    scene.main = replace(scene.main, max_size=size + round(left))


def test_growth_and_the_day_when_it_is_full(scene: Scene) -> None:
    probe = scene.job("probe")
    scene.history(probe, [])
    del scene.strategy.jobs["probe"]
    limited(scene, 20 * GIB)  # of a real disk less may be free: it bounds then
    job = scene.job("crm")
    scene.history(job, daily(Random(1), 40))
    advice = only(scene.advise())
    found = advice.jobs[0]
    assert found.runs == 40 and found.size_growth is not None and found.stored_growth is not None
    assert found.size_growth.per_day == pytest.approx(GIB, rel=0.2)
    assert found.stored_growth.per_day == pytest.approx(2 * GIB, rel=0.1)
    assert found.change_stored == pytest.approx(2 * GIB, rel=0.15)
    assert found.change_share == pytest.approx(2 / 540, rel=0.2)
    assert advice.left is not None and advice.full_days is not None
    assert advice.full_days == pytest.approx(advice.left / (2 * GIB), rel=0.1)
    assert advice.full_earliest is not None and advice.full_latest is not None
    assert advice.full_earliest <= advice.left / (2 * GIB) <= advice.full_latest


def test_what_is_there_counts_against_max_size(scene: Scene) -> None:
    scene.main = replace(scene.main, max_size=1000)  # the packs have more
    scene.history(scene.job("crm"), daily(Random(1), 30))
    advice = only(scene.advise())
    assert (advice.left, advice.limit, advice.full_days) == (0, "max_size", 0)
    assert advice.jobs[0].keep is not None and "larger disk" in advice.jobs[0].keep.reason


def test_too_little_history_is_said(scene: Scene) -> None:
    job = scene.job("crm")
    scene.history(job, daily(Random(1), 5))
    advice = only(scene.advise())
    found = advice.jobs[0]
    assert found.size_growth is None and found.keep is None and advice.full_days is None
    assert any("too little history" in note for note in found.notes)
    assert any("too little history" in note for note in advice.notes)


def test_ten_days_cannot_tell_a_week(scene: Scene) -> None:
    job = scene.job("crm")
    scene.history(job, daily(Random(1), 10))
    (found,) = only(scene.advise()).jobs
    assert found.size_growth is not None
    assert any("weekly" in note for note in found.notes)


def test_a_new_job_leaves_the_rest_of_the_prediction(scene: Scene) -> None:
    job, new = scene.job("crm"), scene.job("new")
    scene.history(job, daily(Random(1), 30))
    scene.history(new, daily(Random(2), 2))
    advice = only(scene.advise("crm"))
    assert advice.stored_growth is not None
    assert [each.job.name for each in advice.jobs] == ["crm"]
    assert any("leaves out new" in note for note in advice.notes)


def test_an_import_is_told_and_is_no_growth(scene: Scene) -> None:
    job = scene.job("crm")
    runs = daily(Random(3), 30)
    scene.history(
        job,
        [replace(run, size=run.size + (200 * GIB if run.days_ago < 12 else 0)) for run in runs],
    )
    (found,) = only(scene.advise()).jobs
    assert found.size_growth is not None
    assert found.size_growth.per_day == pytest.approx(GIB, rel=0.4)
    assert any("in one go" in note for note in found.notes)


def test_nights_left_of_hourly_runs_are_measured_on_what_stays(scene: Scene) -> None:
    """After expiry one run of a day is left of most: their own bytes are not what stays."""
    job = scene.job("crm")
    hourly = [Run(hour / 24, 500 * GIB, GIB) for hour in range(23, 0, -1)]
    nights = [Run(1 + night, 500 * GIB, GIB) for night in range(20, 0, -1)]
    scene.history(job, nights + hourly)
    (found,) = only(scene.advise()).jobs
    assert found.stored_growth is not None
    assert found.stored_growth.days > 14, "not of the last day alone"
    assert found.stored_growth.per_day == 0, "here all snapshots hold one tree: nothing stays"
    assert found.change_stored == GIB


def test_a_repository_that_does_not_open_says_so(scene: Scene, tmp_path: Path) -> None:
    gone = packstone.RepositoryTarget(name="gone", location=str(tmp_path / "nowhere"))
    scene.job("crm", repository=gone)
    advice = only(scene.advise())
    assert advice.notes and advice.jobs[0].runs == 0
    with pytest.raises(packstone.UsageError):
        scene.advise("none")


def test_every_and_keep_are_proposed_with_reasons(scene: Scene) -> None:
    job = scene.job("crm", rpo_ns=4 * HOUR)
    scene.history(job, daily(Random(1), 40))
    (found,) = only(scene.advise()).jobs
    assert found.run_seconds == 600
    assert found.every is not None and found.every.every == "3h"
    assert "rpo of 4 h" in found.every.reason
    assert found.keep is not None and found.keep.reason


# -- proposals, alone --------------------------------------------------------------------------


@given(st.floats(60, 30 * 86_400), st.none() | st.floats(1, 86_400))
def test_a_proposed_interval_holds_the_rpo(rpo: float, took: float | None) -> None:
    lengths = {"min": 60, "h": 3600, "d": 86_400}
    found = propose_every(rpo, took)
    if found.every:
        number = found.every.rstrip("minhd")
        length = int(number) * lengths[found.every[len(number) :]]
        assert length + (took or 0) <= rpo
        assert took is None or took <= length / 2
    else:
        fits = [each for each in _EVERY if each + (took or 0) <= rpo and (took or 0) <= each / 2]
        assert not fits
        assert "no interval" in found.reason


@given(
    st.floats(0, 1e15),
    st.floats(0, 1e12),
    st.floats(-1e12, 1e12),
    st.none() | st.floats(300, 10 * 86_400),
)
def test_a_proposed_policy_fits(
    room: float, changed: float, grows: float, every: float | None
) -> None:
    found = propose_keep(room, changed, grows, every)
    if found.keep is None:
        assert "larger disk" in found.reason
        assert changed * 3 + max(grows, 0) * 365 > room * 0.9 - 1
    else:
        assert found.bytes <= room
        assert found.keep.daily >= 3
        assert (found.keep.within == "2d") == (every is not None and every < 86_400)


def test_more_room_reaches_back_farther() -> None:
    reaches = []
    for room in (10 * GIB, 40 * GIB, 200 * GIB, 500 * GIB, 2000 * GIB):
        keep = propose_keep(room, GIB, 10 * MIB, None).keep
        reaches.append(0.0 if keep is None else reach_days(keep) or math.inf)
    assert reaches == sorted(reaches) and reaches[0] < reaches[-1]


def test_how_far_a_policy_reaches() -> None:
    assert reach_days(Retention(daily=7, weekly=5)) == 35
    assert reach_days(Retention(hourly=48)) == 2
    assert reach_days(Retention(monthly=-1)) is None
    assert reach_days(Retention(last=5)) is None
    assert reach_days(Retention(within="40d", daily=7)) == 40


def test_what_expires_is_said_to_be_left_out(scene: Scene) -> None:
    keep = Retention(daily=7)
    scene.history(scene.job("crm", keep=keep, prune=True), daily(Random(1), 30))
    assert any("7 days" in note for note in only(scene.advise()).notes)
