"""Values → words: names, sizes, times, tables, JSON. The only place that prints a file name.

File names are bytes and may hold anything a stranger likes. For people they are escaped, so
that no name drives a terminal, fakes a line or turns text around; for programs they are
`surrogateescape`d strings in JSON, or raw bytes ended by NUL. Results go to stdout, everything
else to stderr.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import packstone
    from packstone.errors import PackstoneError
    from packstone.model import Problem

_SHORT = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(name: bytes | str) -> str:
    """Return `name` with everything escaped that is not plainly visible.

    That is control characters, bytes that are not UTF-8, bidirectional overrides, zero-width
    and unassigned characters, and the backslash itself, so that the result can be read one way.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(_SHORT.get(c) or (c if c.isprintable() else _escape(c)) for c in text)


def visible(message: str) -> str:
    """Return a message with everything in it that could drive a terminal escaped.

    Unlike `printable` it leaves backslashes alone: a message may hold names already escaped.
    """
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else _SHORT.get(c) or _escape(c) for c in message)


def json_name(name: bytes) -> str:
    """Return a name for JSON: UTF-8, other bytes as lone surrogates (PEP 383)."""
    return name.decode("utf-8", "surrogateescape")


TYPES = {
    0o100000: "file",
    0o040000: "dir",
    0o120000: "symlink",
    0o010000: "fifo",
    0o140000: "socket",
    0o060000: "block",
    0o020000: "char",
}


def file_type(mode: int) -> str:
    """Return what a mode says a file is: `file`, `dir`, `symlink` and so on."""
    return TYPES.get(mode & 0o170000, "unknown")


def iec(size: int) -> str:
    """Return a size in bytes for people: `17 B`, `1.2 GiB`."""
    if abs(size) < 1024:
        return f"{size} B"
    value = float(size)
    unit = 0
    # 1023.95 would be shown as 1024.0
    while abs(value) >= 1023.95 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}"


def count(number: int, one: str, many: str = "") -> str:
    """Return `1 file`, `12,000 files`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """Return `0.42 s`, `12.3 s`, `3:20 min`, `2:05:00 h`."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d} h"


def local_time(time_ns: int) -> str:
    """Return a Unix time in ns for people: local, to the second."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns // 1_000_000_000))
    except (OverflowError, ValueError, OSError):  # a year the platform does not know
        return f"@{time_ns // 1_000_000_000}"


def rfc3339(time_ns: int) -> str | None:
    """Return a Unix time in ns as RFC 3339 in UTC, all nine digits; None outside years 1–9999."""
    import datetime

    seconds, fraction = divmod(time_ns, 1_000_000_000)
    try:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return None
    return f"{moment.isoformat()}.{fraction:09d}Z"


def write(text: str) -> None:
    """Write text to stdout as it stands; names in it must have gone through `printable`."""
    sys.stdout.write(text)


def line(text: str = "") -> None:
    """Write a line of results."""
    sys.stdout.write(text + "\n")


def null_ended(names: Iterable[bytes]) -> None:
    """Write names for another program: raw bytes, each ended by NUL."""
    sys.stdout.flush()
    for name in names:
        sys.stdout.buffer.write(name + b"\0")


def message(text: str) -> None:
    """Write a message to stderr, on a line of its own."""
    sys.stderr.write(visible(text) + "\n")


def problems(found: Iterable[Problem]) -> None:
    """Name every file that could not be dealt with, on stderr."""
    for problem in found:
        # the name is escaped with its backslashes, the rest of the line can be trusted less
        message(f"warning: {printable(problem.path)}: {problem.message}")


def problem_rows(found: Iterable[Problem]) -> list[dict[str, str]]:
    """Return problems as the JSON contract has them."""
    return [{"path": json_name(p.path), "message": p.message} for p in found]


def group_document(group: packstone.RetentionGroup) -> dict[str, Any]:
    """Return what the snapshots of a group have in common, for JSON; else None."""
    return {
        "host": group.host,
        "paths": None if group.paths is None else [*map(json_name, group.paths)],
        "name": None if group.name is None else json_name(group.name),
        "tags": None if group.tags is None else list(group.tags),
    }


def group_heading(group: packstone.RetentionGroup) -> str:
    """Return what the snapshots of a group have in common, for people."""
    parts = []
    if group.host is not None:
        parts.append(f"host {printable(group.host)}")
    if group.paths is not None:
        parts.append("paths " + " ".join(printable(path) for path in group.paths))
    if group.name:
        parts.append(f"name {printable(group.name)}")
    if group.tags is not None:
        parts.append("tags " + (",".join(printable(tag) for tag in group.tags) or "none"))
    return ", ".join(parts) or "all snapshots"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int]) -> None:
    """Write aligned columns; those in `right` stand to the right, the last is not padded."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line("  ".join(cells).rstrip())


def requests(counts: dict[str, int]) -> str:
    """Return what was asked of an object store, for people."""
    again = f", {counts['retries']:,} tried again" if counts.get("retries") else ""
    return (
        f"requests: {counts['put']:,} PUT, {counts['get']:,} GET, {counts['list']:,} LIST, "
        f"{counts['delete']:,} DELETE{again}; {iec(counts['bytes_sent'])} sent, "
        f"{iec(counts['bytes_received'])} received"
    )


def estimate(found: packstone.Estimate) -> str:
    """Return how long something will take, for people: with its range and what it rests on."""
    low, high = duration(found.low), duration(found.high)
    return f"about {duration(found.seconds)} ({low} to {high}): {found.basis}"


def estimate_document(found: packstone.Estimate | None) -> dict[str, Any] | None:
    """Return an estimate for JSON, times in seconds; None where nothing was measured."""
    if found is None:
        return None
    return {
        "seconds": found.seconds,
        "low": found.low,
        "high": found.high,
        "basis": found.basis,
        "samples": found.samples,
    }


def document(value: Any) -> None:
    """Write one JSON document to stdout."""
    import json

    line(json.dumps(value))


def document_list(rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON document that is a long list, all of it or nothing.

    Rows wait in a file until the last one has come: an error halfway must not leave half a
    document on stdout, and a million rows do not fit in memory.
    """
    import json
    import shutil
    import tempfile

    with tempfile.TemporaryFile("w+", encoding="ascii") as spool:
        separator = "["
        for row in rows:
            spool.write(separator + json.dumps(row))
            separator = ",\n "
        spool.write("[]\n" if separator == "[" else "]\n")
        spool.seek(0)
        shutil.copyfileobj(spool, sys.stdout)


def failure(error: PackstoneError, as_json: bool) -> None:
    """Tell an error: message and hint on stderr, and with `as_json` the object on stdout."""
    mistakes = getattr(error, "mistakes", ())
    message(f"error: {error.message}")
    for mistake in mistakes:
        message(f"  {mistake}")
    if error.hint:
        message(f"hint: {error.hint}")
    if as_json:
        told = {
            "kind": error.kind,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        document({"error": told | ({"mistakes": list(mistakes)} if mistakes else {})})


def os_error(error: OSError) -> str:
    """Return what the system said and about which file."""
    where = f": {printable(os.fsencode(error.filename))}" if error.filename else ""
    return f"{error.strerror or error}{where}"


def settle_streams() -> None:
    """Make stdout and stderr exist and take any text, whatever the locale can express."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed by the caller (`>&-`): the next file opened would get this number and be
            # written to by whoever prints. The lowest free number is given out first.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def silence_stdout() -> None:
    """Send what is still buffered nowhere, so that exit does not fail on it a second time."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
