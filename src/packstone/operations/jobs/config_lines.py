"""On which line of a TOML file a key stands. For messages: asked only when something is wrong.

tomllib keeps no lines. But a file that it can read can be cut off after any whole statement and
read again: a key begins on the line after the longest such beginning that lacks it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from typing import Any

_MOST_READS = 2_000  # a file of huge arrays is not worth more: the message names the key anyway


class Lines:
    """The lines of a TOML text that tomllib could read as a whole."""

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._read: dict[int, dict[str, Any] | None] = {0: {}}

    def find(self, path: Sequence[str]) -> int | None:
        """Return the line, from 1, on which the statement with a key begins; None if unknown.

        A key that is nowhere, such as one that is missing, is looked for without its last part.
        """
        while path and not _holds(self._beginning(len(self._lines))[1], path):
            path = path[:-1]
        if not path:
            return None
        # so many lines without the key, and so many with the statement that has it begun
        low, high = 0, len(self._lines)
        try:
            while high - low > 1:
                middle = (low + high) // 2
                end, tables = self._beginning(middle)
                if _holds(tables, path):
                    high = middle
                else:
                    low = end
        except _TooManyReads:
            return None
        return self._statement_after(low)

    def _beginning(self, count: int) -> tuple[int, dict[str, Any]]:
        """Return the shortest readable beginning of so many lines or more, and what it says."""
        while True:
            if count not in self._read:
                if len(self._read) >= _MOST_READS and count < len(self._lines):
                    raise _TooManyReads
                try:
                    self._read[count] = tomllib.loads("\n".join(self._lines[:count]))
                except ValueError:
                    self._read[count] = None
            if (tables := self._read[count]) is not None:
                return count, tables
            count += 1

    def _statement_after(self, count: int) -> int:
        for number in range(count, len(self._lines)):
            line = self._lines[number].strip()
            if line and not line.startswith("#"):
                return number + 1
        return count + 1


class _TooManyReads(Exception):
    pass


def _holds(tables: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(tables, dict) or part not in tables:
            return False
        tables = tables[part]
    return True
