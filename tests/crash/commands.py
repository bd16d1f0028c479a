"""The commands that campaigns kill, fail and cut off: a new one is one row of the table.

A stage is a repository with two acknowledged snapshots and a source that has changed since. A
command runs on it once; `judge` then finds everything that was acknowledged before, and the new
thing either absent or whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from compare_trees import Description, describe, differences

import packstone
from packstone.codec.keys import Argon2

CHEAP = Argon2(time=1, memory=8192, lanes=1)
FIRST, SECOND = "first words", "second words"


@dataclass(frozen=True)
class Stage:
    """Where a command runs; `passphrases` are those that must open it (none: it is plain)."""

    location: Path
    source: Path
    passphrases: tuple[str, ...] = ()
    stored: dict[str, dict[bytes, Description]] = field(default_factory=dict)

    def open(self, passphrase: str | None = None) -> packstone.Repository:
        """Open it as the command does: in one thread, so that steps come in one order."""
        given = passphrase or (self.passphrases[0] if self.passphrases else None)
        return packstone.open(self.location, threads=1, passphrase=given)

    def at(self, location: Path) -> Stage:
        """Return the same stage in another place."""
        return replace(self, location=location)


def change(source: Path, chance: Random, turn: int) -> None:
    """Change a source a bit: it has files of one record, of several, a link, a directory."""
    (source / "below").mkdir(parents=True, exist_ok=True)
    (source / f"file {turn}").write_bytes(chance.randbytes(chance.randrange(1, 5000)))
    # Replaced each time: of a pack of an older snapshot, some is needed by none, some by others.
    (source / "below" / "long").write_bytes(chance.randbytes(40_000))
    os.symlink(f"file {turn}", source / f"link {turn}")


def make_stage(place: Path, seed: int = 1, *, encrypted: bool = False) -> Stage:
    """Make a repository with two snapshots, and a source that has changed since."""
    chance = Random(seed)
    source, location = place / "source", place / "repository"
    passphrases = (FIRST, SECOND) if encrypted else ()
    stored = {}
    with packstone.init(
        location, chunk_size=4096, passphrase=FIRST if encrypted else None, argon2=CHEAP
    ) as repository:
        if encrypted:
            repository.add_key(SECOND, argon2=CHEAP)
        for turn in range(3):
            change(source, chance, turn)
            if turn < 2:
                result = repository.snapshot([source])
                stored[result.snapshot_id or ""] = describe(source, top=False)
    return Stage(location, source, passphrases, stored)


def opens(stage: Stage, passphrase: str) -> bool:
    try:
        stage.open(passphrase).close()
    except packstone.WrongPassphrase:
        return False
    return True


# -- what the commands do -------------------------------------------------------------------


def snapshot(stage: Stage) -> None:
    with stage.open() as repository:
        assert repository.snapshot([stage.source]).errors == []


def init(stage: Stage) -> None:
    passphrase = stage.passphrases[0] if stage.passphrases else None
    packstone.init(stage.location, chunk_size=4096, passphrase=passphrase, argon2=CHEAP).close()


def key_add(stage: Stage) -> None:
    with stage.open() as repository:
        repository.add_key("third words", argon2=CHEAP)


def key_passwd(stage: Stage) -> None:
    with stage.open() as repository:
        repository.change_passphrase("other words", argon2=CHEAP)


def key_remove(stage: Stage) -> None:
    with stage.open(SECOND) as repository:
        slot = repository._objects.slot_id  # a list would leave it out if it does not read
    with stage.open() as repository:
        repository.remove_key(slot)


def forget(stage: Stage) -> None:
    """Forget the first snapshot."""
    with stage.open() as repository:
        repository.forget([next(iter(stage.stored))])


def prune(stage: Stage) -> None:
    """Of packs that a forgotten snapshot has left, some dead and some half-dead."""
    with stage.open() as repository:
        repository.prune(max_unused=0)


# -- what must be true afterwards -----------------------------------------------------------


def judge(stage: Stage, *, done: bool) -> bool:
    """Check that all that was acknowledged is there; return whether something new is.

    `done` says that the command was acknowledged, too.
    """
    with stage.open(usable(stage)) as repository:
        there = {row.id for row in repository.snapshots()}
        assert stage.stored.keys() <= there, "an acknowledged snapshot is gone"
        new = there - stage.stored.keys()
        assert len(new) <= 1
        target = stage.location.with_name(f"target of {stage.location.name}")
        for snapshot_id in there:
            expected = stage.stored.get(snapshot_id) or describe(stage.source, top=False)
            result = repository.restore(snapshot_id, target, path=bytes(stage.source))
            assert result.errors == []
            assert differences(expected, describe(target, top=False)) == []
            shutil.rmtree(target)
        assert repository.check(read_data=True).errors == []
        assert repository.warnings == []
    return bool(new)


def usable(stage: Stage) -> str | None:
    """Return a passphrase that opens a stage, whatever became of a change of keys."""
    if not stage.passphrases:
        return None
    for passphrase in (*stage.passphrases, "other words"):
        if opens(stage, passphrase):
            return passphrase
    raise AssertionError("no passphrase opens the repository any more")


def judge_snapshot(stage: Stage, *, done: bool) -> bool:
    new = judge(stage, done=done)
    assert new or not done, "the acknowledged snapshot is gone"
    return new


def judge_init(stage: Stage, *, done: bool) -> bool:
    """There is a sound repository, or none; then it can be made, in an emptied place at worst."""
    try:
        stage.open().close()
    except packstone.RepositoryMissing:
        assert not done, "the acknowledged repository is gone"
        try:
            init(stage)
        except packstone.UsageError:
            shutil.rmtree(stage.location)
            init(stage)
        found = False
    else:
        found = True
    with stage.open() as repository:
        assert repository.snapshot([stage.source]).errors == []
        assert repository.check(read_data=True).errors == []
    return found


def judge_key_add(stage: Stage, *, done: bool) -> bool:
    assert all(opens(stage, each) for each in stage.passphrases), "a passphrase was lost"
    judge(stage, done=done)
    new = opens(stage, "third words")
    assert new or not done
    return new


def judge_key_passwd(stage: Stage, *, done: bool) -> bool:
    old, other = stage.passphrases
    assert opens(stage, other), "the other passphrase was lost"
    new = opens(stage, "other words")
    assert new or opens(stage, old), "neither passphrase opens it"
    assert not done or (new and not opens(stage, old))
    judge(stage, done=done)
    return new


def judge_key_remove(stage: Stage, *, done: bool) -> bool:
    assert opens(stage, stage.passphrases[0]), "the passphrase that was to stay is gone"
    gone = not opens(stage, stage.passphrases[1])
    assert gone or not done
    judge(stage, done=done)
    return gone


def judge_forget(stage: Stage, *, done: bool) -> bool:
    """The first snapshot is whole or gone; the other one is there."""
    first, second = stage.stored
    with stage.open() as repository:
        there = {row.id for row in repository.snapshots()}
    gone = first not in there
    assert gone or not done
    kept = {second} if gone else {first, second}
    judge(replace(stage, stored={each: stage.stored[each] for each in kept}), done=done)
    return gone


# -- the table ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command of the table.

    `judge` says whether the new thing is there; `alters` changes the stage before the command,
    unobserved.
    """

    name: str
    run: Callable[[Stage], None]
    judge: Callable[..., bool]
    encrypted: bool = False
    alters: Callable[[Stage], Stage] = lambda stage: stage


def emptied(stage: Stage) -> Stage:
    """Nothing is there yet."""
    shutil.rmtree(stage.location)
    return replace(stage, stored={})


def with_garbage(stage: Stage) -> Stage:
    """The first snapshot is gone and its packs are not."""
    first = next(iter(stage.stored))
    (stage.location / "snapshots" / first).unlink()
    stored = {each: row for each, row in stage.stored.items() if each != first}
    return replace(stage, stored=stored)


COMMANDS = [
    Command("init", init, judge_init, alters=emptied),
    Command("init, encrypted", init, judge_init, encrypted=True, alters=emptied),
    Command("snapshot", snapshot, judge_snapshot),
    Command("snapshot, encrypted", snapshot, judge_snapshot, encrypted=True),
    Command("key add", key_add, judge_key_add, encrypted=True),
    Command("key passwd", key_passwd, judge_key_passwd, encrypted=True),
    Command("key remove", key_remove, judge_key_remove, encrypted=True),
    Command("forget", forget, judge_forget),
    Command("prune", prune, judge, alters=with_garbage),
    Command("prune, encrypted", prune, judge, encrypted=True, alters=with_garbage),
    # copy, repair and later ones: one row each
]


def forget_serials() -> None:
    """Let an older `state` be taken for the newest: trials go back in time, disks do not."""
    shutil.rmtree(Path(os.environ["PACKSTONE_CACHE_DIR"], "serials"), ignore_errors=True)


@contextlib.contextmanager
def copies(original: Stage) -> Iterator[Callable[[], Stage]]:
    """Give a fresh copy of a stage at each call, and remove the one before."""
    location = original.location.with_name("copy")

    def make() -> Stage:
        forget_serials()
        shutil.rmtree(location, ignore_errors=True)
        if original.location.exists():
            shutil.copytree(original.location, location, symlinks=True)
        return original.at(location)

    yield make
    shutil.rmtree(location, ignore_errors=True)
