"""Anything in any order against a model in memory (row S1).

A small tree of files is changed, snapshots are taken, restored, checked, forgotten, pruned and
copied; the repository is closed, loses its index, is damaged and repaired, and is struck at any
operation of its storage. Whatever was acknowledged and not forgotten must restore to what the
tree was at that moment; after damage that, or it is refused.

PACKSTONE_TEST_TRIALS and PACKSTONE_TEST_MODEL_STEPS ask for more than a quick run.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import faults
from campaign import IS_SOAK, LINES, trials
from compare_trees import Description, describe, differences
from faults import Plan, faulty
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, rule
from stateful.tree_model import DUMPS, Model, Tree, paths

import packstone

EXAMPLES = trials(200, 5_000)
STEPS = int(os.environ.get("PACKSTONE_TEST_MODEL_STEPS", "50" if IS_SOAK else "30"))


class LostFiles(Exception):
    """A restore that named files which it could not restore."""


Acknowledged = dict[str, tuple[Model, dict[bytes, Description]]]


class Store(Tree):
    """The tree, a repository and a copy of it on disk, and what they should hold."""

    taken = Bundle("taken")
    deltas = pruned = lost = survived = 0  # of all examples

    def __init__(self) -> None:
        super().__init__()
        self.location = self.place / "repository"
        self.acknowledged: Acknowledged = {}
        self.other = self.place / "other"
        self.copied: Acknowledged = {}  # by their ids in the copy
        self.repository: packstone.Repository | None = None
        self.ahead = 0

    @initialize(average=st.sampled_from([4096, 16384, 32768]), versions=st.sampled_from([2, 4, 64]))
    def begin(self, average: int, versions: int) -> None:
        for place in (self.location, self.other):
            packstone.init(place, chunk_size=average, delta_versions=versions).close()
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
        super().teardown()

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
        if snapshot_id in self.acknowledged:
            self._restore(snapshot_id)

    def _restore(self, snapshot_id: str) -> None:
        self._compare(self._open(), snapshot_id, *self.acknowledged[snapshot_id])

    def _compare(
        self,
        repository: packstone.Repository,
        snapshot_id: str,
        model: Model,
        expected: dict[bytes, Description],
    ) -> None:
        """Restore a snapshot; raises PackstoneError, or LostFiles where files are named."""
        target = self.place / "target"
        shutil.rmtree(target, ignore_errors=True)
        result = repository.restore(snapshot_id, target, path=bytes(self.source))
        if result.errors:
            self._refuse_wrong_files(target, model)
            raise LostFiles(str(result.errors))
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

    def _refuse_wrong_files(self, target: Path, model: Model) -> None:
        """Require of what was restored in spite of damage that it is right."""
        for path, node in model.items():
            found = target / path
            if node.kind == "file" and found.exists():
                assert found.read_bytes() == node.data, path

    @rule(snapshot_id=taken, path=paths, share=st.floats(0, 1), size=st.integers(0, 5000))
    def read(self, snapshot_id: str, path: str, share: float, size: int) -> None:
        if snapshot_id not in self.acknowledged:
            return
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

    # -- keeping it -------------------------------------------------------------------------

    @rule(snapshot_id=taken)
    def forget(self, snapshot_id: str) -> None:
        if snapshot_id in self.acknowledged:
            self._open().forget([snapshot_id])
            del self.acknowledged[snapshot_id]

    @rule(last=st.integers(1, 3))
    def forget_by_policy(self, last: int) -> None:
        rows = sorted(self._open().snapshots(), key=lambda row: (row.snapshot.time_ns, row.id))
        result = self._open().forget(keep=packstone.Retention(last=last))
        gone = {row.id for row in result.forgotten}
        assert gone <= {row.id for row in rows[:-last]}, "the newest stay, whatever the clock says"
        for snapshot_id in gone:
            del self.acknowledged[snapshot_id]

    @rule(max_unused=st.sampled_from([0.0, 0.05, 0.5]), rebase=st.booleans())
    def prune(self, max_unused: float, rebase: bool) -> None:
        result = self._open().prune(max_unused=max_unused, rebase=rebase)
        assert result.kept == {} and result.damaged == {}
        Store.pruned += result.packs_deleted + result.packs_rewritten
        assert self._open().check(read_data=True).errors == []
        for snapshot_id in list(self.acknowledged)[-2:]:
            self._restore(snapshot_id)

    @rule(verify=st.booleans())
    def copy(self, verify: bool) -> None:
        with packstone.open(self.other) as other:
            result = self._open().copy_to(other, verify=verify)
            assert result.errors == []
            for source_id, snapshot_id in zip(result.copied, result.snapshots, strict=True):
                self.copied[snapshot_id] = self.acknowledged[source_id]
            assert {row.id for row in other.snapshots()} == set(self.copied)
            for snapshot_id in result.snapshots[:2]:
                self._compare(other, snapshot_id, *self.copied[snapshot_id])

    @rule(rebase=st.booleans(), last=st.integers(1, 3))
    def thin_out_the_copy(self, rebase: bool, last: int) -> None:
        """Another repository of the same chunks, that forgets others of them."""
        with packstone.open(self.other) as other:
            for snapshot_id in list(self.copied)[:-last]:
                other.forget([snapshot_id])
                del self.copied[snapshot_id]
            other.prune(max_unused=0.0, rebase=rebase)
            assert other.check(read_data=True).errors == []
            for snapshot_id, known in self.copied.items():
                self._compare(other, snapshot_id, *known)

    @rule(force=st.booleans())
    def repair_index(self, force: bool) -> None:
        result = self._open().repair_index(force=force)
        assert not result.damaged and not result.differing and not result.surplus

    @rule()
    def repair_what_is_whole(self) -> None:
        """Not a byte of a pack is another one afterwards."""
        before = self._packs()
        result = self._open().repair_packs()
        assert result.is_whole and result.damaged == []
        assert self._packs() == before

    def _packs(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes()
            for path in (self.location / "packs").rglob("*")
            if path.is_file()
        }

    @rule(
        pack=st.integers(0, 1000), at=st.floats(0, 1), bit=st.integers(0, 7), healed=st.booleans()
    )
    def flip_and_repair(self, pack: int, at: float, bit: int, healed: bool) -> None:
        """A bit flips; what a repair cannot save is refused, named and forgotten, never wrong."""
        self._close()
        packs = sorted(path for path in (self.location / "packs").rglob("*") if path.is_file())
        if not packs:
            self._open()
            return
        struck = packs[pack % len(packs)]
        data = bytearray(struck.read_bytes())
        data[int(at * (len(data) - 1))] ^= 1 << bit
        struck.write_bytes(data)
        assert self._open().check(read_data=True).errors != []
        # Descriptions are compared by identity: a copy is of that very moment.
        safe = {id(known[1]) for known in self.copied.values()} if healed else set()
        with packstone.open(self.other) as other:
            self._open().repair_packs(source=other if healed else None)
        self._close()
        for snapshot_id, known in list(self.acknowledged.items()):
            try:
                self._compare(self._open(), snapshot_id, *known)
            except (packstone.Damaged, packstone.ObjectMissing, LostFiles) as error:
                assert id(known[1]) not in safe, f"{snapshot_id} is in the copy: {error}"
                self._open().forget([snapshot_id])
                del self.acknowledged[snapshot_id]
                Store.lost += 1
            else:
                Store.survived += 1
        assert self._open().check(read_data=True).errors == []

    @rule(
        at=st.integers(0, 80),
        action=st.sampled_from([faults.interrupt, faults.full, faults.unavailable]),
        rebase=st.booleans(),
    )
    def crash_of_a_prune(self, at: int, action: faults.Action, rebase: bool) -> None:
        """Something fails during a prune; nothing that is needed is gone."""
        self._close()
        verbs = faults.WRITES if action is faults.full else None
        try:
            with faulty(Plan(action, at, verbs=verbs)):
                self._open().prune(max_unused=0.0, rebase=rebase)
        except (KeyboardInterrupt, packstone.StorageError):
            pass
        finally:
            self._close()
        assert self._open().check(read_data=True).errors == []
        for snapshot_id in list(self.acknowledged)[-2:]:
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


def test_the_machine_met_what_matters() -> None:
    """Runs after it: or what it shows says nothing of deltas, sweeps and losses."""
    assert Store.deltas > EXAMPLES // 10
    assert Store.pruned > EXAMPLES // 10
    assert EXAMPLES < 100 or (Store.lost > 0 and Store.survived > 0)
    LINES.append(("S1", f"everything against a model, {STEPS} steps", EXAMPLES, "0 failures"))
