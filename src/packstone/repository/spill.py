"""Sort more rows than memory should hold: partitions on disk, sorted one at a time.

Knows nothing of what the rows mean. Used to fill the index from many footers: keys in order
touch each page of a B-tree once, in any other order they would write gigabytes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import IO

from packstone.errors import StorageFull

_PARTITIONS = 64
_HELD = 100_000  # rows in memory before they are spilled


class SpillSorter:
    """Take (key, value) rows of fixed sizes; give them back in partitions of ascending keys.

    Keys should be evenly spread, as hashes are: a partition is sorted in memory.
    """

    def __init__(self, directory: str, key_size: int, value_size: int) -> None:
        self._directory = directory
        self._key_size = key_size
        self._row_size = key_size + value_size
        self._held: list[tuple[bytes, bytes]] = []
        self._files: list[IO[bytes]] = []

    def add(self, key: bytes, value: bytes) -> None:
        """Take a row."""
        self._held.append((key, value))
        if len(self._held) >= _HELD:
            self._spill()

    def _spill(self) -> None:
        try:
            if not self._files:
                for _ in range(_PARTITIONS):
                    self._files.append(tempfile.TemporaryFile(dir=self._directory))  # noqa: SIM115
            parts: list[list[bytes]] = [[] for _ in range(_PARTITIONS)]
            for key, value in self._held:
                parts[key[0] * _PARTITIONS >> 8].append(key + value)
            for file, rows in zip(self._files, parts, strict=True):
                file.write(b"".join(rows))
        except OSError as error:
            raise StorageFull(
                f"cannot sort the index in {self._directory}: {error.strerror}",
                hint="Free space there, run again",
            ) from error
        self._held.clear()

    def partitions(self) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield all rows once, each list sorted and behind the one before it."""
        if not self._files:
            self._held.sort()
            yield self._held
            return
        self._spill()
        size = self._key_size
        for file in self._files:
            file.seek(0)
            data = file.read()
            file.close()
            rows = [
                (data[at : at + size], data[at + size : at + self._row_size])
                for at in range(0, len(data), self._row_size)
            ]
            del data
            rows.sort()
            yield rows

    def close(self) -> None:
        """Remove what was spilled."""
        for file in self._files:
            file.close()
        self._files = []
        self._held = []
