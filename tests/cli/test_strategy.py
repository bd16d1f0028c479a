"""`packstone config check` and `packstone schedule`, and which file they read."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "strategy.md"

JOB = """\
[repositories.main]
location = "store"
[jobs.a]
paths = "/srv"
every = "daily 02:00"
keep = { daily = 7, yearly = "all" }
"""


@pytest.fixture
def example(run) -> Path:
    found = re.search(r"^```toml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    path: Path = run.directory / "example.toml"
    path.write_text(found[1])
    return path


def test_the_example_of_the_page(run, example: Path) -> None:
    text = run("--config", example, "config", "check").text
    for part in ("postgresql crm billing", "daily 02:00, next 2", "main, then offsite"):
        assert part in text
    document = run("config", "check", "--config", example, "--json").json
    jobs = {job["name"]: job for job in document["jobs"]}
    assert list(jobs) == ["crm", "shop", "tickets", "directory", "attachments"]
    assert jobs["crm"]["source"]["kind"] == "postgresql"
    assert jobs["crm"]["source"]["databases"] == ["crm", "billing"]
    assert jobs["crm"]["copy_to"] == ["offsite", "cupboard"]
    assert jobs["crm"]["keep"]["yearly"] == -1
    assert jobs["crm"]["rpo_seconds"] == 7200
    assert re.fullmatch(r"20..-..-..T02:00:00\.0{9}Z", jobs["shop"]["next_run"])
    assert document["repositories"][1]["location"] == "s3://crm-backups/main"
    assert document["warnings"] == []


def test_mistakes_are_all_told_with_exit_code_2(run) -> None:
    path = run.directory / "packstone.toml"
    path.write_text(JOB.replace("daily = 7", "dayly = 7") + 'prority = "low"\n')
    outcome = run("config", "check", code=2)
    assert f"{path}:6: jobs.a.keep.dayly: unknown key; did you mean daily?" in outcome.messages
    assert f"{path}:7: jobs.a.prority: unknown key; did you mean priority?" in outcome.messages
    error = run("config", "check", "--json", code=2).json["error"]
    assert (error["kind"], error["exit_code"]) == ("strategy", 2)
    assert [each.split(": ")[1] for each in error["mistakes"]] == [
        "jobs.a.keep.dayly",
        "jobs.a.prority",
    ]


def test_names_in_a_file_cannot_drive_a_terminal(run) -> None:
    path = run.directory / "packstone.toml"
    path.write_text(JOB.replace('"/srv"', '"/srv/\\u001b[31m"') + '"\\u001b[2J" = 1\n')
    outcome = run("config", "check", code=2)
    assert "\x1b" not in outcome.messages + outcome.text
    path.write_text(JOB.replace('"/srv"', '"/srv/\\u001b[31m"'))
    outcome = run("config", "check")
    assert "\x1b" not in outcome.text and "\\x1b[31m" in outcome.text


def test_which_file_is_read(run) -> None:
    settings = run.directory / "settings" / "packstone"
    settings.mkdir(parents=True)
    run.environment |= {"XDG_CONFIG_HOME": str(run.directory / "settings")}
    outcome = run("config", "check", code=2)
    assert "--config FILE" in outcome.messages and str(settings) in outcome.messages
    for name in ("settings/packstone/packstone.toml", "packstone.toml", "b.toml", "c.toml"):
        run.directory.joinpath(name).write_text(JOB)
    (run.directory / "packstone.toml").rename(run.directory / "later")
    read = run("config", "check", "--json").json["path"]
    assert read == str(settings / "packstone.toml")
    (run.directory / "later").rename(run.directory / "packstone.toml")
    assert run("config", "check", "--json").json["path"] == str(run.directory / "packstone.toml")
    env = {"PACKSTONE_CONFIG": "b.toml"}
    assert run("config", "check", "--json", env=env).json["path"].endswith("/b.toml")
    name, check = ["--config", "c.toml"], ["config", "check", "--json"]
    for words in (name + check, check + name):
        assert run(*words, env=env).json["path"].endswith("/c.toml"), words
    run.directory.joinpath("c.toml").chmod(0o777)
    assert "written by everyone" in run("config", "check", "--config", "c.toml", code=2).messages


def test_doubts_are_warnings(run) -> None:
    (run.directory / "packstone.toml").write_text(JOB + 'rpo = "1h"\n')
    outcome = run("config", "check")
    assert "warning: job a is to lose 1h at most" in outcome.messages
    assert run("config", "check", "--json").json["warnings"]


def test_a_schedule_is_shown_and_not_written(run) -> None:
    (run.directory / "packstone.toml").write_text(JOB)
    run.environment |= {"XDG_CONFIG_HOME": str(run.directory / "settings")}
    text = run("schedule", "show", "--systemd", "--user").text
    assert f'"--config" "{run.directory}/packstone.toml" "run" "--due"' in text
    assert not (run.directory / "settings").exists()
    text = run("schedule", "show", "--cron").text
    assert text.splitlines()[2].startswith("*/15 * * * * ")
    files = run("schedule", "show", "--systemd", "--user", "--json").json["files"]
    assert [Path(path).name for path in files] == ["packstone.service", "packstone.timer"]


def test_the_line_of_cron_runs_what_is_due(run, store: Path, source: Path) -> None:
    """As cron would, from another directory; nothing is said when all is well."""
    (run.directory / "packstone.toml").write_text(
        f"""
        state_dir = "state"
        [repositories.main]
        location = "store"
        [jobs.a]
        paths = "{source.name}"
        every = "daily 02:00"
        """
    )
    line = run("schedule", "show", "--cron").text.splitlines()[2]
    command = line.split(" ", 5)[5].replace("\\%", "%")
    environment = {"HOME": str(run.directory), "LOGNAME": "ada", "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd="/", env=environment, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (taken,) = run("snapshots", "--json").json
    assert taken["tags"] == ["job:a"] and taken["paths"] == [str(source)]
