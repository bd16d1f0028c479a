"""Random trees whose names collide in every way, and how to make them on disk.

Imported as `operations.random_trees`: tests/ is on the path of imports.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import strategies as st
from operations.samples import BASE_NS, ROOT

NAMES = ["a", "b", "c", "d"]
MODES = [0o600, 0o644, 0o755, 0o666, 0o4755, 0o000] if ROOT else [0o600, 0o644, 0o755, 0o4755]


class Leaf(NamedTuple):
    """What is no directory; `detail` depends on the kind."""

    kind: str
    detail: int
    mode: int
    time: int
    uid: int
    xattr: int


Tree = dict[str, Any]  # name → Leaf, or a tree


def leaves() -> st.SearchStrategy[Leaf]:
    kinds = ["small", "small", "long", "long", "sparse", "empty", "symlink", "fifo", "link"]
    return st.builds(
        Leaf,
        st.sampled_from(kinds),
        st.integers(0, 3),
        st.sampled_from(MODES),
        st.integers(0, 1),
        st.sampled_from([0, 0, 1234]),
        st.sampled_from([0, 0, 0, 1, 2]),
    )


def trees() -> st.SearchStrategy[Tree]:
    return st.recursive(
        st.dictionaries(st.sampled_from(NAMES), leaves(), max_size=4),
        lambda below: st.dictionaries(st.sampled_from(NAMES), below | leaves(), max_size=4),
        max_leaves=12,
    )


def content(kind: str, detail: int) -> bytes:
    """Return the bytes of a file; those of one kind differ in few ranges, and in size."""
    if kind == "small":
        return b"%d" % detail * (100 + detail // 2)
    data = bytearray(random.Random(1).randbytes(50_000))
    if detail:
        data[detail * 10_000 : detail * 10_000 + 100] = bytes(100)
    return bytes(data[: len(data) - (7_000 if detail == 3 else 0)])


def build(root: Path, tree: Tree, *, xattrs: bool) -> None:
    """Make a tree in a directory that is there; hard links lead to the first file made."""
    files: list[Path] = []
    _build(root, tree, files, xattrs)


def _build(root: Path, tree: Tree, files: list[Path], xattrs: bool) -> None:
    for name, leaf in tree.items():
        path = root / name
        if isinstance(leaf, dict):
            path.mkdir()
            _build(path, leaf, files, xattrs)
            os.utime(path, ns=(0, BASE_NS))
        else:
            _make(path, leaf, files, xattrs)


def _make(path: Path, leaf: Leaf, files: list[Path], xattrs: bool) -> None:
    if leaf.kind == "link" and files:
        os.link(files[leaf.detail % len(files)], path)
        return
    if leaf.kind == "symlink":
        os.symlink(["a", "../b", "/etc", "nowhere"][leaf.detail], path)
    elif leaf.kind == "fifo":
        os.mkfifo(path)
    elif leaf.kind == "sparse":
        with open(path, "wb") as file:
            file.seek(1 << 20)
            file.write(content("long", leaf.detail))
            file.truncate((2 << 20) + leaf.detail)
    else:
        path.write_bytes(b"" if leaf.kind in ("empty", "link") else content(leaf.kind, leaf.detail))
    if leaf.kind not in ("symlink", "fifo"):
        files.append(path)
        if xattrs and leaf.xattr:
            os.setxattr(path, "user.colour", b"%d" % leaf.xattr)
    if ROOT:
        os.chown(path, leaf.uid, leaf.uid, follow_symlinks=False)
    if leaf.kind != "symlink":
        os.chmod(path, leaf.mode)
    os.utime(path, ns=(0, BASE_NS + leaf.time), follow_symlinks=False)
