"""Names, and the small objects that say how to read the rest: config, state, features."""

from __future__ import annotations

from typing import Any

import pytest
from contract.storage_suite import MemoryStorage
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.errors import Damaged, ObjectMissing, RepositoryMissing, UnsupportedFormat
from packstone.repository import layout
from packstone.repository.layout import Config, State

OWNER, SALT = bytes(range(16)), bytes(32)
OURS = Sealer(OWNER)
FAMILY = bytes(range(32))
CONFIG = Config(created_ns=1, family=FAMILY, average=4096)


def stored(**names: bytes) -> MemoryStorage:
    storage = MemoryStorage()
    storage.files.update({name.replace("__", "."): data for name, data in names.items()})
    return storage


def sealed(config: Config = CONFIG) -> bytes:
    return layout.encode_config(config, OURS, SALT)


# -- names ----------------------------------------------------------------------------------


@given(raw=st.binary(min_size=32, max_size=32))
def test_names_of_packs_and_snapshots_lead_back_to_their_ids(raw: bytes) -> None:
    storage = MemoryStorage()
    storage.put(layout.pack_name(raw.hex()), b"pack")
    storage.put(layout.snapshot_name(raw.hex()), b"snapshot")
    assert list(layout.list_ids(storage, "packs")) == [(raw.hex(), 4)]
    assert list(layout.list_ids(storage, "snapshots")) == [(raw.hex(), 8)]
    assert layout.pack_name(raw.hex()).split("/") == ["packs", raw.hex()[:2], raw.hex()]


@pytest.mark.parametrize(
    "name",
    ["a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + ".bak", ".DS_Store", "a" * 64 + "\n"],
)
def test_other_names_are_ignored(name: str) -> None:
    """docs/format.md §1: what is not 64 hexadecimal digits is somebody else's."""
    storage = stored(**{f"packs/00/{name}": b""})
    assert list(layout.list_ids(storage, "packs")) == []


def test_every_folder_is_there_from_the_beginning() -> None:
    assert len(layout.DIRECTORIES) == len(set(layout.DIRECTORIES)) == 6 + 256
    assert {"packs/00", "packs/ff", "tmp", "snapshots", "features"} <= set(layout.DIRECTORIES)


# -- config ---------------------------------------------------------------------------------


@given(
    created_ns=st.integers(0, 1 << 63),
    power=st.integers(12, 23),
    pack_size=st.integers(1 << 20, 1 << 30),
    level=st.integers(1, 19),
)
def test_config_comes_back(created_ns: int, power: int, pack_size: int, level: int) -> None:
    config = Config(
        created_ns=created_ns, family=FAMILY, average=1 << power, pack_size=pack_size, level=level
    )
    assert layout.check_parameters(config.average, pack_size, level) == ""
    data = sealed(config)
    storage = stored(config=data, config__bak=data)
    assert layout.read_config(storage, pytest.fail) == (OWNER, False, config)


@pytest.mark.parametrize("damage", [None, b"", b"x" * 300, sealed()[:-1], b"\0" + sealed()[1:]])
def test_the_copy_is_used_and_it_is_said(damage: bytes | None) -> None:
    storage = stored(config__bak=sealed())
    if damage is not None:
        storage.put("config", damage)
    warnings: list[str] = []
    assert layout.read_config(storage, warnings.append) == (OWNER, False, CONFIG)
    (warning,) = warnings
    assert "config.bak" in warning


def test_every_flipped_bit_of_config_leads_to_the_copy() -> None:
    """Also those of version and mode: a flip must not read as a newer format."""
    data = sealed()
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            storage = stored(config=bytes(changed), config__bak=data)
            warnings: list[str] = []
            assert layout.read_config(storage, warnings.append) == (OWNER, False, CONFIG)
            assert warnings


def test_a_damaged_copy_is_not_needed() -> None:
    storage = stored(config=sealed(), config__bak=b"")
    assert layout.read_config(storage, pytest.fail) == (OWNER, False, CONFIG)


def test_both_damaged() -> None:
    storage = stored(config=b"", config__bak=sealed()[:50])
    with pytest.raises(Damaged, match="both unusable") as caught:
        layout.read_config(storage, pytest.fail)
    assert caught.value.hint


def test_one_missing_and_one_damaged_is_damage_not_absence() -> None:
    """`init` must not be told that there is no repository."""
    with pytest.raises(Damaged):
        layout.read_config(stored(config__bak=b"x"), pytest.fail)
    with pytest.raises(RepositoryMissing, match="no repository"):
        layout.read_config(stored(), pytest.fail)


@pytest.mark.parametrize(
    ("average", "pack_size", "level"),
    [
        (2048, 1 << 20, 3), (16 << 20, 1 << 20, 3), (5000, 1 << 20, 3), (0, 1 << 20, 3),
        (-4096, 1 << 20, 3), (4096, (1 << 20) - 1, 3), (4096, (1 << 30) + 1, 3),
        (4096, 1 << 20, 0), (4096, 1 << 20, 20),
    ],
)  # fmt: skip
def test_parameters_out_of_bounds(average: int, pack_size: int, level: int) -> None:
    assert layout.check_parameters(average, pack_size, level)
    data = sealed(
        Config(created_ns=1, family=FAMILY, average=average, pack_size=pack_size, level=level)
    )
    with pytest.raises(Damaged):
        layout.read_config(stored(config=data, config__bak=data), pytest.fail)


# -- state ----------------------------------------------------------------------------------


@given(generation=st.binary(min_size=16, max_size=16), sweep=st.none() | st.binary(max_size=50))
def test_state_comes_back(generation: bytes, sweep: bytes | None) -> None:
    state = State(generation=generation, sweep=sweep)
    storage = stored(state=layout.encode_state(state, OURS, SALT))
    assert layout.read_state(storage, OURS) == state


def test_state_of_another_kind_or_repository_is_damage() -> None:
    state = layout.encode_state(State(generation=bytes(16)), OURS, SALT)
    with pytest.raises(Damaged):
        layout.read_state(stored(state=state), Sealer(bytes(16)))
    with pytest.raises(Damaged):
        layout.read_state(stored(state=sealed()), OURS)
    with pytest.raises(ObjectMissing):
        layout.read_state(stored(), OURS)


def test_a_huge_state_is_not_read() -> None:
    with pytest.raises(Damaged):
        layout.read_state(stored(state=bytes(layout.MAX_ENVELOPE + 1)), OURS)


# -- features -------------------------------------------------------------------------------


def with_feature(need: Any, name: str = "features/parity") -> MemoryStorage:
    import msgspec

    payload = msgspec.msgpack.encode({"need": need, "more": 1})
    return stored(**{name: seal_envelope(Kind.FEATURE, OURS, SALT, payload)})


def test_features_say_what_a_program_must_know() -> None:
    for need, reading, writing in (
        ("ignore", True, True),
        ("write", True, False),
        ("read", False, False),
        ("anything", False, False),
    ):
        for way, allowed in ((False, reading), (True, writing)):
            storage = with_feature(need)
            if allowed:
                layout.check_features(storage, OURS, writing=way)
            else:
                with pytest.raises(UnsupportedFormat, match="parity"):
                    layout.check_features(storage, OURS, writing=way)


def test_a_listing_of_features_that_fails_is_no_empty_one() -> None:
    storage = MemoryStorage()
    storage.folders.remove("features")
    with pytest.raises(ObjectMissing):
        layout.check_features(storage, OURS, writing=False)
