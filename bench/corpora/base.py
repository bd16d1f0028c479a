"""What every corpus has in common: a cache directory, versions, and one path they appear at.

A corpus lives in WORK/NAME. The version to be read stands at WORK/NAME/source, always the same
path, as tools choose the parent snapshot by path. A corpus is made once; `made.json` is written
last, so a generator that was cut off starts again.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Extent:
    """How large one version is."""

    file_count: int
    total_size: int


def measure_tree(root: Path) -> Extent:
    """Count regular files and their bytes below `root`."""
    count = size = 0
    for directory, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(directory, name))
            count += 1
            size += status.st_size
    return Extent(count, size)


class Corpus(ABC):
    """Base of the generators; `prepare` first, then `switch` as often as needed."""

    name: str
    versions: tuple[str, ...] = ("v1", "v2")
    revision: int = 1  # of the generator: another one makes the corpus anew
    large: bool = False  # too large to keep every tool's repository at the same time

    def __init__(self, work: Path, scale: float) -> None:
        self.root = work / self.name
        self.scale = scale
        self.source = self.root / "source"
        self.notes = ""

    @abstractmethod
    def generate(self) -> None:
        """Write all versions below `self.root`, which is empty; set `self.notes`."""

    @abstractmethod
    def current(self) -> str:
        """Return the version that stands at `self.source` now."""

    @abstractmethod
    def switch(self, version: str) -> None:
        """Put `version` at `self.source`."""

    def prepare(self) -> dict[str, Extent]:
        """Generate unless it was done before; leave the first version in place."""
        stamp = self.root / "made.json"
        wanted = {"revision": self.revision, "scale": self.scale}
        made = json.loads(stamp.read_text()) if stamp.exists() else {}
        if {key: made.get(key) for key in wanted} != wanted:
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(parents=True)
            started = time.monotonic()
            self.generate()
            extents = {}
            for version in self.versions:
                self.switch(version)
                tree = measure_tree(self.source)
                extents[version] = [tree.file_count, tree.total_size]
            made = wanted | {"extents": extents, "notes": self.notes}
            made["seconds"] = round(time.monotonic() - started, 1)
            stamp.write_text(json.dumps(made))
        self.notes = made["notes"]
        self.switch(self.versions[0])
        return {version: Extent(*pair) for version, pair in made["extents"].items()}


class SwappedCorpus(Corpus):
    """Versions are directories of their own, renamed to `source` in turn.

    Every file of another version is another inode with another ctime: a new checkout, a new dump.
    """

    def current(self) -> str:
        for version in self.versions:
            if not (self.root / version).exists():
                return version
        return ""

    def switch(self, version: str) -> None:
        now = self.current()
        if now == version:
            return
        if now:
            self.source.rename(self.root / now)
        (self.root / version).rename(self.source)


class EditedCorpus(Corpus):
    """The second version is the first one edited in place: untouched files stay untouched.

    `changes/v1` and `changes/v2` hold what differs; a name missing on one side is deleted there.
    """

    def current(self) -> str:
        marker = self.root / "current"
        return marker.read_text() if marker.exists() else ""

    def switch(self, version: str) -> None:
        if self.current() == version:
            return
        wanted = read_changes(self.root / "changes" / version)
        others = [v for v in self.versions if v != version]
        for other in others:
            for name in read_changes(self.root / "changes" / other).keys() - wanted.keys():
                (self.source / name).unlink(missing_ok=True)
        for name, (data, mtime_ns) in wanted.items():
            path = self.source / name
            path.write_bytes(data)
            os.utime(path, ns=(mtime_ns, mtime_ns))
        (self.root / "current").write_text(version)


def read_changes(root: Path) -> dict[str, tuple[bytes, int]]:
    """Return the files below `root` by relative path: content and mtime."""
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            found[str(path.relative_to(root))] = (path.read_bytes(), path.stat().st_mtime_ns)
    return found
