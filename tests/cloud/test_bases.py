"""Bases of deltas on a machine whose cache is gone: fetched while that pays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import packstone
from packstone.model import MIB
from packstone.repository import fetching


def edit(path: Path, every: int) -> None:
    """Change a few bytes in each stretch of so many."""
    data = bytearray(path.read_bytes())
    for at in range(every // 2, len(data), every):
        data[at : at + 8] = os.urandom(8)
    path.write_bytes(data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


def test_a_dump_is_worth_it(url: str, source: Path, tmp_path: Path) -> None:
    (source / "dump").write_bytes(os.urandom(6_000_000))
    with packstone.init(url) as repository:
        repository.snapshot([source])
    edit(source / "dump", 50_000)
    shutil.rmtree(tmp_path / "cache")
    with packstone.open(url) as repository:
        taken = repository.snapshot([source])
    assert taken.chunks_delta > 0.8 * taken.chunks_new
    assert taken.bytes_stored < 600_000


def test_scattered_edits_are_not(
    url: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One chunk of each 2 MiB: what is received stays in proportion to what it saves."""
    monkeypatch.setattr(fetching, "_CREDIT", 4 * MIB)
    for number in range(20):
        (source / f"{number}").write_bytes(os.urandom(4_200_000))
    with packstone.init(url) as repository:
        repository.snapshot([source])
    for path in source.iterdir():
        edit(path, 4_200_000)

    shutil.rmtree(tmp_path / "cache")
    with packstone.open(url) as repository:
        taken = repository.snapshot([source])
        received = repository.requests()["bytes_received"]
    assert 0 < taken.chunks_delta < 15
    saved = 300_000 * taken.chunks_delta  # at most: few chunks are as large
    assert received <= 4 * MIB + 2 * saved + 6 * 2 * MIB  # and what was under way
