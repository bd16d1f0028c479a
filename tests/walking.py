"""What tests of the walker share: a walk as a tree of names, trees to walk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from packstone.filesystem.ignore import Rules
from packstone.filesystem.walk import Enter, Event, Failed, Leave, Slice, walk

FILE, OTHER = "file", "other"
FDS = Path("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd")


class Walked:
    """The events of a walk, checked for order while they come."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.tree: dict[bytes, Any] = {}
        self.failed: dict[bytes, int | None] = {}
        self.slices = 0
        self.slices_of: dict[bytes, int] = {}
        stack: list[dict[bytes, Any]] = []
        waiting: list[list[bytes]] = []
        last: list[bytes] = []
        for event in events:
            if isinstance(event, Enter):
                os.fstat(event.directory.fd)  # open, and valid
                assert stat.S_ISDIR(event.stat[0])
                if stack:
                    self._arrive(stack, waiting, event.name)
                    level = stack[-1][event.name] = {}
                    stack.append(level)
                else:
                    assert event.name == b"" and event.directory.path == b"/"
                    stack.append(self.tree)
                waiting.append([])
                last.append(b"")
            elif isinstance(event, Slice):
                assert not waiting[-1], "subdirectories of the last slice are missing"
                assert 0 < len(event.names) == len(event.stats) <= 1024
                assert event.names == sorted(set(event.names)) and event.names[0] > last[-1]
                last[-1] = event.names[-1]
                self.slices += 1
                path = event.directory.path
                self.slices_of[path] = self.slices_of.get(path, 0) + 1
                for name, row in zip(event.names, event.stats, strict=True):
                    kind = stat.S_IFMT(row[0])
                    if kind == stat.S_IFDIR:
                        waiting[-1].append(name)
                        stack[-1][name] = None
                    else:
                        stack[-1][name] = FILE if kind == stat.S_IFREG else OTHER
            elif isinstance(event, Leave):
                assert not waiting.pop()
                stack.pop()
                last.pop()
            else:
                assert isinstance(event, Failed)
                self.failed[event.path] = event.error.errno
                name = os.path.basename(event.path)
                if waiting and name in waiting[-1]:
                    self._arrive(stack, waiting, name)
        assert not stack

    @staticmethod
    def _arrive(stack: list[dict[bytes, Any]], waiting: list[list[bytes]], name: bytes) -> None:
        assert waiting[-1].pop(0) == name, "subdirectories come in the order of their slice"

    def below(self, path: Path | bytes) -> dict[bytes, Any]:
        tree = self.tree
        for name in os.fsencode(path).split(b"/"):
            if name:
                tree = tree[name]
        return tree


def walked(
    paths: Sequence[Path | bytes] | Path, rules: Rules | None = None, **options: Any
) -> Walked:
    """Walk paths and check the order of events."""
    sources = [paths] if isinstance(paths, Path) else paths
    return Walked(walk([os.fsencode(path) for path in sources], rules, **options))


def make(root: Path | bytes, tree: dict[Any, Any]) -> None:
    """Make a directory; str and bytes values are files, dicts directories."""
    top = os.fsencode(root)
    os.makedirs(top, exist_ok=True)
    for name, content in tree.items():
        path = os.path.join(top, os.fsencode(name))
        if isinstance(content, dict):
            make(path, content)
        else:
            with open(path, "wb") as file:
                file.write(os.fsencode(content))


def tree_of(root: Path) -> dict[bytes, Any]:
    """The same tree as a plain recursive listing sees it."""
    found: dict[bytes, Any] = {}
    with os.scandir(os.fsencode(root)) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                found[entry.name] = tree_of(Path(os.fsdecode(entry.path)))
            else:
                found[entry.name] = FILE if entry.is_file(follow_symlinks=False) else OTHER
    return found
