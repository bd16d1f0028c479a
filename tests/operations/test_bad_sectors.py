"""A disk that gives EIO for one sector: what it does not hold is found, from copies if need be."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

import packstone
from packstone.model import MIB
from packstone.storage import local

FILES = 8
Spoil = Callable[[Path, int], None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Make reads of one byte of one file fail from now on."""
    read_range = local.read_range
    bad: dict[int, int] = {}

    def read(fd: int, offset: int, size: int, *calls: Any) -> bytes:
        at = bad.get(os.fstat(fd).st_ino, -1)
        if offset <= at < offset + size:
            raise OSError(errno.EIO, "Input/output error")
        return read_range(fd, offset, size, *calls)

    def mark(path: Path, at: int) -> None:
        bad[path.stat().st_ino] = at

    monkeypatch.setattr(local, "read_range", read)
    return mark


@pytest.fixture
def filled(source: Path, big_place: Path) -> Iterator[packstone.Repository]:
    """A repository with one snapshot of files that are some records of one pack."""
    for at in range(FILES):
        (source / f"{at}").write_bytes(Random(at).randbytes(300_000))
    location = big_place / "filled"
    with packstone.init(location, chunk_size=MIB) as repository:
        assert repository.snapshot([source]).errors == []
        yield repository


def largest_pack(repository: packstone.Repository) -> Path:
    packs = [path for path in Path(repository.location, "packs").rglob("*") if path.is_file()]
    return max(packs, key=lambda path: path.stat().st_size)


def test_restoring_goes_on(
    filled: packstone.Repository, source: Path, tmp_path: Path, spoil: Spoil
) -> None:
    """One bad sector costs the one file that it holds, and that file is named."""
    pack = largest_pack(filled)
    spoil(pack, pack.stat().st_size // 3)
    target = tmp_path / "target"
    result = filled.restore("latest", target, path=os.fsencode(source))
    assert len(result.errors) == 1
    assert result.files_restored == FILES - 1
    lost = os.path.basename(os.fsdecode(result.errors[0].path))
    whole = {path.name for path in source.iterdir()} - {lost}
    for name in whole:
        assert (target / name).read_bytes() == (source / name).read_bytes()


def test_check_goes_on(filled: packstone.Repository, source: Path, spoil: Spoil) -> None:
    """Check names the one file that a bad sector takes, not all files of the pack."""
    pack = largest_pack(filled)
    spoil(pack, pack.stat().st_size // 3)
    errors = filled.check(read_data=True).errors
    assert any(finding.pack == pack.name for finding in errors)
    assert len({path for finding in errors for path in finding.paths}) == 1


def test_the_second_footer_is_read(filled: packstone.Repository, spoil: Spoil) -> None:
    """A pack whose first sector does not read is known by its end when the index is made anew."""
    location, pack = filled.location, largest_pack(filled)
    filled.close()
    shutil.rmtree(Path(location, "index"))
    spoil(pack, 10)
    with packstone.open(location) as repository:
        restored = repository.ls("latest", recursive=True)
        assert sum(row.entry.name.isdigit() for row in restored) >= FILES
        assert pack.name in repository._objects.index.packs.values()


def test_the_copy_of_the_configuration_is_read(filled: packstone.Repository, spoil: Spoil) -> None:
    """A repository opens though its configuration stands on a bad sector."""
    spoil(Path(filled.location, "config"), 10)
    with packstone.open(filled.location) as repository:
        assert len(repository.snapshots()) == 1
        assert any("config" in warning for warning in repository.warnings)


def test_other_snapshots_are_listed(
    filled: packstone.Repository, source: Path, spoil: Spoil
) -> None:
    """A snapshot on a bad sector is warned of and hides no other."""
    second = filled.snapshot([source]).snapshot_id
    assert second is not None
    (path,) = (each for each in Path(filled.location, "snapshots").rglob(second))
    spoil(path, 10)
    with packstone.open(filled.location) as repository:
        rows = repository.snapshots()
        assert len(rows) == 1 and rows[0].id != second
        assert any(second[:12] in warning for warning in repository.warnings)


def test_the_second_copy_is_read(
    filled: packstone.Repository, source: Path, tmp_path: Path, spoil: Spoil
) -> None:
    """Content that two packs hold is restored whole though each of them has a bad sector."""
    first, aside = largest_pack(filled), tmp_path / "aside"
    location = filled.location
    filled.close()
    shutil.move(first, aside)
    with packstone.open(location) as repository:
        repository.snapshot([source], read_all=True)
        second = largest_pack(repository)
    shutil.move(aside, first)
    assert second != first
    for pack, name in ((first, "0"), (second, "7")):  # workers may store files in any order
        at = pack.read_bytes().find((source / name).read_bytes())
        assert at > 0
        spoil(pack, at + 1000)
    with packstone.open(location) as repository:
        target = tmp_path / "target"
        result = repository.restore("latest", target, path=os.fsencode(source))
        assert result.errors == [] and result.files_restored == FILES
    for path in source.iterdir():
        assert (target / path.name).read_bytes() == path.read_bytes()
