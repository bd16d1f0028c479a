"""Let the system call `packstone run --due`: one timer for all jobs, from systemd or cron.

The timer only wakes: which job is due is decided then, from the file as it is then. So the
schedule is written anew only when a job runs more often than the timer looks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from packstone.errors import PackstoneError, UsageError
from packstone.operations.jobs.strategy import Strategy
from packstone.operations.jobs.timetable import tick_minutes

KINDS = ("systemd", "cron")
BOOTED = "/run/systemd/system"  # there while systemd runs the machine: sd_booted(3)
_PATIENCE_S = 60  # for crontab and systemctl


class Schedule(Protocol):
    """What wakes up the jobs of a strategy; `kind` is systemd or cron, `hint` what else to do."""

    kind: str
    hint: str

    def written(self, strategy: Strategy) -> dict[str, str]:
        """Return what `install` would write: place → text; raises UsageError."""
        ...

    def install(self, strategy: Strategy) -> bool:
        """Write it, in place of an older one; return whether anything changed.

        Raises UsageError, and PackstoneError when the system's program fails.
        """
        ...

    def remove(self) -> bool:
        """Take away what was written; return whether there was anything. Raises as `install`."""
        ...


def find_schedule(kind: str = "", *, user: bool | None = None) -> Schedule:
    """Return the schedule of a kind, by default that of this machine.

    `user` chooses the user's own systemd before the system's; by default it is root that takes
    the system's. Raises UsageError when there is neither systemd nor cron.
    """
    if not kind:
        if os.path.isdir(BOOTED) and shutil.which("systemctl"):
            kind = "systemd"
        elif shutil.which("crontab"):
            kind = "cron"
        else:
            raise UsageError(
                "neither systemd runs here nor is there a crontab program",
                hint="install cron, or let anything else run: packstone run --due",
            )
    if kind == "systemd":
        from packstone.operations.jobs.schedule_systemd import SystemdSchedule

        return SystemdSchedule(user=os.geteuid() != 0 if user is None else user)
    if kind == "cron":
        from packstone.operations.jobs.schedule_cron import CronSchedule

        return CronSchedule()
    raise UsageError(f"no schedule {kind!r}: expected one of {', '.join(KINDS)}")


def look_minutes(strategy: Strategy, now_ns: int | None = None) -> int:
    """Return how many minutes apart to look; raises UsageError for a file without `every`."""
    timetables = [job.every for job in strategy.jobs.values() if job.every is not None]
    if not timetables:
        raise UsageError(
            f"no job in {strategy.path} says when: there is nothing to schedule",
            hint='give one an every, such as every = "daily 02:00"',
        )
    return tick_minutes(timetables, time.time_ns() if now_ns is None else now_ns)


def due_command(strategy: Strategy, options: Sequence[str] = ()) -> list[str]:
    """Return the command that does what is due, with absolute paths."""
    beside = os.path.join(os.path.dirname(sys.executable), "packstone")
    # -P: the directory in which it happens to run must not provide modules
    program = [beside] if os.access(beside, os.X_OK) else [sys.executable, "-P", "-m", "packstone"]
    return [*program, *options, "--config", strategy.path, "run", "--due"]


def call(
    argv: Sequence[str],
    *,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    hint: str = "",
) -> tuple[int, bytes, str]:
    """Run a program of the system; return its exit code, output and messages.

    Raises PackstoneError when there is none or it does not end.
    """
    try:
        done = subprocess.run(
            argv,
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=_PATIENCE_S,
            env={**os.environ, "LC_ALL": "C", **(environment or {})},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackstoneError(f"cannot run {argv[0]}: {error}", hint=hint) from error
    messages = done.stderr.decode("utf-8", "replace").strip()
    return done.returncode, done.stdout, messages
