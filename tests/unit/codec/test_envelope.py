"""Every byte of an envelope is covered: what is not exactly right is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import PLAIN, Sealer
from packstone.codec.envelope import MAX_PAYLOAD, Kind, open_envelope, seal_envelope
from packstone.errors import Damaged, UnsupportedFormat

OURS, OTHER = Sealer(bytes(range(16))), Sealer(bytes(16))
SALT = bytes(range(32))
KINDS = st.sampled_from(list(Kind))


@given(kind=KINDS, owner=st.binary(min_size=16, max_size=16), payload=st.binary(max_size=500))
def test_open_undoes_seal(kind: Kind, owner: bytes, payload: bytes) -> None:
    data = seal_envelope(kind, Sealer(owner), SALT, payload)
    assert open_envelope(data, kind, "name", Sealer(owner)) == (owner, PLAIN, payload)
    assert open_envelope(data, kind, "name", None) == (owner, PLAIN, payload)
    assert len(data) == 96 + len(payload)


@given(kind=KINDS, wrong=KINDS)
def test_no_kind_opens_as_another(kind: Kind, wrong: Kind) -> None:
    data = seal_envelope(kind, OURS, SALT, b"payload")
    if kind != wrong:
        with pytest.raises(Damaged, match="kind"):
            open_envelope(data, wrong, "name", OURS)


def test_another_repository_is_refused() -> None:
    data = seal_envelope(Kind.STATE, OTHER, SALT, b"payload")
    with pytest.raises(Damaged, match="repository"):
        open_envelope(data, Kind.STATE, "name", OURS)


@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_is_damage(bit: int) -> None:
    """Never UnsupportedFormat: a flipped bit must not read as a newer format."""
    data = seal_envelope(Kind.CONFIG, OURS, SALT, b"some payload")
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        with pytest.raises(Damaged):
            open_envelope(bytes(changed), Kind.CONFIG, "name", None)


def test_every_other_length_is_damage() -> None:
    data = seal_envelope(Kind.CONFIG, OURS, SALT, b"some payload")
    for size in range(len(data)):
        with pytest.raises(Damaged):
            open_envelope(data[:size], Kind.CONFIG, "name", None)
        with pytest.raises(Damaged):
            open_envelope(data + data[: size + 1], Kind.CONFIG, "name", None)


@given(data=st.binary(max_size=300))
def test_garbage_is_damage(data: bytes) -> None:
    with pytest.raises((Damaged, UnsupportedFormat)):
        open_envelope(data, Kind.STATE, "name", OURS)
    with pytest.raises((Damaged, UnsupportedFormat)):
        open_envelope(b"PKSTNOBJ" + data, Kind.STATE, "name", OURS)


def test_too_large_a_payload_is_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="above"):
        seal_envelope(Kind.SNAPSHOT, OURS, SALT, bytes(MAX_PAYLOAD + 1))


def test_messages_name_what_is_damaged() -> None:
    data = bytearray(seal_envelope(Kind.STATE, OURS, SALT, b"payload"))
    data[70] ^= 1
    with pytest.raises(Damaged) as caught:
        open_envelope(bytes(data), Kind.STATE, "the name", OURS)
    error = caught.value
    assert "the name" in error.message and error.name == "the name"
    assert len(error.expected) == len(error.found) == 64 and error.expected != error.found
