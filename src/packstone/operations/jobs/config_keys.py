"""Which keys a strategy file has, and what each may be. Pure: opens nothing.

A table of keys maps a name to a function, value of TOML → value, that raises ValueError with
what was found and what is allowed, or to the keys of a table below. docs/strategy.md explains
each; a test compares the two.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from packstone.errors import UsageError
from packstone.filesystem.ignore import Filter, Rules
from packstone.operations.check_choice import Choice
from packstone.operations.jobs.strategy import JOB_TAG, Priority
from packstone.operations.jobs.timetable import SECOND_NS, parse_every
from packstone.quantities import parse_duration, parse_size
from packstone.repository.periods import Duration
from packstone.repository.retention import ALL

Path = tuple[str, ...]
Keys = Mapping[str, "Callable[[Any], Any] | Keys"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_SHOWN = 60  # characters of a wrong value
_LARGEST = 1 << 63


class Mistake(NamedTuple):
    """What is wrong, and where."""

    path: Path
    text: str


def convert(table: Any, keys: Keys, path: Path, mistakes: list[Mistake]) -> dict[str, Any]:
    """Return what a table says, without what is wrong in it; that goes to `mistakes`."""
    if not isinstance(table, dict):
        mistakes.append(Mistake(path, f"found {shown(table)}, expected a table"))
        return {}
    found: dict[str, Any] = {}
    for key, value in table.items():
        kind = keys.get(key)
        if kind is None:
            mistakes.append(Mistake((*path, key), _unknown(key, keys)))
        elif callable(kind):
            try:
                found[key] = kind(value)
            except (ValueError, UsageError) as error:
                mistakes.append(Mistake((*path, key), str(error)))
        else:
            found[key] = convert(value, kind, (*path, key), mistakes)
    return found


def _unknown(key: str, keys: Keys) -> str:
    """Return the message for a key that there is not, with what was perhaps meant."""
    if key in _SECRETS:
        return f"unknown key: no secrets in this file. {_SECRETS[key]}"
    return f"unknown key{suggestion(key, keys)}"


def suggestion(word: str, known: Mapping[str, Any]) -> str:
    """Return the end of a message that proposes a known word, or lists them all."""
    close = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known: {', '.join(known)}" if known else ""


_SECRETS = {
    "passphrase": "Say passphrase_file or passphrase_command",
    "password": "The client finds it in ~/.pgpass, a service file or defaults_file",
}


def shown(value: Any) -> str:
    """Return a value of TOML for a message, cut where it is long."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, dict):
        text = "a table"
    elif isinstance(value, list):
        text = "a list" if value else "an empty list"
    elif isinstance(value, datetime.datetime | datetime.date | datetime.time):
        text = f"the date or time {value}"
    elif isinstance(value, str):
        text = repr(value)
    elif isinstance(value, int) and abs(value) >= _LARGEST:
        text = "a number of more than 64 bits"  # of how many digits nobody knows
    else:
        text = f"the number {value}"
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _wrong(value: Any, expected: str) -> ValueError:
    return ValueError(f"found {shown(value)}, expected {expected}")


def text(value: Any) -> str:
    """Return a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise _wrong(value, "a text in quotes")
    if "\0" in value:  # no system call takes one
        raise _wrong(value, "a text without NUL")
    return value


def texts(value: Any) -> tuple[str, ...]:
    """Return one or more texts; a text alone is a list of one."""
    if isinstance(value, str):
        return (text(value),)
    if not isinstance(value, list) or not value:
        raise _wrong(value, "a text in quotes or a list of such")
    return tuple(text(each) for each in value)


def patterns(value: Any) -> tuple[str, ...]:
    """Return what to leave out, as gitignore has it."""
    found = texts(value)
    Filter(Rules(patterns=found))  # raises what is wrong with one
    return found


def words(value: Any) -> tuple[str, ...]:
    """Return a command and its arguments, or options: a list, never split by a shell."""
    if not isinstance(value, list) or not value:
        raise _wrong(value, 'a list of words such as ["mysqldump", "crm"]')
    if not all(isinstance(each, str) and "\0" not in each for each in value):
        raise _wrong(value, "a list of texts without NUL")
    return tuple(value)


# A password behind an option, which clients take shortened, in a URL, or in a conninfo.
_SECRET_WORDS = re.compile(r"--pass\w*=.|\w+://[^/@]*:[^/@]*@|(?:^|[\s=?&])(?:ssl)?password\s*=")


def client_words(value: Any) -> tuple[str, ...]:
    """Return options for the client of a database, which hold no password."""
    found = words(value)
    if any(_SECRET_WORDS.search(each) for each in found):  # the value is not quoted
        raise ValueError(f"every user can read a password there. {_SECRETS['password']}")
    return found


def mariadb_words(value: Any) -> tuple[str, ...]:
    """Return options for a dump client of MariaDB, where -p alone may be a password too."""
    found = client_words(value)
    if any(re.match("-p.", each) for each in found):
        raise ValueError(f"every user can read a password there. {_SECRETS['password']}")
    return found


def flag(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise _wrong(value, "true or false")
    return value


def port(value: Any) -> int:
    """Return a TCP port."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65_536:
        raise _wrong(value, "a port from 1 to 65535")
    return value


def size(value: Any) -> int:
    """Return a size in bytes, more than none."""
    if isinstance(value, str):
        value = parse_size(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST:
        raise _wrong(value, 'a size such as "500GiB", "1TiB" or a number of bytes')
    return value


def duration(value: Any) -> int:
    """Return a length of time in ns."""
    if not isinstance(value, str):
        raise _wrong(value, 'a length of time such as "15min", "1h", "2d" or "1w"')
    return parse_duration(value)


def seconds(value: Any) -> float:
    """Return a length of time in seconds."""
    return duration(value) / SECOND_NS


def every(value: Any) -> tuple[Any, str]:
    """Return a timetable and how it was said."""
    if not isinstance(value, str):
        raise _wrong(value, 'a text such as "15min", "1h" or "daily 02:00"')
    return parse_every(value), value.strip()


def count(value: Any) -> int:
    """Return how many to keep; `all` is all."""
    if value == "all":
        return ALL
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
        raise _wrong(value, 'a count from 0, or "all"')
    return value


def within(value: Any) -> str:
    """Return how old what is kept may be, as `forget --keep-within` has it."""
    if not isinstance(value, str):
        raise _wrong(value, 'a duration such as "30d", "2w" or "1y6m"')
    Duration.parse(value)
    return value


def priority(value: Any) -> Priority:
    """Return what comes first."""
    names = {each.name.lower(): each for each in Priority}
    if not isinstance(value, str) or value not in names:
        raise _wrong(value, f"one of {', '.join(names)}")
    return names[value]


def tags(value: Any) -> tuple[str, ...]:
    """Return labels of snapshots; those that mark the jobs are taken."""
    found = texts(value)
    for tag in found:
        if tag.startswith(JOB_TAG):
            raise _wrong(tag, f"a tag that does not begin with {JOB_TAG}, which marks jobs")
    return found


def subset(value: Any) -> str | int:
    """Return the part of a repository to check: `5%`, `2/7`, or bytes."""
    if isinstance(value, str) and ("%" in value or "/" in value):
        Choice(subset=value)  # raises what is wrong with it
        return value.strip()
    return size(value)


def url(value: Any) -> str:
    """Return an address to fetch."""
    try:
        parts = urlsplit(text(value))
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good or any(character <= " " for character in value):
        raise _wrong(value, "an address such as https://hc.example.com/id")
    return str(value)


def name(value: Any) -> str:
    """Return what an output is stored as: a file name."""
    found = text(value)
    if "/" in found or found in (".", ".."):
        raise _wrong(value, "a file name without a slash")
    return found


REPOSITORY: Keys = {
    "location": text,
    "label": text,
    "passphrase_file": text,
    "passphrase_command": text,
    "index_dir": text,
    "max_size": size,
}
KEEP: Keys = {
    **dict.fromkeys(("last", "hourly", "daily", "weekly", "monthly", "yearly"), count),
    "within": within,
    "tags": texts,
}
ANY_SOURCE: Keys = {
    "repository": text,
    "every": every,
    "keep": KEEP,
    "prune": flag,
    "priority": priority,
    "copy_to": texts,
    "before": texts,
    "after": texts,
    "on_error": texts,
    "check": {"subset": subset, "max_time": seconds},
    "rpo": duration,
    "rto": duration,
    "ping": url,
    "timeout": duration,
    "tags": tags,
}
WITH_PATHS: Keys = {
    "exclude": patterns,
    "exclude_caches": flag,
    "exclude_if_present": texts,
    "exclude_larger_than": size,
    "one_file_system": flag,
}
_MARIADB: Keys = {
    "databases": texts,
    "host": text,
    "port": port,
    "socket": text,
    "user": text,
    "defaults_file": text,
    "options": mariadb_words,
}
SOURCES: Keys = {
    "paths": texts,
    "postgresql": {
        "databases": texts,
        "host": text,
        "port": port,
        "user": text,
        "service": text,
        "roles": flag,
        "options": client_words,
    },
    "mariadb": _MARIADB,
    "mysql": _MARIADB,
    "sqlite": {"files": texts},
    "command": {"argv": words, "name": name, "load": words},
}
DEFAULTS: Keys = {**ANY_SOURCE, **WITH_PATHS}
JOB: Keys = {**DEFAULTS, **SOURCES}
TOP: Keys = {
    "metrics": text,
    "state_dir": text,
    "defaults": DEFAULTS,
    # tables by names that the user chooses
    "repositories": lambda value: value,
    "jobs": lambda value: value,
}
