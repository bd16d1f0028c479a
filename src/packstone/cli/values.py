"""What users type → values: sizes, times, names, snapshots. Pure, no output.

The functions serve as click types: every refusal is a usage error (exit 2) that names the
option.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from packstone.quantities import parse_size

Command = TypeVar("Command", bound=Callable[..., Any])

_SECONDS = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smhd]?)", re.IGNORECASE | re.ASCII)
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", re.ASCII)


def size(text: str) -> int:
    """Return bytes for `128KiB`, `64M`, `1.5 GiB` or `4096`; raise BadParameter otherwise."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def size_bounds(text: str) -> tuple[int | None, int | None]:
    """Return (smallest, largest) for `+1MiB`, more than that, `-1MiB`, less, `=1MiB` or `1MiB`."""
    sign, rest = (text[0], text[1:]) if text[:1] in ("+", "-", "=") else ("=", text)
    bound = size(rest)
    return (
        {"+": bound + 1, "-": None, "=": bound}[sign],
        {"+": None, "-": bound - 1, "=": bound}[sign],
    )


def seconds(text: str) -> float:
    """Return seconds for `90`, `30s`, `5m`, `2h` or `1d`; raise BadParameter otherwise."""
    match = _SECONDS.fullmatch(text.strip())
    if not match:
        raise click.BadParameter(f"{text!r} is not a span of time such as 30s, 5m or 2h.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2].lower()]


def time_ns(text: str) -> int:
    """Return Unix time in ns for RFC 3339, or `2026-11-22 14:30` in local time."""
    import datetime

    try:
        moment = datetime.datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            moment = moment.astimezone()
        since = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
        if abs(since) >= datetime.timedelta(seconds=(1 << 63) // 1_000_000_000):
            raise OverflowError  # snapshots keep nanoseconds in 64 bits: 1677 to 2262
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is not a time such as 2026-11-22T14:30:00Z or '2026-11-22 14:30'."
        ) from None
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1_000


def share(text: str) -> float:
    """Return 0 to 1 for `5%` or `0%` to `100%`; raise BadParameter otherwise."""
    match = _SHARE.fullmatch(text.strip())
    if not match or float(match[1]) > 100:
        raise click.BadParameter(f"{text!r} is not a share such as 5%.")
    return float(match[1]) / 100


def subset(text: str) -> str | int:
    """Return bytes for a size; what may be `5%` or `1/7` is returned as it is."""
    return text if re.search("[%/]", text) else size(text)


def name(text: str) -> bytes:
    """Return a file name or path as the bytes that the shell gave; never empty."""
    if not text:
        raise click.BadParameter("an empty name names nothing.")
    return os.fsencode(text)


def count(text: str) -> int:
    """Return a count, or -1 for `all`; raise BadParameter otherwise."""
    if text in ("all", "-1", "unlimited"):
        return -1
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise click.BadParameter(f"{text!r} is neither a count nor 'all'.")
    return int(text)


def split_place(text: str) -> tuple[str, bytes]:
    """Return snapshot and path of `SNAPSHOT[:PATH]`; ids and `latest~2` hold no colon."""
    snapshot, _, path = text.partition(":")
    return snapshot, os.fsencode(path)


def narrowing_options(command: Command) -> Command:
    """Add --host, --path and --tag, which say whose `latest` is meant."""
    options = [
        click.option("--host", metavar="H", help="Only snapshots of this host."),
        click.option("--path", type=name, metavar="P", help="Only snapshots of this source path."),
        click.option("--tag", metavar="T", help="Only snapshots with this tag."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def filter_options(command: Command) -> Command:
    """Add --host, --path… and --tag…, which say which snapshots are looked at."""
    options = [
        click.option("--host", metavar="H", help="Only those of this host."),
        click.option(
            "--path", "paths", multiple=True, type=name, metavar="P", help="Only with this path."
        ),
        click.option("--tag", "tags", multiple=True, metavar="T", help="Only with this tag."),
    ]
    for option in reversed(options):
        command = option(command)
    return command
