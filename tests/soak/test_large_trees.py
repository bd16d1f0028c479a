"""Trees too large for every day: a million names in one directory, long names far down."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees, remove_tree
from faults import in_child
from operations.samples import make_deep, make_many

import packstone

pytestmark = pytest.mark.soak
MIB = 1 << 20


@pytest.fixture
def place() -> Iterator[Path]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    yield path
    remove_tree(path)


def within(size: int, function: object) -> None:
    """Run in a child whose peak of memory may grow by `size` bytes at most."""

    def run() -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        function()  # type: ignore[operator]
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before
        assert grown < size, f"grew by {grown / MIB:.0f} MiB"

    assert in_child(run) == 0


def test_a_million_names(place: Path) -> None:
    make_many(place / "source", 1_000_000)
    packstone.init(place / "repository").close()

    def take() -> None:
        with packstone.open(place / "repository") as repository:
            result = repository.snapshot([place / "source"])
            assert result.errors == [] and result.files_new + result.files_unmodified == 1_000_000

    def restore() -> None:
        with packstone.open(place / "repository") as repository:
            result = repository.restore("latest", place / "target", path=bytes(place / "source"))
            assert result.errors == [] and result.files_restored == 1_000_000
            assert repository.check(read_data=True).errors == []

    within(300 * MIB, take)
    within(300 * MIB, take)
    within(300 * MIB, restore)
    assert_equal_trees(place / "source", place / "target", top=False)


def test_three_thousand_levels_of_long_names(place: Path) -> None:
    """Their paths have up to 768,000 bytes: to keep one for each level would take a gigabyte."""
    make_deep(place / "source", levels=3_000, name=b"x" * 255)
    packstone.init(place / "repository").close()

    def run() -> None:
        with packstone.open(place / "repository") as repository:
            source = bytes(place / "source")
            assert repository.snapshot([source]).errors == []
            assert repository.restore("latest", place / "target", path=source).errors == []
            assert repository.check(read_data=True).errors == []
            assert sum(1 for _ in repository.ls("latest", recursive=True)) > 3_000

    within(300 * MIB, run)
    assert_equal_trees(place / "source", place / "target", top=False)
