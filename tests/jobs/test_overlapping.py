"""Real processes: a run under way, killed, interrupted, and what the next one makes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobs_scene import Scene

from packstone.operations.jobs.memory import JobFiles

# the strategy of the test, carried out in a process of its own; what came of it as text
PROGRAM = """
import pickle, sys, signal
def interrupt(*_): raise KeyboardInterrupt
signal.signal(signal.SIGTERM, interrupt)
from packstone.operations.jobs.run import run_jobs
strategy = pickle.loads(bytes.fromhex(sys.argv[1]))
names = sys.argv[2:]
report = run_jobs(strategy, names, due=not names, threads=1)
print(report.exit_code, *(f"{each.job}={each.status}" for each in report.jobs))
"""


@contextmanager
def going(scene: Scene, *names: str) -> Iterator[subprocess.Popen[str]]:
    """Let jobs of a scene be run by another process, whose first one is under way."""
    import pickle

    where = Path(__file__).parents[1]
    words = [sys.executable, "-c", PROGRAM, pickle.dumps(scene.strategy).hex(), *names]
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(where)},
    )
    wait_for(scene.place / "begun")
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(path: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def slow(scene: Scene, name: str = "crm", **words: object) -> None:
    """Add a job that goes on until the file `go` is there, for a minute at most."""
    place = scene.place
    wait = f"for i in $(seq 600); do test -e {place}/go && break; sleep 0.1; done"
    scene.command(name, f"echo rows; touch {place}/begun; {wait}; echo rows", **words)


def test_a_run_that_is_still_going_is_not_started_twice(scene: Scene) -> None:
    slow(scene)
    scene.add("good")
    with going(scene, "crm") as process:
        report = scene.run("crm", "good")
        found = {each.job: each for each in report.jobs}
        assert (found["crm"].status, found["good"].status) == ("skipped", "done")
        note = found["crm"].notes[0]
        assert f"process {process.pid} since 20" in note
        assert report.exit_code == 11, "it was named"
        assert scene.run().exit_code == 0, "it was not"
        assert scene.run("crm", due=True).exit_code == 0
        planned = {each.job: each for each in scene.run(dry_run=True).planned}
        assert f"process {process.pid} " in planned["crm"].going and not planned["crm"].runs
        (scene.place / "go").touch()
        out, err = process.communicate(timeout=60)
    assert out == "0 crm=done\n", err
    assert scene.one("crm").status == "done"


def test_of_two_at_once_each_job_is_done_by_one(scene: Scene) -> None:
    """Timers that fall together: what the other has done meanwhile is not done again."""
    slow(scene, "a")
    scene.add("b")
    with going(scene) as process:
        assert [each.job for each in scene.run(due=True).jobs if each.status == "done"] == ["b"]
        (scene.place / "go").touch()
        out, _err = process.communicate(timeout=60)
    assert "b=" in out and len(scene.snapshots(["job:b"])) == 1
    assert scene.run(due=True).jobs == []


@pytest.mark.parametrize("victim", ["both", "child", "parent"])
def test_kill_9(scene: Scene, victim: str) -> None:
    slow(scene, copy_to=[scene.make("other")])
    with going(scene) as process:
        child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        if victim in ("parent", "both"):
            process.kill()
            process.wait()
        if victim in ("child", "both"):
            os.kill(child, signal.SIGKILL)
            (scene.place / "go").touch()  # its command would go on to write to nobody
        if victim == "child":
            out, _err = process.communicate(timeout=60)
            assert out == "1 crm=failed\n"
        if victim == "parent":
            # What it had begun goes on, and is known to.
            assert scene.one("crm").status == "skipped"
            (scene.place / "go").touch()
            deadline = time.monotonic() + 60
            while JobFiles(scene.strategy, "crm").going():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert len(scene.snapshots()) == 1
            assert scene.run(due=True).jobs == [], "the repository knows that it was done"
    (scene.place / "go").touch()
    assert scene.one("crm").status == "done", "no lock is left behind"
    assert len(scene.snapshots()) == (2 if victim == "parent" else 1)
    assert len(scene.snapshots(target=scene.strategy.jobs["crm"].copy_to[0])) == len(
        scene.snapshots()
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_job_and_reports(scene: Scene, number: int) -> None:
    place = scene.place
    slow(scene, "a", after=[f"touch {place}/after"], on_error=[f"touch {place}/on_error"])
    scene.add("b")
    with going(scene) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert out == "130 a=interrupted b=skipped\n"
    assert "Traceback" not in err
    assert (place / "after").exists() and (place / "on_error").exists()
    assert not scene.snapshots() and not list((place / "main" / "tmp").iterdir())
    (place / "go").touch()
    assert scene.run().exit_code == 0
