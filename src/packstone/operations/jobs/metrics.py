"""What is remembered of jobs as a text file for Prometheus's node_exporter.

Written by hand: the exposition format of a dozen gauges is a dozen lines, a client library would
be a dependency for these alone. A test reads it with that library's own parser.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator

from packstone.operations.jobs.memory import Memory
from packstone.operations.jobs.report import DONE, WARNINGS

_Value = Callable[[Memory], float]

# name below packstone_job_ → what it says, and where it is found
_GAUGES: dict[str, tuple[str, _Value]] = {
    "success": (
        "Whether the last run stored everything that could be read and no step failed.",
        lambda memory: float(memory.status in (DONE, WARNINGS)),
    ),
    "warnings": (
        "Whether the last run had warnings.",
        lambda memory: float(memory.status == WARNINGS),
    ),
    "failures": (
        "Attempts since the last run that stored everything.",
        lambda memory: float(memory.failures),
    ),
    "last_run_timestamp_seconds": (
        "When the last run began.",
        lambda memory: memory.began_ns / 1e9,
    ),
    "last_success_timestamp_seconds": (
        "When the last run began that stored everything; 0 for never.",
        lambda memory: memory.good_ns / 1e9,
    ),
    "duration_seconds": ("How long the last run took.", lambda memory: memory.seconds),
    "bytes_total": (
        "Size of what the last run stored, before anything is saved.",
        lambda memory: float(memory.bytes_total),
    ),
    "bytes_read": ("What the last run read.", lambda memory: float(memory.bytes_read)),
    "bytes_stored": (
        "What the last run added to the repository.",
        lambda memory: float(memory.bytes_stored),
    ),
}


def exposition(memories: Iterable[Memory]) -> str:
    """Return all gauges in Prometheus's text format."""
    return "".join(f"{line}\n" for line in _lines(list(memories)))


def _lines(memories: list[Memory]) -> Iterator[str]:
    for name, (text, value) in _GAUGES.items():
        yield f"# HELP packstone_job_{name} {text}"
        yield f"# TYPE packstone_job_{name} gauge"
        for memory in memories:
            # repr of a float is the shortest text that is read back as the same number
            yield f'packstone_job_{name}{{job="{_escaped(memory.job)}"}} {value(memory)!r}'


def _escaped(label: str) -> str:
    plain = label.encode("utf-8", "backslashreplace").decode()
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write_metrics(path: str, memories: Iterable[Memory]) -> None:
    """Replace the file of metrics; a reader sees the old one or the new one. Raises OSError."""
    data = exposition(memories).encode()
    # The ending must not be .prom: node_exporter would read the draft.
    fd, draft = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".packstone-")
    try:
        with open(fd, "wb") as file:
            file.write(data)
            os.fchmod(fd, 0o644)  # the exporter is another user
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise
