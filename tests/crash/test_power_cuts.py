"""Row P1: the power is cut while snapshots are taken, on a real file system.

ext4 on a loop device is shut down without flushing its log (EXT4_IOC_SHUTDOWN), as a power cut
leaves it, and mounted again. All snapshots that were acknowledged must restore and check must
find nothing. Killing the process would prove nothing: its writes are safe in the page cache.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from campaign import Caught, campaign, control, seeds, trials
from compare_trees import describe, differences
from crash.commands import CHEAP
from crash.disks import Disk
from faults import storages

import packstone
from packstone.storage.local import LocalStorage
from packstone.testing import UnsyncedCalls

CUTS = trials(4, 300)
TRIES = trials(10, 40)  # of a control, until it must have been noticed
Make = Callable[[str], LocalStorage]


def take_snapshots(
    disk: Disk, sources: Path, seed: int, acknowledged: int, make: Make, **options: object
) -> None:
    """Take snapshots for ever, and write `NUMBER ID` for each one that was taken."""
    chance = Random(seed)
    with storages(make):
        repository = packstone.init(
            disk.mounted / "repository", chunk_size=4096, argon2=CHEAP,
            passphrase=options.get("passphrase"),  # type: ignore[arg-type]
        )  # fmt: skip
        repository.close()
        os.write(acknowledged, b"0 -\n")
        number = 0
        while True:
            with packstone.open(disk.mounted / "repository", **options) as repository:  # type: ignore[arg-type]
                for _ in range(chance.randrange(1, 6)):
                    number += 1
                    source = sources / str(number)
                    source.mkdir()
                    (source / "own").write_bytes(chance.randbytes(chance.randrange(1, 90_000)))
                    (source / "shared").write_bytes(Random(seed).randbytes(50_000))
                    result = repository.snapshot([source])
                    os.write(acknowledged, b"%d %s\n" % (number, result.snapshot_id.encode()))
                if chance.random() < 0.3:
                    repository.prune()


def cut_once(disk: Disk, sources: Path, seed: int, make: Make, **options: object) -> int:
    """Cut the power at some moment; return how many acknowledged snapshots were looked at."""
    chance = Random(-seed)
    shutil.rmtree(sources, ignore_errors=True)
    sources.mkdir()
    assert disk.begin()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            with open(sources.with_name("errors"), "w") as errors:
                os.dup2(errors.fileno(), 2)
                take_snapshots(disk, sources, seed, writing, make, **options)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(writing)
    try:
        said = b""
        until = time.monotonic() + 20
        first = True
        while (left := until - time.monotonic()) > 0:
            if not select.select([reading], [], [], left)[0]:
                break
            part = os.read(reading, 65536)
            assert part, f"the writer ended: {sources.with_name('errors').read_text()}"
            said += part
            if first:  # there is a repository; from now on at any moment
                until, first = time.monotonic() + chance.random() * 0.35, False
        disk.cut()
        while select.select([reading], [], [], 0)[0] and (part := os.read(reading, 65536)):
            said += part  # acknowledged before the cut, or just as the power went
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    disk.back()
    rows = [line.split() for line in said.decode().splitlines()]
    try:
        judge(disk, sources, [(row[0], row[1]) for row in rows if row[1] != "-"], options)
    except (AssertionError, packstone.PackstoneError) as error:
        raise Caught(f"seed {seed}: {error}") from error
    return len(rows) - 1


def judge(
    disk: Disk, sources: Path, acknowledged: list[tuple[str, str]], options: dict[str, object]
) -> None:
    with packstone.open(disk.mounted / "repository", **options) as repository:  # type: ignore[arg-type]
        there = {row.id for row in repository.snapshots()}
        assert {row[1] for row in acknowledged} <= there, "an acknowledged snapshot is gone"
        target = sources.with_name("target")
        for number, snapshot_id in acknowledged:
            source = sources / number
            assert repository.restore(snapshot_id, target, path=bytes(source)).errors == []
            found = differences(describe(source, top=False), describe(target, top=False))
            assert found == []
            shutil.rmtree(target)
        assert repository.check(read_data=True).errors == []
        assert repository.warnings == []
        assert repository.snapshot([sources]).errors == []
        assert repository.check(read_data=True).errors == []


def options_of(seed: int, place: Path) -> dict[str, object]:
    """Have the index on the disk, away from it, or the repository encrypted, in turn."""
    if seed % 3 == 1:
        return {"index_dir": place / f"index {seed}"}
    return {"passphrase": "words"} if seed % 3 == 2 else {}


def test_power_cuts(disk: Disk, place: Path) -> None:
    with campaign("P1", "snapshot (ext4, power cut)") as row:
        looked_at = 0
        for seed in seeds(CUTS):
            looked_at += cut_once(
                disk, place / "sources", seed, LocalStorage, **options_of(seed, place)
            )
            row.trials += 1
        row.note = f", {looked_at:,} acknowledged snapshots"
        assert looked_at > CUTS // 4


@pytest.mark.parametrize("what", ["files", "directories"])
def test_controls(disk: Disk, place: Path, what: str) -> None:
    def make(path: str) -> LocalStorage:
        calls = UnsyncedCalls(files=what == "files", directories=what == "directories")
        return LocalStorage(path, calls)

    with control("P1", f"no fsync of {what}") as row:
        for seed in range(TRIES):
            # An index on the same disk would have its syncs flush what ours do not.
            cut_once(disk, place / "sources", seed, make, index_dir=place / f"index {seed}")
            row.trials += 1
