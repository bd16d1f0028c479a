"""Runs over a storage that fails at the k-th call, over full disks, and killed at any moment."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Packstone
from faults import CALLS_THAT_WRITE, Action, Plan, faulty_calls, system_error
from jobs_scene import Scene

import packstone
from packstone.operations.jobs.carry_out import RunOptions, carry_out
from packstone.operations.jobs.memory import JobFiles
from packstone.operations.jobs.report import JobReport
from packstone.operations.jobs.strategy import CheckBudget

SAMPLE = 12  # steps that every day's tests look at; the rest is for `make soak`


def arrange(scene: Scene) -> None:
    scene.add(
        "crm",
        keep=packstone.Retention(last=2),
        prune=True,
        copy_to=[scene.make("copy")],
        check=CheckBudget(),
    )


def steps_of(scene: Scene, plan: Plan) -> int:
    """Return how many steps a run has; this one is no child, so that they can be counted."""
    with faulty_calls(plan, index=False):
        assert carry_out(scene.strategy.jobs["crm"], RunOptions(threads=1)).status == "done"
    return len(plan.steps)


def assert_told_the_truth(scene: Scene, report: JobReport, before: int) -> None:
    """What is said to be stored is there, whatever failed; what failed has its own words."""
    for failure in report.errors:
        assert failure.exit_code in (13, 14), failure
        assert "unexpected" not in failure.message
    assert report.status in ("done", "warnings", "failed"), report
    ids = {row.id for row in scene.snapshots(["job:crm"])}
    for taken in report.snapshots:
        assert taken.result.snapshot_id in ids
    assert bool(report.snapshots) == report.complete
    if not report.complete:
        assert report.status == "failed" and not report.forgotten
        assert len(ids) == before
    memory = JobFiles(scene.strategy, "crm").load()
    assert memory is not None and not memory.running
    assert (memory.good_ns == report.began_ns) == report.complete


def fail_at(scene: Scene, action: Action, step: int, **words: object) -> JobReport:
    before = len(scene.snapshots(["job:crm"]))
    with faulty_calls(Plan(action, step, **words), index=False):  # type: ignore[arg-type]
        report = scene.one("crm")
    assert_told_the_truth(scene, report, before)
    return report


def assert_well(scene: Scene) -> None:
    assert scene.one("crm").status == "done"
    for name in ("main", "copy"):
        with packstone.open(scene.place / name) as repository:
            assert repository.check(read_data=True).errors == []


def sample(count: int, every_one: bool) -> list[int]:
    return list(range(count)) if every_one else sorted({*range(0, count, count // SAMPLE + 1)})


@pytest.mark.parametrize("every_one", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_call_that_fails(scene: Scene, every_one: bool) -> None:
    arrange(scene)
    count = steps_of(scene, Plan())
    failed = 0
    for number, step in enumerate(sample(count, every_one)):
        (scene.source / "file").write_bytes(os.urandom(20_000))
        failed += fail_at(scene, system_error(errno.EIO), step).status == "failed"
        if number % 8 == 7:
            assert_well(scene)
    assert_well(scene)
    assert failed > SAMPLE // 3, "the faults reach the jobs"


@pytest.mark.parametrize("every_one", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_disk_that_is_full_from_some_call_on(scene: Scene, every_one: bool) -> None:
    arrange(scene)
    words = {"verbs": CALLS_THAT_WRITE}
    count = steps_of(scene, Plan(**words))
    failed = 0
    for step in sample(count, every_one):
        (scene.source / "file").write_bytes(os.urandom(20_000))
        report = fail_at(scene, system_error(errno.ENOSPC), step, onwards=True, **words)
        failed += report.status == "failed"
    assert_well(scene)
    assert failed > SAMPLE // 2, "the faults reach the jobs"


def test_state_that_cannot_be_written(scene: Scene) -> None:
    scene.add("crm")
    scene.one()
    state = next((scene.place / "state").glob("*.json"))
    state.with_name(state.name + ".tmp").mkdir()
    report = scene.one("crm")
    assert (report.status, report.exit_code, report.complete) == ("warnings", 3, True)
    assert "state" in report.warnings[0] and len(scene.snapshots()) == 2


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_at_any_moment(run: Packstone, store: Path, source: Path, kills: int) -> None:
    """SIGKILL to all of a run: no lock stays, nothing is broken, the next run makes it up."""
    (run.directory / "packstone.toml").write_text(
        f"""
state_dir = "state"
[repositories.main]
location = "store"
[jobs.files]
paths = ["{source}"]
keep = {{ last = 3 }}
prune = true
every = "1h"
[jobs.numbers]
command = {{ argv = ["seq", "200000"], name = "numbers" }}
every = "1h"
"""
    )
    begin = time.monotonic()
    run("run")
    whole = time.monotonic() - begin
    generator = random.Random(7)
    for _ in range(kills):
        (source / "dump.sql").write_bytes(generator.randbytes(300_000))
        process = run.start("run", start_new_session=True)
        try:
            process.communicate(timeout=generator.uniform(0, whole * 1.2))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    done = run("--json", "run").json
    assert [each["status"] for each in done["jobs"]] == ["done", "done"]
    assert len(run("--json", "snapshots", "--tag", "job:files").json) == 3
    run("check", "--read-data")
    assert run("run", "--due").text == "nothing to run\n"
