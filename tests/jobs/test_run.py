"""What a run does, job by job: steps, order, and that one failure stops no other job."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from jobs_scene import HOUR, SECOND, Scene

import packstone
from packstone.errors import SourceError
from packstone.operations.jobs.report import JobReport
from packstone.operations.jobs.strategy import (
    CheckBudget,
    PathSource,
    PostgresSource,
    Priority,
    RepositoryTarget,
    SqliteSource,
)

Retention = packstone.Retention


def statuses(report) -> dict[str, str]:
    return {each.job: each.status for each in report.jobs}


def test_every_step_of_a_job(scene: Scene) -> None:
    other = scene.make("other")
    scene.add(
        "crm",
        tags=["nightly"],
        keep=Retention(last=1),
        prune=True,
        copy_to=[other],
        check=CheckBudget(subset="100%"),
    )
    first = scene.one()
    assert (first.status, first.exit_code, first.complete) == ("done", 0, True)
    (scene.source / "file").write_bytes(os.urandom(100_000))
    second = scene.one("crm")
    assert second.status == "done" and second.forgotten == 1
    assert second.freed is not None and second.check is not None and second.check.bytes_read > 0
    assert [(each.repository, each.snapshots) for each in second.copies] == [("other", 1)]
    rows = scene.snapshots(["job:crm", "nightly"])
    assert [row.id for row in rows] == [second.snapshots[0].result.snapshot_id]
    assert len(scene.snapshots(["job:crm"], other)) == 2, "copies do not expire with the original"


def test_order_of_jobs(scene: Scene) -> None:
    log = scene.place / "log"
    for name, priority in {
        "b": Priority.NORMAL,
        "a": Priority.NORMAL,
        "last": Priority.LOW,
        "first": Priority.URGENT,
    }.items():
        scene.add(name, priority=priority, before=[f"echo {name} >> {log}"])
    scene.run("b")
    assert scene.run().exit_code == 0
    # what was never stored is overdue longest
    assert log.read_text().split() == ["b", "first", "a", "b", "last"]


def test_one_report_whatever_fails(scene: Scene, tmp_path: Path) -> None:
    """Every bad job fails in its own way and with its own words; the good ones are done."""
    small = scene.make("small")
    bad = {
        "no repository": ({"repository": RepositoryTarget(name="x", location="/nowhere/x")}, 10),
        "no passphrase": (
            {
                "repository": RepositoryTarget(
                    name="s", location=str(sealed(scene)), passphrase_file="/nowhere/pass"
                )
            },
            12,
        ),
        "before": ({"before": ["echo why >&2; exit 7"]}, 1),
        "no source": ({"source": PathSource(paths=["/nowhere/crm"])}, 1),
        "no database": ({"source": SqliteSource(files=["/nowhere/crm.db"])}, None),
        "no server": (
            {"source": PostgresSource(databases=["crm"], host="/nowhere", roles=False)},
            None,
        ),
        "copy": ({"copy_to": [RepositoryTarget(name="gone", location="/nowhere/y")]}, 10),
    }
    for name, (words, _code) in bad.items():
        scene.add(name, **words)
    scene.command("failing", "echo half; exit 3")
    scene.add("good")
    scene.add("also good", repository=small, priority=Priority.LOW)
    report = scene.run()
    found = {each.job: each for each in report.jobs}
    assert set(statuses(report).items()) >= {("good", "done"), ("also good", "done")}
    for name, (_words, code) in bad.items():
        assert found[name].status == "failed", name
        assert found[name].errors[0].message, name
        if code is not None:
            assert found[name].exit_code == code, (name, found[name])
    assert "/nowhere/pass" in found["no passphrase"].message
    assert "exited with 7" in found["before"].message
    assert "/nowhere/crm" in found["no source"].message
    assert found["failing"].status == "failed" and not found["failing"].snapshots
    assert report.exit_code == 1, "several failed"
    stored = {row.snapshot.tags[0] for row in scene.snapshots()}
    assert stored == {"job:good", "job:copy"}, "no snapshot of a job that failed before it had one"
    assert scene.one("before").exit_code == 1 and scene.run("no repository").exit_code == 10
    assert scene.run("no repository", "no passphrase", "good").exit_code == 1


def sealed(scene: Scene) -> Path:
    where = scene.place / "sealed"
    cost = packstone.Argon2(time=1, memory=8 << 20, lanes=1)
    packstone.init(where, passphrase="secret", argon2=cost).close()
    return where


def test_passphrases_come_from_where_the_strategy_says(scene: Scene, monkeypatch) -> None:
    for name in ("PASSPHRASE", "PASSPHRASE_FILE", "PASSPHRASE_COMMAND"):
        monkeypatch.delenv(f"PACKSTONE_{name}", raising=False)
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(scene.place / "cache"))
    where = str(sealed(scene))
    secret = str(scene.write("secret", "secret\n"))
    ways = {
        "file": RepositoryTarget(name="f", location=where, passphrase_file=secret),
        "command": RepositoryTarget(name="c", location=where, passphrase_command=f"cat {secret}"),
        "none": RepositoryTarget(name="n", location=where),
        "wrong": RepositoryTarget(name="w", location=where, passphrase_command="echo wrong"),
    }
    for name, target in ways.items():
        scene.add(name, repository=target)
    report = scene.run()
    assert statuses(report) == {
        "command": "done",
        "file": "done",
        "none": "failed",
        "wrong": "failed",
    }
    assert {each.job: each.exit_code for each in report.jobs if each.exit_code} == {
        "none": 12,
        "wrong": 12,
    }
    monkeypatch.setenv("PACKSTONE_PASSPHRASE", "secret")
    assert scene.one("none").status == "done"


def test_nothing_expires_after_a_command_that_printed_nothing(scene: Scene) -> None:
    scene.command("crm", "echo rows", keep=Retention(last=1))
    good = scene.one().snapshots[0].result.snapshot_id
    scene.command("crm", "false | cat", keep=Retention(last=1))
    report = scene.one()
    assert (report.status, report.complete, report.forgotten) == ("warnings", False, 0)
    assert good in [row.id for row in scene.snapshots()]


def test_one_rotten_snapshot_keeps_no_other_from_its_copy(scene: Scene) -> None:
    other = scene.make("other")
    scene.add("crm")
    old = scene.one().snapshots[0].result.snapshot_id
    for pack in (scene.place / "main" / "packs").rglob("*"):
        if pack.is_file():
            pack.chmod(0o600)
            data = bytearray(pack.read_bytes())
            data[200 : len(data) // 2] = bytes(len(data) // 2 - 200)
            pack.write_bytes(data)
    scene.write("source/file", "other content\n")
    scene.add("crm", copy_to=[other])
    report = scene.one()
    assert report.status == "failed" and report.exit_code == 14
    assert old is not None and old[:8] in report.message and "copy to other" in report.message
    new = report.snapshots[0].result.snapshot_id
    (copied,) = scene.snapshots(target=other)
    assert copied.snapshot.original_id.hex() == new
    assert report.copies[0].snapshots == 1
    with packstone.open(other.location) as repository:
        assert repository.check(read_data=True).errors == []


def test_a_warning_of_one_repository_is_not_told_of_the_other(scene: Scene) -> None:
    scene.add("crm", copy_to=[scene.make("other")])
    (scene.place / "main" / "snapshots" / ("ab" * 32)).write_bytes(b"no snapshot")
    report = scene.one()
    assert report.status == "warnings" and "ab" * 4 in "".join(report.warnings)
    assert not any("copy to other" in text for text in report.warnings), report.warnings


def test_a_job_that_failed_does_not_exit_as_one_with_warnings() -> None:
    report = JobReport("crm")
    report.fail(SourceError("dump.sql: the pipe broke"))
    report.settle()
    assert (report.status, report.exit_code) == ("failed", 1)


def test_files_that_cannot_be_read_are_warnings(scene: Scene) -> None:
    scene.add("crm", PathSource(paths=[str(scene.source), "/nowhere/else"]))
    scene.add("good")
    report = scene.run()
    assert statuses(report) == {"crm": "warnings", "good": "done"}
    assert report.exit_code == 3
    crm = next(each for each in report.jobs if each.job == "crm")
    assert [problem.path for problem in crm.snapshots[0].result.errors] == [b"/nowhere/else"]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_nothing_expires_while_a_named_path_is_gone(scene: Scene, kind: str) -> None:
    """A disk that is not mounted for some nights: the snapshots that have its files must stay."""
    other, away = scene.place / "other", scene.place / "away"
    if kind == "directory":
        other.mkdir()
    scene.write("other/file" if kind == "directory" else "other", "rows\n")
    paths = [str(scene.source), str(other)]
    scene.add("crm", PathSource(paths=paths), keep=Retention(last=1), prune=True)
    good = scene.one().snapshots[0].result.snapshot_id
    other.rename(away)
    for _night in range(2):
        report = scene.one()
        assert (report.status, report.exit_code, report.complete) == ("warnings", 3, False)
        assert report.snapshots and report.freed is None
        assert any("nothing expires" in text and str(other) in text for text in report.warnings)
    assert good in [row.id for row in scene.snapshots()]
    away.rename(other)
    report = scene.one()
    assert report.status == "done" and report.forgotten == 3


def test_what_has_a_date_in_its_path_expires(scene: Scene) -> None:
    for day in range(3):
        dated = scene.place / f"dump-2026-11-{day + 1:02}"
        dated.mkdir()
        (dated / "crm.sql").write_text(f"day {day}")
        scene.strategy.jobs.clear()
        scene.add("crm", PathSource(paths=[str(dated)]), keep=Retention(last=1))
        scene.add("other", PathSource(paths=[str(dated)]))
        report = scene.run()
    assert report.exit_code == 0
    assert [row.snapshot.paths for row in scene.snapshots(["job:crm"])] == [[bytes(dated)]]
    assert len(scene.snapshots(["job:other"])) == 3, "other jobs' snapshots are none of its own"


def test_nothing_expires_after_a_failure(scene: Scene) -> None:
    scene.command("crm", "echo rows")
    scene.run()
    scene.run()
    scene.command("crm", "echo rows; exit 1", keep=Retention(last=1))
    failed = scene.one()
    assert (failed.status, failed.complete, failed.forgotten) == ("failed", False, 0)
    assert len(scene.snapshots(["job:crm"])) == 2
    scene.command("crm", "echo rows", keep=Retention(last=1))
    assert scene.one().forgotten == 2 and len(scene.snapshots(["job:crm"])) == 1


def test_hooks_are_told(scene: Scene) -> None:
    log = scene.place / "log"
    tell = 'echo "$0 $PACKSTONE_JOB $PACKSTONE_STATUS [$PACKSTONE_ERROR] $PACKSTONE_SNAPSHOT" >> '
    words = {
        "before": [f"set -- ; echo before >> {log}; {tell}{log}"],
        "after": [f"echo after >> {log}; {tell}{log}"],
        "on_error": [f"echo on_error >> {log}; {tell}{log}"],
    }
    scene.add("good", **words)
    done = scene.one()
    lines = log.read_text().splitlines()
    assert lines[0::2] == ["before", "after"]
    assert "good running []" in lines[1]
    assert f"good done [] {done.snapshots[0].result.snapshot_id}" in lines[3]
    log.unlink()
    scene.strategy.jobs.clear()
    scene.command("bad", "exit 3", **words)
    assert scene.run().exit_code == 1
    lines = log.read_text().splitlines()
    assert lines[0::2] == ["before", "after", "on_error"]
    assert "bad failed [bad.sql: " in lines[3] and "bad failed [bad.sql: " in lines[5]


def test_after_is_done_whatever_before_did(scene: Scene) -> None:
    scene.add("crm", before=["exit 1"], after=[f"touch {scene.place}/after"])
    assert scene.run().exit_code == 1
    assert (scene.place / "after").exists() and not scene.snapshots()
    scene.add("crm", after=["exit 9"])
    report = scene.one()
    assert report.status == "failed" and "after: " in report.message
    assert len(report.snapshots) == 1, "what was stored stays"


def test_a_timeout_ends_one_job(scene: Scene) -> None:
    marker = scene.place / "survivor"
    slow = f"echo rows; sleep 3; touch {marker}"
    scene.command("slow", slow, timeout_ns=SECOND, after=[f"touch {scene.place}/after"])
    scene.add("hook", before=[f"(sleep 3; touch {marker}) & wait"], timeout_ns=SECOND)
    scene.add("good", priority=Priority.LOW)
    begin = time.monotonic()
    report = scene.run()
    assert statuses(report) == {"hook": "failed", "slow": "failed", "good": "done"}
    assert "longer than 1 second" in report.jobs[0].message
    assert (scene.place / "after").exists()
    time.sleep(max(0.0, begin + 7 - time.monotonic()))
    assert not marker.exists(), "what it had started ended with it"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_a_job_that_dies_takes_no_other_with_it(scene: Scene, number: int) -> None:
    scene.add("dying", before=[f"kill -{int(number)} $PPID"], on_error=[f"touch {scene.place}/e"])
    scene.add("good", priority=Priority.LOW)
    report = scene.run()
    assert statuses(report) == {"dying": "failed", "good": "done"}
    assert signal.Signals(number).name in report.jobs[0].message
    assert (scene.place / "e").exists()


def test_damage_that_the_check_finds(scene: Scene) -> None:
    scene.add("crm", check=CheckBudget(subset="100%"))
    assert scene.one().status == "done"
    pack = max(Path(scene.main.location).glob("packs/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 1
    pack.write_bytes(data)
    report = scene.one()
    assert (report.status, report.exit_code) == ("failed", 14)
    assert "check: " in report.message and len(report.snapshots) == 1


def test_a_full_repository(scene: Scene) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    point = scene.place / "full"
    point.mkdir()
    if os.system(f"mount -t tmpfs -o size=2m none {point}"):
        pytest.skip("nothing can be mounted here")
    try:
        packstone.init(point / "store", chunk_size=4096).close()
        (scene.source / "big").write_bytes(os.urandom(8 << 20))
        scene.add("full", repository=RepositoryTarget(name="full", location=f"{point}/store"))
        scene.add("good", priority=Priority.LOW)
        report = scene.run()
        assert statuses(report) == {"full": "failed", "good": "done"}
        assert report.exit_code == 13
        assert f"repository full ({point}/store): " in report.jobs[0].message
        with packstone.open(point / "store") as repository:
            assert repository.snapshots() == []
    finally:
        os.system(f"umount {point}")


def test_unknown_jobs_are_named(scene: Scene) -> None:
    scene.add("postgres")
    with pytest.raises(packstone.UsageError, match="postgers") as caught:
        scene.run("postgers")
    assert "postgres" in caught.value.hint
    assert not scene.snapshots()


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    scene.add("due")
    scene.add("manual", every=None)
    scene.run("due")
    before = sorted(scene.place.rglob("*"))
    plan = scene.run("due", "manual", due=True, dry_run=True).planned
    assert {each.job: each.runs for each in plan} == {"due": False, "manual": False}
    later = time.time_ns() + 2 * HOUR
    plan = scene.run("due", "manual", due=True, dry_run=True, clock=lambda: later).planned
    assert {each.job: each.runs for each in plan} == {"due": True, "manual": False}
    assert [each.due_ns for each in plan][1] is None and plan[0].due_ns
    plan = scene.run(dry_run=True).planned
    assert [(each.job, each.runs) for each in plan] == [("due", True), ("manual", False)]
    assert sorted(scene.place.rglob("*")) == before
