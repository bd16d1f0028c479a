"""Damage where chunks stand on others: it hits the files that need it, all of them are named.

Nights of one table, and files beside it that share nothing. What a damaged record hits is worked
out from the footers alone, and a restore must lose exactly that.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from damage.scene import Contents, Scene, Seen
from tables import CHUNK_SIZE, deltas, id_of, nights, records
from unit.repository.test_reader_deltas import WRONG, change_index

import packstone
from packstone.errors import GenerationChanged
from packstone.model import ObjectType
from packstone.operations.results import Finding
from packstone.repository import layout
from packstone.repository.bases import BaseFinder
from packstone.repository.contents import iter_content
from packstone.repository.packs import Pack, RecordRow
from packstone.repository.writer import ObjectWriter

NIGHTS = nights("damage", 4_000, 4)
Found = tuple[str, int, RecordRow]  # name of the pack, number of the record


class DeltaScene(Scene):
    """A scene that knows which files of which snapshots need a chunk."""

    def __init__(self, root: Path, snapshots: list[Contents]) -> None:
        super().__init__(root, snapshots, chunk_size=CHUNK_SIZE)
        self.rows: list[Found] = []
        for name in self.packs():
            pack: Pack = self.pack(name)
            if pack.kind == 1:
                self.rows += [(name, number, row) for number, row in enumerate(pack.rows)]
        self.chunks: dict[tuple[str, bytes], set[bytes]] = {}
        with self.opened(self.files) as repository:
            for snapshot_id, contents in self.stored.items():
                for name in contents:
                    (listed,) = repository.ls(snapshot_id, self.base + b"/" + name)
                    rows = iter_content(repository._objects.reader.get, listed.entry)
                    self.chunks[snapshot_id, name] = {row[0] for row in rows if row[0]}

    def needing(self, *ids: bytes) -> dict[str, set[bytes]]:
        """Return for each snapshot the names of the files that need one of these chunks."""
        bad = set(ids)
        grown = True
        while grown:
            more = {id_of(row) for _, _, row in self.rows if bad & set(row.bases)} - bad
            bad |= more
            grown = bool(more)
        return self.holding(bad)

    def holding(self, bad: set[bytes]) -> dict[str, set[bytes]]:
        """Return for each snapshot the names of the files that these chunks are part of."""
        found: dict[str, set[bytes]] = {snapshot_id: set() for snapshot_id in self.stored}
        for (snapshot_id, name), chunks in self.chunks.items():
            if chunks & bad:
                found[snapshot_id].add(name)
        return found

    def spoilt(self, *places: Found, wholly: bool = False) -> dict[str, bytes]:
        """Return the files with a byte changed in the middle of some records, or with zeros there.

        Of zeros no frame and no delta can be made, of a changed byte often a wrong one.
        """
        files = dict(self.files)
        for name, _number, row in places:
            data = bytearray(files[name])
            if wholly:
                data[row.offset : row.offset + row.stored_size] = bytes(row.stored_size)
            else:
                data[row.offset + row.stored_size // 2] ^= 0x10
            files[name] = bytes(data)
        return files

    def findings(self, files: dict[str, bytes], *, read_data: bool) -> list[Finding]:
        with self.opened(files) as repository:
            return repository.check(read_data=read_data).errors


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> DeltaScene:
    rng = Random("beside")
    beside = {b"noise": rng.randbytes(90_000), b"alone": b"small\n", b"deep/er": rng.randbytes(500)}
    first = beside | {b"table": NIGHTS[0]}
    second = first | {b"table": NIGHTS[1], b"copy/of/it": NIGHTS[0]}
    third = second | {b"table": NIGHTS[2], b"other": NIGHTS[2][:60_000] + rng.randbytes(50_000)}
    fourth = third | {b"table": NIGHTS[3]}
    made = DeltaScene(tmp_path_factory.mktemp("deltas"), [first, second, third, fourth])
    assert max(row.depth for _, _, row in made.rows) >= 2
    return made


def by_snapshot(findings: list[Finding]) -> dict[str, set[bytes]]:
    """Return the paths that findings name of each snapshot."""
    found: dict[str, set[bytes]] = defaultdict(set)
    for finding in findings:
        assert bool(finding.snapshots) == bool(finding.paths)
        for snapshot_id in finding.snapshots:
            found[snapshot_id] |= set(finding.paths)
    return found


def full(scene: DeltaScene, lost: dict[str, set[bytes]]) -> dict[str, set[bytes]]:
    return {
        snapshot_id: {scene.base + b"/" + name for name in names}
        for snapshot_id, names in lost.items()
        if names
    }


def assert_lost(
    scene: DeltaScene, seen: Seen, expected: dict[str, set[bytes]], *ids: bytes
) -> None:
    """Require that what holds damaged chunks is lost, and nothing that does not need them.

    What is made of the other bytes of a base is right, as its hash tells.
    """
    for each, lost in seen.lost.items():
        assert scene.holding(set(ids))[each] <= lost <= expected[each]


def test_the_scene_is_whole(scene: DeltaScene) -> None:
    seen = scene.look(scene.files)
    assert (seen.refused, seen.texts) == (None, [])
    assert not any(seen.lost.values())
    bases = {base for _, _, row in scene.rows for base in row.bases}
    assert len(bases) >= 3 and len(deltas(row for _, _, row in scene.rows)) > 6


@pytest.mark.parametrize("wholly", [False, True], ids=["a byte", "all of it"])
def test_every_record_hits_what_stands_on_it(scene: DeltaScene, wholly: bool) -> None:
    """Bases, deltas that are bases, deltas that are none, chunks nobody stands on."""
    sizes = set()
    for place in scene.rows:
        name, number, row = place
        if len(row.objects) > 37:
            continue  # a run: the flip may hit one of its objects and not the others
        expected = scene.needing(id_of(row))
        sizes.add(sum(map(len, expected.values())))
        files = scene.spoilt(place, wholly=wholly)
        seen = scene.look(files)
        if wholly:
            assert seen.lost == expected, (name, number)
        else:
            assert_lost(scene, seen, expected, id_of(row))
        assert seen.names(name)
        findings = scene.findings(files, read_data=True)
        assert by_snapshot(findings) == full(scene, expected), (name, number)
        pack_id = name.rpartition("/")[2]
        # one finding says where the damage is and what it hits
        assert any(
            finding.kind == "data"
            and (finding.pack, finding.record) == (pack_id, number)
            and f"record {number}" in finding.message
            and finding.snapshots
            and finding.paths
            for finding in findings
        )
    assert len(sizes) > 3, "some hit more than others"


def test_a_delta_that_falls_with_its_base_says_so(scene: DeltaScene) -> None:
    """Its own record is sound: the message leads to the base, in the pack where that is."""
    bases = {base for _, _, row in scene.rows for base in row.bases}
    place = next(each for each in scene.rows if id_of(each[2]) in bases and not each[2].bases)
    files = scene.spoilt(place)
    findings = scene.findings(files, read_data=True)
    on_it = [each for each in scene.rows if id_of(place[2]) in each[2].bases]
    for name, number, _row in on_it:
        (text,) = [
            finding.message
            for finding in findings
            if finding.kind == "data"
            and finding.pack == name.rpartition("/")[2]
            and f"(record {number})" in finding.message.partition(":")[0]
        ]
        assert id_of(place[2]).hex()[:12] in text and place[0].rpartition("/")[2][:12] in text


@pytest.mark.parametrize("read_data", [False, True])
def test_a_pack_of_bases_is_gone(scene: DeltaScene, read_data: bool) -> None:
    """Also plain check, which reads no data, names every file of every snapshot."""
    for name in sorted({name for name, _, _ in scene.rows}):
        ids = [each[0] for at, _, row in scene.rows if at == name for each in row.object_rows()]
        files = {each: data for each, data in scene.files.items() if each != name}
        expected = scene.needing(*ids)
        findings = scene.findings(files, read_data=read_data)
        named = [finding for finding in findings if finding.kind == "chunk"]
        assert by_snapshot(named) == full(scene, expected), name
        assert by_snapshot(findings) == full(scene, expected)
        assert scene.look(files).lost == expected
        bases = {base for at, _, row in scene.rows if at != name for base in row.bases} & set(ids)
        for base in bases:
            assert any(base.hex()[:12] in finding.message for finding in named)


def test_two_bases_at_once(scene: DeltaScene) -> None:
    rng = Random("two")
    bases = {base for _, _, row in scene.rows for base in row.bases}
    places = [each for each in scene.rows if id_of(each[2]) in bases]
    for _ in range(6):
        two = rng.sample(places, 2)
        ids = [id_of(each[2]) for each in two]
        expected = scene.needing(*ids)
        assert scene.look(scene.spoilt(*two, wholly=True)).lost == expected
        files = scene.spoilt(*two)
        assert_lost(scene, scene.look(files), expected, *ids)
        assert by_snapshot(scene.findings(files, read_data=True)) == full(scene, expected)


# -- a wrong index --------------------------------------------------------------------------


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_check_compares_depths_and_bases_with_the_footers(
    nightly: packstone.Repository, change: Callable[..., None]
) -> None:
    location = nightly.location
    nightly.close()
    change_index(location, change)
    with packstone.open(location) as repository:
        found = repository.check()
        assert any(each.kind == "index" for each in found.errors)
        assert repository.check(read_data=True).errors == [], "it was rebuilt"


# -- a base that is there twice -------------------------------------------------------------


def with_second_copies(scene: DeltaScene, ids: set[bytes]) -> dict[str, bytes]:
    """Return the files with some chunks stored whole once more, in a pack of their own."""
    files = dict(scene.files)
    with scene.opened(files) as repository:
        writer = repository._objects.writer()
        for chunk_id in sorted(ids):
            data = repository._objects.reader.get(ObjectType.CHUNK, chunk_id)
            writer.put_chunk(chunk_id, data, (0, 0))
        writer.finish()
    assert len(files) == len(scene.files) + 1
    return files


def test_a_base_that_is_whole_elsewhere_heals(scene: DeltaScene) -> None:
    bases = {base for _, _, row in scene.rows for base in row.bases}
    copied = with_second_copies(scene, bases)
    (added,) = set(copied) - set(scene.files)
    for place in scene.rows:
        if id_of(place[2]) not in bases:
            continue
        files = scene.spoilt(place) | {added: copied[added]}
        seen = scene.look(files)
        assert not any(seen.lost.values())
        assert seen.names(place[0]), "healed, and still said"
        assert by_snapshot(scene.findings(files, read_data=True)) == {}
    for name in {name for name, _, row in scene.rows if id_of(row) in bases}:
        ids = [each[0] for at, _, row in scene.rows if at == name for each in row.object_rows()]
        files = {each: data for each, data in copied.items() if each != name}
        lost = scene.needing(*(set(ids) - bases))
        assert scene.look(files).lost == lost
        assert by_snapshot(scene.findings(files, read_data=False)) == full(scene, lost)


def test_the_second_copy_is_damaged(scene: DeltaScene) -> None:
    """The other way round: the copy of least depth comes first, and is no good."""
    places = [each for each in scene.rows if each[2].depth == 1]
    bases = {base for _, _, row in scene.rows for base in row.bases}
    place = next(each for each in places if id_of(each[2]) in bases)
    files = with_second_copies(scene, {id_of(place[2])})
    (added,) = set(files) - set(scene.files)
    data = bytearray(files[added])
    data[data.index(NIGHTS[1][:5]) if NIGHTS[1][:5] in data else 1000] ^= 1
    spoilt = files | {added: bytes(data)}
    assert not any(scene.look(spoilt).lost.values())
    assert by_snapshot(scene.findings(spoilt, read_data=True)) == {}


# -- while a snapshot is taken --------------------------------------------------------------


@pytest.fixture
def nightly(tmp_path: Path) -> Iterator[packstone.Repository]:
    """A repository of two nights, the third waiting in the source."""
    source = tmp_path / "source"
    source.mkdir()
    with packstone.init(tmp_path / "store", chunk_size=CHUNK_SIZE) as repository:
        for night in (0, 1):
            (source / "table").write_bytes(NIGHTS[night])
            repository.snapshot([source])
        (source / "table").write_bytes(NIGHTS[2])
        assert deltas(records(repository))
    with packstone.open(tmp_path / "store") as repository:  # which has decoded nothing yet
        yield repository


def take(repository: packstone.Repository, **options: Any) -> packstone.SnapshotResult:
    return repository.snapshot([Path(repository.location).with_name("source")], **options)


def pack_of_bases(repository: packstone.Repository) -> Path:
    """Return the pack of the first night's chunks, all of them whole."""
    index = repository._objects.index
    base = deltas(records(repository))[0].bases[0]
    return Path(repository.location, layout.pack_name(index.find(base)[0].pack_id))


def assert_newest_is_whole(repository: packstone.Repository) -> None:
    """The newest snapshot is that of the third night, and nothing that check finds hits it."""
    path = bytes(Path(repository.location).with_name("source") / "table")
    newest = repository.snapshots()[-1].id
    with repository.open_file(newest, path) as file:
        assert file.read() == NIGHTS[2]
    findings = repository.check(read_data=True).errors
    assert newest not in by_snapshot(findings)


def when(patch: pytest.MonkeyPatch, owner: Any, name: str, act: Callable[[], object]) -> None:
    """Let something happen once, right after a method has returned."""
    method = getattr(owner, name)
    done: list[bool] = []

    def run(*arguments: Any, **options: Any) -> Any:
        result = method(*arguments, **options)
        if not done:
            done.append(True)
            act()
        return result

    patch.setattr(owner, name, run)


def test_a_base_that_vanishes_after_it_was_found(
    nightly: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snapshot ends without a commit; the next one stores whole what was lost."""
    lost = pack_of_bases(nightly)
    with monkeypatch.context() as patch:
        when(patch, BaseFinder, "find", lost.unlink)
        with pytest.raises(GenerationChanged):
            take(nightly)
    assert not lost.exists()
    assert take(nightly).snapshot_id is not None
    assert_newest_is_whole(nightly)


def sweep(repository: packstone.Repository, lost: Path) -> None:
    """Remove a pack as a sweep does: a new generation first."""
    objects = repository._objects
    state = layout.State(generation=os.urandom(16))
    objects.storage.put(layout.STATE, layout.encode_state(state, objects.sealer, os.urandom(32)))
    lost.unlink()


@pytest.mark.parametrize("moment", ["_encode_delta", "finish", "_check_generation"])
def test_a_sweep_takes_the_bases_before_the_commit(
    nightly: packstone.Repository, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deltas are made and perhaps durable: the snapshot is not."""
    lost = pack_of_bases(nightly)
    with monkeypatch.context() as patch:
        when(patch, ObjectWriter, moment, lambda: sweep(nightly, lost))
        with pytest.raises(packstone.GenerationChanged):
            take(nightly)
    assert not lost.exists() and len(nightly.snapshots()) == 2


def test_another_command_sees_first_that_bases_are_gone(
    nightly: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = pack_of_bases(nightly)

    def lose() -> None:
        lost.unlink()
        with packstone.open(nightly.location) as other:
            other.check()

    with monkeypatch.context() as patch:
        when(patch, ObjectWriter, "_encode_delta", lose)
        with pytest.raises(packstone.GenerationChanged):
            take(nightly)
    assert not lost.exists() and len(nightly.snapshots()) == 2


def test_the_snapshot_after_one_that_a_sweep_stopped(
    nightly: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deltas that were made in vain are durable and in the view, without their bases."""
    lost = pack_of_bases(nightly)
    with monkeypatch.context() as patch:
        when(patch, ObjectWriter, "finish", lambda: sweep(nightly, lost))
        with pytest.raises(packstone.GenerationChanged):
            take(nightly)
    assert take(nightly).snapshot_id is not None
    assert_newest_is_whole(nightly)


@pytest.mark.parametrize("read_all", [False, True])
def test_a_lost_base_is_no_excuse(nightly: packstone.Repository, read_all: bool) -> None:
    """As for whole chunks: what the parent holds and no pack gives is read and stored again."""
    lost = pack_of_bases(nightly)
    source = Path(nightly.location).with_name("source")
    take(nightly)
    nightly.close()
    lost.unlink()
    with packstone.open(nightly.location) as repository:
        assert repository.snapshot([source], read_all=read_all).snapshot_id is not None
        assert_newest_is_whole(repository)


def test_bases_are_removed_behind_everybodys_back(
    nightly: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = pack_of_bases(nightly)
    with monkeypatch.context() as patch:
        when(patch, ObjectWriter, "_encode_delta", lost.unlink)
        try:
            result = take(nightly)
        except packstone.GenerationChanged:
            assert len(nightly.snapshots()) == 2
            return
    assert result.snapshot_id is not None
    assert_newest_is_whole(nightly)


def spoil(path: Path, row: RecordRow) -> None:
    with open(path, "r+b") as file:
        file.seek(row.offset + row.stored_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 8]))


@pytest.mark.parametrize("how", ["flipped", "cut off", "unreadable"])
def test_a_damaged_base_is_no_base(
    nightly: packstone.Repository, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes a snapshot is not the one to complain: the chunk is stored whole."""
    lost = pack_of_bases(nightly)
    whole = [row for row in records(nightly) if not row.bases]
    location = nightly.location
    nightly.close()  # what it has decoded must not hide it
    if how == "flipped":
        for row in whole:
            spoil(lost, row)
    elif how == "cut off":
        os.truncate(lost, whole[0].offset + 100)
    else:
        from packstone.storage import local

        read_range, bad = local.read_range, lost.stat().st_ino

        def read(fd: int, offset: int, size: int, *calls: Any) -> bytes:
            if os.fstat(fd).st_ino == bad and offset + size > 1000 and size > 10_000:
                raise OSError(5, "Input/output error")
            return read_range(fd, offset, size, *calls)

        monkeypatch.setattr(local, "read_range", read)
    with packstone.open(location) as repository:
        try:
            result = take(repository)
        except packstone.GenerationChanged:  # see test_a_lost_base_stops_no_snapshot
            assert how == "cut off"
            return
        assert result.snapshot_id is not None
        assert_newest_is_whole(repository)
        assert repository.check(read_data=True).errors, "and check finds it"


def test_a_lost_base_stops_no_snapshot(nightly: packstone.Repository) -> None:
    lost = pack_of_bases(nightly)
    nightly.close()
    lost.unlink()
    with packstone.open(nightly.location) as repository:
        assert take(repository).snapshot_id is not None


def test_one_damaged_base_of_several(nightly: packstone.Repository) -> None:
    """The chunks beside it are deltas as ever."""
    lost = pack_of_bases(nightly)
    whole = [row for row in records(nightly) if not row.bases]
    location = nightly.location
    nightly.close()
    spoil(lost, whole[len(whole) // 2])
    with packstone.open(location) as repository:
        result = take(repository)
        assert 0 < result.chunks_delta < result.chunks_new
        assert_newest_is_whole(repository)


# -- stored again ---------------------------------------------------------------------------


def again(tmp_path: Path, contents: list[tuple[bytes, bool]], lost: int) -> set[str]:
    """Store nights, lose the pack of one, store that night once more.

    Each night with or without deltas. Return the snapshots that check then finds hit.
    """
    source = tmp_path / "source"
    source.mkdir()
    location = tmp_path / "store"
    packs: list[Path] = []
    with packstone.init(location, chunk_size=CHUNK_SIZE) as repository:
        for data, delta in contents:
            (source / "table").write_bytes(data)
            repository.snapshot([source], delta=delta)
            there = [path for path in location.glob("packs/*/*") if path.read_bytes()[10] == 1]
            packs += [path for path in there if path not in packs]
    packs[lost].unlink()
    (source / "table").write_bytes(contents[lost][0])
    with packstone.open(location) as repository:
        assert by_snapshot(repository.check().errors)
        try:
            repository.snapshot([source])
        except packstone.GenerationChanged:  # see test_a_lost_base_stops_no_snapshot
            repository.snapshot([source])
        return set(by_snapshot(repository.check(read_data=True).errors))


def test_storing_a_lost_base_again_heals(tmp_path: Path) -> None:
    """Nothing else is alike and whole, so it is stored whole; what stood on it is back."""
    assert again(tmp_path, [(NIGHTS[0], True), (NIGHTS[1], True)], lost=0) == set()


def test_storing_a_lost_base_again_never_makes_it_deeper(tmp_path: Path) -> None:
    stored = [(NIGHTS[0], True), (NIGHTS[1], True), (NIGHTS[2], False)]
    assert again(tmp_path, stored, lost=0) == set()
