"""Snapshots that have lost something are written again, without it and saying so."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from compare_trees import describe, differences

import packstone
from packstone.model import Entry, Flag, ObjectType
from packstone.repository.packs import DATA, OBJECT, read_pack
from packstone.repository.trees import decode_page


@pytest.fixture
def store(big_place: Path) -> Iterator[packstone.Repository]:
    with packstone.init(big_place / "store", chunk_size=4096, pack_size=1 << 20) as repository:
        yield repository


def packs_of(repository: packstone.Repository, kind: int) -> set[Path]:
    found = {path for path in Path(repository.location, "packs").rglob("*") if path.is_file()}
    return {path for path in found if path.read_bytes()[10] == kind}


def fill(source: Path) -> None:
    (source / "below" / "deep").mkdir(parents=True)
    for at in range(4):
        (source / "below" / f"kept {at}").write_bytes(os.urandom(30_000))
    (source / "below" / "deep" / "kept").write_text("small")
    os.link(source / "below" / "kept 0", source / "below" / "another name")
    os.symlink("kept 1", source / "below" / "link")
    (source / "empty").write_bytes(b"")


def lose(repository: packstone.Repository, source: Path, kind: int = DATA) -> None:
    """Add files whose packs vanish, with the snapshot that they came with still there."""
    before = packs_of(repository, kind)
    (source / "lost").write_bytes(os.urandom(30_000))
    (source / "below" / "deep" / "lost too").write_bytes(os.urandom(50_000))
    assert repository.snapshot([source], tags=["some"]).errors == []
    for path in packs_of(repository, kind) - before:
        path.unlink()


@pytest.fixture
def hurt(store: packstone.Repository, source: Path) -> packstone.Repository:
    """Two snapshots, of which the second has lost two files."""
    fill(source)
    store.snapshot([source])
    lose(store, source)
    return store


def entries(repository: packstone.Repository, snapshot: str) -> dict[bytes, Entry]:
    return {row.path: row.entry for row in repository.ls(snapshot, recursive=True)}


def test_files_that_are_lost_keep_their_names(
    hurt: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    whole, old = hurt.snapshots()
    result = hurt.repair_snapshots()
    (found,) = result.repaired
    assert not result.is_whole and found.original_id == old.id and found.quarantine == ""
    lost = {bytes(source / "lost"), bytes(source / "below" / "deep" / "lost too")}
    assert {loss.path for loss in found.losses} == lost
    assert found.snapshot_id is not None
    by_id = {row.id: row.snapshot for row in hurt.snapshots()}
    assert by_id.keys() == {whole.id, old.id, found.snapshot_id}, "the old one stays"
    new = by_id[found.snapshot_id]
    assert new.original_id.hex() == old.id
    for same in ("time_ns", "host", "paths", "tags", "user", "users", "groups", "parent"):
        assert getattr(new, same) == getattr(old.snapshot, same)
    assert new.summary == old.snapshot.summary | {"lost": 2}
    rows = entries(hurt, found.snapshot_id)
    for path in lost:
        entry = rows[path]
        assert entry.content is None and entry.extras is not None
        assert entry.extras.flags == Flag.UNREADABLE | Flag.LOST
        assert entry.size == os.stat(path).st_size and entry.mode == os.stat(path).st_mode
    assert {path for path in rows if rows[path].extras and rows[path].extras.flags} == lost
    target = tmp_path / "target"
    restored = hurt.restore(found.snapshot_id, target, path=bytes(source))
    assert {problem.path for problem in restored.errors} == lost
    assert all("lost in the repository" in problem.message for problem in restored.errors)
    for path in lost:
        os.unlink(path)
    assert [
        text
        for text in differences(describe(source, top=False), describe(target, top=False))
        if "time" not in text
    ] == []


def test_again_and_forget_and_prune(hurt: packstone.Repository, tmp_path: Path) -> None:
    """A second run makes no second snapshot; with forget the old one goes, and prune works."""
    whole, old = hurt.snapshots()
    (first,) = hurt.repair_snapshots().repaired
    (second,) = hurt.repair_snapshots().repaired
    assert first.snapshot_id == second.snapshot_id
    with pytest.raises(packstone.ObjectMissing):
        hurt.prune()
    data = Path(hurt.location, "snapshots", old.id).read_bytes()
    result = hurt.repair_snapshots(forget=True)
    assert result.quarantined == {old.id: f"quarantine/snapshots/{old.id}"}
    assert Path(hurt.location, result.quarantined[old.id]).read_bytes() == data
    assert {row.id for row in hurt.snapshots()} == {whole.id, first.snapshot_id}
    assert hurt.check(read_data=True).errors == []
    hurt.prune(max_unused=0.0)
    assert hurt.check(read_data=True).errors == []
    assert hurt.repair_snapshots().is_whole


def test_every_snapshot_that_lists_what_is_lost(hurt: packstone.Repository, source: Path) -> None:
    """Three of the same tree: each is written again, each names all that it has lost."""
    lost = bytes(source / "below" / "deep" / "lost too")
    rows = hurt.snapshots()
    writer = hurt._objects.writer()
    for tag in ("one", "two"):
        writer.commit(msgspec.structs.replace(rows[-1].snapshot, tags=[tag]))
    result = hurt.repair_snapshots()
    assert len(result.repaired) == 3
    for found in result.repaired:
        assert {loss.path for loss in found.losses} == {bytes(source / "lost"), lost}
    assert hurt.repair_snapshots(forget=True).quarantined.keys() == {
        found.original_id for found in result.repaired
    }
    assert hurt.check(read_data=True).errors == []


def test_dry_run(hurt: packstone.Repository) -> None:
    def stored() -> set[Path]:
        top = Path(hurt.location)
        return {path for name in ("packs", "snapshots") for path in (top / name).rglob("*")}

    before = stored()
    (found,) = hurt.repair_snapshots(dry_run=True, forget=True).repaired
    assert len(found.losses) == 2 and found.snapshot_id is None
    assert stored() == before


def test_only_the_snapshots_that_are_named(hurt: packstone.Repository) -> None:
    whole, old = (row.id for row in hurt.snapshots())
    assert hurt.repair_snapshots([whole]).is_whole
    assert len(hurt.snapshots()) == 2
    with pytest.raises(packstone.UsageError):
        hurt.repair_snapshots(["no such"])
    assert [found.original_id for found in hurt.repair_snapshots(["latest"]).repaired] == [old]


def test_the_next_snapshot_reads_lost_files_again(
    hurt: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """Also with the repaired one as its parent: a lost file is never unchanged."""
    hurt.repair_snapshots(forget=True)
    taken = hurt.snapshot([source])
    assert taken.parent_id == hurt.snapshots()[-2].id and taken.errors == []
    restored = hurt.restore(taken.snapshot_id or "", tmp_path / "t", path=bytes(source))
    assert restored.errors == []
    found = describe(tmp_path / "t", top=False)
    assert differences(describe(source, top=False), found) == []


def test_a_directory_that_is_lost(store: packstone.Repository, source: Path) -> None:
    """All that stands in it is lost, what stands beside it is not."""
    fill(source)
    store.snapshot([source])
    (source / "below" / "deep" / "more").write_text("a new page")
    store.snapshot([source])
    below = store.ls("latest", bytes(source / "below"))
    (page,) = [row for row in below if row.path.endswith(b"/deep")]
    losing(store, page.entry.content)
    with pytest.raises(packstone.PackstoneError):
        store.prune()
    (found,) = store.repair_snapshots(forget=True).repaired
    assert [loss.path for loss in found.losses] == [bytes(source / "below" / "deep")]
    entry = entries(store, found.snapshot_id or "")[bytes(source / "below" / "deep")]
    assert entry.content is None and entry.extras and entry.extras.flags & Flag.LOST
    assert store.check(read_data=True).errors == []
    store.prune()
    assert store.check(read_data=True).errors == []


def losing(repository: packstone.Repository, *ids: Any) -> None:
    """Write the packs of some objects again without them, as if records had been lost."""
    objects = repository._objects
    victims = {place.pack_id for object_id in ids for place in objects.index.find(object_id)}
    writer = objects.writer()
    for victim in victims:
        name = f"packs/{victim[:2]}/{victim}"
        pack = read_pack(objects.storage, victim, objects.storage.size(name), objects.sealer)
        for row in pack.rows:
            for object_id, _size, kind in OBJECT.iter_unpack(row.objects):
                if object_id not in ids:
                    data = objects.reader.get(ObjectType(kind), object_id)
                    writer.put_whole(ObjectType(kind), object_id, data)
    writer.finish()
    with objects.sweep() as sweep:
        sweep.delete(victims)


def test_a_page_of_a_large_directory(
    store: packstone.Repository, source: Path, tmp_path: Path
) -> None:
    """Entries in the other pages stay, and the directory says that some are lost."""
    many = source / "many"
    many.mkdir()
    for at in range(3_000):
        (many / f"{at:05d}").write_text(f"{at}")
    store.snapshot([source])
    (row,) = [row for row in store.ls("latest", bytes(source)) if row.path.endswith(b"many")]
    level, refs = decode_page(store._objects.reader.get(ObjectType.TREE, row.entry.content))
    assert level == 1 and len(refs) > 2
    losing(store, refs[1][1])
    (found,) = store.repair_snapshots(forget=True).repaired
    assert [loss.path for loss in found.losses] == [bytes(many)]
    rows = entries(store, found.snapshot_id or "")
    kept = {path for path in rows if path.startswith(bytes(many) + b"/")}
    assert len(kept) == 3_000 - refs[1][2]
    entry = rows[bytes(many)]
    assert isinstance(entry.content, bytes) and entry.extras and entry.extras.flags == Flag.LOST
    assert store.check(read_data=True).errors == []
    restored = store.restore(found.snapshot_id or "", tmp_path / "t", path=bytes(source))
    assert [problem.path for problem in restored.errors] == [bytes(many)]
    assert len(os.listdir(tmp_path / "t" / "many")) == len(kept)
    store.prune()
    # A repaired snapshot is whole: nothing is left to repair.
    assert store.repair_snapshots().is_whole


def test_lists_of_chunks_that_are_lost(store: packstone.Repository) -> None:
    data = os.urandom(3_000_000)
    store.snapshot_stream(io.BytesIO(data), "long")
    (row,) = store.ls("latest", "/long")
    content = row.entry.content
    assert isinstance(content, list) and content[0] > 0
    losing(store, content[1][:32])
    (found,) = store.repair_snapshots(forget=True).repaired
    assert [loss.path for loss in found.losses] == [b"/long"]
    assert store.check(read_data=True).errors == []


def test_nothing_is_left(store: packstone.Repository, source: Path) -> None:
    """Of a snapshot without its root no new one is made; with forget it makes way for prune."""
    fill(source)
    store.snapshot([source])
    (row,) = store.snapshots()
    losing(store, row.snapshot.tree)
    (found,) = store.repair_snapshots().repaired
    assert found.snapshot_id is None and len(store.snapshots()) == 1
    (found,) = store.repair_snapshots(forget=True).repaired
    assert found.quarantine and store.snapshots() == []
    store.prune()
    assert store.check(read_data=True).errors == []


def test_snapshots_that_cannot_be_read(hurt: packstone.Repository, source: Path) -> None:
    """Their own file is damaged: prune refuses until they are forgotten."""
    lost = hurt.snapshot([source]).snapshot_id or ""
    file = Path(hurt.location, "snapshots", lost)
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(packstone.Damaged):
        hurt.prune()
    assert hurt.repair_snapshots().unreadable.keys() == {lost}
    assert file.exists()
    result = hurt.repair_snapshots([lost[:9]], forget=True)
    assert result.quarantined.keys() == {lost} and result.repaired == []
    assert not file.exists()
    assert Path(hurt.location, result.quarantined[lost]).exists()
    assert hurt.repair_snapshots(forget=True).is_whole, "that snapshot had healed the other"
    hurt.prune()


def test_a_snapshot_of_another_repository_stays(
    hurt: packstone.Repository, big_place: Path, source: Path
) -> None:
    """Its file is whole: a config that was exchanged must not cost all snapshots."""
    with packstone.init(big_place / "other") as other:
        theirs = other.snapshot([source]).snapshot_id or ""
    data = Path(big_place, "other", "snapshots", theirs).read_bytes()
    Path(hurt.location, "snapshots", theirs).write_bytes(data)
    result = hurt.repair_snapshots(forget=True)
    assert theirs in result.unreadable and theirs not in result.quarantined
    assert Path(hurt.location, "snapshots", theirs).read_bytes() == data


def test_nothing_is_forgotten_while_packs_may_give_more(hurt: packstone.Repository) -> None:
    pack = max(packs_of(hurt, DATA), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    for at in (int.from_bytes(data[64:72], "little"), int.from_bytes(data[-56:-48], "little")):
        data[at + 70] ^= 1
    pack.write_bytes(data)
    with packstone.open(hurt.location, index_dir=Path(hurt.location, "..", "new")) as opened:
        with pytest.raises(packstone.Damaged, match="footers") as raised:
            opened.repair_snapshots(forget=True)
        assert "repair packs" in raised.value.hint
        assert len(opened.snapshots()) == 2


def test_the_word_of_the_view_is_not_enough(hurt: packstone.Repository) -> None:
    """A view that has forgotten chunks costs nobody a file: footers decide."""
    view = hurt._objects.index._view
    storage, sealer = hurt._objects.storage, hurt._objects.sealer
    chunks = [
        found[0]
        for path in packs_of(hurt, DATA)
        for row in read_pack(storage, path.name, path.stat().st_size, sealer).rows
        for found in row.object_rows()
    ]

    def forget(transaction: Any) -> None:
        for chunk_id in chunks[::2]:
            transaction.delete(chunk_id, db=view.databases[b"objects"])

    view.write(forget)
    with packstone.open(hurt.location) as repository:
        (found,) = repository.repair_snapshots().repaired
        assert len(found.losses) == 2
