"""A small tree of files that changes at random, and what a model in memory knows of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from tables import nights

SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

NAMES = ["a", "b", "c", "d.txt", "e\n", "f\udcff"]
PATHS = [*NAMES, *(f"{directory}/{name}" for directory in ("x", "y", "x/z") for name in NAMES)]
paths = st.sampled_from(PATHS)
DUMPS = nights("model", 2_000, 6)  # long enough to be deltas of each other
contents = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 255), st.integers(0, 30_000)),
    st.builds(
        lambda seed, size: (b"%d," % seed * (size // 2 + 1))[:size],
        st.integers(0, 5),
        st.integers(0, 60_000),
    ),
)


@dataclass(frozen=True)
class Node:
    """What the model knows of one inode; names that share a number are hard links."""

    number: int
    kind: str  # "file", "link", "fifo"
    data: bytes
    mode: int


Model = dict[str, Node]


class Tree(RuleBasedStateMachine):
    """The tree on disk and the model of it; `place` is removed in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="packstone-", dir=SHARED))
        self.source = self.place / "source"
        self.source.mkdir()
        self.model: Model = {}
        self.numbers = 0

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    def _real(self, path: str) -> Path:
        return self.source / path

    def _node(self, kind: str, data: bytes, mode: int) -> Node:
        self.numbers += 1
        return Node(self.numbers, kind, data, mode)

    def _set(self, node: Node) -> None:
        """Change an inode: all its names see it."""
        for path, old in self.model.items():
            if old.number == node.number:
                self.model[path] = node

    def _make_way(self, path: str) -> None:
        self._real(path).parent.mkdir(parents=True, exist_ok=True)
        if path in self.model:
            self._real(path).unlink()
            del self.model[path]

    @rule(path=paths, data=contents)
    def write(self, path: str, data: bytes) -> None:
        old = self.model.get(path)
        if old is not None and old.kind == "file":
            self._real(path).write_bytes(data)
            self._set(Node(old.number, "file", data, old.mode))
            return
        self._make_way(path)
        self._real(path).write_bytes(data)
        self._real(path).chmod(0o644)
        self.model[path] = self._node("file", data, 0o644)

    @rule(path=paths, data=contents)
    def append(self, path: str, data: bytes) -> None:
        old = self.model.get(path)
        if old is not None and old.kind == "file":
            with open(self._real(path), "ab") as file:
                file.write(data)
            self._set(Node(old.number, "file", old.data + data, old.mode))

    @rule(path=paths, share=st.floats(0, 2))
    def truncate(self, path: str, share: float) -> None:
        old = self.model.get(path)
        if old is not None and old.kind == "file":
            size = int(len(old.data) * share)
            os.truncate(self._real(path), size)
            data = old.data[:size] + bytes(size - len(old.data[:size]))
            self._set(Node(old.number, "file", data, old.mode))

    @rule(path=paths, at=st.floats(0, 1))
    def flip_a_byte_and_keep_the_times(self, path: str, at: float) -> None:
        old = self.model.get(path)
        if old is None or old.kind != "file" or not old.data:
            return
        position = int(at * (len(old.data) - 1))
        data = bytearray(old.data)
        data[position] ^= 1
        status = self._real(path).stat()
        with open(self._real(path), "r+b") as file:
            file.write(data)
        os.utime(self._real(path), ns=(status.st_atime_ns, status.st_mtime_ns))
        self._set(Node(old.number, "file", bytes(data), old.mode))

    @rule(old=paths, new=paths)
    def rename(self, old: str, new: str) -> None:
        node = self.model.get(old)
        if node is None or old == new:
            return
        there = self.model.get(new)
        if there is not None and there.number == node.number:
            return  # rename(2) does nothing then
        self._make_way(new)
        os.rename(self._real(old), self._real(new))
        self.model[new] = self.model.pop(old)

    @rule(path=paths)
    def delete(self, path: str) -> None:
        if path in self.model:
            self._real(path).unlink()
            del self.model[path]

    @rule(path=paths, mode=st.sampled_from([0o600, 0o640, 0o755, 0o4711, 0o444]))
    def chmod(self, path: str, mode: int) -> None:
        old = self.model.get(path)
        if old is not None and old.kind != "link":
            self._real(path).chmod(mode)
            self._set(Node(old.number, old.kind, old.data, mode))

    @rule(path=paths, to=st.sampled_from(["a", "x/b", "/nowhere", "..", "\udcfe"]))
    def symlink(self, path: str, to: str) -> None:
        self._make_way(path)
        os.symlink(to, self._real(path))
        self.model[path] = self._node("link", os.fsencode(to), 0o777)

    @rule(path=paths)
    def fifo(self, path: str) -> None:
        self._make_way(path)
        os.mkfifo(self._real(path))
        self._real(path).chmod(0o600)
        self.model[path] = self._node("fifo", b"", 0o600)

    @rule(old=paths, new=paths)
    def hardlink(self, old: str, new: str) -> None:
        node = self.model.get(old)
        if node is None or old == new:
            return
        self._make_way(new)
        if old in self.model:
            os.link(self._real(old), self._real(new), follow_symlinks=False)
            self.model[new] = node

    @rule(directory=st.sampled_from(["x", "y", "x/z"]))
    def drop_directory(self, directory: str) -> None:
        if self._real(directory).is_dir():
            shutil.rmtree(self._real(directory))
            prefix = directory + "/"
            self.model = {
                path: node for path, node in self.model.items() if not path.startswith(prefix)
            }
