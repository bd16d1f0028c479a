"""Locks that are old, from elsewhere, or garbage, and writers that were suspended (row C2).

A writer is stopped at any step of a snapshot, as by a lid that was closed; meanwhile everything
beside the lock says that it died long ago. No sweep goes on under it; where somebody has taken
the lock's very file away, the writer finds out before it reports anything.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from campaign import Caught, campaign, control, trials, try_seeds
from faults import Plan, faulty
from operations.pruning import History

import packstone
from packstone.repository.layout import MAX_ENVELOPE, STATE
from packstone.repository.locks import HOLDERS, LOCK, Lock, holders
from packstone.repository.sweep import newest
from packstone.storage.local import LocalStorage

SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SUSPENDED = 31 * 60  # seconds; others take a lock for dead after 30 minutes


def stop_here(step: str) -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def stopped(work: Callable[[], None], at: int) -> tuple[int, bool]:
    """Run something in a child that stops itself at a step; return it, and whether it stopped."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with faulty(Plan(stop_here, at)):
                work()
            code = 0
        except (packstone.GenerationChanged, packstone.StorageError):
            code = 2  # what it had written was cleared away, or counts no more
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, os.WUNTRACED)
    if os.WIFSTOPPED(status):
        return child, True
    assert os.waitstatus_to_exitcode(status) == 0
    return child, False


def disguise(location: Path, chance: Random) -> bool:
    """Let it look as if whoever holds the lock were long dead; return whether its file stays."""
    notes = location / HOLDERS
    since = chance.choice(["1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z", "yesterday", ""])
    note = {"host": "elsewhere", "pid": 1, "since": since, "exclusive": chance.random() < 0.5}
    garbage = [b"", b"\0" * 100, chance.randbytes(5000), json.dumps(note).encode(), b"[" * 4000]
    for path in [*notes.glob("*")]:
        if chance.random() < 0.5:
            path.write_bytes(chance.choice(garbage))
        elif chance.random() < 0.3:
            path.unlink()
    for number in range(chance.randrange(3)):
        (notes / f"foreign {number}").write_bytes(chance.choice(garbage))
    if chance.random() < 0.3:
        (location / LOCK).write_bytes(chance.choice(garbage))
    replaced = chance.random() < 0.2
    if replaced:
        (location / LOCK).unlink()
        if chance.random() < 0.5:
            (location / LOCK).write_bytes(b"")
    now = (location / "config").stat().st_mtime
    for path in [location / LOCK, *notes.glob("*")]:
        time = now + chance.choice([-SUSPENDED, -(10**9), 10**9])
        with contextlib.suppress(FileNotFoundError):
            os.utime(path, (time, time))
    return not replaced


def trial(seed: int) -> None:
    chance = Random(f"locks {seed}")
    with tempfile.TemporaryDirectory(prefix="packstone-", dir=SHARED) as place:
        history = History(Path(place), f"locks {seed}", chunk=4096)
        history.rows = history.rows[:50]
        with history.open(threads=1) as repository:
            history.fill(repository, 2)
        # What was forgotten is in packs that a sweep may take, and that the writer counts on.
        gone = chance.choice(sorted(history.stored))
        again = history.stored[gone]
        history.forget(gone)
        history.contents = dict(again) | {"new": chance.randbytes(3000)}
        history.write(history.contents)
        taken = Path(place, "taken")

        def work() -> None:
            with history.open(threads=1) as repository:
                result = repository.snapshot([history.source])
                taken.write_text(result.snapshot_id or "")

        child, is_stopped = stopped(work, chance.randrange(45))
        try:
            if is_stopped:
                before = history.packs()
                # At the first steps it has no lock yet, at the last ones no more.
                holds = bool(holders(LocalStorage(str(history.location))))
                holds = disguise(history.location, chance) and holds
                command = chance.choice(["prune", "prune", "rebase"])
                with history.open(threads=1) as repository:
                    try:
                        repository.prune(max_unused=0.0, rebase=command == "rebase")
                    except packstone.RepositoryLocked:
                        assert before.items() <= history.packs().items()
                    else:
                        assert not holds or before.items() <= history.packs().items(), (
                            "a sweep under a writer that lives"
                        )
        finally:
            if is_stopped:
                os.kill(child, signal.SIGCONT)
                _, status = os.waitpid(child, 0)
                code = os.waitstatus_to_exitcode(status)
        if is_stopped:
            assert code in ((0,) if holds else (0, 2)), f"the writer ended with {code}"
        if taken.exists():
            history.stored[taken.read_text()] = history.contents
        with history.open(threads=1) as repository:
            history.verify(repository)
            repository.prune(max_unused=0.0)
            history.verify(repository)


def test_a_writer_that_was_suspended(cache: Path) -> None:
    with campaign("C2", "prune while a snapshot is stopped at any step") as row:
        try_seeds(row, trials(15, 500), trial, cache)


def test_a_lock_that_ages_would_be_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others do: a lock that nobody has touched for half an hour is taken for dead."""
    held = Lock._try

    def hasty(self: Lock, exclusive: bool) -> bool:
        path = self._storage.full_path(LOCK)
        age = os.stat(self._storage.full_path("config")).st_mtime - os.stat(path).st_mtime
        return held(self, exclusive) or age >= 30 * 60

    monkeypatch.setattr(Lock, "_try", hasty)
    with control("C2", "a lock expires by its age") as row:
        for seed in range(60):
            try:
                trial(seed)
            except AssertionError as error:
                assert "a sweep under a writer" in str(error)
                raise Caught from error
            row.trials += 1


def test_a_sweep_between_two_looks_at_the_state(cache: Path, tmp_path: Path) -> None:
    """Its bytes were read, another one swept, then they were looked at: nobody played tricks."""
    history = History(tmp_path, "looks", chunk=4096)
    with history.open() as repository:
        history.fill(repository, 2)
        objects = repository._objects
        before = objects.storage.get(STATE, MAX_ENVELOPE)
        history.forget(next(iter(history.stored)))
        repository.prune(max_unused=0.0)
        state = newest(objects.storage, objects.sealer, before)
        assert state.generation == objects.generation()
        (history.location / STATE).write_bytes(before)
        with pytest.raises(packstone.Damaged, match="older than one"):
            newest(objects.storage, objects.sealer, before)
