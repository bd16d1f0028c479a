"""Several writers and a pruner on one bucket, and processes killed at every request."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_proxy import Faults, Request, proxy
from object_server import new_bucket, url_of

import packstone

WRITER = """
import os, random, shutil, sys
import packstone
url, source, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.makedirs(source)
kept = []
for turn in range(rounds):
    with open(f"{source}/{turn % 5}", "wb") as file:
        # what others store too, and prune throws away, and comes again
        file.write(random.Random(turn % 7).randbytes(40_000) + os.urandom(20_000))
    try:
        with packstone.open(url, lock_timeout=120) as repository:
            result = repository.snapshot([source])
            row = repository.find_snapshot(result.snapshot_id)
            shutil.rmtree(f"{source}-out", ignore_errors=True)
            repository.restore(row.id, f"{source}-out", path=source)
    except packstone.StorageError as error:
        if error.kind not in ("generation",):
            raise
        print("again", error.message, flush=True)
        continue
    for name in os.listdir(source):
        one, other = (open(f"{place}/{name}", "rb").read() for place in (source, f"{source}-out"))
        assert one == other, (turn, name)
print("done", flush=True)
"""
PRUNER = """
import os, sys, time
import packstone
url, stop = sys.argv[1:]
pruned = 0
while not os.path.exists(stop):
    try:
        with packstone.open(url, lock_timeout=120) as repository:
            rows = repository.snapshots()
            if len(rows) > 4:
                repository.forget([row.id for row in rows[:-4]])
            repository.prune(max_unused=0.0)
            pruned += 1
    except packstone.RepositoryLocked:
        pass
print("pruned", pruned, flush=True)
"""


def thrash(endpoint: str, folder: Path, writers: int, rounds: int) -> int:
    url = url_of(endpoint, new_bucket(endpoint))
    packstone.init(url).close()
    stop = folder / "stop"

    def start(code: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, url, *words], stdout=subprocess.PIPE, text=True
        )

    pruner = start(PRUNER, str(stop))
    running = [start(WRITER, str(folder / f"w{n}"), str(rounds)) for n in range(writers)]
    outputs = [each.communicate(timeout=3600)[0] for each in running]
    stop.touch()
    said, _ = pruner.communicate(timeout=300)
    assert [each.returncode for each in (*running, pruner)] == [0] * (writers + 1), outputs
    with packstone.open(url) as repository:
        assert repository.check(read_data=True).errors == []
        assert repository.snapshots()
    return int(said.split()[1])


def test_four_writers_and_a_pruner(endpoint: str, tmp_path: Path) -> None:
    assert thrash(endpoint, tmp_path, 4, 3) >= 1


@pytest.mark.soak
def test_for_two_hundred_rounds(endpoint: str, tmp_path: Path) -> None:
    assert thrash(endpoint, tmp_path, 4, 200) >= 20


# -- kills ------------------------------------------------------------------------------------

VICTIM = """
import sys
import packstone
url, verb, source = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
with packstone.open(url) as repository:
    if verb == "snapshot":
        repository.snapshot([source])
    else:
        repository.prune(max_unused=0.0)
"""


@pytest.fixture(scope="module")
def faults() -> Faults:
    return Faults()


@pytest.fixture(scope="module")
def proxied(endpoint: str, faults: Faults) -> Iterator[str]:
    with proxy(endpoint, faults) as found:
        yield found


EVERY = pytest.mark.soak


@pytest.mark.parametrize(
    ("verb", "step"),
    [
        ("snapshot", 3),
        ("prune", 6),
        pytest.param("snapshot", 1, marks=EVERY),
        pytest.param("prune", 1, marks=EVERY),
    ],
)
def test_killed_at_requests(
    endpoint: str, proxied: str, bucket: str, tmp_path: Path, faults: Faults, verb: str, step: int
) -> None:
    """What was there stays, what was under way is absent or whole, and life goes on."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "kept").write_bytes(os.urandom(50_000))

    def run(kill_at: int) -> bool:
        place = f"{bucket}/{secrets.token_hex(8)}"
        url = url_of(endpoint, place)
        with packstone.init(url) as repository:
            (source / "old").write_bytes(os.urandom(300_000))
            old = repository.snapshot([source]).snapshot_id
            (source / "old").unlink()
            kept = repository.snapshot([source]).snapshot_id
            assert old is not None and kept is not None
            repository.forget([old])
        (source / "new").write_bytes(os.urandom(20_000))
        victim = subprocess.Popen(
            [sys.executable, "-c", VICTIM, url_of(proxied, place), verb, str(source)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PACKSTONE_LOCK_LIFETIME": "2"},
        )
        assert victim.stdout is not None and victim.stdin is not None
        victim.stdout.readline()

        def rule(request: Request) -> str | None:
            if request.number == kill_at:
                # half of them before the store has heard of it, half after
                victim.kill()
                return "reset" if kill_at % 2 else "500"
            return None

        faults.reset(rule)
        victim.stdin.write(b"\n")
        victim.stdin.close()
        code = victim.wait(60)
        victim.stdout.close()
        faults.reset()
        if code == 0:
            return False
        (source / "new").unlink()
        deadline = time.monotonic() + 30
        while True:
            try:
                with packstone.open(url, lock_timeout=30) as repository:
                    assert repository.check(read_data=True).errors == []
                    rows = repository.snapshots()
                    assert kept in [row.id for row in rows] and len(rows) <= 2
                    repository.prune(max_unused=0.0)
                    assert repository.check(read_data=True).errors == []
                    repository.snapshot([source])
                return True
            except packstone.RepositoryLocked:
                assert time.monotonic() < deadline, "a killed holder's lock expires by itself"
                time.sleep(0.5)

    number = 0
    while run(number):
        number += step
    assert number >= 9
