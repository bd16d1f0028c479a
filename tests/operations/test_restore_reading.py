"""What a restore reads: of the packs only what it needs, of the disk all it wrote (--verify)."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from operations.samples import has_xattrs

import packstone
from packstone.operations import restore_files
from packstone.storage.local import LocalStorage

SIZE = 400_000  # of each of twelve files, in packs of 1 MiB


@pytest.fixture
def packs(big_place: Path, source: Path) -> Iterator[packstone.Repository]:
    """A repository where twelve files lie in several packs."""
    for at in range(12):
        below = source / f"{at // 4}"
        below.mkdir(exist_ok=True)
        (below / f"{at}.bin").write_bytes(random.Random(at).randbytes(SIZE))
    packstone.init(big_place / "packs", chunk_size=16384, pack_size=1 << 20).close()
    # one thread: chunks of a file lie together
    with packstone.open(big_place / "packs", threads=1) as repository:
        repository.snapshot([source])
        assert repository.stats().packs >= 5
        yield repository


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every read of a pack: its name and how many bytes."""
    seen: list[tuple[str, int]] = []
    get_range = LocalStorage.get_range

    def counting(self: LocalStorage, name: str, offset: int, size: int) -> bytes:
        data = get_range(self, name, offset, size)
        if name.startswith("packs/"):
            seen.append((name, len(data)))
        return data

    monkeypatch.setattr(LocalStorage, "get_range", counting)
    return seen


@pytest.mark.parametrize("by", ["path", "directory", "include", "exclude"])
def test_a_part_reads_only_its_packs(
    packs: packstone.Repository,
    source: Path,
    tmp_path: Path,
    reads: list[tuple[str, int]],
    by: str,
) -> None:
    path, options, files = {
        "path": (source / "1" / "5.bin", {}, 1),
        "directory": (source / "1", {}, 4),
        "include": (source, {"include": ["5.bin"]}, 1),
        "exclude": (source, {"exclude": ["0", "2", "4.bin", "6.bin", "7.bin"]}, 1),
    }[by]
    result = packs.restore("latest", tmp_path / "target", path=bytes(path), **options)
    assert result.errors == [] and result.files_restored == files
    need = files * SIZE
    assert need <= sum(size for _, size in reads) < need + 200_000
    assert len({name for name, _ in reads}) <= 2 + files  # two of data for one file, and metadata


def test_what_is_there_is_not_read_from_packs(
    packs: packstone.Repository, source: Path, tmp_path: Path, reads: list[tuple[str, int]]
) -> None:
    target = tmp_path / "target"
    packs.restore("latest", target, path=bytes(source))
    everything = sum(size for _, size in reads)
    assert everything > 12 * SIZE
    with open(target / "1" / "5.bin", "r+b") as file:
        file.seek(200_000)
        file.write(b"x")
    for options in ({}, {"read_data": True}, {"dry_run": True, "read_data": True}):
        reads.clear()
        (target / "1" / "5.bin").touch()
        result = packs.restore("latest", target, path=bytes(source), overwrite="changed", **options)
        assert result.errors == []
        assert sum(size for _, size in reads) < everything // 20


def test_verify_reads_everything_back(
    packs: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    os.link(source / "0" / "0.bin", source / "link")
    (source / "empty").touch()
    if has_xattrs(source):
        os.setxattr(source / "0" / "1.bin", "user.x", b"1")
    packs.snapshot([source])
    result = packs.restore("latest", tmp_path / "target", path=bytes(source), verify=True)
    assert result.errors == [] and result.files_verified == 13
    again = packs.restore(
        "latest", tmp_path / "target", path=bytes(source), verify=True, overwrite="changed"
    )
    assert again.errors == [] and again.files_restored == 0 and again.files_verified == 13


@pytest.mark.parametrize("spoil", ["byte", "size", "gone"])
def test_verify_names_what_came_back_wrong(
    packs: packstone.Repository,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: str,
) -> None:
    """The disk loses what was written, after it said that it has it."""
    target = tmp_path / "target"
    bad = target / "9.bin"
    verify_file = restore_files.verify_file

    lost = threading.Event()

    def lose(*args: object) -> object:
        if not lost.is_set():
            lost.set()
            if spoil == "gone":
                bad.unlink()
            else:
                with open(bad, "r+b") as file:
                    file.seek(SIZE - 1)
                    last = file.read(1)
                    file.seek(SIZE - 1)
                    file.write(bytes([last[0] ^ 1]) if spoil == "byte" else b"12")
        return verify_file(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(restore_files, "verify_file", lose)
    result = packs.restore("latest", target, path=bytes(source / "2"), verify=True)
    assert [problem.path for problem in result.errors] == [os.fsencode(bad)]
    assert "verification failed" in result.errors[0].message
    monkeypatch.undo()
    healed = packs.restore(
        "latest", target, path=bytes(source / "2"), overwrite="changed", read_data=True, verify=True
    )
    assert healed.errors == []
    assert bad.read_bytes() == (source / "2" / "9.bin").read_bytes()


def test_without_verify_nothing_is_read_back(
    packs: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    result = packs.restore("latest", tmp_path / "target", path=bytes(source))
    assert result.files_verified == 0
