"""On which line of a TOML file a key stands. For messages: asked only when something is wrong.

tomllib keeps no lines. But a file that it can read can be cut off before any statement and read
again: a key stands in the last statement before which it was not there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

# a key and a value, or a table; inside of long texts and lists other lines may look like one too
_STATEMENT = re.compile(r"""\s*(\[|(["'A-Za-z0-9_-].*=))""", re.ASCII)
# Characters that are read again in all: some seconds. No strategy that people write comes
# near it, and without a line a message names the key.
_MOST_READ = 4 << 20


class Lines:
    """The lines of a TOML text that tomllib could read as a whole."""

    def __init__(self, text: str) -> None:
        self._lines = text.replace("\r\n", "\n").split("\n")
        self._cuts = [
            number for number, line in enumerate(self._lines) if _STATEMENT.match(line)
        ] + [len(self._lines)]
        self._read: dict[int, dict[str, Any] | None] = {}
        self._left = _MOST_READ

    def find(self, path: Sequence[str]) -> int | None:
        """Return the line, from 1, on which the statement with a key begins; None if unknown.

        A key that is nowhere, such as one that is missing, is looked for without its last part.
        """
        try:
            while path and not _holds(self._before(len(self._cuts) - 1)[1], path):
                path = path[:-1]
            # before this statement the key is not there; before that one it is
            low, high = 0, len(self._cuts) - 1
            while path and high - low > 1:
                middle = (low + high) // 2
                cut, tables = self._before(middle)
                if _holds(tables, path):
                    high = middle
                else:
                    low = cut
        except _TooMuch:
            return None
        return self._cuts[low] + 1 if path else None

    def _before(self, cut: int) -> tuple[int, dict[str, Any]]:
        """Return the first cut from this one on that ends a statement, and what stands before."""
        while True:
            if cut not in self._read:
                text = "\n".join(self._lines[: self._cuts[cut]])
                self._left -= len(text)
                if self._left < 0:
                    raise _TooMuch
                try:
                    self._read[cut] = tomllib.loads(text)
                except ValueError:
                    self._read[cut] = None
            if (tables := self._read[cut]) is not None:
                return cut, tables
            cut += 1


class _TooMuch(Exception):
    pass


def _holds(tables: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(tables, dict) or part not in tables:
            return False
        tables = tables[part]
    return True
