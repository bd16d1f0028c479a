"""Several writers and readers of one repository: threads, processes, one opened twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees
from operations.writing import take_snapshots

import packstone


def make_sources(tmp_path: Path, count: int) -> list[Path]:
    """Make trees that share most of their content."""
    shared = random.Random(0).randbytes(400_000)
    sources = []
    for at in range(count):
        source = tmp_path / f"source {at}"
        source.mkdir()
        for name in range(40):
            (source / f"small {name}").write_bytes(b"%d" % (name * (at + 1)) * 50)
        (source / "shared").write_bytes(shared)
        (source / "own").write_bytes(random.Random(at + 1).randbytes(300_000))
        sources.append(source)
    return sources


def judge(location: Path, sources: list[Path], rounds: int, tmp_path: Path) -> None:
    """All acknowledged snapshots are there, restore, and the repository is sound."""
    with packstone.open(location) as repository:
        assert len(repository.snapshots()) == rounds * len(sources)
        for source in sources:
            for back in range(rounds):
                spec = repository.snapshots(paths=[source])[back].id
                target = tmp_path / f"target {source.name} {back}"
                assert repository.restore(spec, target, path=bytes(source)).errors == []
                assert_equal_trees(source, target, top=False)
        checked = repository.check(read_data=True)
        assert checked.errors == []


@pytest.mark.parametrize("shared", [True, False], ids=["one object", "opened twice"])
def test_threads(tmp_path: Path, shared: bool) -> None:
    """Also a stress of what threads share: compressors, buffers, the view (row 23)."""
    sources = make_sources(tmp_path, 3)
    location = tmp_path / "repository"
    packstone.init(location, chunk_size=4096).close()
    failures: list[BaseException] = []

    def run(repository: packstone.Repository, source: Path) -> None:
        try:
            for _ in range(3):
                assert repository.snapshot([source]).errors == []
        except BaseException as error:
            failures.append(error)

    opened = [packstone.open(location)]
    opened += [opened[0] if shared else packstone.open(location) for _ in sources[1:]]
    threads = [
        threading.Thread(target=run, args=pair) for pair in zip(opened, sources, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for repository in set(opened):
        repository.close()
    assert failures == []
    judge(location, sources, 3, tmp_path)


def test_processes(tmp_path: Path) -> None:
    sources = make_sources(tmp_path, 2)
    location = tmp_path / "repository"
    packstone.init(location, chunk_size=4096).close()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["operations.writing"])
    barrier = context.Barrier(len(sources))
    processes = [
        context.Process(target=take_snapshots, args=(str(location), str(source), 4, barrier))
        for source in sources
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    judge(location, sources, 4, tmp_path)


def test_opened_twice_each_sees_the_other(tmp_path: Path, source: Path) -> None:
    (source / "file").write_bytes(os.urandom(50_000))
    location = tmp_path / "repository"
    with packstone.init(location) as one, packstone.open(location) as two:
        assert two.snapshots() == []
        first = one.snapshot([source])
        assert [row.id for row in two.snapshots()] == [first.snapshot_id]
        assert two.restore("latest", tmp_path / "target", path=bytes(source)).errors == []
        assert_equal_trees(source, tmp_path / "target", top=False)
        again = two.snapshot([source])
        assert again.parent_id == first.snapshot_id
        assert again.chunks_new == 0, "one must find what the other has stored"
        one.close()
        assert two.check(read_data=True).errors == []
        assert two.snapshot([source]).errors == []


def test_what_came_after_it_was_opened(tmp_path: Path, source: Path) -> None:
    """A reader that stays open finds every later snapshot of others, not only the first."""
    location = tmp_path / "repository"
    with packstone.init(location) as writer, packstone.open(location) as reader:
        for at in range(4):
            (source / f"file {at}").write_bytes(os.urandom(50_000))
            writer.snapshot([source])
            target = tmp_path / f"target {at}"
            assert reader.restore("latest", target, path=bytes(source)).errors == []
            assert_equal_trees(source, target, top=False)
        assert reader.check(read_data=True).errors == []
        again = reader.snapshot([source])
        assert again.chunks_new == 0, "what others stored since must be found"


def test_opened_for_the_first_time_by_several_threads(big_place: Path, source: Path) -> None:
    """The index is new: whoever comes second must not empty it once more."""
    (source / "file").write_bytes(os.urandom(50_000))
    for trial in range(30):
        location = big_place / f"repository {trial}"
        packstone.init(location).close()
        opened = [packstone.open(location) for _ in range(3)]
        barrier = threading.Barrier(len(opened))
        failures: list[BaseException] = []

        def run(repository: packstone.Repository) -> None:
            try:
                barrier.wait()
                assert repository.snapshot([source]).errors == []
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(repository,)) for repository in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        for repository in opened:
            assert len(repository.snapshots()) == 3
            assert repository.check(read_data=True).errors == []
            repository.close()


def test_a_reader_while_a_writer_works(tmp_path: Path, source: Path) -> None:
    """Restores and checks during snapshots: what is listed can be restored."""
    (source / "file").write_bytes(os.urandom(300_000))
    location = tmp_path / "repository"
    failures: list[BaseException] = []
    stop = threading.Event()

    def read() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                with packstone.open(location) as reader:
                    target = tmp_path / f"target {number}"
                    result = reader.restore("latest", target, path=bytes(source))
                    assert result.errors == []
                    if number % 4 == 0:
                        assert reader.check(read_data=True).errors == [], "a false alarm"
        except BaseException as error:
            failures.append(error)

    with packstone.init(location, chunk_size=4096) as writer:
        writer.snapshot([source])
        thread = threading.Thread(target=read)
        thread.start()
        for at in range(12):
            (source / f"file {at}").write_bytes(os.urandom(100_000))
            assert writer.snapshot([source]).errors == []
        stop.set()
        thread.join()
        assert failures == []
        assert writer.check(read_data=True).errors == []


def test_an_exclusive_lock_keeps_others_out(tmp_path: Path) -> None:
    from packstone.repository.locks import Lock
    from packstone.storage.local import LocalStorage

    location = tmp_path / "repository"
    packstone.init(location).close()
    lock = Lock(LocalStorage(str(location)), exclusive=True)
    with pytest.raises(packstone.RepositoryLocked):
        packstone.open(location)
    lock.release()
    with packstone.open(location), pytest.raises(packstone.RepositoryLocked):
        Lock(LocalStorage(str(location)), exclusive=True)
    Lock(LocalStorage(str(location)), exclusive=True).release()


def test_a_sweep_meanwhile_withdraws_the_snapshot(
    repository: packstone.Repository, source: Path
) -> None:
    """The generation is compared before and after the commit (docs/format.md §7)."""
    from packstone.repository import layout

    (source / "file").write_bytes(b"1")
    repository.snapshot([source])
    storage = repository._objects.storage
    sealer = repository._objects.sealer

    def sweep(_: packstone.Progress) -> None:
        state = layout.State(generation=os.urandom(16))
        storage.put(layout.STATE, layout.encode_state(state, sealer, os.urandom(32)))

    with pytest.raises(packstone.GenerationChanged):
        repository.snapshot([source], progress=sweep)
    assert len(repository.snapshots()) == 1
    assert repository.snapshot([source]).errors == []
