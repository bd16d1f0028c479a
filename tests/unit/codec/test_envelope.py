"""Every byte of an envelope is covered: what is not exactly right is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import AUTHENTICATED, PLAIN, SEALED, Sealer, padme
from packstone.codec.envelope import (
    MAX_PAYLOAD,
    Kind,
    check_envelope,
    mode_of,
    open_envelope,
    seal_envelope,
)
from packstone.codec.hashing import checksum
from packstone.errors import Damaged, UnsupportedFormat

OURS, OTHER = Sealer(bytes(range(16))), Sealer(bytes(16))
SALT = bytes(range(32))
KINDS = st.sampled_from(list(Kind))
SECRET = bytes(range(100, 132))
SECRETLY = Sealer(bytes(range(16)), SECRET)


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


# -- of an encrypted repository -------------------------------------------------------------

MODES = {
    Kind.CONFIG: AUTHENTICATED,
    Kind.STATE: SEALED,
    Kind.SNAPSHOT: SEALED,
    Kind.FEATURE: AUTHENTICATED,
    Kind.HISTORY: SEALED,
    Kind.KEY_SLOT: PLAIN,
    Kind.BUNDLE: SEALED,
}
kinds = pytest.mark.parametrize("kind", Kind)
kept = pytest.mark.parametrize("kind", [kind for kind in Kind if MODES[kind] != PLAIN])


def summed(data: bytes) -> bytes:
    """Make the checksum right again, as anybody can."""
    return data[:-32] + checksum(data[:-32])


@given(
    kind=KINDS,
    owner=st.binary(min_size=16, max_size=16),
    secret=st.binary(min_size=32, max_size=32),
    salt=st.binary(min_size=32, max_size=32),
    payload=st.binary(max_size=500),
)
def test_open_undoes_seal_in_every_mode(
    kind: Kind, owner: bytes, secret: bytes, salt: bytes, payload: bytes
) -> None:
    data = seal_envelope(kind, Sealer(owner, secret), salt, payload)
    assert data[11] == MODES[kind] == mode_of(kind, Sealer(owner, secret))
    assert mode_of(kind, Sealer(owner)) == PLAIN
    opened = open_envelope(data, kind, "name", Sealer(owner, secret))
    assert opened == (owner, MODES[kind], payload)
    more = {PLAIN: 0, AUTHENTICATED: 32, SEALED: padme(4 + len(payload)) + 12 - len(payload) + 4}
    assert len(data) == 96 + len(payload) + more[MODES[kind]]
    assert check_envelope(data, kind, "name", owner) == (owner, MODES[kind], salt)


@kinds
def test_what_is_read_before_there_are_keys(kind: Kind) -> None:
    """It is readable; what is sealed is not, and whoever asks for it so has got it wrong."""
    data = seal_envelope(kind, SECRETLY, SALT, b"a payload of many bytes")
    assert (b"a payload" in data) == (MODES[kind] != SEALED)
    if MODES[kind] == SEALED:
        with pytest.raises(Damaged, match="sealed"):
            open_envelope(data, kind, "name", None)
    else:
        assert open_envelope(data, kind, "name", None).payload == b"a payload of many bytes"


@kept
def test_every_altered_byte_is_damage_though_the_checksum_is_right(kind: Kind) -> None:
    data = seal_envelope(kind, SECRETLY, SALT, b"some payload")
    for at in range(len(data) - 32):
        changed = bytearray(data)
        changed[at] ^= 1
        later = at in (8, 9) or changed[11] > AUTHENTICATED
        with pytest.raises(UnsupportedFormat if later else Damaged):
            open_envelope(summed(bytes(changed)), kind, "name", SECRETLY)


@kinds
def test_every_flipped_bit_is_damage_in_every_mode(kind: Kind) -> None:
    data = seal_envelope(kind, SECRETLY, SALT, b"some payload")
    for at in range(8 * len(data)):
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(Damaged):
            open_envelope(bytes(changed), kind, "name", SECRETLY)


@kept
def test_every_other_length_is_damage_though_all_else_is_right(kind: Kind) -> None:
    data = seal_envelope(kind, SECRETLY, SALT, b"some payload")
    body = data[64:-32]
    for other in [*(body[:size] for size in range(len(body))), body + b"\0", body + body]:
        changed = data[:12] + len(other).to_bytes(4, "little") + data[16:64] + other + bytes(32)
        with pytest.raises(Damaged):
            open_envelope(summed(changed), kind, "name", SECRETLY)


@kept
@pytest.mark.parametrize(
    ("writer", "match"),
    [
        (Sealer(bytes(range(16)), bytes(32)), "altered"),
        (Sealer(bytes(range(16))), "keys of this repository"),
        (Sealer(bytes(16), SECRET), "repository"),
    ],
    ids=["another secret", "none", "another repository"],
)
def test_what_others_wrote_is_damage(kind: Kind, writer: Sealer, match: str) -> None:
    data = seal_envelope(kind, writer, SALT, b"payload")
    with pytest.raises(Damaged, match=match) as caught:
        open_envelope(data, kind, "the name", SECRETLY)
    assert "the name" in caught.value.message and caught.value.name == "the name"


@kinds
@pytest.mark.parametrize("mode", [0, 1, 2, 3, 255])
@pytest.mark.parametrize("reader", [OURS, SECRETLY], ids=["plain", "encrypted"])
def test_there_is_one_mode_for_each_kind(kind: Kind, mode: int, reader: Sealer) -> None:
    """Also where the content would do: nobody turns an encrypted repository into a plain one."""
    for writer in (OURS, SECRETLY):
        data = bytearray(seal_envelope(kind, writer, SALT, b"payload of 20 bytes."))
        if mode == mode_of(kind, reader) and (mode == data[11] or reader.is_plain):
            continue  # of what is plain nothing is known but its checksum
        data[11] = mode
        with pytest.raises(UnsupportedFormat if mode > 2 else Damaged):
            open_envelope(summed(bytes(data)), kind, "name", reader)


def test_no_kind_opens_as_another_though_the_keys_are_right() -> None:
    for kind in MODES:
        for wrong in MODES:
            data = bytearray(seal_envelope(kind, SECRETLY, SALT, b"payload"))
            data[10] = wrong
            if wrong != kind and Kind.KEY_SLOT not in (kind, wrong):
                with pytest.raises(Damaged):
                    open_envelope(summed(bytes(data)), wrong, "name", SECRETLY)


def test_sizes_of_sealed_objects_tell_little() -> None:
    sizes = {len(seal_envelope(Kind.SNAPSHOT, SECRETLY, SALT, bytes(n))) for n in range(1000, 2000)}
    assert len(sizes) <= 18


def test_a_payload_too_large_when_it_is_sealed_is_our_own_mistake() -> None:
    for kind, most in ((Kind.SNAPSHOT, 16_515_068), (Kind.CONFIG, MAX_PAYLOAD - 32)):
        data = seal_envelope(kind, SECRETLY, SALT, bytes(most))
        assert len(open_envelope(data, kind, "name", SECRETLY).payload) == most
        with pytest.raises(ValueError, match="above"):
            seal_envelope(kind, SECRETLY, SALT, bytes(most + 1))
