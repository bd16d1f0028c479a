"""The schedule under a systemd that runs: a user's own, in namespaces of the test."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEMD = "/lib/systemd/systemd"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists(SYSTEMD) or shutil.which("unshare") is None,
    reason="starts a systemd of its own, which takes root, unshare and systemd",
)

# /run of the namespace alone says that systemd is there; the processes end with the namespace
SCRIPT = """
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/system /run/user
export XDG_RUNTIME_DIR=/run/user
{systemd} --user --unit=basic.target >systemd.log 2>&1 &
for _ in $(seq 300); do [ -S /run/user/systemd/private ] && break; sleep 0.1; done
packstone() {{ {packstone} "$@"; }}
systemctl() {{ command systemctl --user --no-pager "$@"; }}
{commands}
"""


def under_systemd(run, commands: str) -> str:
    """Run shell commands beside a systemd of their user; return what they print."""
    directory: Path = run.directory
    script = SCRIPT.format(
        systemd=SYSTEMD,
        packstone=shlex.join([sys.executable, "-m", "packstone"]),
        commands=commands,
    )
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            script,
        ],
        cwd=directory,
        env=run.environment
        | {"XDG_CONFIG_HOME": str(directory / "settings"), "HOME": str(directory)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "mount: " in done.stderr:
        pytest.skip("no mounts here, not even in a namespace")
    log = directory.joinpath("systemd.log").read_text(errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr + log
    return done.stdout


def test_a_timer_is_started_runs_what_is_due_and_is_removed(run, store, source) -> None:
    odd = run.directory / 'a b%n ${HOME} "\\é'
    odd.mkdir()
    (odd / "packstone.toml").write_text(
        f"""
        state_dir = "state"
        [repositories.main]
        location = "{store}"
        [jobs.a]
        paths = "{source}"
        every = "1h"
        """
    )
    printed = under_systemd(
        run,
        f"""
        export PACKSTONE_CONFIG={shlex.quote(str(odd / "packstone.toml"))}
        packstone schedule install --systemd --user
        systemctl is-active packstone.timer
        systemctl is-enabled packstone.timer
        systemctl show -p NextElapseUSecRealtime packstone.timer
        systemctl start packstone.service
        systemctl show -p Result,ExecMainStatus,UMask packstone.service
        packstone schedule install --systemd --user
        sed -i 's/1h/1min/' "$PACKSTONE_CONFIG"
        packstone schedule install --systemd --user
        systemctl show -p TimersCalendar packstone.timer
        packstone schedule remove --systemd --user
        systemctl is-active packstone.timer || true
        systemctl show -p LoadState packstone.timer
        """,
    ).splitlines()
    assert printed[0].startswith("systemd schedule installed")
    assert printed[1:3] == ["active", "enabled"]
    name, _, upcoming = printed[3].partition("=")
    assert name == "NextElapseUSecRealtime" and upcoming.split(":")[1] in ("00", "15", "30", "45")
    assert {"Result=success", "ExecMainStatus=0"} <= set(printed[4:7])
    assert printed[7].startswith("systemd schedule was there already")
    assert printed[8].startswith("systemd schedule installed")
    assert "*:00/1:00 ; next_elapse=" in printed[9]
    assert printed[10:12] == ["systemd schedule removed", "inactive"]
    assert printed[12] == "LoadState=not-found"
    (taken,) = run("snapshots", "--json").json
    assert taken["tags"] == ["job:a"]
    assert not list((run.directory / "settings").rglob("packstone*"))
