"""Deltas, seen by whoever takes snapshots: small where little changed, always exact (issue 4)."""

from __future__ import annotations

import io
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from compare_trees import assert_equal_trees
from faults import Plan, faulty
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import (
    CHUNK_SIZE,
    assert_sound_lineage,
    deltas,
    id_of,
    night_in_heap_order,
    nights,
    records,
    table,
)

import packstone
from packstone.repository import layout
from packstone.repository.reader import ObjectReader
from packstone.repository.records import RecordReader

SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
EXAMPLES = max(8, settings.default.max_examples // 10)
KIB = 1 << 10


@contextmanager
def new_repository(**options: Any) -> Iterator[packstone.Repository]:
    """Make a repository in memory, gone when it is no longer wanted."""
    with tempfile.TemporaryDirectory(prefix="packstone-", dir=SHARED) as place:
        with packstone.init(f"{place}/store", chunk_size=CHUNK_SIZE, **options) as repository:
            yield repository


@pytest.fixture
def store() -> Iterator[packstone.Repository]:
    with new_repository() as repository:
        yield repository


def take(
    repository: packstone.Repository, data: bytes, name: str = "dump", **options: Any
) -> packstone.SnapshotResult:
    """Take a snapshot of a stream."""
    return repository.snapshot_stream(io.BytesIO(data), name, **options)


def read(repository: packstone.Repository, snapshot: str | None, name: str = "dump") -> bytes:
    assert snapshot is not None
    with repository.open_file(snapshot, f"/{name}") as file:
        return file.read()


def size_whole(repository: packstone.Repository, data: bytes) -> int:
    """Return what the new chunks of some content would take without deltas."""
    return take(repository, data, "tried", delta=False, dry_run=True).bytes_stored


def mostly_deltas(result: packstone.SnapshotResult) -> bool:
    """Say whether most of what was new became deltas; chunks under 16 KiB never do."""
    return result.bytes_delta * 2 >= result.bytes_added


# -- any edits ------------------------------------------------------------------------------

Edit = tuple[str, float, float, int]  # what, where, another place, how many bytes
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "delete", "move", "replace"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.one_of(st.integers(1, 200), st.integers(1, 60_000)),
    ),
    max_size=6,
)


def edited(data: bytes, edits: list[Edit], chance: random.Random) -> bytes:
    """Return a version after another."""
    for what, at, to, size in edits:
        begin = int(at * len(data))
        part, rest = data[begin : begin + size], data[:begin] + data[begin + size :]
        if what == "insert":
            data = data[:begin] + chance.randbytes(size) + data[begin:]
        elif what == "delete":
            data = rest
        elif what == "move":
            place = int(to * len(rest))
            data = rest[:place] + part + rest[place:]
        else:
            data = data[:begin] + chance.randbytes(len(part)) + data[begin + size :]
    return data


@settings(max_examples=EXAMPLES)
@given(
    is_text=st.booleans(),
    seed=st.integers(0, 1 << 32),
    nights_edits=st.lists(EDITS, min_size=1, max_size=6),
    versions=st.sampled_from([2, 3, 4, 64]),
)
def test_any_edits(is_text: bool, seed: int, nights_edits: list[list[Edit]], versions: int) -> None:
    """Every version of a table, or of noise, comes back; lineages keep their bounds."""
    chance = random.Random(seed)
    size = chance.randrange(300_000, 600_000)
    data = b"".join(table(chance, size // 40)) if is_text else chance.randbytes(size)
    stored: list[tuple[str | None, bytes]] = []
    with new_repository(delta_versions=versions) as repository:
        for edits in [[], *nights_edits]:
            data = edited(data, edits, chance)
            result = take(repository, data)
            stored.append((result.snapshot_id, data))
            assert result.chunks_delta <= result.chunks_new
            assert 2 * result.bytes_delta_stored <= result.bytes_delta
        for snapshot_id, expected in stored:
            assert read(repository, snapshot_id) == expected
        assert_sound_lineage(records(repository), versions)
        assert repository.check(read_data=True).errors == []


# -- many nights ----------------------------------------------------------------------------


def test_every_version_comes_back_and_costs_what_changed(
    store: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """A table and a file of noise over ten nights, as files, beside the same without deltas."""
    chance = random.Random("noise")
    noise = chance.randbytes(600_000)
    kept: list[tuple[str | None, bytes, bytes]] = []
    whole = small = 0
    with new_repository() as other:
        for night, dump in enumerate(nights("table", 15_000, 10)):
            for _ in range(20):
                at = chance.randrange(len(noise))
                noise = noise[:at] + chance.randbytes(30) + noise[at + chance.randrange(60) :]
            (source / "table.sql").write_bytes(dump)
            (source / "noise.bin").write_bytes(noise)
            result = store.snapshot([source])
            plain = other.snapshot([source], delta=False)
            kept.append((result.snapshot_id, dump, noise))
            assert plain.chunks_delta == 0
            if night:
                assert mostly_deltas(result)
                assert result.bytes_delta_stored * 15 < result.bytes_delta
                whole += plain.bytes_stored
                small += result.bytes_stored
        assert deltas(records(other)) == []
    assert small * 8 < whole
    assert_sound_lineage(records(store), 64)
    assert max(row.depth for row in records(store)) > 2, "chains are short"
    for number, (snapshot_id, dump, noise) in enumerate(kept):
        target = tmp_path / f"{number}"
        assert snapshot_id is not None
        assert store.restore(snapshot_id, target, path=bytes(source)).errors == []
        assert (target / "table.sql").read_bytes() == dump
        assert (target / "noise.bin").read_bytes() == noise
    assert store.check(read_data=True).errors == []


@pytest.mark.parametrize("versions", [2, 4, 8])
def test_fewer_versions_on_one_whole_copy(versions: int) -> None:
    dumps = nights(versions, 6_000, 3 * versions)
    with new_repository(delta_versions=versions) as repository:
        taken = [take(repository, dump).snapshot_id for dump in dumps]
        rows = records(repository)
        assert_sound_lineage(rows, versions)
        assert versions // 2 <= max(row.lineage for row in rows) < versions
        assert len(deltas(rows)) * 3 > len(rows)
        for snapshot_id, dump in zip(taken, dumps, strict=True):
            assert read(repository, snapshot_id) == dump
    with packstone_reopened(versions) as repository:
        assert repository._objects.config.delta_versions == versions


@contextmanager
def packstone_reopened(versions: int) -> Iterator[packstone.Repository]:
    with tempfile.TemporaryDirectory(dir=SHARED) as place:
        packstone.init(f"{place}/store", delta_versions=versions).close()
        with packstone.open(f"{place}/store") as repository:
            yield repository


def test_restarts_spread_over_the_nights(store: packstone.Repository) -> None:
    """No night of 80 stores all chunks of a file whole again, nor even half of them.

    Every chunk changes every night, and hardly any cut does: all lineages are of one length.
    """
    chance = random.Random("restarts")
    data = bytearray(chance.randbytes(1_000_000))
    whole: list[int] = []
    chunks = 0
    for night in range(80):
        for block in range(0, len(data), 8192):
            data[min(block + chance.randrange(8192), len(data) - 1)] ^= 1
        result = take(store, bytes(data))
        if night:
            whole.append(result.chunks_new - result.chunks_delta)
            chunks += result.chunks_new
    assert sum(whole) * 10 < chunks, "deltas are the rule"
    assert sum(whole) > 10, "restarts happen"
    assert max(whole) * 2 < chunks / len(whole), f"of {chunks / len(whole):.0f}: {whole}"
    assert sum(count > 0 for count in whole) > 10
    assert_sound_lineage(records(store), 64)


@pytest.mark.parametrize("seed", ["index", "search"])
def test_no_night_stores_whole_what_another_could_have_as_a_delta(
    store: packstone.Repository, seed: str
) -> None:
    """Nothing but 1 % of rows changes, so no chunk of later nights need be whole."""
    for dump in nights(seed, 40_000, 4):
        take(store, dump)
    rows = records(store)
    assert sum(row.raw_size for row in rows if not row.bases) < 1.05 * len(dump)


# -- finding bases --------------------------------------------------------------------------

OLD, NEW = nights("search", 40_000, 2)


def assert_cheap(repository: packstone.Repository, result: Any, whole: int, share: int) -> None:
    """Require that a snapshot's data took less than one `share`th of what it would take whole."""
    assert result.chunks_delta > 0
    framing = 3 * 8_500  # of small packs: footers are kept 4 KiB apart
    assert result.bytes_stored < framing + whole // share, (result.bytes_stored, whole)


def test_a_dated_name(store: packstone.Repository) -> None:
    take(store, OLD, "crm-2026-11-22.sql")
    whole = size_whole(store, NEW)
    assert_cheap(store, take(store, NEW, "crm-2026-11-23.sql"), whole, 25)
    assert read(store, "latest", "crm-2026-11-23.sql") == NEW


def test_a_renamed_file_in_another_directory(store: packstone.Repository, source: Path) -> None:
    (source / "dump.sql").write_bytes(OLD)
    store.snapshot([source])
    (source / "dump.sql").unlink()
    (source / "2026").mkdir()
    (source / "2026" / "tonight").write_bytes(NEW)
    whole = size_whole(store, NEW)
    assert_cheap(store, store.snapshot([source]), whole, 25)
    with store.open_file("latest", bytes(source / "2026" / "tonight")) as file:
        assert file.read() == NEW


def test_from_a_file_to_a_stream_to_a_command(store: packstone.Repository, source: Path) -> None:
    (source / "dump.sql").write_bytes(OLD)
    store.snapshot([source])
    whole = size_whole(store, NEW)
    assert_cheap(store, take(store, NEW, "stream"), whole, 25)
    third = nights("search", 40_000, 3)[2]
    (source / "third").write_bytes(third)
    whole = size_whole(store, third)
    result = store.snapshot_command(["cat", str(source / "third")], "crm-2026-11-24.sql")
    assert_cheap(store, result, whole, 10)
    assert read(store, "latest", "crm-2026-11-24.sql") == third


def test_two_dumps_in_one(store: packstone.Repository) -> None:
    other_old, other_new = nights("another table", 30_000, 2)
    take(store, OLD, "one")
    take(store, other_old, "two")
    both = other_new + NEW
    whole = size_whole(store, both)
    assert_cheap(store, take(store, both, "both"), whole, 20)
    assert read(store, "latest", "both") == both


@pytest.mark.parametrize("part", [0, 1])
def test_a_dump_in_two_parts(store: packstone.Repository, part: int) -> None:
    """The split is nowhere near a cut; the second part's beginning is known by nothing."""
    take(store, OLD)
    split = len(NEW) // 2 + 777
    half = NEW[split:] if part else NEW[:split]
    whole = size_whole(store, half)
    assert_cheap(store, take(store, half, f"part {part}"), whole, 20)
    assert read(store, "latest", f"part {part}") == half


def test_rows_that_moved_to_the_end(store: packstone.Repository) -> None:
    """As PostgreSQL leaves updated rows; what is really new is a word of each."""
    chance = random.Random("heap")
    rows = table(chance, 40_000)
    for night in range(4):
        dump = b"".join(rows)
        whole = size_whole(store, dump)
        result = take(store, dump, f"night {night}")
        if night:
            assert_cheap(store, result, whole, 20 if night == 1 else 10)
        night_in_heap_order(chance, rows)


def test_a_file_of_one_chunk_whose_ends_changed(source: Path) -> None:
    """No cut is known: only the parent snapshot tells what stood there."""
    data = b"".join(table(random.Random("one"), 2_000))
    with tempfile.TemporaryDirectory(dir=SHARED) as place:
        with packstone.init(f"{place}/store") as repository:
            (source / "export.csv").write_bytes(data)
            assert repository.snapshot([source]).chunks_new == 1
            changed = b"exported on Tuesday\n" + data[60:-60] + b"the end of Tuesday\n"
            (source / "other").write_bytes(b"another first line\n" + data[50:-60] + b"and last\n")
            (source / "export.csv").write_bytes(changed)
            result = repository.snapshot([source])
            assert (result.chunks_new, result.chunks_delta) == (2, 1)
            assert result.bytes_delta == len(changed) and result.bytes_delta_stored < 500
            for name in ("export.csv", "other"):
                with repository.open_file("latest", bytes(source / name)) as file:
                    assert file.read() == (source / name).read_bytes()


def test_what_stood_at_the_same_place(store: packstone.Repository, source: Path) -> None:
    """Every cut of a long file is new: all rows changed at the ends of chunks alone."""
    (source / "file").write_bytes(OLD)
    store.snapshot([source])
    cuts = []
    position = 0
    entry = next(iter(store.ls("latest", bytes(source / "file")))).entry
    from packstone.repository.contents import iter_content

    for _chunk_id, size in iter_content(store._objects.reader.get, entry):
        position += size
        cuts.append(position)
    changed = bytearray(OLD)
    for cut in cuts[:-1]:
        changed[cut - 40 : cut + 40] = random.Random(cut).randbytes(80)
    whole = size_whole(store, bytes(changed))
    (source / "file").write_bytes(changed)
    assert_cheap(store, store.snapshot([source]), whole, 20)
    with store.open_file("latest", bytes(source / "file")) as file:
        assert file.read() == changed


def test_what_is_not_alike_is_stored_whole(store: packstone.Repository) -> None:
    """At the same place of the same file stands something else: no delta that saves nothing."""
    take(store, OLD)
    noise = random.Random("another").randbytes(len(OLD))
    result = take(store, noise)
    assert (result.chunks_delta, result.bytes_delta, result.bytes_delta_stored) == (0, 0, 0)
    assert result.chunks_new > 10
    assert read(store, "latest") == noise


def test_a_delta_that_saves_less_than_half_is_none(source: Path) -> None:
    """What is old compresses to nothing anyway; what is new is the same either way."""
    chance = random.Random("half")
    with tempfile.TemporaryDirectory(dir=SHARED) as place:
        with packstone.init(f"{place}/store") as repository:
            for night in range(2):
                (source / "file").write_bytes(chance.randbytes(20_000) + bytes(40_000))
                result = repository.snapshot([source])
                assert (result.chunks_new, result.chunks_delta) == (1, 0), night
                assert result.bytes_stored > 20_000


# -- with and without -----------------------------------------------------------------------


def features(repository: packstone.Repository) -> list[str]:
    return sorted(os.listdir(f"{repository.location}/features"))


def test_without_deltas_there_are_none(store: packstone.Repository) -> None:
    for dump in (OLD, NEW):
        result = take(store, dump, delta=False)
        assert (result.chunks_delta, result.bytes_delta, result.bytes_delta_stored) == (0, 0, 0)
    assert deltas(records(store)) == [] and features(store) == []


def test_a_trial_leaves_no_mark(store: packstone.Repository) -> None:
    take(store, OLD)
    tried = take(store, NEW, dry_run=True)
    assert tried.chunks_delta > 0 and features(store) == []
    assert deltas(records(store)) == []
    result = take(store, NEW)
    assert tried.chunks_delta == result.chunks_delta
    assert tried.bytes_delta_stored == result.bytes_delta_stored
    assert features(store) == ["delta"]


def test_what_results_say(store: packstone.Repository) -> None:
    """Counts and sizes are those of the packs."""
    take(store, OLD)
    before = {id_of(row) for row in records(store)}
    result = take(store, NEW)
    rows = [row for row in deltas(records(store)) if id_of(row) not in before]
    assert result.chunks_delta == len(rows) > 0
    assert result.bytes_delta == sum(row.raw_size for row in rows)
    assert result.bytes_delta_stored == sum(row.stored_size for row in rows)


def test_an_old_program_reads_it_until_there_are_deltas(
    store: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    take(store, OLD)
    location = store.location
    store.close()

    def by_old_program() -> packstone.Repository:
        with monkeypatch.context() as patch:
            patch.setattr(layout, "KNOWN_FEATURES", frozenset())
            return packstone.open(location)

    with by_old_program() as repository:
        assert read(repository, "latest") == OLD
        assert repository.check(read_data=True).errors == []
    with packstone.open(location) as repository:
        take(repository, NEW, delta=False)
    with by_old_program() as repository:
        assert read(repository, "latest") == NEW
    third = nights("search", 40_000, 3)[2]
    with packstone.open(location) as repository:
        assert take(repository, third).chunks_delta > 0
    with pytest.raises(packstone.UnsupportedFormat, match="delta"):
        by_old_program()
    with packstone.open(location) as repository:
        assert read(repository, "latest") == third


def test_an_old_repository_gets_deltas(store: packstone.Repository) -> None:
    """Chunks that were stored before there were deltas are bases like any others."""
    take(store, OLD, delta=False)
    assert take(store, NEW).chunks_delta > 0
    assert read(store, "latest") == NEW


def test_the_feature_is_durable_before_the_pack(
    store: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/format.md §8: an old program never meets a codec it does not know."""
    take(store, OLD)
    location = store.location
    store.close()
    plan = Plan()
    seen: list[tuple[int, str]] = []
    put_if_absent = layout.write_feature

    def noted(*arguments: Any) -> None:
        put_if_absent(*arguments)
        seen.append((len(plan.steps), arguments[2]))

    monkeypatch.setattr("packstone.repository.writer.write_feature", noted)
    with faulty(plan), packstone.open(location, threads=2) as repository:
        plan.steps.clear()
        seen.clear()
        assert take(repository, NEW).chunks_delta > 0
    ((at, name),) = seen
    commits = [step for step, text in enumerate(plan.steps) if text == "commit packs"]
    assert name == "delta" and at <= min(commits)


# -- the index ------------------------------------------------------------------------------


def test_an_index_made_anew_knows_bases(store: packstone.Repository) -> None:
    """From footers alone: everything is read, and the next night finds its bases."""
    dumps = nights("index", 10_000, 6)
    taken = [take(store, dump).snapshot_id for dump in dumps[:5]]
    location = store.location
    store.close()
    shutil.rmtree(f"{location}/index")
    with packstone.open(location) as repository:
        for snapshot_id, dump in zip(taken, dumps, strict=False):
            assert read(repository, snapshot_id) == dump
        assert repository.check(read_data=True).errors == []
        assert mostly_deltas(take(repository, dumps[5]))
        assert read(repository, "latest") == dumps[5]
        assert_sound_lineage(records(repository), 64)


def test_an_index_of_many_packs_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many packs are taken up in another way: sorted on disk."""
    monkeypatch.setattr("packstone.repository.index._MANY_PACKS", 3)
    dumps = nights("many packs", 8_000, 8)
    with new_repository() as store:
        taken = [take(store, dump).snapshot_id for dump in dumps[:7]]
        location = store.location
        store.close()
        shutil.rmtree(f"{location}/index")
        with packstone.open(location) as repository:
            for snapshot_id, dump in zip(taken, dumps, strict=False):
                assert read(repository, snapshot_id) == dump
            result = take(repository, dumps[7])
            assert mostly_deltas(result)
            assert read(repository, "latest") == dumps[7]
            assert_sound_lineage(records(repository), 64)


# -- reading --------------------------------------------------------------------------------


@pytest.fixture
def five(store: packstone.Repository, source: Path) -> tuple[packstone.Repository, list[bytes]]:
    """A repository of five nights of one file."""
    dumps = nights("five", 12_000, 5)
    for dump in dumps:
        (source / "dump.sql").write_bytes(dump)
        assert store.snapshot([source]).errors == []
    assert max(row.depth for row in records(store)) >= 2
    return store, dumps


def test_reading_here_and_there(
    five: tuple[packstone.Repository, list[bytes]], source: Path
) -> None:
    repository, dumps = five
    chance = random.Random(1)
    rows = repository.snapshots()
    for row, dump in zip(rows, dumps, strict=True):
        with repository.open_file(row.id, bytes(source / "dump.sql")) as file:
            for _ in range(20):
                at, size = chance.randrange(len(dump)), chance.randrange(50_000)
                file.seek(at)
                assert file.read(size) == dump[at : at + size]
        (listed,) = repository.ls(row.id, bytes(source))
        assert (listed.entry.name, listed.entry.size) == (b"dump.sql", len(dump))


def test_restoring_over_another_night(
    five: tuple[packstone.Repository, list[bytes]], source: Path, tmp_path: Path
) -> None:
    repository, dumps = five
    rows = repository.snapshots()
    target = tmp_path / "target"
    for row, dump in zip(reversed(rows), reversed(dumps), strict=True):
        result = repository.restore(row.id, target, path=bytes(source), overwrite="changed")
        assert result.errors == []
        assert (target / "dump.sql").read_bytes() == dump
    assert repository.restore("latest", tmp_path / "last", path=bytes(source)).errors == []
    assert_equal_trees(source, tmp_path / "last", top=False)


def test_memory_for_bases_is_bounded(
    five: tuple[packstone.Repository, list[bytes]], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for two chunks everything is still read, and no more is kept."""
    repository, dumps = five
    limit = 3 * CHUNK_SIZE
    location = repository.location
    repository.close()
    monkeypatch.setattr("packstone.repository.reader._CACHE_SIZE", limit)
    kept: list[int] = []
    decode = ObjectReader.decode

    def watched(self: ObjectReader, *arguments: Any) -> Any:
        raw = decode(self, *arguments)
        with self._lock:
            assert sum(map(len, self._cache.values())) == self._cache_size
            kept.append(self._cache_size)
            assert self._cache_size <= limit or len(self._cache) == 1
        return raw

    monkeypatch.setattr(ObjectReader, "decode", watched)
    with packstone.open(location) as again:
        for row, dump in zip(again.snapshots(), dumps, strict=True):
            with again.open_file(row.id, bytes(source / "dump.sql")) as file:
                assert file.read() == dump
        assert again.check(read_data=True).errors == []
    assert max(kept) > CHUNK_SIZE


def test_bases_are_decoded_once_for_their_neighbours(
    five: tuple[packstone.Repository, list[bytes]],
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Restoring the newest night reads each record once, whatever stands on it."""
    repository, _dumps = five
    seen: list[tuple[str, int]] = []

    def count(name: str) -> None:
        decode = getattr(RecordReader, name)

        def counted(self: RecordReader, place: Any, *arguments: Any) -> Any:
            seen.append((place.pack_id, place.record))
            return decode(self, place, *arguments)

        monkeypatch.setattr(RecordReader, name, counted)

    location = repository.location
    repository.close()
    count("whole")
    count("delta")
    with packstone.open(location, threads=1) as again:
        assert again.restore("latest", tmp_path / "target", path=bytes(source)).errors == []
    assert len(seen) > 2 * len({pack for pack, _ in seen})
    assert len(seen) <= len(set(seen)) + 2, "decoded over and over"


def test_many_snapshots_by_many_threads() -> None:
    """Spans of one file are stored by several workers: bases, lineage, counts stay right."""
    dumps = nights("threads", 60_000, 3)
    with new_repository() as made:
        location = made.location
        made.close()
        with packstone.open(location, threads=8) as repository:
            interval = sys.getswitchinterval()
            sys.setswitchinterval(1e-5)
            try:
                for night, dump in enumerate(dumps):
                    result = take(repository, dump)
                    assert mostly_deltas(result) == (night > 0)
            finally:
                sys.setswitchinterval(interval)
            for row, dump in zip(repository.snapshots(), dumps, strict=True):
                assert read(repository, row.id) == dump
            assert_sound_lineage(records(repository), 64)
