"""Slots come and go, and at every moment somebody who could open still can."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from contract.storage_suite import MemoryStorage
from unit.repository.slots import OWNER, SECRETS, add, flip, unlock

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import checksum
from packstone.codec.keys import KeySlot
from packstone.errors import (
    Damaged,
    PackstoneError,
    RepositoryLocked,
    UsageError,
    WrongPassphrase,
)
from packstone.repository import keyring
from packstone.storage.local import LocalStorage


@pytest.fixture
def local(tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(str(tmp_path / "store"))
    storage.make_directories(["tmp", "keys"])
    return storage


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
    with pytest.raises(Damaged, match="no key slot"):
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
    gone = add(storage, "one")
    add(storage, "two")
    storage.gone = f"keys/{gone}"
    assert unlock(storage, "two")[0] == SECRETS


def test_a_slot_of_a_later_version_beside_a_whole_one() -> None:
    storage = MemoryStorage()
    add(storage, "passphrase")
    data = bytearray(seal_envelope(Kind.KEY_SLOT, Sealer(OWNER), bytes(32), b"new")[:-32])
    data[8] = 2
    later = bytes(data) + checksum(bytes(data))
    storage.files[f"keys/{checksum(later).hex()}"] = later
    assert unlock(storage, "passphrase", lambda text: None)[0] == SECRETS


def test_what_costs_most_is_tried_last() -> None:
    """Whoever can write to the storage can forge slots that take a minute each, all of them new."""
    storage = MemoryStorage()
    honest = add(storage, "passphrase", 1)
    for number in range(3):
        forged = msgspec.structs.replace(
            keyring.read_slots(storage, OWNER)[0][0].slot,
            time=32, memory=1 << 20, created_ns=2 + number, label=f"{number}",
        )  # fmt: skip
        data = seal_envelope(
            Kind.KEY_SLOT, Sealer(OWNER), bytes(32), msgspec.msgpack.encode(forged)
        )
        storage.files[f"keys/{checksum(data).hex()}"] = data
    start = time.monotonic()
    assert unlock(storage, "passphrase") == (SECRETS, honest)
    assert time.monotonic() - start < 1


def test_slots_that_are_not_tried_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The passphrase may well be of one of them: it is not called wrong."""
    storage = MemoryStorage()
    for number in range(6):
        add(storage, f"passphrase {number}", number)
    monkeypatch.setattr(keyring, "MAX_SPENT", 4 * 8)
    assert unlock(storage, "passphrase 5")[0] == SECRETS
    with pytest.raises(Damaged, match="1 of 6 key slots were not tried"):
        unlock(storage, "another")


def test_no_slot_is_added_that_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As are five of 1 GiB and four passes, all of them honest."""
    storage = MemoryStorage()
    monkeypatch.setattr(keyring, "MAX_SPENT", 4 * 8)
    added = []
    for number in range(8):
        with contextlib.suppress(UsageError):
            add(storage, f"passphrase {number}", number)
            added.append(number)
    assert added
    for number in added:
        assert unlock(storage, f"passphrase {number}")[0] == SECRETS


@pytest.mark.parametrize(
    "label",
    [
        "caf\udce9", "\x1b[31m", "two\nlines", "\u202egpj.exe", "x" * 1025,
        "\ud800",
    ],
    ids=ascii,
)  # fmt: skip
def test_a_label_that_cannot_be_shown_is_refused(label: str) -> None:
    """Labels stand in the clear and in listings on terminals."""
    storage = MemoryStorage()
    with pytest.raises(UsageError, match="label"):
        add(storage, "passphrase", label=label)
    assert storage.files == {}
    add(storage, "passphrase", label="Zoë’s laptop, 2nd floor")


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


def test_a_slot_that_asks_too_much_does_not_count(local: LocalStorage) -> None:
    """No version of this program opens it, so it is no reason to let the last other one go."""
    good = add(local, "one")
    slot = keyring.read_slots(local, OWNER)[0][0].slot
    payload = msgspec.msgpack.encode(msgspec.structs.replace(slot, memory=16 << 20))
    data = seal_envelope(Kind.KEY_SLOT, Sealer(OWNER), bytes(32), payload)
    local.put(f"keys/{checksum(data).hex()}", data)
    with pytest.raises(UsageError, match="last whole"):
        keyring.remove_slot(local, OWNER, good)


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
