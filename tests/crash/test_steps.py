"""Everything that can end a run, at every step of it (rows K1, K2, K3, E1, E2).

Whatever happens: every snapshot that was there restores byte for byte, the new one is absent
or whole, check finds nothing, and the same command works when it is run again.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faults
import pytest
from campaign import IS_SOAK, LINES
from compare_trees import Description, describe, differences
from faults import Plan, faulty, in_child

import packstone

TRIALS = int(os.environ.get("PACKSTONE_TEST_KILL_TRIALS", "50"))


@dataclass
class Scene:
    """A repository with two snapshots, a source that has changed since, and what was stored."""

    location: Path
    source: Path
    stored: dict[str, dict[bytes, Description]]

    def take(self) -> packstone.SnapshotResult:
        """Take the third snapshot, in one thread so that steps come in one order."""
        with packstone.open(self.location, threads=1) as repository:
            return repository.snapshot([self.source])

    def verify(self) -> bool:
        """Check everything; return whether the new snapshot is there."""
        with packstone.open(self.location, threads=1) as repository:
            there = {row.id for row in repository.snapshots()}
            assert self.stored.keys() <= there, "an acknowledged snapshot is gone"
            new = there - self.stored.keys()
            assert len(new) <= 1
            for snapshot_id in there:
                expected = self.stored.get(snapshot_id) or describe(self.source, top=False)
                target = self.location.with_name("target")
                result = repository.restore(snapshot_id, target, path=bytes(self.source))
                assert result.errors == []
                assert differences(expected, describe(target, top=False)) == []
                shutil.rmtree(target)
            checked = repository.check(read_data=True)
            assert checked.errors == []
            assert repository.warnings == []
        return bool(new)

    def again(self) -> None:
        """The next run succeeds, whatever the last one left."""
        assert self.take().errors == []
        with packstone.open(self.location) as repository:
            repository.restore("latest", self.location.with_name("last"), path=bytes(self.source))
            found = describe(self.location.with_name("last"), top=False)
            assert differences(describe(self.source, top=False), found) == []
            assert repository.check(read_data=True).errors == []
        shutil.rmtree(self.location.with_name("last"))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The scene every trial begins with; in memory, since no power is cut here."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    source = place / "source"
    (source / "below").mkdir(parents=True)
    chance = random.Random(1)
    stored = {}
    with packstone.init(place / "repository", chunk_size=4096) as repository:
        for at in range(3):
            (source / f"file {at}").write_bytes(chance.randbytes(3000))
            (source / "below" / f"long {at}").write_bytes(chance.randbytes(40_000))
            os.symlink(f"file {at}", source / f"link {at}")
            if at < 2:
                result = repository.snapshot([source])
                stored[result.snapshot_id or ""] = describe(source, top=False)
    yield Scene(place / "repository", source, stored)
    shutil.rmtree(place)


@pytest.fixture
def scenes(original: Scene) -> Iterator[Callable[[], Scene]]:
    """Make a fresh copy of the scene for each trial."""
    copies: list[Path] = []

    def make() -> Scene:
        if copies:
            shutil.rmtree(copies.pop())
        place = Path(tempfile.mkdtemp(dir=original.location.parent))
        copies.append(place)
        shutil.copytree(original.location, place / "repository", symlinks=True)
        return Scene(place / "repository", original.source, original.stored)

    yield make
    for place in copies:
        shutil.rmtree(place)


def steps_of(run: Callable[[], object], verbs: frozenset[str] | None = None) -> list[str]:
    plan = Plan(verbs=verbs)
    with faulty(plan):
        run()
    return plan.steps


# -- snapshot -------------------------------------------------------------------------------


def test_the_order_of_writes(scenes: Callable[[], Scene]) -> None:
    """docs/format.md §7, seen from outside: packs, index, state, snapshot, state."""
    steps = [step for step in steps_of(scenes().take) if not step.startswith("done")]
    commits = [step for step in steps if step.startswith("commit")]
    assert commits[-1] == "commit snapshots" and set(commits[:-1]) == {"commit packs"}
    last_pack = max(at for at, step in enumerate(steps) if step == "commit packs")
    snapshot = steps.index("commit snapshots")
    states = [at for at, step in enumerate(steps) if step == "get state"]
    indexed = [at for at, step in enumerate(steps) if step.startswith("index")]
    assert states[0] < steps.index("create spool"), "1: the generation before anything"
    assert any(last_pack < at < snapshot for at in indexed), "3: the index after the packs"
    assert any(max(at for at in indexed if at < snapshot) < at < snapshot for at in states), "4"
    assert any(at > snapshot for at in states), "6: the generation once more"


def test_death_at_every_step_of_a_snapshot(scenes: Callable[[], Scene]) -> None:
    steps = steps_of(scenes().take)
    assert len(steps) > 40
    absent = whole = 0
    for at in range(len(steps)):
        scene = scenes()

        def run(scene: Scene = scene, at: int = at) -> None:
            with faulty(Plan(faults.leave, at)):
                scene.take()

        assert in_child(run) == faults.EXIT_CODE, steps[at]
        if scene.verify():
            whole += 1
        else:
            absent += 1
            assert at <= steps.index("done commit snapshots"), steps[at]
        scene.again()
    assert absent > 30 and whole > 2


@pytest.mark.parametrize("action", [faults.interrupt, faults.unavailable])
def test_an_exception_at_every_step_of_a_snapshot(
    scenes: Callable[[], Scene], action: faults.Action
) -> None:
    """Ctrl-C, or a disk with errors: raised, cleaned up, no snapshot unless it was committed."""
    steps = steps_of(scenes().take)
    committed = steps.index("done commit snapshots")
    left = []
    for at in range(len(steps)):
        if at > committed and "index" in steps[at]:
            continue  # only saves time later: its own test is in tests/unit/repository
        scene = scenes()
        with faulty(Plan(action, at)), pytest.raises(
            (KeyboardInterrupt, packstone.StorageUnavailable)
        ):  # fmt: skip
            scene.take()
        left += [steps[at] for _ in (scene.location / "tmp").iterdir()]
        assert not scene.verify() or at >= committed, steps[at]
        scene.again()
    assert left == [], f"steps that leave a file in tmp/: {sorted(set(left))}"


@pytest.mark.parametrize("onwards", [False, True], ids=["once", "from then on"])
def test_a_full_disk_at_every_write(scenes: Callable[[], Scene], onwards: bool) -> None:
    """Row E1: StorageFull, no snapshot, and the next run works once there is space."""
    steps = steps_of(scenes().take, faults.WRITES)
    left, committed = [], []
    for at in range(steps.index("commit snapshots") + 1):
        scene = scenes()
        plan = Plan(faults.full, at, onwards=onwards, verbs=faults.WRITES)
        with faulty(plan), pytest.raises(packstone.StorageFull) as raised:
            scene.take()
        assert raised.value.exit_code == 13
        assert plan.fired
        left += [steps[at] for _ in (scene.location / "tmp").iterdir()]
        committed += [steps[at]] * scene.verify()
        scene.again()
    assert left == [], f"steps that leave a file in tmp/: {sorted(set(left))}"
    assert committed == [], f"steps that failed, yet there is a snapshot: {committed}"


def test_a_full_disk_after_the_commit(scenes: Callable[[], Scene]) -> None:
    """What only saves work later may fail: the snapshot is there and is reported as such."""
    steps = steps_of(scenes().take, faults.WRITES)
    after = range(steps.index("commit snapshots") + 1, len(steps))
    assert after
    for at in after:
        scene = scenes()
        with faulty(Plan(faults.full, at, onwards=True, verbs=faults.WRITES)):
            assert scene.take().snapshot_id is not None
        assert scene.verify()
        scene.again()


def test_the_directory_of_the_snapshot_cannot_be_synced(
    scenes: Callable[[], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renamed, but not known to be durable: an error, and nothing that looks like a success."""
    from packstone.storage import local

    sync_directory = local.sync_directory

    def failing(path: str, *calls: Any) -> None:
        if path.endswith("/snapshots"):
            raise OSError(5, "Input/output error")
        sync_directory(path, *calls)

    scene = scenes()
    with monkeypatch.context() as patch:
        patch.setattr(local, "sync_directory", failing)
        with pytest.raises(packstone.StorageUnavailable):
            scene.take()
    assert not scene.verify(), "an error was reported, yet there is a snapshot"
    scene.again()


def test_an_open_repository_goes_on_after_every_fault(scenes: Callable[[], Scene]) -> None:
    """The same object, after StorageFull at any write, takes the snapshot the second time."""
    count = len(steps_of(scenes().take, faults.WRITES))
    scene = scenes()
    for at in range(count):
        plan = Plan(faults.full, at, verbs=faults.WRITES)
        with faulty(plan), packstone.open(scene.location, threads=1) as repository:
            fresh = scene.location.with_name("fresh")
            fresh.mkdir(exist_ok=True)
            (fresh / "file").write_bytes(os.urandom(20_000))
            try:
                repository.snapshot([fresh])
            except packstone.StorageFull:
                assert repository.snapshot([fresh]).errors == []
            with repository.open_file("latest", bytes(fresh / "file")) as file:
                assert file.read() == (fresh / "file").read_bytes()
            assert repository.check(read_data=True).errors == []


# -- init -----------------------------------------------------------------------------------


def begin(location: Path) -> None:
    packstone.init(location, chunk_size=4096).close()


def after_init(location: Path, source: Path) -> bool:
    """Return whether there is a repository; there is a sound one or none."""
    try:
        repository = packstone.open(location)
    except packstone.RepositoryMissing:
        try:
            begin(location)
        except packstone.UsageError:
            shutil.rmtree(location)
            begin(location)
        repository, found = packstone.open(location), False
    else:
        found = True
    with repository:
        assert repository.snapshot([source]).errors == []
        assert repository.check(read_data=True).errors == []
    return found


def test_death_at_every_step_of_init(original: Scene) -> None:
    place = Path(tempfile.mkdtemp(dir=original.location.parent))
    steps = steps_of(lambda: begin(place / "first"))
    found = []
    for at in range(len(steps)):
        location = place / f"{at}"

        def run(location: Path = location, at: int = at) -> None:
            with faulty(Plan(faults.leave, at)):
                begin(location)

        assert in_child(run) == faults.EXIT_CODE
        found.append(after_init(location, original.source))
        shutil.rmtree(location)
    assert found == sorted(found) and found[-1] and not found[0]
    shutil.rmtree(place)


@pytest.mark.parametrize("action", [faults.full, faults.interrupt])
def test_an_exception_at_every_step_of_init(original: Scene, action: faults.Action) -> None:
    place = Path(tempfile.mkdtemp(dir=original.location.parent))
    for at in range(len(steps_of(lambda: begin(place / "first"), faults.WRITES))):
        location = place / f"{at}"
        with faulty(Plan(action, at, verbs=faults.WRITES)), pytest.raises(
            (packstone.StorageFull, KeyboardInterrupt)
        ):  # fmt: skip
            begin(location)
        if location.exists():
            after_init(location, original.source)
            shutil.rmtree(location)
    shutil.rmtree(place)


# -- signals --------------------------------------------------------------------------------


def test_sigkill_at_random_times(scenes: Callable[[], Scene], original: Scene) -> None:
    """Row K2, of snapshots mostly and a few inits."""
    chance = random.Random(int(os.environ.get("PACKSTONE_TEST_SEED", "1")))
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        takes = 60.0
        for _ in range(3):
            scene = scenes()
            begin_time = time.monotonic()
            assert in_child(scene.take) == 0
            takes = min(takes, time.monotonic() - begin_time)
        codes = []
        for _ in range(TRIALS * 4 // 5):
            scene = scenes()
            codes.append(in_child(scene.take, kill_after=chance.random() * takes * 1.2))
            scene.verify()
            scene.again()
        assert codes.count(-signal.SIGKILL) > len(codes) // 4
        for _ in range(TRIALS - len(codes)):
            location = scenes().location.with_name("another")
            in_child(lambda: begin(location), kill_after=chance.random() * 0.004)
            if location.exists():
                after_init(location, original.source)
    finally:
        while signal.sigtimedwait([signal.SIGCHLD], 0):
            pass
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "packstone", *map(str, words)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_the_command(scenes: Callable[[], Scene], number: int) -> None:
    """Row K3: exit code 130, one line, no traceback, everything as before or a whole snapshot."""
    for delay in (0.15, 0.3):
        scene = scenes()
        reading, writing = os.pipe()
        child = subprocess.Popen(
            command("-r", scene.location, "snapshot", "--stdin", "dump"),
            stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(reading)
        deadline = time.monotonic() + 20
        while not os.listdir(scene.location / "tmp") and time.monotonic() < deadline:
            os.write(writing, os.urandom(60_000))  # until it has begun to write
        time.sleep(delay)
        child.send_signal(number)
        out, err = child.communicate(timeout=20)
        os.close(writing)
        assert child.returncode == 130, err
        assert b"Traceback" not in err and out == b""
        assert os.listdir(scene.location / "tmp") == []
        assert not scene.verify()
        scene.again()


# -- a disk that is really full -------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mount a file system of a size in KiB, or give the mounted one another size."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    place = tmp_path / "disk"
    place.mkdir()
    mounted = False

    def mount(size: int, *, again: bool = False) -> Path:
        nonlocal mounted
        options = f"remount,size={size}k" if again else f"size={size}k,nr_inodes=0"
        if mounted and not again:
            subprocess.run(["umount", place], check=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True
        )
        if done.returncode:
            pytest.skip("mounting is not allowed here")
        mounted = True
        return place

    yield mount
    if mounted:
        subprocess.run(["umount", place], check=True)


def test_a_disk_of_every_size(disk: Callable[..., Path], original: Scene, tmp_path: Path) -> None:
    """Row E2: from hardly enough for the first snapshot to enough for both."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    (small / "file").write_bytes(random.Random(1).randbytes(50_000))
    for at in range(20):
        (large / f"{at}").write_bytes(random.Random(at).randbytes(50_000))
    refused = done = 0
    for size in range(280, 1800, 8 if IS_SOAK else 76):
        place = disk(size)
        location = place / "repository"
        with packstone.init(location) as repository:
            first = repository.snapshot([small])
            expected = describe(small, top=False)
            try:
                repository.snapshot([large])
                done += 1
                continue
            except packstone.StorageFull as error:
                assert error.exit_code == 13 and "Nothing was committed" in error.hint
                refused += 1
            assert [row.id for row in repository.snapshots()] == [first.snapshot_id]
        with packstone.open(location) as repository:
            assert repository.check(read_data=True).errors == []
            target = tmp_path / "target"
            assert repository.restore("latest", target, path=bytes(small)).errors == []
            assert differences(expected, describe(target, top=False)) == []
            shutil.rmtree(target)
            disk(8000, again=True)
            assert repository.snapshot([large]).errors == []
            assert repository.restore("latest", target, path=bytes(large)).errors == []
            assert differences(describe(large, top=False), describe(target, top=False)) == []
            assert repository.check(read_data=True).errors == []
            shutil.rmtree(target)
    assert refused > 10 and done > 1
    LINES.append(
        ("E2", "snapshot, tmpfs of every size", refused + done, f"0 failures, {refused} refused")
    )


def test_a_full_disk_is_read(
    disk: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restore and check need no room on it: an index that cannot grow there is made elsewhere."""
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(50_000))
    location = disk(8000) / "repository"
    with packstone.init(location) as repository:
        repository.snapshot([source])
    shutil.rmtree(location / "index")
    with open(location.with_name("filler"), "wb", buffering=0) as filler:
        with pytest.raises(OSError):
            while True:
                filler.write(bytes(4096))
    with packstone.open(location) as repository:
        assert repository.restore("latest", tmp_path / "target", path=bytes(source)).errors == []
        assert repository.check(read_data=True).errors == []
        assert any("is used instead" in warning for warning in repository.warnings)
        (source / "more").write_bytes(os.urandom(50_000))
        with pytest.raises(packstone.StorageFull):
            repository.snapshot([source])
        location.with_name("filler").unlink()
        assert repository.snapshot([source]).errors == []
    assert (tmp_path / "target" / "file").read_bytes() == (source / "file").read_bytes()


def test_a_full_disk_by_the_command(disk: Callable[..., Path], tmp_path: Path) -> None:
    """Exit code 13, the reason, and what to do."""
    (tmp_path / "noise").write_bytes(os.urandom(3 << 20))
    location = disk(2000) / "repository"
    begin(location)
    done = subprocess.run(
        command("-r", location, "snapshot", tmp_path / "noise"), capture_output=True
    )
    assert done.returncode == 13, done.stderr
    assert b"No space left" in done.stderr and b"Nothing was committed" in done.stderr
    with packstone.open(location) as repository:
        assert repository.snapshots() == []


def test_a_disk_too_small_to_begin(disk: Callable[..., Path]) -> None:
    place = disk(4)
    with pytest.raises(packstone.StorageFull):
        begin(place / "repository")
    with pytest.raises(packstone.RepositoryMissing):
        packstone.open(place / "repository")
