"""Copies stand on their own: all snapshots, alike or cut anew, however often they are cut off."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compare_trees import describe, differences
from conftest import Packstone
from faults import EXIT_CODE, Plan, faulty, in_child, leave

import packstone

# of the steps of a copy, spread over all of them; every one with a large number
KILLS = int(os.environ.get("PACKSTONE_TEST_KILL_TRIALS", "12"))
CHEAP = packstone.Argon2(time=1, memory=8 * 1024, lanes=1)


class History:
    """A source that changes, and a repository with a snapshot of each of its states."""

    def __init__(self, place: Path, *, nights: int = 3, **options: object) -> None:
        self.place = place
        self.source = place / "source"
        self.repository = packstone.init(place / "origin", pack_size=1 << 20, **options)  # type: ignore[arg-type]
        self.states: dict[str, dict[bytes, object]] = {}
        rng = random.Random(11)
        (self.source / "below").mkdir(parents=True)
        dump = bytearray(rng.randbytes(1_500_000))
        with open(self.source / "sparse", "wb") as file:
            file.truncate(3_000_000)
            file.seek(1_000_000)
            file.write(b"x" * 50_000)
        for night in range(nights):
            for _ in range(8):
                at = rng.randrange(len(dump))
                dump[at : at + 40] = rng.randbytes(40)
            (self.source / "dump").write_bytes(dump)
            for number in range(night * 5, night * 5 + 30):
                (self.source / "below" / f"{number}").write_bytes(rng.randbytes(number * 300))
            taken = self.repository.snapshot([self.source], tags=[f"night{night}"])
            assert taken.snapshot_id is not None
            self.states[taken.snapshot_id] = dict(describe(self.source, top=False))

    def assert_whole(self, copy: packstone.Repository, wanted: set[str] | None = None) -> None:
        rows = copy.snapshots()
        origins = {row.snapshot.original_id.hex() for row in rows}
        assert origins == (set(self.states) if wanted is None else wanted)
        for row in rows:
            target = self.place / "restored"
            result = copy.restore(row.id, target, path=bytes(self.source))
            assert result.errors == []
            expected = self.states[row.snapshot.original_id.hex()]
            assert differences(expected, describe(target, top=False)) == []  # type: ignore[arg-type]
            shutil.rmtree(target)
        assert copy.check(read_data=True).errors == []


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    found = History(tmp_path)
    yield found
    found.repository.close()


def make_like(history: History, where: Path) -> packstone.Repository:
    return packstone.init(where, like=history.repository)


def make_other(history: History, where: Path) -> packstone.Repository:
    return packstone.init(where, chunk_size=16 << 10)


def make_sealed(history: History, where: Path) -> packstone.Repository:
    return packstone.init(where, passphrase="other", argon2=CHEAP)


@pytest.mark.parametrize("make", [make_like, make_other, make_sealed])
def test_everything(
    history: History, make: Callable[[History, Path], packstone.Repository], tmp_path: Path
) -> None:
    with make(history, tmp_path / "copy") as copy:
        first = list(history.states)[1]
        assert history.repository.copy_to(copy, [first]).copied == [first]
        history.assert_whole(copy, {first})
        result = history.repository.copy_to(copy, verify=True)
        assert result.skipped == [first] and result.errors == []
        assert result.recut == (make is not make_like)
        history.assert_whole(copy)
        rows = {row.snapshot.original_id.hex(): row for row in copy.snapshots()}
        for row in history.repository.snapshots():
            there = rows[row.id].snapshot
            assert (there.time_ns, there.host, there.paths, there.tags) == (
                row.snapshot.time_ns, row.snapshot.host, row.snapshot.paths, row.snapshot.tags,
            )  # fmt: skip
        again = history.repository.copy_to(copy)
        assert again.copied == [] and again.bytes_stored == 0


def test_what_is_alike_travels_as_it_is(history: History, tmp_path: Path) -> None:
    """Ids, deltas and sizes stay; a new night costs what it cost here."""
    ids = list(history.states)
    with make_like(history, tmp_path / "copy") as copy:
        assert history.repository.copy_to(copy, []).copied == [], "none is not all"
        history.repository.copy_to(copy, ids[:2])
        before = copy.stats()
        promised = history.repository.copy_to(copy, ids, dry_run=True)
        done = history.repository.copy_to(copy, ids)
        assert promised.bytes_missing < 1_000_000
        assert abs(done.bytes_stored - promised.bytes_missing) < 30_000, "headers and footers"
        after, ours = copy.stats(), history.repository.stats()
        assert after.objects == ours.objects and after.chunks_delta == ours.chunks_delta > 0
        assert after.bytes_objects == ours.bytes_objects > before.bytes_objects


@pytest.mark.parametrize("make", [make_like, make_other])
def test_versions_are_not_taken_for_each_other(
    history: History, make: Callable[[History, Path], packstone.Repository], tmp_path: Path
) -> None:
    """A copy of what was left of a snapshot is no copy of the whole one, nor the reverse."""
    whole = next(iter(history.states))
    history.repository.rewrite([whole], exclude=["large*", "dump"])
    (part,) = [row.id for row in history.repository.snapshots() if row.snapshot.original_id]
    for name, order in (("first", [whole, part]), ("second", [part, whole])):
        with make(history, tmp_path / name) as copy:
            for snapshot_id in order:
                assert history.repository.copy_to(copy, [snapshot_id]).copied == [snapshot_id]
            assert history.repository.copy_to(copy, order).copied == []
            assert len({row.snapshot.tree for row in copy.snapshots()}) == 2


def test_encrypted_family(tmp_path: Path) -> None:
    """Two encrypted repositories of one family share ids and no sealed byte."""
    history = History(tmp_path, passphrase="one", argon2=CHEAP)
    copy = packstone.init(
        tmp_path / "copy", passphrase="two", argon2=CHEAP, like=history.repository
    )
    result = history.repository.copy_to(copy, verify=True)
    assert not result.recut and result.errors == []
    history.assert_whole(copy)
    copy.close()
    history.repository.close()


def test_a_base_that_is_deeper_there(history: History, tmp_path: Path) -> None:
    """The copy has the bases of a delta at other depths: it is never stored too shallow."""
    ids = list(history.states)
    with make_like(history, tmp_path / "copy") as copy:
        # There the versions were met in another order: what is whole here is a delta there.
        for snapshot_id in (ids[2], ids[0]):
            target = tmp_path / "again"
            history.repository.restore(snapshot_id, target, path=bytes(history.source))
            copy.snapshot([target])
            shutil.rmtree(target)
        history.repository.copy_to(copy)
        for row in copy.snapshots():
            if row.snapshot.original_id:
                target = tmp_path / "restored"
                assert copy.restore(row.id, target, path=bytes(history.source)).errors == []
                expected = history.states[row.snapshot.original_id.hex()]
                assert differences(expected, describe(target, top=False)) == []  # type: ignore[arg-type]
                shutil.rmtree(target)
        assert copy.check(read_data=True).errors == []


@pytest.mark.parametrize("make", [make_like, make_other])
def test_killed_at_any_step(
    tmp_path: Path, make: Callable[[History, Path], packstone.Repository]
) -> None:
    history = History(tmp_path, nights=2)
    make(history, tmp_path / "empty").close()
    history.repository.close()

    def copy_all() -> None:
        with (
            packstone.open(tmp_path / "origin", threads=1) as origin,
            packstone.open(tmp_path / "copy", threads=1) as copy,
        ):
            origin.copy_to(copy)

    def counted() -> int:
        plan = Plan()
        shutil.copytree(tmp_path / "empty", tmp_path / "copy")
        with faulty(plan):
            copy_all()
        shutil.rmtree(tmp_path / "copy")
        return len(plan.steps)

    steps = counted()
    assert steps > 20
    for at in range(0, steps, max(1, steps // KILLS)):
        shutil.copytree(tmp_path / "empty", tmp_path / "copy")

        def killed(at: int = at) -> None:
            with faulty(Plan(leave, at)):
                copy_all()

        assert in_child(killed) == EXIT_CODE
        with packstone.open(tmp_path / "copy") as copy:
            there = {row.snapshot.original_id.hex() for row in copy.snapshots()}
            assert copy.check(read_data=True).errors == []
        assert there <= set(history.states)
        copy_all()
        with packstone.open(tmp_path / "copy") as copy:
            history.assert_whole(copy)
        shutil.rmtree(tmp_path / "copy")


def test_no_room(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is written, with what is needed and what is there."""
    with make_like(history, tmp_path / "copy") as copy:
        monkeypatch.setattr(type(copy._objects.storage), "free", lambda self: 1_000_000)
        with pytest.raises(packstone.StorageFull, match="1,000,000 free"):
            history.repository.copy_to(copy)
        assert copy.stats().packs == 0


def test_damage_here_does_not_travel(history: History, tmp_path: Path) -> None:
    packs = sorted((tmp_path / "origin" / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    damaged = packs[-1]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 3] ^= 8
    damaged.write_bytes(data)
    with (
        make_like(history, tmp_path / "copy") as copy,
        packstone.open(tmp_path / "origin") as origin,
    ):
        with pytest.raises(packstone.PackstoneError, match="damaged"):
            origin.copy_to(copy)
        assert copy.check(read_data=True).errors == []
        for row in copy.snapshots():
            assert copy.restore(row.id, tmp_path / "out" / row.id).errors == []


def test_to_itself(history: History, tmp_path: Path) -> None:
    with (
        packstone.open(tmp_path / "origin") as same,
        pytest.raises(packstone.UsageError, match="one"),
    ):
        history.repository.copy_to(same)


def test_the_command(run: Packstone, store: Path, make_tree: Callable[..., Path]) -> None:
    """An archive disk: said before what it takes, opened with nothing but its passphrase."""
    source = make_tree({"dump.sql": "INSERT INTO contacts;\n" * 20_000}, name="exports")
    run("snapshot", source, "--tag", "keep")
    run("snapshot", source, "--time", "2020-01-01T00:00:00Z")
    disk = run.directory / "disk"
    secret = {"PACKSTONE_TO_PASSPHRASE": "disk"}
    run(
        "init",
        disk,
        "--kdf-memory",
        "8MiB",
        "--kdf-time",
        "1",
        env={"PACKSTONE_PASSPHRASE": "disk"},
    )
    tried = run("copy", "--to", disk, "--dry-run", "--tag", "keep", env=secret)
    assert "to copy, about" in tried.text and "free there" in tried.text
    done = run("copy", "--to", disk, "--tag", "keep", "--verify", "--json", env=secret).json
    assert len(done["copied"]) == 1 and done["errors"] == [] and done["packs_verified"] > 0
    assert run("copy", "--to", disk, code=12, env={"PACKSTONE_TO_PASSPHRASE": "wrong"}).code == 12
    text = run("copy", "--to", disk, env=secret).text
    assert "1 snapshot copied, 1 already there" in text
    os.rename(store, run.directory / "gone")
    target = run.directory / "out"
    alone = {"PACKSTONE_PASSPHRASE": "disk", "PACKSTONE_REPO": ""}
    run("-r", disk, "restore", f"latest:{source}", "--target", target, env=alone)
    assert (target / "dump.sql").read_bytes() == (source / "dump.sql").read_bytes()
