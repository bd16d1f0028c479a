"""Writers, somebody who forgets, and a pruner at once, in processes of their own (row C1a).

Ten rounds in the suite, two hundred with `make soak`.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from campaign import Caught, campaign, control, first_seed, trials

import packstone
from packstone.errors import PackstoneError
from packstone.repository.locks import Lock
from packstone.repository.writer import ObjectWriter

ROUNDS = trials(10, 200)
LOST = 99


def start(function: Callable[[], None]) -> int:
    """Run in a forked process that ends with the exit code of its error."""
    child = os.fork()
    if child:
        return child
    code = LOST
    try:
        function()
        code = 0
    except PackstoneError as error:
        code = error.exit_code
        if code not in (11, 13):
            traceback.print_exc()
        if code == 13 and not isinstance(error, packstone.GenerationChanged):
            traceback.print_exc()
            code = LOST
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def contents(seed: int) -> dict[str, bytes]:
    """What a writer stores: the same few files again and again, so that all share chunks."""
    chance = random.Random(seed % 5)
    return {f"{at}": chance.randbytes(chance.choice([100, 20_000, 60_000])) for at in range(4)}


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(path / "cache"))
    yield path
    shutil.rmtree(path)


def rounds(place: Path, count: int, codes: dict[str, list[int]]) -> Iterator[int]:
    """Let them race, so many rounds; after each all that is there must be whole."""
    location = place / "repository"
    packstone.init(location, chunk_size=4096, pack_size=1 << 20).close()
    for seed in range(5):
        (place / f"{seed}").mkdir()
        for name, data in contents(seed).items():
            (place / f"{seed}" / name).write_bytes(data)
    chance = random.Random(1 + first_seed())

    def write(seed: int) -> None:
        with packstone.open(location, threads=1, lock_timeout=30) as repository:
            for step in range(3):
                repository.snapshot([place / f"{(seed + step) % 5}"])

    def forget(seed: int) -> None:
        names = sorted(path.name for path in (location / "snapshots").iterdir())
        for name in random.Random(seed).sample(names, len(names) * 2 // 3):
            (location / "snapshots" / name).unlink(missing_ok=True)

    def prune(seed: int) -> None:
        for _ in range(2):
            with packstone.open(location, threads=1, lock_timeout=30) as repository:
                repository.prune(max_unused=0.0, rebase=bool(seed & 1))

    for number in range(count):
        running = {}
        for kind, run in [("write", write)] * 3 + [("prune", prune)]:
            seed = chance.randrange(1000)
            running[start(lambda run=run, seed=seed: run(seed))] = kind
        if number % 2:
            running[start(lambda seed=number: forget(seed))] = "forget"
        for child, kind in running.items():
            codes[kind].append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        with packstone.open(location, threads=1) as repository:
            assert repository.check(read_data=True).errors == []
            for row in repository.snapshots()[-3:]:
                (source,) = (Path(os.fsdecode(path)) for path in row.snapshot.paths)
                target = place / "target"
                result = repository.restore(row.id, target, path=bytes(source))
                assert result.errors == []
                for name, data in contents(int(source.name)).items():
                    assert (target / name).read_bytes() == data
                shutil.rmtree(target)
        if number % 2 == 0:
            forget(number)
        yield number


def test_no_object_is_lost(place: Path) -> None:
    codes: dict[str, list[int]] = {"write": [], "forget": [], "prune": []}
    with campaign("C1", "writers, a forgetter and a pruner, in processes") as row:
        for _ in rounds(place, ROUNDS, codes):
            row.trials += 1
    assert set(codes["write"]) | set(codes["prune"]) <= {0, 11, 13}, codes
    assert codes["write"].count(0) > ROUNDS and codes["prune"].count(0) > ROUNDS // 3


def test_without_locks_it_would_be_noticed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock excludes, and nobody looks at the generation before a commit."""
    monkeypatch.setattr(Lock, "_try", lambda self, exclusive: True)
    monkeypatch.setattr(ObjectWriter, "_check_generation", lambda self: None)
    codes: dict[str, list[int]] = {"write": [], "forget": [], "prune": []}
    with control("C1", "no locks, and no look at the generation") as row:
        try:
            for _ in rounds(place, 200, codes):
                row.trials += 1
                if LOST in codes["write"]:
                    raise Caught
        except (AssertionError, PackstoneError) as error:
            raise Caught from error
