"""Slots come, go and are put back, and at every moment somebody who could open still can."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import faults
import msgspec
import pytest
from contract.storage_suite import MemoryStorage
from faults import Plan, faulty, in_child

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import checksum
from packstone.codec.keys import Argon2, KeySlot, Secrets, recovery_key
from packstone.errors import (
    Damaged,
    ObjectMissing,
    PackstoneError,
    RepositoryLocked,
    UsageError,
    WrongPassphrase,
)
from packstone.model import KIB
from packstone.operations import keys
from packstone.repository import keyring
from packstone.repository.repository import ObjectRepository, init
from packstone.storage.base import Storage
from packstone.storage.local import LocalStorage

OWNER = bytes(range(16))
SECRETS = Secrets(bytes(range(100, 132)), bytes(range(200, 232)))
CHEAP = Argon2(time=1, memory=8 * KIB, lanes=1)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(str(tmp_path / "store"))
    storage.make_directories(["tmp", "keys"])
    return storage


_salts = itertools.count()


def add(storage: Storage, passphrase: str, created_ns: int = 0, **options: Any) -> str:
    """Store a slot and return its id."""
    return keyring.store_slot(
        storage,
        SECRETS,
        passphrase,
        repository_id=OWNER,
        salt=checksum(b"%d" % next(_salts)),
        created_ns=created_ns,
        cost=CHEAP,
        **options,
    )


def unlock(
    storage: Storage, passphrase: str, warn: Callable[[str], Any] = pytest.fail
) -> tuple[Secrets, str]:
    return keyring.unlock(storage, OWNER, passphrase, warn)


def flip(storage: MemoryStorage, slot_id: str) -> None:
    data = bytearray(storage.files[f"keys/{slot_id}"])
    data[100] ^= 1
    storage.files[f"keys/{slot_id}"] = bytes(data)


# -- several slots --------------------------------------------------------------------------


def test_each_slot_opens_with_its_own_passphrase() -> None:
    storage = MemoryStorage()
    ids = [add(storage, f"passphrase {number}", number) for number in range(5)]
    for number, slot_id in enumerate(ids):
        assert unlock(storage, f"passphrase {number}") == (SECRETS, slot_id)
    with pytest.raises(WrongPassphrase, match="none of 5"):
        unlock(storage, "passphrase 5")
    slots, damaged = keyring.read_slots(storage, OWNER)
    assert [stored.id for stored in slots] == ids[::-1] and damaged == [], "newest first"


def test_other_files_are_no_slots() -> None:
    storage = MemoryStorage()
    add(storage, "passphrase")
    storage.files |= {"keys/README": b"x", "keys/.DS_Store": b"", f"keys/old/{'a' * 64}": b""}
    assert unlock(storage, "passphrase")[0] == SECRETS
    assert keyring.check_slots(storage, OWNER) == []


def test_a_damaged_slot_beside_a_whole_one_is_warned_of() -> None:
    storage = MemoryStorage()
    bad, good = add(storage, "one", 1), add(storage, "two")
    flip(storage, bad)
    warnings: list[str] = []
    assert unlock(storage, "two", warnings.append) == (SECRETS, good)
    (warning,) = warnings
    assert bad[:12] in warning and "remove it" in warning
    with pytest.raises(Damaged, match=bad[:12]):
        unlock(storage, "one"), "it may well be the passphrase of the damaged one"
    (text,) = keyring.check_slots(storage, OWNER)
    assert bad[:12] in text


def test_no_slot_at_all_is_damage_and_no_wrong_passphrase() -> None:
    storage = MemoryStorage()
    with pytest.raises(Damaged, match="no key slot") as caught:
        unlock(storage, "passphrase")
    assert "key import" in caught.value.hint
    (text,) = keyring.check_slots(storage, OWNER)
    assert "no whole key slot" in text
    storage.folders.remove("keys")
    with pytest.raises(ObjectMissing):
        unlock(storage, "passphrase")


def test_a_slot_that_does_not_open_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that flips a bit while a passphrase is changed must not lock anybody out."""
    storage = MemoryStorage()
    wrap = keyring.wrap

    def flipping(field: str) -> Callable[..., KeySlot]:
        def wrap_wrong(*arguments: Any, **options: Any) -> KeySlot:
            slot = wrap(*arguments, **options)
            data = getattr(slot, field)
            return msgspec.structs.replace(slot, **{field: bytes([data[0] ^ 1]) + data[1:]})

        return wrap_wrong

    for field in ("salt", "check", "wrapped"):
        with monkeypatch.context() as patch, pytest.raises(Damaged):
            patch.setattr(keyring, "wrap", flipping(field))
            add(storage, "passphrase")
    assert storage.files == {}


def test_a_slot_too_large_to_be_read_is_not_stored() -> None:
    storage = MemoryStorage()
    with contextlib.suppress(PackstoneError):
        add(storage, "passphrase", label="x" * 70_000)
    assert storage.files == {} or unlock(storage, "passphrase")[0] == SECRETS


def test_no_slot_is_added_that_shuts_another_out() -> None:
    storage = MemoryStorage()
    add(storage, "first")
    for number in range(keyring.MAX_SLOTS):
        with contextlib.suppress(UsageError):
            add(storage, f"other {number}", number + 1)
    assert unlock(storage, "first")[0] == SECRETS


class Vanishing(MemoryStorage):
    """A slot is removed by somebody else between listing and reading."""

    gone = ""

    def get(self, name: str, limit: int) -> bytes:
        if name == self.gone:
            self.files.pop(name, None)
        return super().get(name, limit)


def test_a_slot_that_vanishes_meanwhile_is_no_obstacle() -> None:
    """Somebody changes a passphrase while others open the repository with theirs."""
    storage = Vanishing()
    storage.gone = "keys/" + add(storage, "one")
    add(storage, "two")
    assert unlock(storage, "two")[0] == SECRETS


def test_a_slot_of_a_later_version_beside_a_whole_one() -> None:
    storage = MemoryStorage()
    add(storage, "passphrase")
    data = bytearray(seal_envelope(Kind.KEY_SLOT, Sealer(OWNER), bytes(32), b"new")[:-32])
    data[8] = 2
    later = bytes(data) + checksum(bytes(data))
    storage.files[f"keys/{checksum(later).hex()}"] = later
    assert unlock(storage, "passphrase", lambda text: None)[0] == SECRETS


# -- removing -------------------------------------------------------------------------------


def test_slots_are_removed_until_one_is_left(local: LocalStorage) -> None:
    ids = [add(local, f"passphrase {number}") for number in range(3)]
    for slot_id in ids[:2]:
        keyring.remove_slot(local, OWNER, slot_id)
    with pytest.raises(UsageError, match="last whole key slot"):
        keyring.remove_slot(local, OWNER, ids[2])
    assert unlock(local, "passphrase 2") == (SECRETS, ids[2])
    with pytest.raises(WrongPassphrase):
        unlock(local, "passphrase 0")


def test_a_damaged_slot_does_not_count(local: LocalStorage) -> None:
    """It can be removed, and the whole one beside it can not."""
    bad, good = add(local, "one"), add(local, "two")
    path = Path(local.full_path(f"keys/{bad}"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match="last whole"):
        keyring.remove_slot(local, OWNER, good)
    keyring.remove_slot(local, OWNER, bad)
    assert unlock(local, "two") == (SECRETS, good)


class Meeting(LocalStorage):
    """Whoever has decided to delete waits a moment for another who has."""

    def __init__(self, path: str, meeting: threading.Barrier) -> None:
        super().__init__(path)
        self.meeting = meeting

    def delete(self, name: str) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.3)
        super().delete(name)


def test_two_threads_do_not_remove_each_the_others(local: LocalStorage) -> None:
    ids = [add(local, "one"), add(local, "two")]
    meeting = Meeting(local.path, threading.Barrier(2))

    def remove(slot_id: str) -> str:
        try:
            keyring.remove_slot(meeting, OWNER, slot_id)
        except (RepositoryLocked, UsageError) as error:
            return type(error).__name__
        return "removed"

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(remove, ids))
    assert sorted(outcomes) in (["RepositoryLocked", "removed"], ["UsageError", "removed"])
    assert len(os.listdir(local.full_path("keys"))) == 1


class Waiting(LocalStorage):
    """Says that it is about to delete and waits for leave."""

    def __init__(self, path: str, reached: int, leave: int) -> None:
        super().__init__(path)
        self.reached, self.leave = reached, leave

    def delete(self, name: str) -> None:
        os.write(self.reached, b"x")
        os.read(self.leave, 1)
        super().delete(name)


def test_two_processes_do_not_remove_each_the_others(local: LocalStorage) -> None:
    one, two = add(local, "one"), add(local, "two")
    reached, leave = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        try:
            keyring.remove_slot(Waiting(local.path, reached[1], leave[0]), OWNER, one)
            os._exit(0)
        finally:
            os._exit(1)
    try:
        assert os.read(reached[0], 1) == b"x"
        with pytest.raises(RepositoryLocked):
            keyring.remove_slot(local, OWNER, two)
    finally:
        os.write(leave[1], b"x")
        _, status = os.waitpid(child, 0)
        for fd in (*reached, *leave):
            os.close(fd)
    assert status == 0
    with pytest.raises(UsageError, match="last whole"):
        keyring.remove_slot(local, OWNER, two)
    assert os.listdir(local.full_path("keys")) == [two]


class Interrupted(LocalStorage):
    """Just when the slots were listed, something happens."""

    def __init__(self, path: str, action: Callable[[], None]) -> None:
        super().__init__(path)
        self.action = action

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        found = list(super().list(prefix))
        self.action()
        return iter(found)


def test_what_was_counted_before_the_lock_counts_no_more(local: LocalStorage) -> None:
    one, two = add(local, "one"), add(local, "two")
    meanwhile: list[str] = []

    def remove() -> None:
        try:
            keyring.remove_slot(local, OWNER, two)
        except RepositoryLocked as error:
            meanwhile.append(error.kind)

    keyring.remove_slot(Interrupted(local.path, remove), OWNER, one)
    assert meanwhile == ["locked"] and unlock(local, "two") == (SECRETS, two)


def test_removing_is_for_one_at_a_time_and_adding_is_not(local: LocalStorage) -> None:
    ids = [add(local, f"passphrase {number}") for number in range(6)]

    def remove(slot_id: str) -> None:
        with contextlib.suppress(RepositoryLocked, UsageError):
            keyring.remove_slot(local, OWNER, slot_id)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(remove, ids))
    assert os.listdir(local.full_path("keys"))


def test_a_prefix_names_one_slot(local: LocalStorage) -> None:
    ids = [add(local, f"passphrase {number}") for number in range(2)]
    assert keyring.resolve_slot(local, ids[0]) == ids[0]
    length = next(at for at in range(64) if ids[0][at] != ids[1][at]) + 1
    assert keyring.resolve_slot(local, ids[1][:length]) == ids[1]
    for wrong in ("", "xyz", ids[0][: length - 1] * 2, "f" * 64):
        with pytest.raises(UsageError, match="key slot"):
            keyring.resolve_slot(local, wrong)


# -- exports --------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["", "l", "la", "a label", "é" * 25])
def test_an_export_gives_the_same_bytes_back(label: str) -> None:
    """Whatever the length of its last line."""
    storage = MemoryStorage()
    slot_id = add(storage, "passphrase", label=label)
    text = keyring.export_slot(storage, OWNER, slot_id)
    assert slot_id in text and OWNER.hex() in text and text.isascii()
    assert max(map(len, text.splitlines())) <= 84, "or it does not fit a page"
    for form in (
        text, text.lower(), text.replace("\n", "\r\n"), text.replace(" ", ""), f"\n\n  {text}\n",
        "".join(f"   {line}  \n\n" for line in text.splitlines()), text.upper(),
    ):  # fmt: skip
        other = MemoryStorage()
        assert keyring.import_slot(other, OWNER, form) == slot_id
        assert other.files == storage.files
    assert unlock(other, "passphrase") == (SECRETS, slot_id)
    assert keyring.import_slot(storage, OWNER, text) == slot_id, "once more does no harm"


def exported(label: str = "laptop") -> tuple[bytes, list[str]]:
    storage = MemoryStorage()
    slot_id = add(storage, "passphrase", label=label)
    text = keyring.export_slot(storage, OWNER, slot_id)
    lines = [line for line in text.splitlines() if ":" in line]
    return storage.files[f"keys/{slot_id}"], lines


def named(lines: list[str], number: int) -> bool:
    """Return whether reading the lines blames one of them."""
    try:
        keyring.parse_export("\n".join(lines))
    except UsageError as error:
        return f"line {number} " in error.message
    return False


def test_one_wrong_character_in_a_line_is_named() -> None:
    """Whatever it was taken for: typed from paper, or read by a machine."""
    data, lines = exported()
    assert keyring.parse_export("\n".join(lines)) == data
    rng = Random("typing")
    others = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    missed = []
    for number, line in enumerate(lines, 1):
        for at, old in enumerate(line):
            if old in " :":
                continue
            for new in {*rng.sample(others, 6), *"01869 -.", "é"} - {old, old.upper()}:
                if old not in others and new == " ":
                    continue
                changed = line[:at] + new + line[at + 1 :]
                if not named([*lines[: number - 1], changed, *lines[number:]], number):
                    missed.append((number, at, old, new))
    # The very last character may have bits that no byte needs: then the same bytes are read.
    for number, at, _old, new in missed:
        line = lines[-1]
        assert (number, at) == (len(lines), line.index(" / ") - 1)
        text = "\n".join([*lines[:-1], line[:at] + new + line[at + 1 :]])
        assert keyring.parse_export(text) == data, new


def test_every_wrong_character_of_every_place_has_another_check() -> None:
    """The check is short and linear: what it misses in one line it misses in all of them."""
    zeros = keyring._line_check(1, bytes(25))
    for at in range(0, 200, 5):
        for change in range(1, 32):
            wrong = (change << 195 - at).to_bytes(25, "big")
            assert keyring._line_check(1, wrong) != zeros
            if at < 195:  # two neighbours exchanged
                wrong = (change << 195 - at ^ change << 190 - at).to_bytes(25, "big")
                assert keyring._line_check(1, wrong) != zeros


def test_lines_in_another_order_or_missing_are_named() -> None:
    data, lines = exported()
    count = len(lines)
    for number in range(1, count):
        less = lines[: number - 1] + lines[number:]
        assert named(less, number), "the next one stands where it should be"
        assert named([*lines[: number - 1], lines[number - 1], *lines[number - 1 :]], number + 1)
        swapped = list(lines)
        swapped[number - 1], swapped[number] = swapped[number], swapped[number - 1]
        assert named(swapped, number)
        one, two = (line.partition(":") for line in swapped[number - 1 : number + 1])
        swapped[number - 1 : number + 1] = ["".join(two[:2]) + one[2], "".join(one[:2]) + two[2]]
        assert named(swapped, number), "and the numbers are right"
    assert keyring.parse_export("\n".join(lines)) == data
    for wrong in ("", "packstone key slot\n", "some text"):
        with pytest.raises(UsageError, match="no lines"):
            keyring.parse_export(wrong)


def test_the_last_lines_are_missed() -> None:
    """Nothing says how many there should be, but what is there is no slot."""
    _, lines = exported()
    storage = MemoryStorage()
    for count in range(1, len(lines)):
        with pytest.raises(UsageError, match="no use"):
            keyring.import_slot(storage, OWNER, "\n".join(lines[:count]))
    without_colon = [*lines[:-1], lines[-1].replace(":", ".")]
    with pytest.raises(UsageError):
        keyring.import_slot(storage, OWNER, "\n".join(without_colon))
    assert storage.files == {}


def test_an_export_of_another_repository_is_refused() -> None:
    storage = MemoryStorage()
    text = keyring.export_slot(storage, OWNER, add(storage, "passphrase"))
    other = MemoryStorage()
    with pytest.raises(UsageError, match="repository"):
        keyring.import_slot(other, bytes(16), text)
    assert other.files == {}


def test_what_is_no_slot_is_not_imported() -> None:
    """Another small object, exported by the same lines."""
    storage = MemoryStorage()
    data = seal_envelope(Kind.STATE, Sealer(OWNER), bytes(32), b"payload")
    parts = [data[at : at + 25] for at in range(0, len(data), 25)]
    text = "\n".join(
        f"{number}: {base64.b32encode(part).decode().rstrip('=')} / "
        f"{keyring._line_check(number, part)}"
        for number, part in enumerate(parts, 1)
    )
    assert keyring.parse_export(text) == data
    with pytest.raises(UsageError, match="kind"):
        keyring.import_slot(storage, OWNER, text)
    assert storage.files == {}


def test_a_damaged_slot_is_not_exported() -> None:
    """A print-out that cannot be put back is found out too late."""
    storage = MemoryStorage()
    slot_id = add(storage, "passphrase")
    flip(storage, slot_id)
    with pytest.raises(Damaged):
        keyring.export_slot(storage, OWNER, slot_id)


# -- a repository ---------------------------------------------------------------------------


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
