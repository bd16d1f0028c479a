"""Row C1(a): several real commands at once on one repository, round after round.

The idea is bupstash's parallel-thrash.sh. A pruner joins in: it may find the repository
locked, and nothing may be lost either way.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from campaign import campaign, trials
from compare_trees import describe, differences
from crash.commands import change

import packstone

WRITERS = 4
ROUNDS = trials(2, 200)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(path / "cache"))
    yield path
    shutil.rmtree(path)


def start(location: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "packstone", "-r", str(location), *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_writers_and_a_pruner(place: Path) -> None:
    location = place / "repository"
    packstone.init(location, chunk_size=4096).close()
    sources = [place / f"source {number}" for number in range(WRITERS)]
    with campaign("C1", f"{WRITERS} commands at once, and prune") as row:
        for turn in range(ROUNDS):
            for number, source in enumerate(sources):
                change(source, Random(turn * 2 + number % 2), turn)  # two of two are alike
            writers = [start(location, "snapshot", str(source)) for source in sources]
            pruner = start(location, "prune")
            done = 0
            for writer in writers:
                _, said = writer.communicate(timeout=300)
                # who finds a sweep under way says so and is run again
                assert writer.returncode in ((0, 11, 13)), said
                done += writer.returncode == 0
            _, said = pruner.communicate(timeout=300)
            assert pruner.returncode in (0, 11), said
            row.trials += 1
            judge(location, sources, place / "target", all_there=done == WRITERS)


def judge(location: Path, sources: list[Path], target: Path, *, all_there: bool) -> None:
    with packstone.open(location) as repository:
        assert repository.check(read_data=True).errors == []
        for source in sources if all_there else ():
            newest = repository.snapshots(paths=[source])[-1].id
            assert repository.restore(newest, target, path=bytes(source)).errors == []
            assert differences(describe(source, top=False), describe(target, top=False)) == []
            shutil.rmtree(target)
