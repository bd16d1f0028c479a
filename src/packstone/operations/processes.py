"""Programs that are run for their output: how one is ended, and how its end is told."""

from __future__ import annotations

import subprocess

_PATIENCE_S = 2  # that a program may take to end after it was asked to


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a program that may still run, and wait for it: 2 s after SIGTERM by SIGKILL."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def told_end(code: int) -> str:
    """Return an exit code in words; a negative one is that of a signal."""
    return f"was ended by signal {-code}" if code < 0 else f"exited with {code}"
