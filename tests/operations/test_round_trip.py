"""What was stored comes back: every kind of entry, every attribute, every size."""

from __future__ import annotations

import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees, describe, differences
from operations.samples import ROOT, has_holes, has_xattrs, make_one_of_each

import packstone

RoundTrip = Callable[..., packstone.SnapshotResult]


def test_one_of_each(repository: packstone.Repository, source: Path, tmp_path: Path) -> None:
    make_one_of_each(source)
    os.utime(source, ns=(0, 123_456_789_012_345_678))
    result = repository.snapshot([source])
    assert result.errors == []
    target = tmp_path / "target"
    restored = repository.restore("latest", target)
    assert restored.errors == []
    # A socket without its process is worth nothing: stored, listed, not restored.
    found = describe(f"{target}{source}")
    expected = describe(source)
    listed = {row.path for row in repository.ls("latest", os.fsencode(source), recursive=True)}
    assert os.fsencode(source / "socket") in listed
    assert expected.pop(b"socket").kind == stat.S_IFSOCK
    assert differences(expected, found) == []
    assert repository.check(read_data=True).errors == []


def test_the_listing_says_what_stat_says(repository: packstone.Repository, source: Path) -> None:
    make_one_of_each(source)
    repository.snapshot([source])
    rows = {row.path: row for row in repository.ls("latest", os.fsencode(source), recursive=True)}
    expected = describe(source, top=False)
    assert rows.keys() == {os.fsencode(source) + b"/" + path for path in expected}
    for path, want in expected.items():
        row = rows[os.fsencode(source) + b"/" + path]
        entry = row.entry
        assert stat.S_IFMT(entry.mode) == want.kind and stat.S_IMODE(entry.mode) == want.mode
        assert (entry.uid, entry.gid, entry.size) == (want.uid, want.gid, want.size)
        assert entry.mtime_ns == want.mtime_ns
        if want.kind == stat.S_IFLNK:
            assert entry.content == want.target
        if want.rdev:
            assert entry.content == [os.major(want.rdev), os.minor(want.rdev)]
    if ROOT:
        assert rows[os.fsencode(source / "directory")].user == "root"
        assert rows[os.fsencode(source / "directory" / "one byte")].user == ""


def test_empty_directories_and_files(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    result = round_trip(repository, source, source.parent / "first")
    assert result.bytes_total == 0
    for at in range(20):
        (source / f"directory {at}" / "below" / "it").mkdir(parents=True)
        (source / f"file {at}").touch()
    result = round_trip(repository, source)
    assert (result.files_new, result.bytes_total, result.chunks_total) == (20, 0, 0)
    assert result.dirs >= 61


@pytest.mark.parametrize("average", [4096, 8 << 20], ids=["4 KiB", "8 MiB"])
def test_sizes_around_every_limit(
    average: int, tmp_path: Path, source: Path, round_trip: RoundTrip
) -> None:
    """Sizes beside those where the code takes another way: records, chunks, batches, spans."""
    limits = {average // 2, average, 4 * average, 16 << 10, 128 << 10, 1 << 20, 4 << 20}
    sizes = {limit + by for limit in limits if limit <= 8 << 20 for by in (-1, 0, 1)}
    noise = random.Random(average).randbytes(9 << 20)
    for size in sorted(sizes | {1, 2, 33, 64, (4 << 20) + 64, (8 << 20) + 17}):
        (source / str(size)).write_bytes(noise[size // 3 :][:size])
    with packstone.init(tmp_path / "repository", chunk_size=average) as repository:
        result = round_trip(repository, source)
        assert result.bytes_total == sum(path.stat().st_size for path in source.iterdir())
        assert result.bytes_read == result.bytes_total


@pytest.mark.parametrize("threads", [1, 4])
def test_incompressible_files_of_many_spans(
    threads: int, tmp_path: Path, source: Path, round_trip: RoundTrip
) -> None:
    """Stored as they are, and held back in the pack's end while buffers are used again."""
    for at in range(3):
        (source / f"noise {at}").write_bytes(random.Random(at).randbytes((13 << 20) + at))
    packstone.init(tmp_path / "repository").close()
    with packstone.open(tmp_path / "repository", threads=threads) as repository:
        round_trip(repository, source)


def test_long_runs_of_one_byte_and_repeats(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    block = random.Random(7).randbytes(100_000)
    (source / "zeros").write_bytes(bytes(5 << 20))
    (source / "ones").write_bytes(b"\xff" * (3 << 20))
    (source / "repeats").write_bytes(block * 40)
    (source / "again").write_bytes(b"shift" + block * 40)
    result = round_trip(repository, source)
    assert result.bytes_added < 3 * len(block), "what repeats must be stored once"


def test_a_file_with_a_paged_list_of_chunks(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    data = random.Random(3).randbytes(6 << 20)  # about 1,500 chunks
    (source / "long").write_bytes(data)
    round_trip(repository, source, source.parent / "first")
    (source / "long").write_bytes(data[: 3 << 20] + b"something new" + data[3 << 20 :])
    result = round_trip(repository, source)
    assert result.chunks_new <= 4
    with repository.open_file("latest", os.fsencode(source / "long")) as file:
        assert file.read() == (source / "long").read_bytes()


def test_owners_come_back_by_name(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    if not ROOT:
        pytest.skip("only root can give files away")
    (source / "of nobody").write_bytes(b"1")
    os.chown(source / "of nobody", 65534, 65534)
    (source / "of no name").write_bytes(b"1")
    os.chown(source / "of no name", 3_999_999_999, 3_999_999_998)
    round_trip(repository, source)
    row = repository.find_snapshot("latest")
    assert row.snapshot.users[65534] == "nobody"
    assert 3_999_999_999 not in row.snapshot.users


def test_access_control_lists(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    if not has_xattrs(source):
        pytest.skip("no extended attributes here")
    # version 2; user::rw-, user 1234: rwx, group::r--, mask::rwx, other::r--
    rows = [(1, 6, -1), (2, 7, 1234), (4, 4, -1), (16, 7, -1), (32, 4, -1)]
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little")
        + bits.to_bytes(2, "little")
        + (who & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, bits, who in rows
    )
    (source / "file").write_bytes(b"1")
    (source / "directory" / "below").mkdir(parents=True)
    (source / "directory" / "below" / "made before").write_bytes(b"1")
    try:
        os.setxattr(source / "file", "system.posix_acl_access", acl)
        os.setxattr(source / "directory", "system.posix_acl_default", acl)
    except OSError:
        pytest.skip("no access control lists here")
    (source / "directory" / "made after").write_bytes(b"1")
    round_trip(repository, source)


def test_several_sources_and_one_inside_another(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    for name in ("a", "b/c", "d"):
        (source / name).mkdir(parents=True)
        (source / name / "file").write_bytes(name.encode())
    os.symlink("a", source / "link")
    result = repository.snapshot(
        [source / "a", source / "b", source / "b" / "c", source / "link", str(source / "a") + "/"]
    )
    assert result.errors == []
    target = tmp_path / "target"
    assert repository.restore("latest", target).errors == []
    assert sorted(os.listdir(f"{target}{source}")) == ["a", "b", "link"]
    assert os.readlink(f"{target}{source}/link") == "a"
    for name in ("a", "b"):
        assert_equal_trees(source / name, f"{target}{source}/{name}")
    # the directories on the way have their own attributes
    assert_mode_and_time(source, Path(f"{target}{source}"))
    row = repository.find_snapshot("latest")
    assert os.fsencode(source / "a") in row.snapshot.paths


def assert_mode_and_time(expected: Path, found: Path) -> None:
    want, got = expected.stat(), found.stat()
    assert (want.st_mode, want.st_mtime_ns) == (got.st_mode, got.st_mtime_ns)


def test_holes_stay_holes_and_zeros_stay_zeros(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    if not has_holes(source):
        pytest.skip("no sparse files here")
    random_bytes = random.Random(5).randbytes
    with open(source / "many holes", "wb") as file:
        for at in range(200):
            file.seek(at * 65536 + 8192 * (at % 3))
            file.write(random_bytes(4096))
    with open(source / "hole at the start", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    with open(source / "hole at the end", "wb") as file:
        file.write(b"start")
        file.truncate(5 << 20)
    with open(source / "nothing but a hole", "wb") as file:
        file.truncate(50 << 20)
    (source / "zeros").write_bytes(bytes(2 << 20))
    round_trip(repository, source)
    restored = os.stat(f"{source.parent}/target{source}/zeros")
    assert restored.st_blocks * 512 >= 2 << 20, "zeros that were written are no holes"
    sparse = source.parent / "sparse"
    repository.restore("latest", sparse, path=os.fsencode(source), sparse=True)
    assert (sparse / "zeros").stat().st_blocks == 0
    assert_equal_trees(source, sparse, top=False, ignore=("holes",))


def test_a_terabyte_with_two_extents(
    repository: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """Row N2: under five seconds, and restored with its holes."""
    if not has_holes(source):
        pytest.skip("no sparse files here")
    middle, end = random.Random(1).randbytes(200_000), random.Random(2).randbytes(10_000)
    begin = time.monotonic()
    with open(source / "terabyte", "wb") as file:
        file.seek(300 << 30)
        file.write(middle)
        file.seek((1 << 40) - len(end))
        file.write(end)
    result = repository.snapshot([source])
    assert result.errors == [] and result.bytes_total == 1 << 40
    assert result.bytes_read < 1 << 20
    target = tmp_path / "target"
    assert repository.restore("latest", target, path=os.fsencode(source)).errors == []
    assert time.monotonic() - begin < 5
    assert (target / "terabyte").stat().st_blocks * 512 < 1 << 20
    assert_equal_trees(source, target, top=False)
    with repository.open_file("latest", os.fsencode(source / "terabyte")) as stored:
        stored.seek((300 << 30) - 5)
        assert stored.read(10) == bytes(5) + middle[:5]
        stored.seek(-3, os.SEEK_END)
        assert stored.read() == end[-3:]
