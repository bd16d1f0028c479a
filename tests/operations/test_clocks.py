"""Clocks that lie, and files that are as old as somebody says (row T1).

No deletion rests on the time of day: whatever the clock says, and whatever dates packs carry,
the newest snapshots stay, those that stay restore, and what nobody needs goes all the same.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from random import Random

import pytest
from campaign import Caught, campaign, control, trials, try_seeds
from hypothesis import given
from hypothesis import strategies as st
from operations.pruning import History

import packstone
from packstone.model import Snapshot
from packstone.operations.prune_plan import PackUse
from packstone.operations.prune_proof import Proof
from packstone.repository.retention import Retention, apply_retention
from packstone.repository.snapshots import SnapshotRow
from packstone.testing import Clock

SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NOW = 1_795_000_000 * SECOND
# the beginning, the last second of 32 bits and the one after it, a flat battery, far ahead
TIMES = [0, (2**31 - 1) * SECOND, 2**31 * SECOND, 315_532_800 * SECOND, NOW, NOW + 400 * 365 * DAY]

times = st.one_of(st.sampled_from(TIMES), st.integers(0, NOW + 1000 * DAY))


@given(
    taken=st.lists(times, max_size=12),
    now_ns=times,
    other_ns=times,
    last=st.integers(0, 3),
    daily=st.integers(0, 3),
    within=st.sampled_from(["", "12h", "30d", "1y"]),
)
def test_a_wrong_clock_forgets_nothing_more(
    taken: list[int], now_ns: int, other_ns: int, last: int, daily: int, within: str
) -> None:
    """Row T1, 5,000 examples in `make soak`: an earlier clock keeps all that a later one does."""
    if not (last or daily or within):
        last = 1
    rows = [
        SnapshotRow(
            f"{number:064x}", Snapshot(time_ns=time, host="h", paths=[b"/"], tree=b"t" * 32)
        )
        for number, time in enumerate(taken)
    ]
    policy = Retention(last=last, daily=daily, within=within)

    def forgotten(now_ns: int) -> set[str]:
        groups = apply_retention(rows, policy, now_ns=now_ns)
        return {row.id for group in groups for row in group.forget}

    early, late = sorted([now_ns, other_ns])
    ever = forgotten(max([0, *taken]))
    for now in (early, late):
        newest = (
            sorted(rows, key=lambda row: (row.snapshot.time_ns, row.id))[-last:] if last else []
        )
        assert not forgotten(now) & {row.id for row in newest}
        counted = [row for row in rows if row.snapshot.time_ns <= now]
        assert forgotten(now) <= {row.id for row in counted}
    if not (daily or within):
        assert forgotten(early) <= forgotten(late) <= ever


def date_everything(history: History, chance: Random) -> None:
    """Give each stored file a date of its own."""
    for path in history.location.rglob("*"):
        if path.is_file() and "index" not in path.parts:
            time = chance.choice([*TIMES, NOW - chance.randrange(4000) * DAY])
            os.utime(path, ns=(time, time))


def trial(seed: int) -> None:
    """Some days under clocks that jump, a policy, a prune; judged as on any other day."""
    chance = Random(f"clocks {seed}")
    with tempfile.TemporaryDirectory(prefix="packstone-", dir=SHARED) as place:
        history = History(Path(place), f"clocks {seed}", chunk=4096)
        history.rows = history.rows[:50]
        clock = Clock(NOW)
        for _ in range(chance.randrange(2, 6)):
            # while a command runs it stands still, runs, or falls back by a day each time
            clock = Clock(chance.choice([*TIMES, clock()]), tick_ns=chance.choice([0, 1, -DAY]))
            with packstone.Repository(history.location, clock=clock, threads=1) as repository:
                history.change()
                history.take(repository, **({"read_all": True} if chance.random() < 0.2 else {}))
        date_everything(history, chance)
        clock.set(chance.choice(TIMES))
        keep = chance.randrange(1, 4)
        with packstone.Repository(history.location, clock=clock, threads=1) as repository:
            rows = sorted(repository.snapshots(), key=lambda row: (row.snapshot.time_ns, row.id))
            gone = repository.forget(keep=packstone.Retention(last=keep)).forgotten
            assert not {row.id for row in gone} & {row.id for row in rows[-keep:]}
            for row in gone:
                del history.stored[row.id]
            repository.prune(max_unused=0.0)
            history.verify(repository)
            again = repository.prune(max_unused=0.0)
            assert again.packs_deleted == again.packs_rewritten == 0


def test_clocks_that_jump(cache: Path) -> None:
    with campaign("T1", "snapshot, forget, prune under clocks that jump") as row:
        try_seeds(row, trials(15, 2000), trial, cache)


def test_deleting_by_date_would_be_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What others do: a pack that is old enough and that no snapshot of late names may go."""
    from packstone.operations import prune

    plan = prune.make_plan

    def by_date(uses: list[PackUse], **options: object) -> object:
        made = plan(uses, **options)  # type: ignore[arg-type]
        made.delete.extend(made.rewrite or uses)
        made.rewrite.clear()
        return made

    def old(self: Proof) -> set[str]:
        storage = self._repository.storage
        return {
            pack_id
            for pack_id in self.unneeded
            if os.stat(storage.full_path(f"packs/{pack_id[:2]}/{pack_id}")).st_mtime_ns < NOW - DAY
        }

    monkeypatch.setattr(prune, "make_plan", by_date)
    monkeypatch.setattr(Proof, "run", old)
    with control("T1", "packs are deleted by their dates") as row:
        for seed in range(50):
            try:
                trial(seed)
            except (packstone.ObjectMissing, AssertionError) as error:
                # a tree that is gone ends a restore, a chunk is named in what it returns
                raise Caught from error
            row.trials += 1
