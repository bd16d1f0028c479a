"""A slot gives its secrets to its passphrase and to no other, and damage is never taken for one."""

from __future__ import annotations

import base64
import os
import resource
import time
import unicodedata
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from contract.storage_suite import MemoryStorage
from faults import in_child
from hypothesis import given, settings
from hypothesis import strategies as st

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import checksum
from packstone.codec.keys import (
    Argon2,
    KeySlot,
    Secrets,
    looks_mistyped,
    passphrase_bytes,
    recovery_key,
    unwrap,
    wrap,
)
from packstone.errors import Damaged, PackstoneError, UnsupportedFormat, UsageError, WrongPassphrase
from packstone.model import GIB, KIB, MIB
from packstone.repository import keyring

OWNER, SALT = bytes(range(16)), bytes(range(32))
SECRETS = Secrets(bytes(range(100, 132)), bytes(range(200, 232)))
CHEAP = Argon2(time=1, memory=8 * KIB, lanes=1)
few = settings(max_examples=settings.default.max_examples // 5)


def slot_of(passphrase: str | bytes = "passphrase", **changes: Any) -> KeySlot:
    fields: dict[str, Any] = {
        "repository_id": OWNER, "salt": SALT, "created_ns": 5, "cost": CHEAP, "label": "laptop",
    }  # fmt: skip
    return wrap(SECRETS, passphrase, **(fields | changes))


SLOT = slot_of()


def store(storage: MemoryStorage, slot: KeySlot, owner: bytes = OWNER) -> str:
    """Store a slot as it is, under the right name and with a right checksum; return its name."""
    data = seal_envelope(Kind.KEY_SLOT, Sealer(owner), SALT, msgspec.msgpack.encode(slot))
    name = f"keys/{checksum(data).hex()}"
    storage.files[name] = data
    return name


def unlock(storage: MemoryStorage, passphrase: str | bytes = "passphrase") -> Secrets:
    return keyring.unlock(storage, OWNER, passphrase, pytest.fail)[0]  # type: ignore[arg-type]


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


# -- wrapping -------------------------------------------------------------------------------


@few
@given(
    passphrase=st.text(min_size=1, max_size=40) | st.binary(min_size=1, max_size=40),
    owner=st.binary(min_size=16, max_size=16),
    secrets=st.binary(min_size=64, max_size=64),
    created_ns=st.integers(0, (1 << 63) - 1),
    role=st.sampled_from(["passphrase", "recovery"]),
    label=st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=20),
)
def test_secrets_come_back(
    passphrase: str | bytes, owner: bytes, secrets: bytes, created_ns: int, role: str, label: str
) -> None:
    made = Secrets(secrets[:32], secrets[32:])
    slot = wrap(
        made, passphrase, repository_id=owner, salt=SALT, created_ns=created_ns, cost=CHEAP,
        role=role, label=label,
    )  # fmt: skip
    assert (slot.time, slot.memory, slot.lanes) == (1, 8, 1)
    assert len(slot.wrapped) == 80 and secrets[:8] not in msgspec.msgpack.encode(slot)
    assert unwrap(slot, passphrase_bytes(passphrase), owner, "slot") == made
    assert unwrap(slot, passphrase_bytes(passphrase) + b"x", owner, "slot") is None


@pytest.mark.parametrize("wrong", ["Passphrase", "passphrase ", "passphras", "x"])
def test_another_passphrase_opens_nothing(storage: MemoryStorage, wrong: str) -> None:
    assert unwrap(SLOT, passphrase_bytes(wrong), OWNER, "slot") is None
    store(storage, SLOT)
    assert unlock(storage) == SECRETS
    with pytest.raises(WrongPassphrase, match="none of 1 key slots") as caught:
        unlock(storage, wrong)
    assert caught.value.exit_code == 12


def test_the_salt_makes_slots_differ() -> None:
    other = slot_of(salt=bytes(32))
    assert other.wrapped != SLOT.wrapped and other.check != SLOT.check
    assert SLOT.wrapped[:64] != SECRETS.family + SECRETS.sealing
    assert SLOT.check not in SLOT.wrapped


def test_a_slot_is_what_the_page_says() -> None:
    """Argon2id as RFC 9106 has it: version 0x13, no secret, no associated data."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    derived = Argon2id(salt=SALT, length=64, iterations=1, lanes=1, memory_cost=8).derive(
        b"passphrase"
    )
    assert SLOT.check == derived[32:]
    bound = b"packstone v1 key slot" + OWNER + msgspec.msgpack.encode([5, "passphrase", "laptop"])
    opened = AESGCMSIV(derived[:32]).decrypt(bytes(12), SLOT.wrapped, bound)
    assert opened == SECRETS.family + SECRETS.sealing
    payload = msgspec.msgpack.decode(msgspec.msgpack.encode(SLOT))
    assert " ".join(payload) == (
        "kdf time memory lanes salt check wrapped created_ns role label"
    ), "in this order, as other readers expect them"


# -- damage ---------------------------------------------------------------------------------


def test_every_flipped_bit_of_a_slot_is_damage_and_no_wrong_passphrase(
    storage: MemoryStorage,
) -> None:
    name = store(storage, SLOT)
    data = storage.files[name]
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        storage.files[name] = bytes(changed)
        with pytest.raises(Damaged, match=name.rpartition("/")[2]) as caught:
            unlock(storage)
        assert "key import" in caught.value.hint


def test_every_truncation_of_a_slot_is_damage(storage: MemoryStorage) -> None:
    name = store(storage, SLOT)
    data = storage.files[name]
    for size in range(len(data)):
        storage.files[name] = data[:size]
        with pytest.raises(Damaged):
            unlock(storage)


def test_a_slot_under_another_name_is_damage(storage: MemoryStorage) -> None:
    storage.files["keys/" + "a" * 64] = storage.files.pop(store(storage, SLOT))
    with pytest.raises(Damaged, match="not what it is called"):
        unlock(storage)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "desktop"}, {"label": ""}, {"role": "recovery"}, {"created_ns": 6},
        {"created_ns": -5}, {"wrapped": bytes(80)},
        {"wrapped": bytes([SLOT.wrapped[0] ^ 1]) + SLOT.wrapped[1:]},
    ],
    ids=str,
)  # fmt: skip
def test_an_altered_slot_is_damage(storage: MemoryStorage, change: dict[str, Any]) -> None:
    """Whoever can write to the storage makes checksum and name right again."""
    store(storage, msgspec.structs.replace(SLOT, **change))
    with pytest.raises(Damaged, match="altered"):
        unlock(storage)


def test_a_slot_of_another_repository_is_damage(storage: MemoryStorage) -> None:
    """Also when it is made to say that it is ours."""
    name = store(storage, SLOT, bytes(16))
    with pytest.raises(Damaged, match="repository"):
        unlock(storage)
    del storage.files[name]
    store(storage, slot_of(repository_id=bytes(16)))
    with pytest.raises(Damaged, match="altered"):
        unlock(storage)


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\xc1", {}, [1], {"kdf": "argon2id"}, {"salt": bytes(31)}, {"check": bytes(33)},
        {"wrapped": bytes(79)}, {"time": -1}, {"memory": 1 << 32}, {"lanes": "4"}, {"label": b"x"},
        {"created_ns": None},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_slot_is_damage(storage: MemoryStorage, payload: Any) -> None:
    if isinstance(payload, dict) and payload and "kdf" not in payload:
        payload = msgspec.to_builtins(SLOT, builtin_types=(bytes,)) | payload
    raw = payload if isinstance(payload, bytes) else msgspec.msgpack.encode(payload)
    data = seal_envelope(Kind.KEY_SLOT, Sealer(OWNER), SALT, raw)
    storage.files[f"keys/{checksum(data).hex()}"] = data
    with pytest.raises(Damaged):
        unlock(storage)


# -- Argon2 ---------------------------------------------------------------------------------

TOO_MUCH = [
    {"memory": 16 * GIB // KIB}, {"memory": (1 << 32) - 1}, {"memory": MIB + 1},
    {"time": (1 << 32) - 1}, {"time": 33}, {"time": 0}, {"lanes": 1 << 31}, {"lanes": 65},
    {"lanes": 0}, {"memory": 7}, {"memory": 0}, {"memory": 31, "lanes": 4},
    {"memory": 520, "lanes": 65},
]  # fmt: skip


def test_a_cost_beyond_the_limits_is_refused_before_anything_is_computed() -> None:
    """In a child that may use neither two seconds nor 64 MiB more than it has."""

    def run() -> None:
        status = Path("/proc/self/status").read_text()
        size = int(status.split("VmSize:")[1].split()[0]) * KIB
        resource.setrlimit(resource.RLIMIT_AS, (size + 64 * MIB, size + 64 * MIB))
        resource.setrlimit(resource.RLIMIT_CPU, (2, 3))
        for change in TOO_MUCH:
            storage = MemoryStorage()
            store(storage, msgspec.structs.replace(SLOT, **change))
            before = time.process_time()
            with pytest.raises(UnsupportedFormat, match="Argon2"):
                unlock(storage)
            assert time.process_time() - before < 0.1, change

    assert in_child(run) == 0


def test_a_cost_at_the_limits_is_none_too_many() -> None:
    for cost in (Argon2(32, GIB, 64), Argon2(1, 8 * KIB, 1), Argon2(1, 64 * 8 * KIB, 64)):
        assert cost.wrong() == ""


@pytest.mark.parametrize(
    "cost",
    [
        Argon2(time=0), Argon2(time=33), Argon2(lanes=0), Argon2(lanes=65),
        Argon2(memory=GIB + KIB),
        Argon2(memory=8 * KIB, lanes=2), Argon2(memory=0), Argon2(memory=-KIB), Argon2(time=-1),
        Argon2(memory=64 * MIB + 1),
    ],
    ids=str,
)  # fmt: skip
def test_no_slot_is_made_that_none_would_open(cost: Argon2) -> None:
    with pytest.raises(UsageError, match="Argon2"):
        slot_of(cost=cost)


def test_another_derivation_is_of_a_later_version(storage: MemoryStorage) -> None:
    store(storage, msgspec.structs.replace(SLOT, kdf="scrypt"))
    with pytest.raises(UnsupportedFormat, match="scrypt"):
        unlock(storage)


# -- passphrases ----------------------------------------------------------------------------


@given(text=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_one_text_is_one_passphrase_however_it_is_composed(text: str) -> None:
    """macOS and Linux keyboards give other bytes for the same letters."""
    found = {
        passphrase_bytes(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")
    } | {passphrase_bytes(text), passphrase_bytes(text.encode())}  # fmt: skip
    assert len(found) == 1


def test_composed_and_decomposed_open_the_same(storage: MemoryStorage) -> None:
    store(storage, slot_of("Zoë's Café"))
    for text in ("Zoe\u0308's Cafe\u0301", "Zo\xeb's Caf\xe9"):
        assert unlock(storage, text) == unlock(storage, text.encode()) == SECRETS
    with pytest.raises(WrongPassphrase):
        unlock(storage, "Zoe's Cafe")


def test_compatible_letters_are_others() -> None:
    """NFC, not NFKC: what a user takes for two letters stays two letters."""
    assert passphrase_bytes("ﬁ") != passphrase_bytes("fi")
    assert passphrase_bytes("A") != passphrase_bytes("a")
    assert passphrase_bytes(" a ") == b" a "


@given(data=st.binary(min_size=1, max_size=30))
def test_bytes_that_are_no_text_count_as_they_are(data: bytes) -> None:
    """A random key in a file is a passphrase, however it is handed over."""
    found = passphrase_bytes(data)
    assert found == passphrase_bytes(os.fsdecode(data))
    try:
        data.decode()
    except UnicodeDecodeError:
        assert found == data


def test_bytes_that_are_no_text_open(storage: MemoryStorage) -> None:
    store(storage, slot_of(b"\xff\xfe\0key"))
    assert unlock(storage, b"\xff\xfe\0key") == SECRETS
    with pytest.raises(WrongPassphrase):
        unlock(storage, b"\xff\xfe\0kez")


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_passphrase_is_refused(storage: MemoryStorage, empty: str | bytes) -> None:
    with pytest.raises(UsageError, match="empty"):
        slot_of(empty)
    store(storage, SLOT)
    with pytest.raises(UsageError, match="empty"):
        unlock(storage, empty)


def test_an_endless_passphrase_is_refused() -> None:
    assert passphrase_bytes("x" * 64 * KIB) == b"x" * 64 * KIB
    for endless in ("x" * (64 * KIB + 1), "é" * 32 * KIB + "x", b"\xff" * (64 * KIB + 1)):
        with pytest.raises(UsageError, match="limit"):
            passphrase_bytes(endless)


def test_half_of_a_pair_is_refused() -> None:
    with pytest.raises(PackstoneError):
        passphrase_bytes("\ud800")


# -- recovery keys --------------------------------------------------------------------------

KEY = recovery_key(Random("recovery").randbytes(20))


@given(random=st.binary(min_size=20, max_size=20))
def test_a_recovery_key_is_nine_groups_of_four(random: bytes) -> None:
    key = recovery_key(random)
    assert [len(group) for group in key.split("-")] == [4] * 9
    digits = key.replace("-", "")
    assert base64.b32decode(digits[:32]) == random
    assert digits[32:] == base64.b32encode(checksum(digits[:32].encode())).decode()[:4]
    assert passphrase_bytes(key) == digits.encode() and not looks_mistyped(key)


@pytest.mark.parametrize(
    "form",
    [
        str.lower, str.title, lambda key: key.replace("-", ""), lambda key: key.replace("-", " "),
        lambda key: f"  {key}\n", lambda key: " ".join(key), lambda key: key.replace("-", "\t"),
        lambda key: key.replace("O", "0").replace("I", "1").replace("B", "8"), str.encode,
    ],
)  # fmt: skip
def test_a_recovery_key_in_any_form(storage: MemoryStorage, form: Any) -> None:
    """Read aloud, typed from paper, pasted with a line end: it is the same key."""
    assert {"O", "I", "B"} & set(KEY), "or nothing is misread here"
    store(storage, slot_of(KEY, role="recovery"))
    assert unlock(storage, form(KEY)) == SECRETS


def test_a_mistyped_recovery_key_is_said_so(storage: MemoryStorage) -> None:
    store(storage, slot_of(KEY, role="recovery"))
    rng = Random("typing")
    told = 0
    for at, digit in enumerate(KEY):
        if digit == "-":
            continue
        other = rng.choice([each for each in "ACDEFGHJKLMNPQRSTUVWXYZ234567" if each != digit])
        wrong = KEY[:at] + other + KEY[at + 1 :]
        told += looks_mistyped(wrong) and looks_mistyped(wrong.lower().encode())
    assert told == 36
    with pytest.raises(WrongPassphrase) as caught:
        unlock(storage, wrong)
    assert "wrong character" in caught.value.hint
    with pytest.raises(WrongPassphrase) as caught:
        unlock(storage, "correct horse battery staple")
    assert "wrong character" not in caught.value.hint


@pytest.mark.parametrize("text", ["", "a passphrase", "a" * 36 + "!", "a" * 35, "9" * 36, b"\xff"])
def test_what_is_no_recovery_key_looks_like_none(text: str | bytes) -> None:
    assert not looks_mistyped(text)


def test_a_passphrase_like_a_recovery_key_is_one_of_its_own() -> None:
    """Its check digits do not fit, so its letters stay as they are."""
    text = "abcd" * 9
    assert passphrase_bytes(text) == text.encode() != passphrase_bytes(text.upper())


@pytest.mark.parametrize("size", [0, 19, 21])
def test_a_recovery_key_of_another_size_is_our_own_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="20 bytes"):
        recovery_key(bytes(size))
