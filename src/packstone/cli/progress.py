"""How far a long command has come: a bar on a terminal, JSON lines beside --json, else nothing.

`rich` is imported only when there is a terminal to draw on. The API calls back at most about
ten times a second, from the thread that called it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from packstone.cli import render

if TYPE_CHECKING:
    from packstone import Progress
    from packstone.cli.session import Session

    Report = Callable[[Progress], None]

# A snapshot of hours should not fill a log with ten lines a second.
JSON_INTERVAL_S = 1.0


@contextlib.contextmanager
def shown(
    session: Session, verb: str, things: str = "files", *, json_lines: bool = False
) -> Iterator[Report | None]:
    """Give the callback that shows progress in the way this run asks for, or None.

    `things` says what the verb counts.
    """
    if session.quiet:
        yield None
    elif session.json:
        yield _json_lines() if json_lines else None
    elif sys.stderr.isatty():
        with _bar(verb, things) as report:
            yield report
    else:
        yield None


def _json_lines() -> Report:
    import json

    last = -JSON_INTERVAL_S

    def report(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < JSON_INTERVAL_S:
            return
        last = now
        row = {
            "type": "progress",
            "files_done": progress.files_done,
            "bytes_done": progress.bytes_done,
            "files_total": progress.files_total,
            "bytes_total": progress.bytes_total,
            "current": render.json_name(progress.current),
        }
        sys.stderr.write(json.dumps(row) + "\n")
        sys.stderr.flush()

    return report


@contextlib.contextmanager
def _bar(verb: str, things: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    began = time.monotonic()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    bar = Bar(*columns, console=Console(stderr=True), transient=True, refresh_per_second=10)
    with bar:
        task = bar.add_task(verb, total=None, figures="")

        def report(progress: Progress) -> None:
            figures = _figures(progress, things, time.monotonic() - began)
            bar.update(
                task, completed=progress.bytes_done, total=progress.bytes_total, figures=figures
            )

        yield report


def _figures(progress: Progress, things: str, seconds: float) -> str:
    number = f"{progress.files_done:,}"
    if progress.files_total is not None:
        number += f" of {progress.files_total:,}"
    size = render.iec(progress.bytes_done)
    if progress.bytes_total is not None:
        size += f" of {render.iec(progress.bytes_total)}"
    parts = [f"{number} {things}", size]
    rate = progress.bytes_done / seconds if seconds > 0 else 0.0
    parts.append(f"{render.iec(int(rate))}/s")
    if progress.bytes_total is not None and rate > 0:
        left = max(0, progress.bytes_total - progress.bytes_done)
        parts.append(f"{render.duration(left / rate)} left")
    return "  ".join(parts)
