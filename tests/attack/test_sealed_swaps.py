"""Whoever can write to the storage of an encrypted repository, and has no keys (rows B2, X3).

He knows the format, computes checksums and names, moves bytes about, keeps old copies and other
repositories. Nothing he makes may be restored as something else, and nothing plain be written
for him. What the user's own files hold is data, whatever it looks like.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from damage.scene import FAST, Seen, Shelf
from damage.sealed_scene import (
    CHEAP,
    FIRST,
    SealedScene,
    large_sealed_scene,
    small_sealed_scene,
)

import packstone
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import Hasher, plain_family
from packstone.errors import Damaged, PackstoneError
from packstone.model import ObjectType, Snapshot
from packstone.repository import layout, packs
from packstone.repository import repository as repository_module
from packstone.repository.layout import pack_name, snapshot_name
from packstone.repository.packs import DATA, OBJECT, PackWriter
from packstone.repository.snapshots import encode_snapshot

Files = dict[str, bytes]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SealedScene:
    return small_sealed_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> SealedScene:
    return large_sealed_scene(tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory, large: SealedScene) -> SealedScene:
    """A repository of the same family, which holds the same objects under the same ids."""
    location = large.root / "repository"
    with packstone.open(location, passphrase=FIRST) as opened:
        return large_sealed_scene(tmp_path_factory.mktemp("alike"), opened)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> SealedScene:
    return small_sealed_scene(tmp_path_factory.mktemp("other"))


# -- what an attacker can do ------------------------------------------------------------------


def checksummed(data: bytes | bytearray) -> bytes:
    """Return an envelope or footer with the checksum of what it holds now."""
    return bytes(data[:-32]) + blake3(data[:-32]).digest()


def forge_pack(data: bytes | bytearray, owner: bytes | None = None) -> Files:
    """Return a pack under its right name, all of whose checksums are right.

    With `owner` header and footers say that they are of that repository.
    """
    pack = bytearray(data)
    first, size = struct.unpack_from("<QQ", pack, 64)
    (second,) = struct.unpack_from("<Q", pack, len(pack) - 56)
    if owner is not None:
        pack[16:32] = owner
    pack[96:128] = blake3(pack[:96]).digest()
    for at in (first, second):
        if owner is not None:
            pack[at + 16 : at + 32] = owner
        pack[at : at + size] = checksummed(pack[at : at + size])
    pack[-32:] = blake3(pack[-64:-32]).digest()
    return {pack_name(blake3(pack).hexdigest()): bytes(pack)}


def forge_envelope(data: bytes, **fields: Any) -> bytes:
    """Return an envelope with other fields in its header and the right checksum."""
    changed = bytearray(data)
    for name, value in fields.items():
        at, size = {"owner": (16, 16), "kind": (10, 1), "mode": (11, 1), "salt": (32, 32)}[name]
        changed[at : at + size] = value
    return checksummed(changed)


def without(files: Files, *names: str) -> Files:
    return {name: data for name, data in files.items() if name not in names}


def assert_refused(seen: Seen, name: str, word: str) -> None:
    """Require that check names a file, for the reason that it must have."""
    assert seen.names(name), seen.texts
    assert any(word in text for text in seen.texts), seen.texts


SEALED = "sealed bytes are not what was sealed"


# -- records ----------------------------------------------------------------------------------


def same_size(large: SealedScene) -> list[tuple[str, list[Any]]]:
    """Return data packs, and their records that are of one stored size, with their numbers."""
    found = []
    for name in large.packs():
        rows = [row for row in enumerate(large.pack(name).rows) if row[1].stored_size == 16_400]
        if len(rows) > 1:
            found.append((name, rows))
    return found


def test_records_exchanged_in_a_pack(large: SealedScene) -> None:
    """Their keys and sizes are the same: only the number tells them apart, before any hash."""
    pairs = 0
    for name, rows in same_size(large):
        for (_, one), (_, two) in pairwise(rows):
            pairs += 1
            data = bytearray(large.files[name])
            first, second = (slice(row.offset, row.offset + row.stored_size) for row in (one, two))
            data[first], data[second] = data[second], data[first]
            (renamed,) = forged = forge_pack(data)
            seen = large.look(without(large.files, name) | forged)
            assert_refused(seen, renamed, SEALED)
            lost = set().union(*seen.lost.values())
            assert len(lost) == 2
    assert pairs >= 3


def test_records_exchanged_between_packs(large: SealedScene) -> None:
    """The same number and size in another pack: another key, and another prefix."""
    (one, ones), (two, twos) = same_size(large)
    numbers = 0
    for number, row in ones:
        for other_number, other_row in twos:
            if number != other_number:
                continue
            numbers += 1
            data = bytearray(large.files[one])
            theirs = large.files[two][other_row.offset : other_row.offset + other_row.stored_size]
            data[row.offset : row.offset + row.stored_size] = theirs
            (renamed,) = forged = forge_pack(data)
            assert_refused(large.look(without(large.files, one) | forged), renamed, SEALED)
    assert numbers


def test_a_record_of_a_pack_with_the_same_salt(large: SealedScene) -> None:
    """Header and footers of a pack cannot be given to the records of another."""
    (one, ones), (two, _) = same_size(large)
    data = bytearray(large.files[one])
    data[32:64] = large.files[two][32:64]  # in the header alone
    (renamed,) = forged = forge_pack(data)
    seen = large.look(without(large.files, one) | forged)
    assert not any(seen.lost.values()) or seen.names(renamed)
    for at in (struct.unpack_from("<Q", data, 64)[0], struct.unpack_from("<Q", data, -56)[0]):
        data[at + 32 : at + 64] = data[32:64]
    (renamed,) = forged = forge_pack(data)
    seen = large.look(without(large.files, one) | forged)
    assert_refused(seen, renamed, "footer was altered")
    assert len(set().union(*seen.lost.values())) >= len(ones)


def test_footers_exchanged(large: SealedScene) -> None:
    """A footer of another pack leads nowhere."""
    data_packs = [name for name, _ in same_size(large)]
    for one, two in pairwise(data_packs + large.packs()):
        if one == two:
            continue
        data = bytearray(large.files[one])
        theirs = large.files[two]
        start, size = struct.unpack_from("<QQ", theirs, 64)
        first, own_size = struct.unpack_from("<QQ", data, 64)
        (second,) = struct.unpack_from("<Q", data, len(data) - 56)
        if size != own_size:
            continue
        for at in (first, second):
            data[at : at + size] = theirs[start : start + size]
        (renamed,) = forged = forge_pack(data)
        seen = large.look(without(large.files, one) | forged)
        assert seen.names(renamed), seen.texts


def test_the_kind_of_a_pack(scene: SealedScene) -> None:
    """A pack of trees cannot be made one of data."""
    for name in scene.packs():
        data = bytearray(scene.files[name])
        data[10] = 3 - data[10]
        (renamed,) = forged = forge_pack(data)
        seen = scene.look(without(scene.files, name) | forged)
        assert not any(seen.lost.values()), "the trailer leads to the second footer"
        assert_refused(seen, renamed, "kind that does not belong")


# -- files of other repositories ------------------------------------------------------------


@pytest.mark.parametrize("whose", ["of the same family", "another"])
def test_packs_of_another_repository(
    large: SealedScene, alike: SealedScene, other: SealedScene, whose: str
) -> None:
    """Of the same family the ids are the same, so the objects would be what they are called."""
    theirs = alike if whose == "of the same family" else other
    assert (theirs.secrets.family == large.secrets.family) == (theirs is alike)
    secrets = [theirs.secrets.sealing, large.secrets.sealing, large.secrets.family]
    assert len({*secrets, theirs.secrets.family}) == (3 if theirs is alike else 4)
    empty = {name: data for name, data in large.files.items() if not name.startswith("packs/")}
    for name in theirs.packs():
        data = theirs.files[name]
        seen = large.look(large.files | {name: data})
        assert_refused(seen, name, "belongs to repository")
        (renamed,) = forged = forge_pack(data, large.sealer.repository_id)
        seen = large.look(large.files | forged)
        assert_refused(seen, renamed, "footer was altered")
        assert not any(seen.lost.values())
    all_of_them: Files = {}
    for name in theirs.packs():
        all_of_them |= forge_pack(theirs.files[name], large.sealer.repository_id)
    seen = large.look(empty | all_of_them)
    assert all(seen.lost[each] == set(large.stored[each]) for each in large.stored)


def test_small_objects_of_another_repository(
    large: SealedScene, alike: SealedScene, other: SealedScene
) -> None:
    for theirs in (alike, other):
        for name in [*theirs.names("snapshots"), "state", "features/test"]:
            data = theirs.files[name]
            forged = forge_envelope(data, owner=large.sealer.repository_id)
            for made, word in ((data, "belongs to"), (forged, "altered")):
                place = name
                if name.startswith("snapshots/"):
                    place = snapshot_name(blake3(made).hexdigest())
                seen = large.look(large.files | {place: made}, restore=False)
                assert_refused(seen, place, word)


def test_the_config_of_another_repository(large: SealedScene, other: SealedScene) -> None:
    """With its id or with ours: nothing opens, since our keys have not made it."""
    theirs = other.files["config"]
    forged = forge_envelope(theirs, owner=large.sealer.repository_id)
    for made in (theirs, forged):
        seen = large.look(large.files | {"config": made, "config.bak": made})
        assert isinstance(seen.refused, Damaged)
    seen = large.look(large.files | {"config": forged})  # the copy is our own
    assert_refused(seen, "config", "altered")
    assert not any(seen.lost.values())


# -- plain things in an encrypted repository ------------------------------------------------


def plain_pack(owner: bytes) -> tuple[Files, bytes]:
    """Return a plain pack of one chunk, and the chunk's id in a plain repository."""
    storage = Shelf({}, "")
    data = b"forged" * 100
    chunk_id = Hasher(plain_family()).id(ObjectType.CHUNK, data)
    writer = PackWriter(storage, DATA, Sealer(owner), bytes(32))
    writer.add(data, len(data), 0, OBJECT.pack(chunk_id, len(data), 1), b"")
    writer.finish()
    return dict(storage.files), chunk_id


def plain_config(scene: SealedScene) -> bytes:
    config = layout.Config(created_ns=1, family=Hasher(plain_family()).fingerprint)
    return layout.encode_config(config, Sealer(scene.sealer.repository_id), bytes(32))


def test_plain_objects_are_refused(scene: SealedScene) -> None:
    plain = Sealer(scene.sealer.repository_id)
    forged, _ = plain_pack(plain.repository_id)
    (name,) = forged
    seen = scene.look(scene.files | forged)
    assert_refused(seen, name, "mode 0")
    assert seen.refused is None and not any(seen.lost.values())

    row = Snapshot(time_ns=1 << 60, host="evil", paths=[b"/"], tree=bytes(32))
    data = seal_envelope(Kind.SNAPSHOT, plain, bytes(32), encode_snapshot(row))
    name = snapshot_name(blake3(data).hexdigest())
    assert_refused(scene.look(scene.files | {name: data}), name, "mode 0")
    with scene.opened(scene.files | {name: data}) as repository:
        assert {each.id for each in repository.snapshots()} == set(scene.stored)

    state = layout.encode_state(layout.State(generation=bytes(16)), plain, bytes(32))
    assert_refused(scene.look(scene.files | {"state": state}), "state", "mode 0")
    payload = msgspec.msgpack.encode({"need": "ignore"})
    feature = seal_envelope(Kind.FEATURE, plain, bytes(32), payload)
    seen = scene.look(scene.files | {"features/evil": feature})
    assert isinstance(seen.refused, Damaged) and seen.names("features/evil")


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("name", ["config", "state", "snapshots", "features/test", "keys"])
def test_no_envelope_is_taken_in_another_mode(scene: SealedScene, name: str, mode: int) -> None:
    """The same bytes under another mode, with the right checksum."""
    where = name if name in scene.files else scene.names(name)[0]
    data = scene.files[where]
    if data[11] == mode:
        return
    forged = forge_envelope(data, mode=bytes([mode]))
    place = where
    if name in ("snapshots", "keys"):
        place = f"{name}/{blake3(forged).hexdigest()}"
    files = scene.files | {place: forged}
    seen = scene.look(files | ({"config.bak": forged} if name == "config" else {}))
    assert seen.refused or seen.names(place)
    if name == "config":
        assert isinstance(seen.refused, Damaged)


def take(files: Files, home: str, passphrase: Any, source: Path) -> None:
    """Take a snapshot as a client does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repository_module, "LocalStorage", lambda _: Shelf(files, home))
        with tempfile.TemporaryDirectory(dir=FAST) as index, packstone.open(
            home, passphrase=passphrase, index_dir=index, threads=1
        ) as repository:  # fmt: skip
            repository.snapshot([source])


@pytest.mark.parametrize("which", ["config", "both", "all that is there"])
@pytest.mark.parametrize("client", ["was here", "was here, asks", "was here, gives none", "is new"])
def test_no_plaintext_is_written_for_a_plain_config(
    scene: SealedScene, which: str, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything plain is forged consistently; the client must notice before it writes."""
    plain = Sealer(scene.sealer.repository_id)
    made = plain_config(scene)
    files = scene.files | {"config": made}
    if which != "config":
        files["config.bak"] = made
    if which == "all that is there":
        state = layout.encode_state(layout.State(generation=bytes(16)), plain, bytes(32))
        files = {"config": made, "config.bak": made, "state": state, "lock": b""}
    home = scene.home
    if client == "is new":
        monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path))
    passphrase: Any = {
        "was here": FIRST,
        "was here, asks": lambda: FIRST,
        "was here, gives none": None,
        "is new": FIRST.encode(),
    }[client]
    before = dict(files)
    with pytest.raises(PackstoneError, match="not encrypted"):
        take(files, home, passphrase, scene.root / "source")
    assert files == before


def test_a_client_that_was_here_writes(scene: SealedScene) -> None:
    """The control of the test above."""
    files = dict(scene.files)
    take(files, scene.home, FIRST, scene.root / "source")
    assert len(files) > len(scene.files)


# -- old copies -----------------------------------------------------------------------------


def test_an_older_state_stops_writing(
    scene: SealedScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has seen a newer one refuses to write; reading goes on."""
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    index = str(tmp_path / "index")
    source = scene.root / "source"

    def at(serial: int) -> Files:
        state = layout.State(generation=bytes([serial]) * 16, serial=serial)
        return dict(scene.files) | {"state": layout.encode_state(state, scene.sealer, bytes(32))}

    for files in (scene.files, at(7)):
        with scene.opened(dict(files), index) as repository:
            repository.snapshot([source])
    for serial in (6, 1, 0):
        files = at(serial) if serial else dict(scene.files)
        before = dict(files)
        with scene.opened(files, index) as repository:
            with pytest.raises(Damaged, match="state is older"):
                repository.snapshot([source])
            assert len(repository.snapshots()) == 2
        assert files == before
        assert not any(scene.look(files, index=index).lost.values())
    with scene.opened(at(8), index) as repository:
        repository.snapshot([source])


def test_a_snapshot_renamed(scene: SealedScene) -> None:
    first, second = scene.names("snapshots")
    moved = snapshot_name("ab" * 32)
    for files in (
        scene.files | {moved: scene.files[first]},
        scene.files | {first: scene.files[second], second: scene.files[first]},
        scene.files | {snapshot_name(blake3(b"x").hexdigest()): scene.files["state"]},
    ):
        (name, *_) = [name for name in files if files[name] != scene.files.get(name)]
        seen = scene.look(files, restore=False)
        assert seen.names(name)


def test_an_envelope_as_another(scene: SealedScene) -> None:
    """State as a snapshot, a snapshot as state, with kind and checksum made right."""
    snapshot = scene.names("snapshots")[0]
    made = forge_envelope(scene.files["state"], kind=b"\3")
    name = snapshot_name(blake3(made).hexdigest())
    assert_refused(scene.look(scene.files | {name: made}, restore=False), name, "altered")
    made = forge_envelope(scene.files[snapshot], kind=b"\2")
    assert_refused(scene.look(scene.files | {"state": made}, restore=False), "state", "altered")
    made = forge_envelope(scene.files["features/test"], kind=b"\1")
    seen = scene.look(scene.files | {"config": made, "config.bak": made})
    assert isinstance(seen.refused, Damaged)


# -- truncation -----------------------------------------------------------------------------

CLASSES = ["config", "config.bak", "state", "features", "keys", "snapshots", "packs"]


@pytest.mark.parametrize("kind", CLASSES)
def test_truncated(scene: SealedScene, kind: str) -> None:
    """Of every class some lengths, the edges of its parts among them."""
    for name in [each for each in scene.files if each.split("/")[0] == kind]:
        data = scene.files[name]
        step = 1 + len(data) // 50
        edges = {0, 63, 64, 95, 96, len(data) - 1, len(data) - 32, len(data) - 64}
        for size in sorted({*range(0, len(data), step), *edges} & set(range(len(data)))):
            seen = scene.look(scene.files | {name: data[:size]}, restore=size in edges)
            assert seen.names(name), (name, size)
            if name == scene.slot_of(FIRST):
                assert isinstance(seen.refused, Damaged), "damage, and no wrong passphrase"
            elif kind in ("config", "config.bak", "state", "keys"):
                assert not any(seen.lost.values())


# -- content that looks like parts of a repository ------------------------------------------


def test_content_is_data_whatever_it_looks_like(scene: SealedScene, tmp_path: Path) -> None:
    """Files that hold this repository's pages, packs, snapshots, slots: as they come from users
    who store their repositories in each other."""
    with scene.opened(scene.files) as repository:
        objects = repository._objects
        row = repository.snapshots()[-1]
        pages = {
            f"page {number}": objects.reader.get(ObjectType.TREE, object_id)
            for number, object_id in enumerate([row.snapshot.tree])
        }
        pages["snapshot payload"] = encode_snapshot(row.snapshot)
    source = tmp_path / "source"
    source.mkdir()
    contents = pages | {name.replace("/", "_"): data for name, data in scene.files.items()}
    rows = [packs._encode_rows(scene.pack(name).rows) for name in scene.packs()]
    contents |= {f"footer {number}": body for number, body in enumerate(rows)}
    contents["ids"] = row.snapshot.tree
    for name, data in contents.items():
        (source / name).write_bytes(data)
    files = dict(scene.files)
    with scene.opened(files) as repository:
        taken = repository.snapshot([source])
        assert taken.snapshot_id is not None and not taken.errors
    with scene.opened(files) as repository:
        result = repository.restore(taken.snapshot_id, tmp_path / "out", path=bytes(source))
        assert not result.errors
        assert repository.check(read_data=True).errors == []
        tree_id = row.snapshot.tree
        with pytest.raises(PackstoneError):
            repository._objects.reader.get(ObjectType.CHUNK, tree_id)
    out = tmp_path / "out"
    found = {name: (out / name).read_bytes() for name in os.listdir(out)}
    assert found == contents


# -- key slots ------------------------------------------------------------------------------


def test_the_control_of_forged_slots(scene: SealedScene) -> None:
    """A slot made as these tests make them opens, so refusals are for the reason they give."""
    slot = scene.files[scene.slot_of(FIRST)]
    payload = msgspec.msgpack.decode(slot[64:-32])
    data = seal_envelope(
        Kind.KEY_SLOT, Sealer(slot[16:32]), bytes(32), msgspec.msgpack.encode(payload)
    )
    files = without(scene.files, *scene.names("keys")) | {
        "keys/" + blake3(data).hexdigest(): data
    }  # fmt: skip
    seen = scene.look(files)
    assert (seen.refused, seen.texts) == (None, [])
    assert CHEAP.lanes == payload["lanes"]
