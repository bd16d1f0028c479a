"""Anything in any order against a model in memory (row S1).

A small tree of files is changed, snapshots are taken, restored, checked; the repository is
closed, loses its index, and is struck at any operation of its storage. Whatever was
acknowledged must restore to what the tree was at that moment.

PACKSTONE_TEST_MODEL_EXAMPLES and PACKSTONE_TEST_MODEL_STEPS ask for more than a quick run.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import faults
from compare_trees import Description, describe, differences
from faults import Plan, faulty
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from tables import nights

import packstone

EXAMPLES = int(os.environ.get("PACKSTONE_TEST_MODEL_EXAMPLES", "200"))
STEPS = int(os.environ.get("PACKSTONE_TEST_MODEL_STEPS", "30"))
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


class Store(RuleBasedStateMachine):
    """The tree and the repository on disk, and what they should hold."""

    taken = Bundle("taken")
    deltas = 0  # of all examples

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="packstone-", dir=SHARED))
        self.source = self.place / "source"
        self.source.mkdir()
        self.location = self.place / "repository"
        self.model: Model = {}
        self.numbers = 0
        self.acknowledged: dict[str, tuple[Model, dict[bytes, Description]]] = {}
        self.repository: packstone.Repository | None = None
        self.ahead = 0

    @initialize(average=st.sampled_from([4096, 16384, 32768]), versions=st.sampled_from([2, 4, 64]))
    def begin(self, average: int, versions: int) -> None:
        packstone.init(self.location, chunk_size=average, delta_versions=versions).close()
        self._open()

    def _open(self) -> packstone.Repository:
        if self.repository is None:
            # A clock that runs ahead makes files old enough to be trusted, one that does not
            # makes them racy; both must give the same snapshots.
            self.repository = packstone.Repository(
                self.location, clock=lambda: os.stat(self.source).st_ctime_ns + self.ahead
            )
        return self.repository

    def _close(self) -> None:
        if self.repository is not None:
            self.repository.close()
            self.repository = None

    def teardown(self) -> None:
        self._close()
        shutil.rmtree(self.place)

    # -- the tree ---------------------------------------------------------------------------

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

    # -- the repository ---------------------------------------------------------------------

    @rule(ahead=st.sampled_from([0, 10_000_000_000]))
    def clock(self, ahead: int) -> None:
        self.ahead = ahead

    @rule(
        target=taken,
        read_all=st.booleans(),
        ignore_inode=st.booleans(),
        delta=st.sampled_from([None, True, False]),
    )
    def snapshot(self, read_all: bool, ignore_inode: bool, delta: bool | None) -> str:
        result = self._open().snapshot(
            [self.source], read_all=read_all, ignore_inode=ignore_inode, delta=delta
        )
        assert result.errors == []
        Store.deltas += result.chunks_delta
        assert result.snapshot_id is not None
        self._acknowledge(result.snapshot_id)
        return result.snapshot_id

    @rule(
        target=taken,
        old=paths,
        new=paths,
        first=st.integers(0, len(DUMPS) - 1),
        second=st.integers(0, len(DUMPS) - 1),
    )
    def two_nights(self, old: str, new: str, first: int, second: int) -> str:
        """A table is stored, and as it is another night, perhaps under another name."""
        self.write(old, DUMPS[first])
        self.snapshot(read_all=False, ignore_inode=False, delta=None)
        if old != new:
            self.delete(old)
        self.write(new, DUMPS[second])
        return self.snapshot(read_all=False, ignore_inode=False, delta=None)

    def _acknowledge(self, snapshot_id: str) -> None:
        if self.ahead:
            # The clock ahead takes away the guard against changes within one tick of ctime.
            time.sleep(0.012)
        self.acknowledged[snapshot_id] = (dict(self.model), describe(self.source, top=False))

    @rule(snapshot_id=taken)
    def restore(self, snapshot_id: str) -> None:
        self._restore(snapshot_id)

    def _restore(self, snapshot_id: str) -> None:
        target = self.place / "target"
        result = self._open().restore(snapshot_id, target, path=bytes(self.source))
        assert result.errors == []
        model, expected = self.acknowledged[snapshot_id]
        assert differences(expected, describe(target, top=False), ignore=("holes",)) == []
        # describe() on both sides could be wrong in the same way; the model cannot.
        for path, node in model.items():
            found = target / path
            status = found.lstat()
            assert stat.S_ISLNK(status.st_mode) == (node.kind == "link")
            assert stat.S_ISFIFO(status.st_mode) == (node.kind == "fifo")
            if node.kind == "file":
                assert found.read_bytes() == node.data
            elif node.kind == "link":
                assert os.readlink(bytes(found)) == node.data
            if node.kind != "link":
                assert stat.S_IMODE(status.st_mode) == node.mode
            names = sum(other.number == node.number for other in model.values())
            assert status.st_nlink == names
        files = [path for path in target.rglob("*") if path.is_symlink() or not path.is_dir()]
        assert len(files) == len(model)
        shutil.rmtree(target)

    @rule(snapshot_id=taken, path=paths, share=st.floats(0, 1), size=st.integers(0, 5000))
    def read(self, snapshot_id: str, path: str, share: float, size: int) -> None:
        node = self.acknowledged[snapshot_id][0].get(path)
        if node is not None and node.kind == "file":
            at = int(len(node.data) * share)
            with self._open().open_file(snapshot_id, bytes(self._real(path))) as file:
                file.seek(at)
                assert file.read(size) == node.data[at : at + size]

    @rule()
    def check(self) -> None:
        assert self._open().check(read_data=True).errors == []

    @rule()
    def reopen(self) -> None:
        self._close()
        self._open()

    @rule()
    def lose_the_index(self) -> None:
        self._close()
        shutil.rmtree(self.location / "index", ignore_errors=True)

    @rule(
        at=st.integers(0, 45),
        action=st.sampled_from([faults.interrupt, faults.full, faults.unavailable]),
        onwards=st.booleans(),
    )
    def crash(self, at: int, action: faults.Action, onwards: bool) -> None:
        """Something fails during a snapshot; all goes on with a repository opened anew."""
        self._close()
        before = set(self.acknowledged)
        verbs = faults.WRITES if action is faults.full else None
        try:
            with faulty(Plan(action, at, onwards=onwards, verbs=verbs)):
                self._open().snapshot([self.source])
        except (KeyboardInterrupt, packstone.StorageError):
            pass
        finally:
            self._close()
        there = {row.id for row in self._open().snapshots()}
        assert before <= there
        for snapshot_id in there - before:
            self._acknowledge(snapshot_id)  # committed before it failed, or in spite of it
            self._restore(snapshot_id)

    @invariant()
    def nothing_acknowledged_is_gone(self) -> None:
        if self.repository is not None:
            there = {row.id for row in self.repository.snapshots()}
            assert there == set(self.acknowledged)


TestStore = Store.TestCase
TestStore.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_the_machine_met_deltas() -> None:
    """Runs after it: or what it shows says nothing of them."""
    assert Store.deltas > EXAMPLES // 10
