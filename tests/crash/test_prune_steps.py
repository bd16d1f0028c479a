"""Everything that can end a prune, at every step of it (rows K1, E1, E3 and 1).

Whatever happens: every snapshot restores byte for byte, check finds nothing, the next snapshot
and the next prune work, and no marker is left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import faults
import pytest
from faults import Plan, faulty, in_child
from operations.pruning import History

import packstone
from packstone.repository.layout import read_state
from packstone.repository.repository import ObjectRepository

ROOM = ObjectRepository.room
SOAK = os.environ.get("HYPOTHESIS_PROFILE") == "soak"


class Scene:
    """A history with packs that nobody needs and packs in partial use, made afresh each time."""

    def __init__(self, place: Path, rebase: bool, in_groups: bool = False) -> None:
        self.rebase = rebase
        # Rebasing and groups take the same steps again: every one of them with a soak profile.
        self.stride = 4 if rebase else 8 if in_groups else 1
        self.history = history = History(place, "crash", chunk=4096 if not rebase else 32 << 10)
        history.rows = history.rows[:900] if not rebase else history.rows
        stays = [history.chance.randbytes(3000) for _ in range(4)] if in_groups else []
        with history.open(threads=1) as repository:
            for at in range(4):
                history.contents = {
                    f"own {at}": history.chance.randbytes(5000),
                    "shared": b"shared" * 1000,
                    "dump": b"".join(history.rows[at:]),
                } | {f"stays {each}": data for each, data in enumerate(stays[: at + 1])}
                if at > 1:
                    history.contents["kept"] = bytes(history.chance.randbytes(3000))
                history.take(repository)
                if at == 1:
                    alone = {"alone": history.chance.randbytes(100_000)}
                    history.contents = alone
                    history.take(repository)
        first, second, third, *_rest = history.stored
        history.forget(first, third, *([second] if in_groups else []))
        self.original = place / "original"
        history.location.rename(self.original)
        self.stored = dict(history.stored)

    def fresh(self) -> None:
        shutil.rmtree(self.history.location, ignore_errors=True)
        shutil.rmtree(os.environ["PACKSTONE_CACHE_DIR"], ignore_errors=True)
        shutil.copytree(self.original, self.history.location)
        self.history.stored = dict(self.stored)

    def prune(self) -> packstone.PruneResult:
        """Prune in one thread, so that steps come in one order."""
        with self.history.open(threads=1) as repository:
            return repository.prune(max_unused=0.0, rebase=self.rebase)

    def steps(self, verbs: frozenset[str] | None = None) -> list[str]:
        self.fresh()
        plan = Plan(verbs=verbs)
        with faulty(plan):
            self.prune()
        return plan.steps

    def state(self) -> tuple[bytes, bytes | None]:
        with packstone.open(self.history.location) as repository:
            objects = repository._objects
            state = read_state(objects.storage, objects.sealer)
            return state.generation, state.sweep

    def after(self, generation: bytes, packs: set[str]) -> None:
        """Require what must hold after every end."""
        history = self.history
        found, marker = self.state()
        if not packs <= history.packs().keys():
            assert found != generation, "packs went under the old generation"
        if marker is not None:
            assert found != generation
        with history.open(threads=1) as repository:
            history.verify(repository)
            history.contents = {"new": b"new" * 1000, "shared": b"shared" * 1000}
            history.take(repository)
        if marker is not None:
            ended, marker = self.state()
            assert ended != found, "whoever ends a sweep sets a new generation"
        assert marker is None
        assert list((history.location / "tmp").iterdir()) == [] or marker is None
        with history.open(threads=1) as repository:
            repository.prune(max_unused=0.0, rebase=self.rebase)
            again = repository.prune(max_unused=0.0, rebase=self.rebase)
            assert again.packs_deleted == again.packs_rewritten == 0
            history.verify(repository)
        assert list((history.location / "tmp").iterdir()) == []


@pytest.fixture(scope="module", params=["plain prune", "rebase", "in groups"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="packstone-", dir=shared) as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("PACKSTONE_CACHE_DIR", f"{place}/cache")
        in_groups = request.param == "in groups"
        if in_groups:  # a disk with room for one pack at a time
            patch.setattr(ObjectRepository, "room", lambda repository: 0)
        yield Scene(Path(place), request.param == "rebase", in_groups)


def test_how_many_groups(scene: Scene) -> None:
    scene.fresh()
    states = scene.steps().count("commit state")
    scene.fresh()
    rewritten = scene.prune().packs_rewritten
    assert rewritten > 1
    # A sweep writes the state twice; the first one deletes what nobody needs.
    room_for_one = ObjectRepository.room is not ROOM
    assert states == 2 + (2 * rewritten if room_for_one else 2)


def trial(scene: Scene, run: Callable[[], object]) -> None:
    scene.fresh()
    generation, _marker = scene.state()
    packs = set(scene.history.packs())
    run()
    scene.after(generation, packs)


def test_the_order_of_a_sweep(scene: Scene) -> None:
    """docs/format.md §7, from outside: marker, deletions, index, state without it."""
    steps = [step for step in scene.steps() if not step.startswith("done")]
    deletions = [at for at, step in enumerate(steps) if step == "delete packs"]
    states = [at for at, step in enumerate(steps) if step == "commit state"]
    packs = [at for at, step in enumerate(steps) if step == "commit packs"]
    assert deletions and packs and len(states) % 2 == 0
    for at in deletions:
        begun = [state for state in states if state < at]
        assert len(begun) % 2 == 1, "no pack goes outside of a sweep"
        ended = min(state for state in states if state > at)
        last = max(each for each in deletions if each < ended)
        assert any("index" in step for step in steps[last:ended]), "the index follows before"
    assert min(deletions) < min(packs), "what nobody needs goes first"


def test_death_at_every_step(scene: Scene) -> None:
    steps = scene.steps()
    assert len(steps) > 60
    for at in range(0, len(steps), 1 if SOAK else scene.stride):

        def run(at: int = at) -> None:
            def child() -> None:
                with faulty(Plan(faults.leave, at)):
                    scene.prune()

            assert in_child(child) == faults.EXIT_CODE, steps[at]

        trial(scene, run)


@pytest.mark.parametrize("action", [faults.interrupt, faults.unavailable])
def test_an_exception_at_every_sixth_step(scene: Scene, action: faults.Action) -> None:
    """Ctrl-C, or a disk with errors: it is raised, whatever step it met."""
    steps = scene.steps()
    for at in range(0, len(steps), 1 if SOAK else 6):

        def run(at: int = at) -> None:
            errors = (KeyboardInterrupt, packstone.StorageUnavailable)
            with faulty(Plan(action, at)), pytest.raises(errors):
                scene.prune()

        trial(scene, run)


@pytest.mark.parametrize("onwards", [False, True], ids=["once", "from then on"])
def test_a_full_disk_at_every_write(scene: Scene, onwards: bool) -> None:
    for at in range(0, len(scene.steps(faults.WRITES)), 1 if SOAK else scene.stride):

        def run(at: int = at) -> None:
            plan = Plan(faults.full, at, onwards=onwards, verbs=faults.WRITES)
            if at == 0 and not onwards:
                # The index is opened: where it has no room, another one is taken elsewhere.
                with faulty(plan):
                    assert any("used instead" in each for each in scene.prune().warnings)
            else:
                with faulty(plan), pytest.raises(packstone.StorageFull):
                    scene.prune()
            assert plan.fired

        trial(scene, run)
