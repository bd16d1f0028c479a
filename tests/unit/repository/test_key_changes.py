"""Keys of a repository: added, changed, removed, and whatever ends a change half-way."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import faults
import pytest
from faults import Plan, faulty, in_child
from unit.repository.slots import CHEAP

from packstone.codec.keys import Argon2, recovery_key
from packstone.errors import Damaged, PackstoneError, UsageError, WrongPassphrase
from packstone.model import KIB
from packstone.operations import keys
from packstone.repository import keyring
from packstone.repository.repository import ObjectRepository, init


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def location(tmp_path: Path) -> str:
    """A new encrypted repository, whose passphrase is `old`."""
    path = str(tmp_path / "store")
    init(path, average=4096, pack_size=1 << 20, level=3, passphrase="old", cost=CHEAP)
    return path


@pytest.fixture
def opened(location: str) -> Iterator[ObjectRepository]:
    repository = ObjectRepository(location, passphrase="old")
    yield repository
    repository.close()


def opens(location: str, passphrase: str) -> bool:
    try:
        repository = ObjectRepository(location, passphrase=passphrase)
    except WrongPassphrase:
        return False
    assert repository.warnings == []
    repository.close()
    return True


def test_keys_are_added_listed_and_removed(opened: ObjectRepository, location: str) -> None:
    first = opened.slot_id
    second = keys.add_key(opened, "two", label="work", cost=CHEAP)
    third, key = keys.add_recovery_key(opened, label="safe", cost=CHEAP)
    rows = {row.id: row for row in keys.list_keys(opened)}
    assert set(rows) == {first, second, third}
    assert [(rows[i].role, rows[i].label, rows[i].current) for i in (first, second, third)] == [
        ("passphrase", "", True), ("passphrase", "work", False), ("recovery", "safe", False),
    ]  # fmt: skip
    assert {(row.time, row.memory, row.lanes) for row in rows.values()} == {(1, 8 * KIB, 1)}
    assert all(opens(location, each) for each in ("old", "two", key, key.lower()))
    assert keys.remove_key(opened, second[:12]) == second
    assert not opens(location, "two") and opens(location, "old") and opens(location, key)


def test_a_recovery_key_is_of_160_random_bits(opened: ObjectRepository) -> None:
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return Random(len(asked)).randbytes(size)

    _, key = keys.add_recovery_key(opened, cost=CHEAP, random=random)
    assert asked == [20, 32]
    assert key == recovery_key(Random(1).randbytes(20))


def test_a_damaged_key_is_listed(opened: ObjectRepository, location: str) -> None:
    bad = keys.add_key(opened, "two", cost=CHEAP)
    (Path(location) / "keys" / bad).write_bytes(b"damaged")
    rows = keys.list_keys(opened)
    assert [row.id for row in rows] == [opened.slot_id, bad]
    assert rows[0].damage == "" and bad[:12] in rows[1].damage


def test_changing_a_passphrase(opened: ObjectRepository, location: str) -> None:
    old = opened.slot_id
    new = keys.change_passphrase(opened, "new", cost=CHEAP)
    assert opened.slot_id == new != old
    assert os.listdir(Path(location) / "keys") == [new]
    assert opens(location, "new") and not opens(location, "old")
    assert keys.change_passphrase(opened, "newer", cost=CHEAP) != new, "and once more"
    assert opens(location, "newer") and not opens(location, "new")


def test_changing_keeps_other_keys_and_the_label(opened: ObjectRepository, location: str) -> None:
    keys.add_key(opened, "two", label="work", cost=CHEAP)
    two = ObjectRepository(location, passphrase="two")
    new = keys.change_passphrase(two, "three", cost=CHEAP)
    assert {row.id: row.label for row in keys.list_keys(two)}[new] == "work"
    two.close()
    assert opens(location, "old") and opens(location, "three") and not opens(location, "two")


def test_a_passphrase_can_be_changed_though_no_slot_can_be_added(
    opened: ObjectRepository, location: str
) -> None:
    for number in range(keyring.MAX_SLOTS - 1):
        keys.add_key(opened, f"passphrase {number}", cost=CHEAP)
    keys.change_passphrase(opened, "new", cost=CHEAP)
    assert opens(location, "new") and not opens(location, "old")


def test_a_refused_passphrase_changes_nothing(opened: ObjectRepository, location: str) -> None:
    before = os.listdir(Path(location) / "keys")
    for wrong, cost in (("", CHEAP), ("x" * 70_000, CHEAP), ("new", Argon2(time=0))):
        with pytest.raises(UsageError):
            keys.change_passphrase(opened, wrong, cost=cost)
    assert os.listdir(Path(location) / "keys") == before and opens(location, "old")


def test_import_needs_no_passphrase(opened: ObjectRepository, location: str) -> None:
    """All slots are lost, and somebody has printed one."""
    text = keys.export_key(opened)
    (path,) = (Path(location) / "keys").iterdir()
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(Damaged, match="no key slot"):
        ObjectRepository(location, passphrase="old")
    assert keys.import_key(location, text) == opened.slot_id == path.name
    assert path.read_bytes() == data and opens(location, "old")


def test_a_plain_repository_has_no_keys(tmp_path: Path) -> None:
    path = str(tmp_path / "plain")
    init(path, average=4096, pack_size=1 << 20, level=3)
    repository = ObjectRepository(path)
    for act in (
        keys.list_keys, keys.export_key, lambda each: keys.add_key(each, "x"),
        lambda each: keys.change_passphrase(each, "x"), lambda each: keys.remove_key(each, "a"),
        keys.add_recovery_key, lambda each: keys.import_key(path, "1: AA / 00000"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match="plain"):
            act(repository)
    repository.close()


@pytest.mark.parametrize("options", [{"passphrase": ""}, {"cost": Argon2(time=0)}], ids=str)
def test_init_refuses_a_passphrase_before_it_writes(tmp_path: Path, options: Any) -> None:
    path = tmp_path / "store"
    options = {"average": 4096, "pack_size": 1 << 20, "level": 3, "passphrase": "x"} | options
    with pytest.raises(UsageError):
        init(str(path), **options)
    assert not path.exists()


# -- everything that can end a change of passphrase -----------------------------------------


def change(location: str) -> None:
    repository = ObjectRepository(location, passphrase="old")
    try:
        keys.change_passphrase(repository, "new", cost=CHEAP)
    finally:
        repository.close()


@pytest.fixture
def copies(location: str, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Make a fresh copy of the repository for each trial; only what a change can touch."""
    numbers = itertools.count()

    def make() -> str:
        path = tmp_path / f"copy {next(numbers)}"
        shutil.copytree(location, path, ignore=shutil.ignore_patterns("packs", "index"))
        return str(path)

    yield make


def steps_of(location: str) -> list[str]:
    plan = Plan()
    with faulty(plan):
        change(location)
    return plan.steps


def test_the_new_slot_is_durable_before_the_old_one_goes(copies: Callable[[], str]) -> None:
    steps = steps_of(copies())
    assert steps.index("done commit keys") < steps.index("delete keys")


def test_death_at_every_step_of_a_change(copies: Callable[[], str]) -> None:
    steps = steps_of(copies())
    assert len(steps) > 20
    seen = []
    for at in range(len(steps)):
        location = copies()

        def run(location: str = location, at: int = at) -> None:
            with faulty(Plan(faults.leave, at)):
                change(location)

        assert in_child(run) == faults.EXIT_CODE, steps[at]
        seen.append((opens(location, "old"), opens(location, "new")))
        assert any(seen[-1]), f"nobody can open it after {steps[at]}"
        if seen[-1][0]:
            change(location)  # the same command works when it is run again
            assert opens(location, "new") and not opens(location, "old")
    assert list(dict.fromkeys(seen)) == [(True, False), (True, True), (False, True)]


@pytest.mark.parametrize("action", [faults.interrupt, faults.unavailable, faults.full])
def test_an_exception_at_every_step_of_a_change(
    copies: Callable[[], str], action: faults.Action
) -> None:
    steps = steps_of(copies())
    for at in range(len(steps)):
        location = copies()
        with faulty(Plan(action, at)), pytest.raises((KeyboardInterrupt, PackstoneError)):
            change(location)
        assert opens(location, "old") or opens(location, "new"), steps[at]
        assert at >= steps.index("delete keys") or opens(location, "old"), steps[at]
