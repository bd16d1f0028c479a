"""Check: what is read and in which order, faults that pass, dates, what damage hits, orphans."""

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
from packstone.model import KIB, MIB
from packstone.operations import check as check_module
from packstone.operations import check_packs
from packstone.operations.check import check_repository
from packstone.operations.check_choice import Choice
from packstone.storage import local

FILES = 6
DAY = 86_400 * 10**9


@pytest.fixture
def filled(source: Path, big_place: Path) -> Iterator[packstone.Repository]:
    """Several data packs: a snapshot for each file, with a pack of chunks and one of trees."""
    location = big_place / "filled"
    with packstone.init(location, chunk_size=64 * KIB, pack_size=MIB) as repository:
        for number in range(FILES):
            (source / f"{number}").write_bytes(Random(number).randbytes(900_000))
            assert repository.snapshot([source]).errors == []
        yield repository


@pytest.fixture
def read_packs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The packs whose records a check has read, in this order."""
    seen: list[str] = []
    check_pack = check_module.check_pack

    def noting(repository: Any, codec: Any, pack_id: str, size: int, depth: Any) -> Any:
        if depth == check_module.Depth.DATA:
            seen.append(pack_id)
        return check_pack(repository, codec, pack_id, size, depth)

    monkeypatch.setattr(check_module, "check_pack", noting)
    return seen


def pack_paths(repository: packstone.Repository) -> list[Path]:
    return sorted(Path(repository.location).glob("packs/*/*"))


def largest(repository: packstone.Repository) -> Path:
    return max(pack_paths(repository), key=lambda path: path.stat().st_size)


def history(repository: packstone.Repository) -> list[Path]:
    return sorted(Path(repository.location).glob("history/*"))


def at(repository: packstone.Repository, now: int, **options: Any) -> packstone.CheckResult:
    """Check at a time."""
    return check_repository(repository._objects, clock=lambda: now, **options)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x20]))


# -- what is read ---------------------------------------------------------------------------


def test_parts_read_every_pack_once(filled: packstone.Repository, read_packs: list[str]) -> None:
    packs = pack_paths(filled)
    results = [filled.check(subset=f"{number}/3") for number in (1, 2, 3)]
    assert sorted(read_packs) == [path.name for path in packs]
    assert sum(result.packs_checked for result in results) == len(packs)
    assert sum(result.bytes_read for result in results) == sum(p.stat().st_size for p in packs)
    for result in results:
        assert (result.errors, result.packs_total) == ([], len(packs))
        assert result.snapshots_checked == FILES


def test_subsets_go_round(filled: packstone.Repository, read_packs: list[str]) -> None:
    """What was verified longest ago comes first, so that small parts cover all in the end."""
    count = len(pack_paths(filled))
    for day in range(1, count + 1):
        assert at(filled, day * DAY, choice=Choice(1)).packs_checked == 1
    first = list(read_packs)
    assert len(set(first)) == count
    for day in range(count + 1, 2 * count + 1):
        at(filled, day * DAY, choice=Choice(1))
    assert read_packs[count:] == first


def test_time_is_kept(filled: packstone.Repository, read_packs: list[str]) -> None:
    """It stops between packs, says how far it is, and goes on there the next time."""
    now = [0.0]

    def monotonic() -> float:
        now[0] += 1
        return now[0]

    count = len(pack_paths(filled))
    choice = Choice(max_seconds=3)
    first = at(filled, DAY, choice=choice, monotonic=monotonic)
    assert first.errors == [] and 0 < first.packs_checked < count
    assert first.verified is not None
    assert first.verified.packs == first.packs_checked == len(read_packs)
    assert 0 < first.verified.bytes < first.bytes_total
    assert first.verified.oldest_ns == DAY
    for day in range(2, count + 1):
        last = at(filled, day * DAY, choice=choice, monotonic=monotonic)
        if last.verified is not None and last.verified.packs == count:
            break
    assert len(read_packs[:count]) == len(set(read_packs[:count])) == count
    assert last.verified is not None and last.verified.bytes == last.bytes_total


def test_time_that_is_over_at_once_reads_a_pack(filled: packstone.Repository) -> None:
    assert filled.check(max_seconds=1e-9).packs_checked == 1


def test_only_named_packs(filled: packstone.Repository, read_packs: list[str]) -> None:
    """Others may be damaged: nothing is said of them, and snapshots are not walked."""
    wanted, other = pack_paths(filled)[:2]
    flip(other, other.stat().st_size // 2)
    result = filled.check(packs=[wanted.name[:12]])
    assert (result.errors, read_packs) == ([], [wanted.name])
    assert (result.packs_checked, result.snapshots_checked) == (1, 0)


def test_a_named_pack_that_is_damaged(filled: packstone.Repository) -> None:
    pack = largest(filled)
    flip(pack, pack.stat().st_size // 2)
    (finding,) = [each for each in filled.check(packs=[pack.name]).errors if each.kind == "data"]
    assert finding.pack == pack.name and finding.record is not None
    assert finding.snapshots and finding.paths


def test_what_is_left_out_is_checked_but_for_its_data(filled: packstone.Repository) -> None:
    """Footers, index and trees are looked at in full, whatever part is read."""
    pack = largest(filled)
    beside = f"{2 - int(pack.name[:16], 16) % 2}/2"
    flip(pack, pack.stat().st_size // 2)
    assert filled.check(subset=beside).errors == []
    flip(pack, 3)
    assert any(each.pack == pack.name for each in filled.check(subset=beside).errors)
    pack.unlink()
    assert any(each.paths for each in filled.check(subset=beside).errors)


# -- dates ----------------------------------------------------------------------------------


def test_dates_are_kept_of_data_only(filled: packstone.Repository) -> None:
    assert at(filled, DAY).verified is None
    assert history(filled) == []
    first = at(filled, DAY, read_data=True).verified
    assert first is not None and first.oldest_ns == DAY
    assert len(history(filled)) == 1
    second = at(filled, 3 * DAY, choice=Choice(1)).verified
    assert second is not None and (second.packs, second.oldest_ns) == (first.packs, DAY)


def test_a_damaged_pack_has_no_date(filled: packstone.Repository) -> None:
    pack = largest(filled)
    at(filled, DAY, read_data=True)
    flip(pack, pack.stat().st_size // 2)
    for now in (2, 3):  # also not the old one
        verified = at(filled, now * DAY, read_data=True).verified
        assert verified is not None and verified.packs == len(pack_paths(filled)) - 1


def test_what_was_wrong_is_not_dated(filled: packstone.Repository) -> None:
    """Also not once it is whole again: nobody has read it whole."""
    pack = largest(filled)
    beside = next(path for path in pack_paths(filled) if path != pack)
    flip(pack, pack.stat().st_size // 2)
    at(filled, DAY, read_data=True)
    flip(pack, pack.stat().st_size // 2)
    verified = at(filled, 2 * DAY, choice=Choice(packs=[beside.name])).verified
    assert verified is not None and verified.packs == len(pack_paths(filled)) - 1


def test_a_clock_that_was_wrong(filled: packstone.Repository) -> None:
    """What was verified in the future is verified anew."""
    at(filled, 1000 * DAY, read_data=True)
    verified = at(filled, DAY, choice=Choice(1)).verified
    assert verified is not None and (verified.packs, verified.oldest_ns) == (1, DAY)


@pytest.mark.parametrize("spoilt", [b"", b"noise" * 30], ids=["empty", "noise"])
def test_a_damaged_history_is_ignored(filled: packstone.Repository, spoilt: bytes) -> None:
    at(filled, DAY, read_data=True)
    (path,) = history(filled)
    path.chmod(0o600)
    path.write_bytes(spoilt)
    result = at(filled, 2 * DAY, choice=Choice(1))
    assert result.errors == []
    assert result.verified is not None and result.verified.packs == 1
    assert any(path.name in warning for warning in result.warnings)


def test_the_history_may_be_deleted(filled: packstone.Repository) -> None:
    at(filled, DAY, read_data=True)
    shutil.rmtree(Path(filled.location, "history"))
    result = at(filled, 2 * DAY, choice=Choice(1))
    assert result.errors == [] and result.warnings == []
    assert len(history(filled)) == 1


def test_an_encrypted_history(source: Path, big_place: Path) -> None:
    (source / "a").write_bytes(Random(1).randbytes(100_000))
    cheap = packstone.Argon2(time=1, memory=8192, lanes=1)
    with packstone.init(big_place / "sealed", passphrase="p", argon2=cheap) as repository:
        repository.snapshot([source])
        at(repository, DAY, read_data=True)
        verified = at(repository, 2 * DAY, choice=Choice(1)).verified
        assert verified is not None and (verified.packs, verified.oldest_ns) == (2, DAY)
        for path in history(repository):
            data = path.read_bytes()
            assert not any(bytes.fromhex(each.name[:16]) in data for each in pack_paths(repository))


def test_a_disk_that_cannot_be_written(
    filled: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check runs; that the date is not kept is said, and is no error."""
    location = filled.location
    opened = os.open

    def read_only(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR) and os.fspath(path).startswith(location):
            raise OSError(errno.EROFS, "Read-only file system")
        return opened(path, flags, *more, **others)

    monkeypatch.setattr(os, "open", read_only)
    result = filled.check(read_data=True)
    assert result.errors == []
    assert any("not kept" in warning and "Read-only" in warning for warning in result.warnings)
    assert history(filled) == []


# -- faults that pass -----------------------------------------------------------------------

Fault = Callable[[bytes], bytes]


def eio(data: bytes) -> bytes:
    raise OSError(errno.EIO, "Input/output error")


def wrong(data: bytes) -> bytes:
    changed = bytearray(data)
    if changed:
        changed[len(data) // 2] ^= 1
    return bytes(changed)


def cut_off(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Let the n-th read of a file go wrong, once unless told; returns the reads so far."""
    read_range = local.read_range

    def install(path: Path, how: Fault, nth: int, *, times: int = 1) -> list[int]:
        reads: list[int] = []
        inode = path.stat().st_ino

        def read(fd: int, offset: int, size: int, *calls: object) -> bytes:
            data = read_range(fd, offset, size, *calls)
            if os.fstat(fd).st_ino != inode:
                return data
            reads.append(offset)
            return how(data) if nth <= len(reads) - 1 < nth + times else data

        monkeypatch.setattr(local, "read_range", read)
        return reads

    return install


@pytest.mark.parametrize("how", [eio, wrong, cut_off])
@pytest.mark.parametrize("read_data", [False, True])
def test_a_read_that_goes_wrong_once_is_no_damage(
    filled: packstone.Repository,
    fault: Callable[..., list[int]],
    monkeypatch: pytest.MonkeyPatch,
    how: Fault,
    read_data: bool,
) -> None:
    """Whichever read of a pack it is: of the header, the footer, some records, the end."""
    monkeypatch.setattr(check_packs, "_READ", 256 * KIB)
    pack = largest(filled)
    nth = found = 0
    while True:
        reads = fault(pack, how, nth)
        result = filled.check(read_data=read_data)
        if nth >= len(reads):
            break
        assert all(each.transient and each.kind == "transient" for each in result.errors), nth
        assert all(each.pack == pack.name for each in result.errors)
        found += bool(result.errors)
        if result.errors and result.verified is not None:
            assert result.verified.packs < result.packs_total, "it is read again soon"
        nth += 1
        shutil.rmtree(Path(filled.location, "history"), ignore_errors=True)
    assert found >= nth - 1 > 4, "where a file has ended nothing can go wrong"


def test_a_page_of_a_tree_that_reads_the_second_time(
    filled: packstone.Repository, fault: Callable[..., list[int]]
) -> None:
    pack = min(pack_paths(filled), key=lambda path: path.stat().st_size)
    reads = fault(pack, wrong, 1 << 30)
    filled.check(packs=[largest(filled).name])
    with packstone.open(filled.location) as repository:
        repository.check(subset="1/1")
        before = len(reads)
    with packstone.open(filled.location) as repository:
        fault(pack, wrong, before - 1)
        result = repository.check(subset="1/1")
    assert [each.transient for each in result.errors] == [True], (result.errors, reads)


@pytest.mark.parametrize("name", ["config", "state", "snapshots"])
def test_a_small_object_that_reads_the_second_time(
    filled: packstone.Repository, fault: Callable[..., list[int]], name: str
) -> None:
    path = Path(filled.location, name)
    path = next(path.iterdir()) if path.is_dir() else path
    fault(path, wrong, 0)
    result = filled.check()
    assert [each.transient for each in result.errors] == [True]
    fault(path, wrong, 0, times=99)
    assert [each.transient for each in filled.check().errors] == [False]


@pytest.mark.parametrize("how", [eio, wrong])
def test_a_read_that_goes_wrong_again_is_damage(
    filled: packstone.Repository, fault: Callable[..., list[int]], how: Fault
) -> None:
    fault(largest(filled), how, 2, times=1 << 30)
    errors = [each for each in filled.check(read_data=True).errors if not each.transient]
    assert errors and any(each.paths for each in errors)


# -- what damage hits -----------------------------------------------------------------------


@pytest.mark.parametrize("read_data", [False, True])
def test_a_record_names_what_it_hits(filled: packstone.Repository, read_data: bool) -> None:
    """Exactly the files and snapshots; also where the name alone told that something is wrong."""
    rows = {row.id: row for row in filled.snapshots()}
    pack = largest(filled)
    offset = pack.stat().st_size // 2
    flip(pack, offset)
    errors = filled.check(read_data=read_data).errors
    (finding,) = [each for each in errors if each.kind == "data"]
    assert finding.pack == pack.name
    assert any(each.kind == "pack" and each.pack == pack.name for each in errors)
    (path,) = finding.paths
    # the first snapshot with a file, and all after it
    number = int(os.path.basename(path))
    expected = list(rows)[number:]
    assert list(finding.snapshots) == expected


def test_a_directory_whose_page_is_damaged(filled: packstone.Repository) -> None:
    """Metadata packs hold the trees of one snapshot each here."""
    row = filled.snapshots()[0]
    (place,) = filled._objects.index.find(row.snapshot.tree)
    pack = Path(filled.location, "packs", place.pack_id[:2], place.pack_id)
    flip(pack, place.offset + place.stored_size // 2)
    for options in ({}, {"read_data": True}, {"subset": "1/1"}):
        with packstone.open(filled.location) as repository:
            errors = repository.check(**options).errors
        hits = [each for each in errors if each.snapshots]
        assert {each.pack for each in hits} == {place.pack_id}
        assert {each.record for each in hits} == {place.record}
        assert row.id in {name for each in hits for name in each.snapshots}


def test_a_copy_elsewhere_is_as_good(filled: packstone.Repository, source: Path) -> None:
    """A record is damaged and nothing is lost: it is said, and hits nothing."""
    pack, aside = largest(filled), source.parent / "aside"
    location = filled.location
    filled.close()
    shutil.move(pack, aside)
    with packstone.open(location) as repository:
        repository.snapshot([source], read_all=True)
    shutil.move(aside, pack)
    flip(pack, pack.stat().st_size // 2)
    with packstone.open(location) as repository:
        errors = repository.check(read_data=True).errors
    assert errors and not any(each.paths for each in errors)
    assert {each.pack for each in errors} == {pack.name}


# -- what is no error -----------------------------------------------------------------------


def test_orphans_and_leftovers_are_notes(filled: packstone.Repository) -> None:
    assert (filled.check().orphans, filled.check().notes) == (0, [])
    newest = filled.snapshots()[-1].id
    Path(filled.location, "snapshots", newest).unlink()
    Path(filled.location, "tmp", "left").write_bytes(b"cut off")
    Path(filled.location, "packs", "00", "README").write_bytes(b"?")
    result = filled.check()
    assert result.errors == []
    assert result.orphans == 2, "the chunks of its file, and its trees"
    assert len(result.notes) == 3


def test_where_trees_are_damaged_nothing_is_an_orphan(filled: packstone.Repository) -> None:
    row = filled.snapshots()[0]
    (place,) = filled._objects.index.find(row.snapshot.tree)
    pack = Path(filled.location, "packs", place.pack_id[:2], place.pack_id)
    flip(pack, place.offset + place.stored_size // 2)
    assert filled.check().orphans is None


def test_a_delta_that_lacks_its_base_is_no_fault_of_the_index(
    source: Path, big_place: Path
) -> None:
    rng = Random(7)
    data = bytearray(rng.randbytes(400_000))
    with packstone.init(big_place / "deltas", chunk_size=64 * KIB) as repository:
        (source / "table").write_bytes(data)
        repository.snapshot([source])
        first = largest(repository)
        data[200_000] ^= 1
        (source / "table").write_bytes(data)
        assert repository.snapshot([source]).chunks_delta > 0
    first.unlink()
    with packstone.open(big_place / "deltas") as repository:
        errors = repository.check(read_data=True).errors
    assert {each.kind for each in errors} >= {"chunk"}
    assert not [each for each in errors if each.kind == "index" and "disagrees" in each.message]


def test_nothing_to_verify(big_place: Path) -> None:
    """A repository without packs is verified wholly."""
    with packstone.init(big_place / "empty") as repository:
        result = repository.check(read_data=True, max_seconds=1)
        assert (result.errors, result.packs_checked, result.orphans) == ([], 0, 0)
        assert result.verified == (0, 0, 0)
