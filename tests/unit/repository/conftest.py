"""Fixtures of the repository's tests: pages in a dict, a small repository on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from packstone.codec.hashing import Hasher, plain_family
from packstone.errors import ObjectMissing
from packstone.model import Entry, ObjectType
from packstone.repository.repository import ObjectRepository, init

HASHER = Hasher(plain_family())


class Pages:
    """What `put` and `get` of pages need, in a dict; counts what is new and what is read."""

    def __init__(self) -> None:
        self.stored: dict[tuple[ObjectType, bytes], bytes] = {}
        self.new: list[bytes] = []
        self.read: Counter[bytes] = Counter()

    def put(self, kind: ObjectType, data: bytes) -> bytes:
        object_id = HASHER.id(kind, data)
        if (kind, object_id) not in self.stored:
            self.stored[kind, object_id] = data
            self.new.append(object_id)
        return object_id

    def get(self, kind: ObjectType, object_id: bytes) -> bytes:
        self.read[object_id] += 1
        try:
            return self.stored[kind, object_id]
        except KeyError:
            raise ObjectMissing(object_id.hex()) from None


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def new_pages() -> Callable[[], Pages]:
    """For tests with many examples, which share their fixtures."""
    return Pages


@pytest.fixture
def make_entry() -> Callable[..., Entry]:
    def make(name: bytes, **changes: Any) -> Entry:
        fields: dict[str, Any] = {
            "mode": 0o100644,
            "uid": 1000,
            "gid": 1000,
            "size": 0,
            "mtime_ns": 1_700_000_000_000_000_000,
            "ctime_ns": 1_700_000_000_000_000_000,
            "inode": 77,
            "content": b"",
            "extras": None,
        }
        return Entry(name=name, **(fields | changes))

    return make


@pytest.fixture
def location(tmp_path: Path) -> str:
    """A new repository of small packs, made with a clock that stands still."""
    path = str(tmp_path / "store")
    rng = Random("repository")
    init(path, average=4096, pack_size=1 << 20, level=3, clock=lambda: 0, random=rng.randbytes)
    return path


@pytest.fixture
def repository(location: str) -> Iterator[ObjectRepository]:
    opened = ObjectRepository(location)
    yield opened
    opened.close()
