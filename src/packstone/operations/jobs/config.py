"""`packstone.toml` → a `Strategy`: find it, read it, check it as a whole.

The file names commands that are run, so one that others can write is refused. Everything that
is wrong in it is told at once. Nothing it names is opened: not its repositories, not its data.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib

from packstone.errors import StrategyInvalid, UsageError
from packstone.operations.jobs.config_build import Builder
from packstone.operations.jobs.config_keys import Mistake, Path
from packstone.operations.jobs.config_lines import Lines
from packstone.operations.jobs.strategy import Strategy

FILE_NAME = "packstone.toml"
_LARGEST_FILE = 1 << 20  # bytes; a thousand jobs take a tenth
_TOLD = 20  # mistakes with their lines
_WHERE = re.compile(r" ?\(at (?:line (\d+), column \d+|end of document)\)$")


def places() -> list[str]:
    """Return where a strategy is looked for, in this order."""
    settings = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(settings):  # as the XDG specification has it
        settings = os.path.expanduser("~/.config")
    return [
        os.path.abspath(FILE_NAME),
        os.path.join(settings, "packstone", FILE_NAME),
        os.path.join("/etc/packstone", FILE_NAME),
    ]


def load_strategy(path: str | None = None) -> Strategy:
    """Read the strategy in a file, or in the first there is of `places`.

    Raises UsageError where there is none or it cannot be trusted, StrategyInvalid for one with
    mistakes.
    """
    if path is None:
        path = next((place for place in places() if os.path.lexists(place)), None)
        if path is None:
            raise UsageError(
                f"there is no {FILE_NAME} in {', '.join(map(os.path.dirname, places()))}",
                hint="name one: --config FILE, or PACKSTONE_CONFIG",
            )
    return parse_strategy(_read(path), os.path.abspath(path))


def _read(path: str) -> bytes:
    """Return what a file holds that nobody but its owner and root can have written."""
    try:
        # without waiting for whoever writes to a pipe of that name
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise UsageError(f"{path} is no file")
            _refuse_foreign(path, found)
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > _LARGEST_FILE:
        raise UsageError(f"{path} has more than {_LARGEST_FILE} bytes: that is no strategy")
    return data


def _refuse_foreign(path: str, found: os.stat_result) -> None:
    if found.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"{path} can be written by everyone, and names commands that would be run: not used",
            hint=f"chmod o-w {path}",
        )
    if found.st_uid not in (0, os.geteuid()):
        raise UsageError(
            f"{path} belongs to user {found.st_uid}, and names commands that would be run: "
            "not used",
            hint=f"use one of your own, or: chown {os.geteuid()} {path}",
        )


def parse_strategy(data: bytes, path: str) -> Strategy:
    """Return the strategy that the bytes of a file say; raises StrategyInvalid.

    Paths in it are relative to the directory of `path`, which is absolute.
    """
    try:
        text = data.decode("utf-8")
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise StrategyInvalid(f"{path}:{line}: not UTF-8, as TOML must be") from error
    except RecursionError as error:
        raise StrategyInvalid(f"{path}: tables or lists too deep in each other") from error
    except ValueError as error:
        raise StrategyInvalid(_of_tomllib(error, path, text)) from error
    builder = Builder(path)
    strategy = builder.strategy(tables, _headers(text))
    if builder.mistakes:
        raise _invalid(path, text, builder.mistakes)
    return strategy


def _of_tomllib(error: ValueError, path: str, text: str) -> str:
    message = str(error)
    where = _WHERE.search(message)
    line = int(where[1]) if where and where[1] else text.rstrip().count("\n") + 1
    if where is None:  # a number too long for Python, of which tomllib does not say the place
        return f"{path}: {message}"
    return f"{path}:{line}: {message[: where.start()]}"


def _invalid(path: str, text: str, mistakes: list[Mistake]) -> StrategyInvalid:
    """Return the error that tells every mistake, in the order of the lines."""
    lines = Lines(text)
    found = sorted((lines.find(each.path) or 0, each) for each in mistakes[:_TOLD])
    told = [
        f"{path}:{line or ''}{':' if line else ''} {_dotted(each.path)}: {each.text}"
        for line, each in found
    ]
    if len(mistakes) > _TOLD:
        told.append(f"and {len(mistakes) - _TOLD} more")
    if len(mistakes) == 1:
        return StrategyInvalid(told[0])
    return StrategyInvalid(f"{path}: {len(mistakes)} mistakes", mistakes=tuple(told))


def _dotted(path: Path) -> str:
    """Return a key as one would write it in the file."""
    bare = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
    parts = [str(part) for part in path]
    return ".".join(part if bare.fullmatch(part) else f'"{part}"' for part in parts)


def _headers(text: str) -> dict[str, int]:
    """Return the lines of [jobs.NAME]; a job written another way has none."""
    header = re.compile(r"\s*\[\s*jobs\s*\.\s*([\"']?)([A-Za-z0-9._-]+)\1\s*\]")
    found: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if match := header.match(line):
            found.setdefault(match[2], number)
    return found
