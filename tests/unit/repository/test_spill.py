"""Rows come back once each and in order, whether they were spilled or not."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.errors import StorageFull
from packstone.repository import spill
from packstone.repository.spill import SpillSorter


@given(
    count=st.integers(0, 400), held=st.sampled_from([1, 3, 100, 1000]), seed=st.integers(0, 1 << 32)
)
def test_rows_come_back_in_order(count: int, held: int, seed: int) -> None:
    rng = Random(seed)
    rows = [(rng.choice(b"\0\x7f\xff\x40").to_bytes(1, "big") + rng.randbytes(2), rng.randbytes(3))
            for _ in range(count)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spill, "_HELD", held)
        sorter = SpillSorter("/tmp", 3, 3)
        for row in rows:
            sorter.add(*row)
        found = [list(part) for part in sorter.partitions()]
        sorter.close()
    assert [row for part in found for row in part] == sorted(rows)


def test_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_HELD", 10)
    sorter = SpillSorter(str(tmp_path), 2, 1)
    for number in range(100):
        sorter.add(number.to_bytes(2, "big"), b"x")
    sorter.close()
    assert os.listdir(tmp_path) == []


def test_no_room_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill, "_HELD", 1)
    sorter = SpillSorter(str(tmp_path / "missing"), 2, 1)
    with pytest.raises(StorageFull, match="missing"):
        sorter.add(b"ab", b"c")
