"""`packstone run` as users and cron know it: a file, a command line, a report, an exit code."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from conftest import Packstone

STRATEGY = """
metrics = "packstone.prom"
state_dir = "state"

[repositories.main]
location = "store"

[defaults]
keep = {{ last = 2 }}

{jobs}
"""


@pytest.fixture
def write(run: Packstone, store: Path):
    """Write the strategy with these jobs into the working directory."""
    del run.environment["PACKSTONE_REPO"]

    def write(jobs: str) -> None:
        path = run.directory / "packstone.toml"
        path.write_text(STRATEGY.format(jobs=jobs))
        path.chmod(0o600)

    return write


def test_files_and_databases_from_one_file(run: Packstone, write, source: Path) -> None:
    with sqlite3.connect(run.directory / "tickets.db") as database:
        database.execute("CREATE TABLE tickets AS SELECT 1 AS id, 'printer' AS text")
    write(
        f"""
[jobs.files]
paths = ["{source}"]
every = "daily 02:00"
priority = "low"
check = {{ subset = "100%" }}

[jobs.tickets]
sqlite = {{ files = ["tickets.db"] }}
every = "15min"
priority = "urgent"

[jobs.numbers]
command = {{ argv = ["seq", "10"], name = "numbers" }}
"""
    )
    planned = run("--json", "run", "--due", "--dry-run").json["planned"]
    assert [(each["job"], each["runs"]) for each in planned] == [
        ("tickets", True),
        ("files", True),
        ("numbers", False),
    ]
    assert not (run.directory / "state").exists()
    done = run("run", "--due")
    assert "tickets: done in " in done.text and "2 jobs: 2 done, in " in done.text
    assert done.text.index("tickets") < done.text.index("files")
    assert run("run", "--due").text == "nothing to run\n"
    document = run("--json", "run", "numbers").json
    job = document["jobs"][0]
    assert (job["job"], job["status"], job["errors"]) == ("numbers", "done", [])
    assert job["snapshots"][0]["name"] == "numbers" and job["snapshots"][0]["snapshot_id"]
    assert run("-r", "store", "cat", "latest:numbers").text == "".join(
        f"{n}\n" for n in range(1, 11)
    )
    rows = run("-r", "store", "--json", "snapshots").json
    assert {tag for row in rows for tag in row["tags"]} == {
        "job:files",
        "job:tickets",
        "job:numbers",
    }
    assert (
        'packstone_job_success{job="files"} 1.0' in (run.directory / "packstone.prom").read_text()
    )
    for _ in range(3):
        run("run", "tickets")
    assert len(run("-r", "store", "--json", "snapshots", "--tag", "job:tickets").json) == 2


def test_exit_codes_and_reports(run: Packstone, write, source: Path) -> None:
    write(
        f"""
[jobs.good]
paths = ["{source}"]
every = "1h"

[jobs.unread]
paths = ["{source}", "/nowhere/crm"]

[jobs.failing]
command = {{ argv = ["sh", "-c", "echo rows; echo no room >&2; exit 4"], name = "x.sql" }}
every = "1h"

[jobs.lost]
repository = "lost"
paths = ["{source}"]

[repositories.lost]
location = "nowhere"
""".replace("[jobs.good]\n", '[jobs.good]\nrepository = "main"\n')
        .replace("[jobs.unread]\n", '[jobs.unread]\nrepository = "main"\n')
        .replace("[jobs.failing]\n", '[jobs.failing]\nrepository = "main"\n')
    )
    text = run("run", "unread", code=3).text
    assert "  warning: /nowhere/crm: " in text and "1 job: 1 with warnings, in " in text
    done = run("run", code=1)
    assert "good: done" in done.text and "failing: failed" in done.text
    assert "no room" in done.text, "what the client said is in the report"
    assert "2 jobs: 1 done, 1 failed" in done.text
    quiet = run("-q", "run", code=1)
    assert "failing: failed" in quiet.text and "good" not in quiet.text
    assert run("run", "lost", code=10).text.count("  hint: ") == 1
    document = run("--json", "run", "lost", "failing", "good", code=1).json
    assert {each["job"]: each["exit_code"] for each in document["jobs"]} == {
        "lost": 10,
        "failing": 1,
        "good": 0,
    }
    assert document["exit_code"] == 1
    error = run("--json", "run", "goood", code=2).json["error"]
    assert error["kind"] == "usage" and "good" in error["hint"]
    assert run("run", "--config", "/nowhere.toml", code=2).out == b""


def test_an_interrupted_run(run: Packstone, write, source: Path) -> None:
    write(
        f"""
[jobs.first]
command = {{ argv = ["sh", "-c", "echo; touch begun; sleep 60"], name = "slow" }}
every = "1h"
priority = "urgent"
after = "sleep 0.5; touch after"
on_error = "echo $PACKSTONE_STATUS > on_error"

[jobs.second]
paths = ["{source}"]
every = "1h"
"""
    )
    process = run.start("run", start_new_session=True)
    deadline = time.monotonic() + 30
    while not (run.directory / "begun").exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    # as a terminal does it, to all of the group; and then systemd to the first
    os.killpg(process.pid, signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    assert b"first: interrupted" in out and b"second: skipped" in out
    assert (run.directory / "after").exists()
    assert (run.directory / "on_error").read_text() == "interrupted\n"
    assert run("-r", "store", "--json", "snapshots").json == []
    assert run("run", "second").code == 0


def test_secrets_stay_where_they_are(run: Packstone, write, source: Path) -> None:
    """Neither a passphrase nor the address of a monitor is printed, kept or given to a command."""
    secret = "correct horse battery"
    run("init", "sealed", "--kdf-memory", "8MiB", env={"PACKSTONE_PASSPHRASE": secret})
    (run.directory / "secret").write_text(secret + "\n")
    (run.directory / "argv").mkdir()
    look = f"tr '\\\\0' '\\\\n' < /proc/$PPID/cmdline > {run.directory}/argv/$$; env > argv/e$$"
    write(
        f"""
[jobs.crm]
repository = "sealed"
paths = ["{source}"]
before = "{look}"
after = "exit 1"
on_error = "env > argv/e"
ping = "http://127.0.0.1:1/secret-address"

[repositories.sealed]
location = "sealed"
passphrase_file = "secret"
"""
    )
    done = run("-v", "run", "crm", code=1)
    assert "snapshot" in done.text and "after: " in done.text
    kept = list((run.directory / "state").iterdir())
    kept += [*(run.directory / "argv").iterdir(), run.directory / "packstone.prom"]
    for text in [done.out, done.err, *(path.read_bytes() for path in kept)]:
        assert secret.encode() not in text and b"secret-address" not in text


def test_clients_that_are_missing_and_servers_that_do_not_answer(
    run: Packstone, write, source: Path
) -> None:
    """Each says what to do; the files are stored all the same."""
    write(
        f"""
[jobs.crm]
postgresql = {{ databases = ["crm"], host = "/nowhere", roles = false }}
every = "1h"

[jobs.shop]
mariadb = {{ databases = ["shop"], socket = "/nowhere/socket" }}
every = "1h"

[jobs.ldap]
command = {{ argv = ["no-such-program"], name = "ldif" }}
every = "1h"

[jobs.files]
paths = ["{source}"]
every = "1h"
"""
    )
    bare = run("--json", "run", code=1, env={"PATH": "/nowhere"}).json
    found = {each["job"]: each for each in bare["jobs"]}
    assert {name: each["status"] for name, each in found.items()} == {
        "crm": "failed",
        "shop": "failed",
        "ldap": "failed",
        "files": "done",
    }
    assert "pg_dump is not installed" in found["crm"]["errors"][0]["message"]
    assert "apt install" in found["crm"]["errors"][0]["hint"]
    assert "not installed" in found["shop"]["errors"][0]["message"]
    assert "no-such-program" in found["ldap"]["errors"][0]["message"]
    if shutil.which("pg_dump"):
        text = run("run", "crm", code=1).text
        assert "/nowhere" in text and "error: " in text
    if shutil.which("mariadb-dump"):
        assert "/nowhere/socket" in run("run", "shop", code=1).text
    rows = run("-r", "store", "--json", "snapshots").json
    assert [row["tags"] for row in rows] == [["job:files"]]
