"""Names under which parts are stored: the same at every run, no two alike in one source."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence

from packstone.errors import UsageError


def stored_name(name: str, suffix: str = "") -> str:
    """Return a name that a file can have: slashes, and the sign that stands for them, escaped."""
    if not name:
        raise UsageError("a database without a name")
    return name.replace("%", "%25").replace("/", "%2F") + suffix


def require_distinct(names: Iterable[str]) -> None:
    """Raise UsageError when two parts would be stored under one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(
            f"two parts of one job would both be stored as {twice[0]!r}",
            hint="Make a job of its own for one of them",
        )


def file_names(paths: Sequence[str]) -> list[str]:
    """Return the last part of each path, or the whole of those that share it."""
    last = [os.path.basename(os.path.abspath(path)) for path in paths]
    count = Counter(last)
    return [
        stored_name(name if count[name] == 1 else os.path.abspath(path).lstrip("/"))
        for path, name in zip(paths, last, strict=True)
    ]
