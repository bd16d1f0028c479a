"""Compare two directory trees: names, kinds, content, modes, times, link targets.

Walks both side by side and keeps one directory's names in memory at a time per level.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

BLOCK = 1 << 20


def differences(first: Path, second: Path) -> Iterator[str]:
    """Yield one line for each difference; nothing when the trees are the same."""
    yield from _directories(os.fspath(first), os.fspath(second), "")


def _directories(first: str, second: str, below: str) -> Iterator[str]:
    ours, theirs = set(os.listdir(first)), set(os.listdir(second))
    for name in sorted(ours ^ theirs):
        yield f"{below}{name}: only in {'the first' if name in ours else 'the second'}"
    for name in sorted(ours & theirs):
        one, other = os.path.join(first, name), os.path.join(second, name)
        before, after = os.lstat(one), os.lstat(other)
        for field in ("st_mode", "st_uid", "st_gid", "st_mtime_ns"):
            was, found = getattr(before, field), getattr(after, field)
            if was != found and not (stat.S_ISLNK(before.st_mode) and field == "st_mode"):
                yield f"{below}{name}: {field} is {found}, expected {was}"
        kind = stat.S_IFMT(before.st_mode)
        if kind != stat.S_IFMT(after.st_mode):
            continue
        if kind == stat.S_IFDIR:
            yield from _directories(one, other, f"{below}{name}/")
        elif kind == stat.S_IFLNK and os.readlink(one) != os.readlink(other):
            yield f"{below}{name}: another link target"
        elif kind == stat.S_IFREG and not _same_content(one, other):
            yield f"{below}{name}: other content"


def _same_content(first: str, second: str) -> bool:
    with open(first, "rb", buffering=0) as one, open(second, "rb", buffering=0) as other:
        while True:
            block = one.read(BLOCK)
            if block != other.read(BLOCK):
                return False
            if not block:
                return True
