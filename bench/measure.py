"""Run a command and say what it took; nothing here knows which tool it runs.

A child's peak memory is at least that of the process it was forked from, so this process must
stay small: nothing heavy (matplotlib, rich, packstone) is imported before the last measurement.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


class CommandFailed(Exception):
    """A measured command ended with another code than 0; carries the end of what it said."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: seconds, and bytes of memory. `rss` is the largest single process of the tree."""

    wall: float
    cpu: float
    rss: int
    anon: int = 0  # largest RssAnon seen, 0 unless it was asked for

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    sample_anonymous: bool = False,
    codes: Sequence[int] = (0,),
) -> Sample:
    """Run `command`; raise CommandFailed when its code is not in `codes`.

    wait4 counts user and system time of the whole tree as far as children were waited for.
    With `sample_anonymous` the child's RssAnon is read 100 times a second: unlike the peak RSS it
    leaves out pages of mapped files, which the kernel can take back at any time.
    """
    with open(log, "wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command, env=dict(env), cwd=cwd,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        peak = AnonymousPeak(process.pid) if sample_anonymous else None
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # interrupted: leave nothing running on what is cleaned up next
            process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    anon = peak.stop() if peak else 0
    if process.returncode not in codes:
        with open(log, "rb") as output:
            output.seek(-min(2_000, log.stat().st_size), os.SEEK_END)
            said = output.read().decode(errors="replace")
        raise CommandFailed(f"{' '.join(command)}: exit code {process.returncode}\n{said}")
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit, anon)


class AnonymousPeak:
    """Watches one process's anonymous memory from a thread (Linux)."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._peak = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            try:
                lines = self._status.read_text().splitlines()
            except OSError:
                return
            for line in lines:
                if line.startswith("RssAnon:"):
                    self._peak = max(self._peak, int(line.split()[1]) * 1024)

    def stop(self) -> int:
        """Return the largest value seen, in bytes."""
        self._done.set()
        self._thread.join()
        return self._peak


def tree_size(root: Path) -> int:
    """Return the bytes of all files below `root`, as a listing shows them."""
    size = 0
    for directory, _, names in os.walk(root):
        size += sum(os.lstat(os.path.join(directory, name)).st_size for name in names)
    return size
