"""What is sealed opens to what it was, in its own place, and nothing else opens at all."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.encryption import TAG_SIZE, Sealer, padded_size, padme
from packstone.codec.keys import Secrets
from packstone.errors import Damaged
from packstone.model import MIB

OWNER, SALT, SECRET = bytes(range(16)), bytes(range(32)), bytes(range(100, 132))
OURS = Sealer(OWNER, SECRET)
PACK = OURS.pack(1, SALT)
HEAD = bytes(range(64))

numbers = st.integers(0, (1 << 32) - 1)
payloads = st.binary(max_size=2000)


# -- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "padded"),
    [
        (0, 0), (1, 1), (2, 2), (3, 3), (7, 7), (8, 8), (9, 10), (15, 16), (16, 16), (17, 18),
        (31, 32), (100, 104), (255, 256), (256, 256), (257, 272), (1000, 1024), (65_537, 67_584),
        (MIB - 1, MIB), (MIB, MIB), (MIB + 1, MIB + 32_768),
    ],
)  # fmt: skip
def test_padme_of_single_sizes(size: int, padded: int) -> None:
    assert padme(size) == padded


@given(size=st.integers(2, 1 << 40) | st.integers(2, 300))
def test_padme_as_its_authors_define_it(size: int) -> None:
    """Algorithm 1 of Nikitin et al., with the logarithms as they stand there."""
    exponent = next(power for power in range(64) if size < 2 << power)
    bits = next(power for power in range(8) if exponent < 2 << power) + 1
    unit = 2 ** max(0, exponent - bits)
    assert padme(size) == -(-size // unit) * unit


@given(size=st.integers(0, 1 << 40) | st.integers(0, 300), more=st.integers(0, 1 << 20))
def test_padme_adds_little_and_keeps_the_order(size: int, more: int) -> None:
    padded = padme(size)
    assert size <= padded <= size * 1.12
    assert padme(padded) == padded
    assert padme(size + more) >= padded


@given(power=st.integers(4, 40))
def test_padme_tells_little(power: int) -> None:
    """Of all sizes between two powers of two so many are left: O(log log) bits."""
    left = 1
    size = 1 << power
    while (size := padme(size + 1)) < 2 << power:
        left += 1
    assert left <= 2 * power


# -- round trips ----------------------------------------------------------------------------


@given(
    number=numbers, raw_size=numbers, codec=st.integers(0, 255), kind=st.integers(1, 2),
    salt=st.binary(min_size=32, max_size=32), payload=payloads,
)  # fmt: skip
def test_records_come_back(
    number: int, raw_size: int, codec: int, kind: int, salt: bytes, payload: bytes
) -> None:
    pack = OURS.pack(kind, salt)
    stored = pack.seal(number, raw_size, codec, payload)
    assert len(stored) == len(payload) + pack.overhead == len(payload) + TAG_SIZE
    for buffer in (stored, bytearray(stored), memoryview(stored)):
        assert OURS.pack(kind, salt).open(number, raw_size, codec, buffer) == payload
    for buffer in (bytearray(payload), memoryview(payload)):
        assert pack.seal(number, raw_size, codec, buffer) == stored


@given(head=st.binary(min_size=64, max_size=64), body=payloads)
def test_footers_come_back(head: bytes, body: bytes) -> None:
    stored = PACK.seal_footer(head, body)
    assert len(stored) == PACK.footer_size(len(body)) == padded_size(len(body))
    assert PACK.open_footer(head, stored) == PACK.open_footer(head, memoryview(stored)) == body


def test_a_footer_is_opened_without_the_kind() -> None:
    """Whoever has only the second copy knows it when the footer is open, not before."""
    assert OURS.pack(0, SALT).open_footer(HEAD, OURS.pack(2, SALT).seal_footer(HEAD, b"a")) == b"a"


@given(
    head=st.binary(min_size=64, max_size=64),
    salt=st.binary(min_size=32, max_size=32),
    payload=payloads,
)
def test_objects_come_back(head: bytes, salt: bytes, payload: bytes) -> None:
    sealed = OURS.seal_object(head, salt, payload)
    assert len(sealed) == padded_size(len(payload)) == padme(len(payload) + 4) + TAG_SIZE
    assert OURS.open_object(head, salt, sealed) == payload


@given(payload=payloads, number=numbers)
def test_plain_bytes_pass_as_they_are(payload: bytes, number: int) -> None:
    plain = Sealer(OWNER)
    pack = plain.pack(1, SALT)
    assert plain.is_plain and not OURS.is_plain
    assert pack.overhead == 0
    assert pack.seal(number, 1, 0, payload) is payload
    assert pack.open(number, 1, 0, payload) is payload
    assert pack.seal_footer(HEAD, payload) is payload
    assert pack.open_footer(HEAD, payload) is payload
    assert pack.footer_size(len(payload)) == len(payload)
    assert pack.padding(number, 100) == bytes(100)


# -- as docs/format.md §10 has it -----------------------------------------------------------


def derive(name: str, salt: bytes) -> bytes:
    return blake3(SECRET + salt, derive_key_context=f"packstone v1 {name}").digest()


def prefix(kind: int, salt: bytes) -> bytes:
    return struct.pack("<8sHBB4x16s32s", b"PKSTPACK", 1, kind, 1, OWNER, salt)


def pad(data: bytes) -> bytes:
    padded = len(data).to_bytes(4, "little") + data
    return padded + bytes(padme(len(padded)) - len(padded))


@given(
    number=numbers | st.integers(0, 1000), raw_size=numbers, codec=st.integers(0, 255),
    kind=st.integers(1, 2), salt=st.binary(min_size=32, max_size=32), payload=payloads,
)  # fmt: skip
def test_what_is_sealed_is_what_the_page_says(
    number: int, raw_size: int, codec: int, kind: int, salt: bytes, payload: bytes
) -> None:
    """Every key, nonce and associated data, put together once more."""
    pack = OURS.pack(kind, salt)
    bound = prefix(kind, salt) + struct.pack("<QIIB", number, raw_size, len(payload) + 16, codec)
    assert pack.seal(number, raw_size, codec, payload) == AESGCM(
        derive("record key", salt)
    ).encrypt(number.to_bytes(12, "little"), payload, bound)
    assert pack.seal_footer(HEAD, payload) == AESGCM(derive("footer key", salt)).encrypt(
        bytes(12), pad(payload), prefix(0, salt) + HEAD
    )
    assert OURS.seal_object(HEAD, salt, payload) == AESGCM(derive("object key", salt)).encrypt(
        bytes(12), pad(payload), HEAD
    )
    key = derive("object authentication", b"")
    assert OURS.authenticate(payload) == blake3(payload, key=key).digest()
    key = derive("padding", salt)
    assert pack.padding(number, 99) == blake3(key=key).digest(length=99, seek=number)


def test_no_two_records_of_a_pack_share_a_key_stream() -> None:
    """Of two that do, each gives the other away."""
    zeros = bytes(16)
    found = {bytes(PACK.seal(number, 16, 0, zeros))[:16] for number in range(70_000)}
    found |= {bytes(PACK.seal(1 << power, 16, 0, zeros))[:16] for power in range(17, 32)}
    assert len(found) == 70_015


# -- what is bound --------------------------------------------------------------------------

BOUND: dict[str, Any] = {
    "sealing secret": bytes(32),
    "repository id": bytes(16),
    "salt": bytes(32),
    "kind": 2,
    "number": 8,
    "raw size": 101,
    "codec": 1,
}
FIRST: dict[str, Any] = {
    "sealing secret": SECRET, "repository id": OWNER, "salt": SALT, "kind": 1, "number": 7,
    "raw size": 100, "codec": 0,
}  # fmt: skip


def open_record(fields: dict[str, Any], stored: bytes) -> bytes:
    pack = Sealer(fields["repository id"], fields["sealing secret"]).pack(
        fields["kind"], fields["salt"]
    )
    return bytes(pack.open(fields["number"], fields["raw size"], fields["codec"], stored))


@pytest.mark.parametrize("field", BOUND)
def test_a_record_opens_in_its_own_place_alone(field: str) -> None:
    stored = bytes(PACK.seal(7, 100, 0, b"payload"))
    assert open_record(FIRST, stored) == b"payload"
    with pytest.raises(Damaged):
        open_record(FIRST | {field: BOUND[field]}, stored)


def test_no_record_opens_as_its_neighbour() -> None:
    """Whatever their numbers: a number is more than its last byte."""
    for number in (0, 1, 255, 256, 65_535, 1 << 24, (1 << 32) - 1):
        stored = PACK.seal(number, 100, 0, b"payload")
        for other in (number ^ 1, number ^ 256, number ^ (1 << 31), number + (1 << 32)):
            with pytest.raises(Damaged):
                PACK.open(other, 100, 0, stored)


def test_the_stored_size_is_bound() -> None:
    """What the cipher would take for another message of another length is none of ours."""
    stored = bytes(PACK.seal(7, 100, 0, b"payload"))
    key, bound = PACK._record, PACK._bound(7, 100, len(stored) + 1, 0)
    forged = key.encrypt((7).to_bytes(12, "little"), b"payload", bound)
    with pytest.raises(Damaged):
        PACK.open(7, 100, 0, forged)


@pytest.mark.parametrize("field", ["sealing secret", "repository id", "salt"])
def test_a_footer_opens_in_its_own_pack_alone(field: str) -> None:
    fields = FIRST | {field: BOUND[field]}
    other = Sealer(fields["repository id"], fields["sealing secret"]).pack(1, fields["salt"])
    stored = PACK.seal_footer(HEAD, b"body")
    with pytest.raises(Damaged):
        other.open_footer(HEAD, stored)
    with pytest.raises(Damaged):
        PACK.open_footer(HEAD[:-1] + b"\0", stored)


@pytest.mark.parametrize("change", ["secret", "salt", "head"])
def test_an_object_opens_under_its_own_header_alone(change: str) -> None:
    sealed = OURS.seal_object(HEAD, SALT, b"payload")
    sealer = Sealer(OWNER, bytes(32)) if change == "secret" else OURS
    salt = bytes(32) if change == "salt" else SALT
    head = bytes(64) if change == "head" else HEAD
    with pytest.raises(Damaged):
        sealer.open_object(head, salt, sealed)


def test_nothing_opens_as_something_else() -> None:
    """Records, footers and objects have keys of their own: the same salt makes no difference."""
    record = bytes(PACK.seal(0, 100, 0, b"payload"))
    footer = PACK.seal_footer(HEAD, b"payload")
    sealed = OURS.seal_object(HEAD, SALT, b"payload")
    for name, open_it in OPEN.items():
        for other, stored in (("record", record), ("footer", footer), ("object", sealed)):
            if name != other:
                with pytest.raises(Damaged):
                    open_it(stored)


# -- every bit and every length -------------------------------------------------------------

OPEN: dict[str, Callable[[bytes], Any]] = {
    "record": lambda stored: PACK.open(0, 100, 0, stored),
    "footer": lambda stored: PACK.open_footer(HEAD, stored),
    "object": lambda stored: OURS.open_object(HEAD, SALT, stored),
}
STORED = {
    "record": bytes(PACK.seal(0, 100, 0, b"a small payload")),
    "footer": PACK.seal_footer(HEAD, b"a small payload"),
    "object": OURS.seal_object(HEAD, SALT, b"a small payload"),
}


@pytest.mark.parametrize("what", OPEN)
def test_every_flipped_bit_is_damage(what: str) -> None:
    assert OPEN[what](STORED[what]) == b"a small payload"
    for at in range(8 * len(STORED[what])):
        changed = bytearray(STORED[what])
        changed[at // 8] ^= 1 << at % 8
        with pytest.raises(Damaged):
            OPEN[what](bytes(changed))


@pytest.mark.parametrize("what", OPEN)
def test_every_other_length_is_damage(what: str) -> None:
    stored = STORED[what]
    for size in range(len(stored)):
        with pytest.raises(Damaged):
            OPEN[what](stored[:size])
        with pytest.raises(Damaged):
            OPEN[what](stored[size + 1 :])
        with pytest.raises(Damaged):
            OPEN[what](stored + stored[: size + 1])


def sealed_as_it_is(padded: bytes) -> bytes:
    """Seal bytes that whoever has the keys has padded in a way of his own."""
    sealed: bytes = OURS._key("packstone v1 object key", SALT).encrypt(bytes(12), padded, HEAD)
    return sealed


@pytest.mark.parametrize(
    "padded",
    [
        b"", b"\0\0\0", b"\xff\xff\xff\xff", b"\2\0\0\0a", b"\1\0\0\0ab", b"\1\0\0\0a\0\0\0\0\0",
        b"\x05\0\0\0abcde\1", b"\x04\0\0\0abcd\0\0", bytes(4) + bytes(4),
    ],
)  # fmt: skip
def test_a_padding_that_is_none_is_damage(padded: bytes) -> None:
    """There is one way to pad, so nothing can be hidden in a padding."""
    with pytest.raises(Damaged):
        OURS.open_object(HEAD, SALT, sealed_as_it_is(padded))


def test_the_way_to_pad() -> None:
    for payload, padded in ((b"", bytes(4)), (b"abcde", b"\5\0\0\0abcde\0"), (b"a", b"\1\0\0\0a")):
        assert OURS.open_object(HEAD, SALT, sealed_as_it_is(padded)) == payload
        assert OURS.seal_object(HEAD, SALT, payload) == sealed_as_it_is(padded)


# -- what tells nothing ---------------------------------------------------------------------


def test_padding_is_unlike_zeros() -> None:
    """Storage must not see where the records end."""
    data = PACK.padding(0, 100_000)
    assert len(data) == 100_000 and bytes(4) not in data
    counts = [data.count(bytes([value])) for value in range(256)]
    assert min(counts) > 250 and max(counts) < 550, "390 of each, more or less"
    for at in (1, 64, 4097, 99_000):
        assert PACK.padding(at, 500) == data[at : at + 500], "the same whoever writes it, in parts"
    others = [OURS.pack(1, bytes(32)), Sealer(OWNER, bytes(32)).pack(1, SALT)]
    assert len({data[:32], *(each.padding(0, 32) for each in others)}) == 3


def test_what_is_sealed_tells_no_payload() -> None:
    payload = Random(1).randbytes(40) * 50
    for stored in (
        bytes(PACK.seal(0, 1, 0, payload)),
        PACK.seal_footer(HEAD, payload),
        OURS.seal_object(HEAD, SALT, payload),
    ):
        assert not any(payload[at : at + 8] in stored for at in range(40))
        assert len({stored[at : at + 16] for at in range(0, len(stored), 16)}) > len(stored) // 17


def test_authentication_codes() -> None:
    code = OURS.authenticate(b"data")
    assert len(code) == 32 and code == Sealer(OWNER, SECRET).authenticate(b"data")
    assert code != OURS.authenticate(b"dat")
    assert code != Sealer(OWNER, bytes(32)).authenticate(b"data")


# -- secrets --------------------------------------------------------------------------------


def holders() -> dict[str, object]:
    return {
        "sealer": OURS,
        "pack sealer": PACK,
        "secrets": Secrets(SECRET, SECRET),
    }


def assert_no_secret(text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    for form in (SECRET, repr(SECRET)[2:-1].encode(), SECRET.hex().encode(), SECRET[:8]):
        assert form not in data


@pytest.mark.parametrize("name", holders())
def test_secrets_are_in_no_text(name: str) -> None:
    """Logs, messages and tracebacks show objects; these must show nothing."""
    holder = holders()[name]
    for text in (repr(holder), str(holder), f"{holder}", f"{[holder]!r}"):
        assert_no_secret(text)


@pytest.mark.parametrize(
    "name",
    [
        "sealer",
        "pack sealer",
        "secrets",
    ],
)
def test_secrets_are_not_pickled(name: str) -> None:
    """Nobody sends them to another process or into a cache without meaning to."""
    try:
        data = pickle.dumps(holders()[name])
    except TypeError:
        return
    assert_no_secret(data)


def test_errors_tell_no_secret() -> None:
    with pytest.raises(Damaged) as caught:
        PACK.open(0, 100, 0, bytes(40))
    assert_no_secret(f"{caught.value!r} {caught.value.__cause__!r} {vars(caught.value)}")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_secret_of_another_size_is_our_own_mistake(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Sealer(OWNER, bytes(size))
