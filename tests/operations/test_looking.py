"""Look into snapshots: random access against the original, names of snapshots, listings."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import packstone

SIZE = 2_500_000


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A stored file of several hundred chunks and a few holes, and its original."""
    top = tmp_path_factory.mktemp("looking")
    path = top / "file"
    chance = random.Random(11)
    with open(path, "wb") as file:
        for at in range(0, SIZE, 500_000):
            file.seek(at)
            file.write(chance.randbytes(300_000))
        file.truncate(SIZE)
    with packstone.init(top / "repository", chunk_size=4096) as repository:
        repository.snapshot([path])
        with repository.open_file("latest", bytes(path)) as stored, open(path, "rb") as original:
            yield stored, original


Step = st.one_of(
    st.tuples(st.just("seek"), st.integers(0, SIZE + 5000), st.just(os.SEEK_SET)),
    st.tuples(st.just("seek"), st.integers(-SIZE, 5000), st.just(os.SEEK_END)),
    st.tuples(st.just("seek"), st.integers(-2000, 2000), st.just(os.SEEK_CUR)),
    st.tuples(st.just("read"), st.integers(0, 50_000), st.just(0)),
    st.tuples(st.just("readinto"), st.integers(0, 3_000_000), st.just(0)),
    st.tuples(st.just("readline"), st.just(0), st.just(0)),
    st.tuples(st.just("peek"), st.just(0), st.just(0)),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(Step, min_size=1, max_size=12))
def test_as_the_original_does(
    opened: tuple[io.BufferedReader, io.BufferedReader], steps: list[tuple[str, int, int]]
) -> None:
    stored, original = opened
    stored.seek(0)
    original.seek(0)
    for verb, number, whence in steps:
        if verb == "seek":
            if whence == os.SEEK_CUR and original.tell() + number < 0:
                with pytest.raises((ValueError, OSError)):
                    stored.seek(number, whence)
                stored.seek(original.tell())
                continue
            assert stored.seek(number, whence) == original.seek(number, whence)
        elif verb == "read":
            assert stored.read(number) == original.read(number)
        elif verb == "readinto":
            first, second = bytearray(number), bytearray(number)
            assert stored.readinto(first) == original.readinto(second)
            assert first == second
        elif verb == "readline":
            assert stored.readline() == original.readline()
        else:
            first, second = stored.peek(10)[:1], original.peek(10)[:1]
            assert first == second
        assert stored.tell() == original.tell()


def test_it_is_a_file_for_others(repository: packstone.Repository, source: Path) -> None:
    """zipfile seeks and reads as it likes."""
    import zipfile

    with zipfile.ZipFile(source / "archive.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for at in range(50):
            archive.writestr(f"member {at}", random.Random(at).randbytes(3000))
    repository.snapshot([source])
    with (
        repository.open_file("latest", str(source / "archive.zip")) as stored,
        zipfile.ZipFile(stored) as archive,
    ):
        assert archive.testzip() is None
        assert archive.read("member 7") == random.Random(7).randbytes(3000)


def test_it_reads_only_what_is_asked_for(
    repository: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from packstone.repository.reader import ObjectReader

    (source / "long").write_bytes(random.Random(1).randbytes(8 << 20))
    repository.snapshot([source])
    fetched = []
    get = ObjectReader.get

    def counting(self: ObjectReader, kind: int, object_id: bytes) -> bytes:
        fetched.append(kind)
        return get(self, kind, object_id)  # type: ignore[arg-type]

    monkeypatch.setattr(ObjectReader, "get", counting)
    with repository.open_file("latest", str(source / "long")) as stored:
        stored.seek(5 << 20)
        stored.raw.read(1000)
    assert fetched.count(1) <= 2, "chunks far from the position were read"


def test_what_is_no_file(repository: packstone.Repository, source: Path) -> None:
    os.mkfifo(source / "fifo")
    os.symlink("fifo", source / "link")
    repository.snapshot([source])
    for path in (source, source / "fifo", source / "link", source / "missing"):
        with pytest.raises(packstone.UsageError):
            repository.open_file("latest", str(path))
    with pytest.raises((packstone.UsageError, OSError)):
        repository.open_file("latest", "/")


# -- snapshots by name ----------------------------------------------------------------------


@pytest.fixture
def several(repository: packstone.Repository, source: Path) -> list[str]:
    """Ids of five snapshots, oldest first; the third is said to be of another host."""
    (source / "file").write_bytes(b"1")
    ids = []
    for at in (3, 1, 4, 0, 2):
        result = repository.snapshot(
            [source], time_ns=10**18 + at, host="b" if at == 2 else "a", tags=[f"t{at}", "all"]
        )
        ids.append((at, result.snapshot_id or ""))
    return [snapshot_id for _, snapshot_id in sorted(ids)]


def test_latest_counts_back_in_time(repository: packstone.Repository, several: list[str]) -> None:
    assert [row.id for row in repository.snapshots()] == several
    assert repository.find_snapshot("latest").id == several[-1]
    for back in range(5):
        assert repository.find_snapshot(f"latest~{back}").id == several[-1 - back]
    for spec in ("latest~5", "latest~999999", "latest~-1", "latest~", "latest~x", "Latest~0"):
        with pytest.raises(packstone.UsageError):
            repository.find_snapshot(spec)


def test_latest_narrowed(
    repository: packstone.Repository, several: list[str], source: Path
) -> None:
    assert repository.find_snapshot("latest", host="b").id == several[2]
    assert repository.find_snapshot("latest~1", host="a").id == several[3]
    assert repository.find_snapshot("latest", tag="t1").id == several[1]
    assert repository.find_snapshot("latest", path=source).id == several[4]
    assert repository.snapshots(tags=["t1", "all"])[0].id == several[1]
    assert len(repository.snapshots(paths=[source], host="a")) == 4
    for narrowed in ({"host": "c"}, {"tag": "none"}, {"path": source / "file"}):
        with pytest.raises(packstone.UsageError):
            repository.find_snapshot("latest", **narrowed)  # type: ignore[arg-type]


def test_prefixes(repository: packstone.Repository, several: list[str]) -> None:
    for snapshot_id in several:
        assert repository.find_snapshot(snapshot_id).id == snapshot_id
        assert repository.find_snapshot(snapshot_id[:16].upper()).id == snapshot_id
    for spec in ("", "xyz", several[0] + "0", "g" * 64, "*", ".", "../config"):
        with pytest.raises(packstone.UsageError):
            repository.find_snapshot(spec)


def test_an_ambiguous_prefix(repository: packstone.Repository, source: Path) -> None:
    (source / "file").write_bytes(b"1")
    ids = [repository.snapshot([source]).snapshot_id or "" for _ in range(17)]
    first = [snapshot_id[0] for snapshot_id in ids]
    twice = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(packstone.UsageError, match="ambiguous"):
        repository.find_snapshot(twice)


def test_nothing_there(repository: packstone.Repository) -> None:
    assert repository.snapshots() == []
    with pytest.raises(packstone.UsageError):
        repository.find_snapshot("latest")


def test_listing_one_file(repository: packstone.Repository, source: Path) -> None:
    (source / "file").write_bytes(b"12")
    repository.snapshot([source])
    rows = list(repository.ls("latest", str(source / "file")))
    assert [(row.path, row.entry.size) for row in rows] == [(bytes(source / "file"), 2)]
    with pytest.raises(packstone.UsageError):
        list(repository.ls("latest", str(source / "missing")))
    with pytest.raises(packstone.UsageError):
        list(repository.ls("latest", str(source / "file" / "below")))
