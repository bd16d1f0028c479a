"""`plan`, `rehearse` and `advise` as a user meets them."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path
from random import Random

import pytest

STRATEGY = """\
[repositories.main]
location = "{place}/main"

[jobs.crm]
paths = ["{place}/source"]
repository = "main"
every = "1h"
rpo = "2h"
rto = "10min"
priority = "urgent"

[jobs.dump]
command = {{ argv = ["true"], name = "dump.sql", load = ["sh", "-c", "cat > {place}/loaded"] }}
repository = "main"
priority = "low"
"""


@pytest.fixture
def place(run, tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file").write_bytes(Random(1).randbytes(256_000))
    strategy = tmp_path / "packstone.toml"
    strategy.write_text(STRATEGY.format(place=tmp_path))
    run.environment["PACKSTONE_CONFIG"] = str(strategy)
    run.environment["PACKSTONE_REPO"] = str(tmp_path / "main")
    run.environment["TMPDIR"] = str(tmp_path)
    run("init", tmp_path / "main", "--plain", "-q")
    run("snapshot", tmp_path / "source", "--tag", "job:crm", "-q")
    return tmp_path


def test_plan(run, place: Path) -> None:
    done = run("plan")
    lines = done.text.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["job", "crm", "dump"]
    assert "packstone rehearse crm" in done.text and "packstone run dump" in done.text
    found = run("plan", "--json", "crm").json["jobs"]
    assert [job["job"] for job in found] == ["crm"]
    assert found[0]["bytes"] == 256_000 and found[0]["estimate"] is None
    assert found[0]["loss_seconds"] < 3600 and found[0]["unknown"] == ["rto"]
    run("plan", "--strict", code=1)
    run("plan", "nothing", code=2)
    assert run("-q", "plan").text.count("\n") == 3


def test_rehearse(run, place: Path) -> None:
    before = sorted(place.iterdir())
    done = run("rehearse", "crm")
    assert "read back" in done.text
    assert sorted(place.iterdir()) == before
    found = run("rehearse", "crm", "--keep", "--json").json
    assert found["errors"] == [] and found["files_verified"] == 1 and found["rate_kept"] is False
    kept = Path(f"{found['place']}/0{place}/source/file")
    assert kept.read_bytes() == (place / "source" / "file").read_bytes()
    run("rehearse", "dump", code=2)
    run("rehearse", "crm", "--to-database", "x", code=2)
    run("rehearse", "crm", "--target", place / "nowhere", code=2)


def test_rehearse_a_dump(run, place: Path) -> None:
    command = ("snapshot", "--from-command", "dump.sql", "--tag", "job:dump", "-q")
    run(*command, "--", "echo", "rows")
    assert run("rehearse", "dump", "--json").json["bytes"] == 5
    assert not (place / "loaded").exists()
    assert run("rehearse", "dump", "--to-database", "x", "--json").json["loaded"] is True
    assert (place / "loaded").read_text() == "rows\n"


def test_a_rehearsal_that_fails(run, place: Path) -> None:
    packs = [path for path in (place / "main" / "packs").rglob("*") if path.is_file()]
    largest = max(packs, key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    data = bytearray(largest.read_bytes())
    data[100_000:101_000] = bytes(1000)
    largest.write_bytes(data)
    done = run("rehearse", "crm", code=3)
    assert "file" in done.messages
    run("plan")


def test_advise(run, place: Path) -> None:
    done = run("advise")
    assert "too little history" in done.text and 'every = "1h"' in done.text
    (found,) = run("advise", "crm", "--json").json["repositories"]
    assert found["repository"] == "main" and found["left"] > 0
    assert [job["job"] for job in found["jobs"]] == ["crm"]
    assert found["jobs"][0]["every"]["every"] == "1h" and found["full_days"] is None
    run("advise", "nothing", code=2)


def test_restore_says_how_long_it_takes(run, place: Path) -> None:
    silent = run("restore", "latest", "--target", place / "a")
    assert "this takes" not in silent.messages, "nothing was measured"
    assert (
        run("restore", "latest", "--target", place / "b", "-n", "--json").json["estimate"] is None
    )


def test_a_restore_from_a_disk_that_is_mounted_read_only(run, place: Path) -> None:
    """Really mounted so: no sample is left, and nothing is said of it."""
    words = [str(word) for word in run.argv(["restore", "latest", "--target", place / "out"])]
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, str(place / "main"), *words]
    try:
        probe = subprocess.run([*argv[:6], "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if probe.returncode:
        pytest.skip(f"cannot mount here: {probe.stderr.strip()}")
    done = subprocess.run(argv, env=run.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (place / "out").is_dir() and not list((place / "main" / "history").iterdir())


def test_a_database_from_run_to_rehearsal(run, tmp_path: Path) -> None:
    """A job is run, planned, rehearsed into a scratch database, and planned again."""
    database = tmp_path / "tickets.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE tickets (id INTEGER PRIMARY KEY, text TEXT)")
        rows = [(number, f"ticket {number}") for number in range(1000)]
        connection.executemany("INSERT INTO tickets VALUES (?, ?)", rows)
    connection.close()
    strategy = tmp_path / "packstone.toml"
    strategy.write_text(
        f'[repositories.main]\nlocation = "{tmp_path}/main"\n'
        f'[jobs.tickets]\nrepository = "main"\nsqlite = {{ files = ["{database}"] }}\n'
        f'rpo = "1h"\nrto = "1h"\n'
    )
    run.environment |= {
        "PACKSTONE_CONFIG": str(strategy),
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    run("init", tmp_path / "main", "--plain", "-q")
    run("run", "tickets")
    assert run("plan", "--json").json["jobs"][0]["missed"] == []
    streamed = run("rehearse", "tickets", "--json").json
    assert streamed["errors"] == [] and streamed["bytes"] > 10_000 and not streamed["loaded"]
    scratch = tmp_path / "scratch.db"
    loaded = run("rehearse", "tickets", "--to-database", scratch, "--json").json
    assert loaded["loaded"] and loaded["bytes"] == streamed["bytes"]
    with sqlite3.connect(scratch) as connection:
        assert connection.execute("SELECT * FROM tickets ORDER BY id").fetchall() == rows
    connection.close()
    run("rehearse", "tickets", "--to-database", scratch, code=2)
    assert run("advise", "--json").json["repositories"][0]["jobs"][0]["run_seconds"] > 0
