"""Shell commands around a job: what a run calls, and what it tells them.

They get nothing to read, and what they print goes to stderr, so that stdout stays the
report's. A command that is given up dies with everything it has started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping

from packstone.errors import CommandFailed
from packstone.operations.jobs.report import JobReport
from packstone.operations.processes import told_end

_PATIENCE_S = 5.0  # to end after SIGTERM
_LONGEST_TEXT = 10_000  # characters in a variable: the kernel bounds an environment
_STDERR = 2


def environment(report: JobReport) -> dict[str, str]:
    """Return what a command is told: job, status, error and snapshots, by its environment."""
    ids = [taken.result.snapshot_id or "" for taken in report.snapshots]
    return {
        "PACKSTONE_JOB": report.job,
        "PACKSTONE_STATUS": report.status,
        "PACKSTONE_ERROR": report.message.replace("\0", "")[:_LONGEST_TEXT],
        "PACKSTONE_SNAPSHOT": " ".join(filter(None, ids)),
    }


def run_hook(command: str, told: Mapping[str, str], limit: float | None = None) -> None:
    """Run a shell command to its end; `limit` in seconds.

    Raises CommandFailed when it does not exit with 0 or takes too long.
    """
    try:
        process = subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=_STDERR,
            env=os.environ | told,
            start_new_session=True,  # so that a signal reaches all that it started, and only that
        )
    except (OSError, ValueError) as error:
        raise CommandFailed(f"cannot run {command!r}: {error}") from error
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        raise CommandFailed(f"{command!r} took longer than {limit:g} seconds") from None
    finally:
        if process.returncode is None:
            _end(process)
    if code:
        raise CommandFailed(f"{command!r} {told_end(code)}", hint="See its messages above")


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE_S)
            return
