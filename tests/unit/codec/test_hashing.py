"""Ids bind bytes to a type and a family."""

from __future__ import annotations

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from packstone.codec.hashing import Hasher, checksum, derive, plain_family
from packstone.model import ObjectType

families = st.binary(min_size=32, max_size=32)


@given(data=st.binary(max_size=100), family=families)
def test_one_type_never_poses_as_another(data: bytes, family: bytes) -> None:
    """borg's archives could be put into the content of a file (CVE-2016-10099)."""
    hasher = Hasher(family)
    ids = {hasher.id(kind, data) for kind in ObjectType}
    assert len(ids) == len(ObjectType)
    assert checksum(data) not in ids
    assert all(len(each) == 32 for each in ids)


@given(data=st.binary(max_size=100), one=families, other=families)
def test_families_share_no_ids(data: bytes, one: bytes, other: bytes) -> None:
    same = Hasher(one).id(ObjectType.CHUNK, data) == Hasher(other).id(ObjectType.CHUNK, data)
    assert same == (one == other)


@given(data=st.binary(max_size=5000))
def test_the_buffer_does_not_matter(data: bytes) -> None:
    hasher = Hasher(plain_family())
    expected = hasher.id(ObjectType.CHUNK, data)
    for buffer in (bytearray(data), memoryview(data), memoryview(b"x" + data)[1:]):
        assert hasher.id(ObjectType.CHUNK, buffer) == expected
        assert hasher.function(ObjectType.CHUNK)(buffer) == expected
    assert checksum(memoryview(data)) == blake3(data).digest()


def test_secrets_are_all_different() -> None:
    hasher = Hasher(plain_family())
    keys = {derive(f"packstone v1 id {word}", plain_family()) for word in ("chunk", "tree")}
    keys |= {hasher.fingerprint, plain_family(), hasher.cutting_secret[:32]}
    assert len(keys) == 5
    assert len(hasher.cutting_secret) == 64


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_family_has_32_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="32"):
        Hasher(bytes(size))
