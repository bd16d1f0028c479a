"""Which stored paths a restore takes: patterns as gitignore has them, on stored paths."""

from __future__ import annotations

import os
from collections.abc import Sequence

from packstone.filesystem.ignore import Filter, Rules


class Selection:
    """What `include` and `exclude` patterns let through; without any, everything."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include = Filter(Rules(patterns=tuple(include))) if include else None
        self._exclude = Filter(Rules(patterns=tuple(exclude))) if exclude else None
        self.everything = not include and not exclude

    def excludes(self, where: bytes, name: bytes, is_directory: bool) -> bool:
        """Return whether an entry, and all below it, is left out; `where` is its directory."""
        return self._exclude is not None and self._exclude.excludes(
            _text(where), name, is_directory
        )

    def includes(self, where: bytes, name: bytes, is_directory: bool) -> bool:
        """Return whether an entry, and all below it, is asked for."""
        return self._include is None or self._include.excludes(_text(where), name, is_directory)


def _text(where: bytes) -> str:
    """Return a directory as patterns see it: empty for the root, else ending in a slash."""
    text = os.fsdecode(where.strip(b"/"))
    return text + "/" if text else ""
