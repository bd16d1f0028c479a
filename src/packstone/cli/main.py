"""The entry point: streams, signals, and exit codes of what is no error of a command.

Imports next to nothing before it can deal with Ctrl-C, which must never end in a traceback.

Exit codes: 0 done · 1 error · 2 usage · 3 done but for some files · 10 to 15 as errors.py
draws them · 130 interrupted.
"""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command line (without the program's name) and return its exit code."""
    try:
        _interrupt_on_sigterm()
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        # A second Ctrl-C while the interpreter shuts down ends the process at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


def _run(arguments: list[str]) -> int:
    from packstone.cli import render

    render.settle_streams()
    try:
        from packstone.cli import commands

        code = commands.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `packstone ls … | head`
        code = 1
    except OSError as error:  # stdout cannot be written: /dev/full
        render.message(f"error: {render.os_error(error)}")
        code = 1
    try:
        sys.stdout.flush()
    except OSError:
        render.silence_stdout()
    return code


def _interrupt_on_sigterm() -> None:
    """Let SIGTERM unwind like Ctrl-C, so that locks and temporary files are put away."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: whoever embeds this deals with signals
        pass
