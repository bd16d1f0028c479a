"""One flipped bit anywhere in an encrypted repository (B1 of reliability.md).

Every bit of every byte through what opens packs and small objects; every byte by the command's
way in the soak, a part of them by default: named by `check --read-data`, restored right or refused.
A damaged key slot is damage and never a wrong passphrase.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import msgspec
import pytest
from campaign import campaign, trials
from damage.scene import Shelf
from damage.sealed_scene import FIRST, SECOND, SealedScene, small_sealed_scene

from packstone.codec.envelope import Kind, open_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged
from packstone.repository import keyring, layout
from packstone.repository.packs import Pack, RecordRow, read_pack
from packstone.repository.snapshots import read_snapshot

SMALL = ("config", "config.bak", "state", "features/test")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedScene]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield small_sealed_scene(tmp_path_factory.mktemp("sealed"))


def flipped(data: bytes, at: int) -> bytes:
    """Return data with its bit `at` flipped."""
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed)


def test_the_scene_is_small_and_whole(scene: SealedScene) -> None:
    assert len(scene.packs()) == 4
    assert 15_000 < sum(map(len, scene.files.values())) < 30_000
    kinds = {name.split("/")[0] for name in scene.files}
    assert kinds == {"config", "config.bak", "state", "keys", "features", "packs", "snapshots",
        "lock"}  # fmt: skip
    assert scene.files["lock"] == b"", "nothing to flip"
    seen = scene.look(scene.files)
    assert (seen.refused, seen.texts) == (None, [])
    assert list(seen.lost.values()) == [set(), set()]


# -- every bit, through what opens it --------------------------------------------------------


def opens(scene: SealedScene, name: str) -> Callable[[dict[str, bytes]], object]:
    """Return what a session does with a small object."""
    sealer = scene.sealer
    if name == "state":
        return lambda files: layout.read_state(Shelf(files, ""), sealer)
    if name.startswith("features"):
        return lambda files: layout.check_features(Shelf(files, ""), sealer, writing=True)
    if name.startswith("snapshots"):
        return lambda files: read_snapshot(Shelf(files, ""), name.rpartition("/")[2], sealer)
    return lambda files: open_envelope(files[name], Kind.CONFIG, name, sealer)


def test_every_bit_of_small_objects(scene: SealedScene) -> None:
    """Damaged, and neither a newer format nor anything else."""
    with campaign("B1", "encrypted: every bit of small objects, opened") as row:
        for name in [*SMALL, *scene.names("snapshots")]:
            data, use = scene.files[name], opens(scene, name)
            use(scene.files)
            for at in range(8 * len(data)):
                with pytest.raises(Damaged):
                    use(scene.files | {name: flipped(data, at)})
                row.trials += 1


def test_every_bit_of_a_config_leads_to_its_copy(scene: SealedScene) -> None:
    storage = Shelf(scene.files, "")
    expected = layout.read_config(storage, pytest.fail, scene.sealer)
    for at in range(8 * len(scene.files["config"])):
        warnings: list[str] = []
        files = scene.files | {"config": flipped(scene.files["config"], at)}
        for sealer in (None, scene.sealer):
            assert layout.read_config(Shelf(files, ""), warnings.append, sealer) == expected
        assert len(warnings) == 2 and "config.bak" in warnings[0]


def test_every_bit_of_a_key_slot(scene: SealedScene) -> None:
    """Exit code 14 for its own passphrase and for any other; the other slot goes on opening."""
    ours, owner = scene.slot_of(FIRST), scene.sealer.repository_id
    data = scene.files[ours]
    with campaign("B1", "encrypted: every bit of a key slot, unlocked") as row:
        for at in range(8 * len(data)):
            storage = Shelf(scene.files | {ours: flipped(data, at)}, "")
            for passphrase in (FIRST, "another"):
                with pytest.raises(Damaged) as caught:
                    keyring.unlock(storage, owner, passphrase, pytest.fail)
                assert caught.value.exit_code == 14 and ours[:17] in caught.value.message
            warnings: list[str] = []
            secrets, _slot = keyring.unlock(storage, owner, SECOND, warnings.append)
            assert secrets.sealing == scene.sealer._sealing
            assert len(warnings) == 1 and ours[:17] in warnings[0]
            row.trials += 1


def records_of(scene: SealedScene, pack: Pack, data: bytes) -> list[bytes | None]:
    """Return what each record opens to, None where it is refused."""
    seal = scene.sealer.pack(pack.kind, pack.salt)
    found: list[bytes | None] = []
    for number, row in enumerate(pack.rows):
        stored = data[row.offset : row.offset + row.stored_size]
        try:
            found.append(bytes(seal.open(number, row.raw_size, row.codec, stored)))
        except Damaged:
            found.append(None)
    return found


def plain_rows(rows: list[RecordRow]) -> list[Any]:
    return [msgspec.to_builtins(row) for row in rows]


@pytest.mark.parametrize("number", range(4))
def test_every_bit_of_a_pack(scene: SealedScene, number: int) -> None:
    """A footer is read from the other copy, and it is said; a record is right or refused."""
    name = scene.packs()[number]
    data, pack = scene.files[name], scene.pack(name)
    rows, whole = plain_rows(pack.rows), records_of(scene, pack, data)
    assert None not in whole and not pack.damage
    first = int.from_bytes(data[64:72], "little")
    said_by_footer = {*range(128), *range(first, first + int.from_bytes(data[72:80], "little"))}
    gap = scene.gap(name)
    with campaign("B1", f"encrypted: every bit of pack {number}, read") as counted:
        for at in range(8 * len(data)):
            if at // 8 in gap and at // 8 not in (gap[0], gap[-1]):
                continue  # nobody reads it; its hash is looked at below
            changed = flipped(data, at)
            found = read_pack(Shelf({name: changed}, ""), pack.id, len(data), scene.sealer)
            assert plain_rows(found.rows) == rows and found.kind == pack.kind
            assert bool(found.damage) == (at // 8 in said_by_footer), at
            expected = [
                None if row.offset <= at // 8 < row.offset + row.stored_size else raw
                for row, raw in zip(pack.rows, whole, strict=True)
            ]
            assert records_of(scene, found, changed) == expected, at
            assert checksum(changed).hex() != pack.id
            counted.trials += 1


# -- by the command's way ---------------------------------------------------------------------

_STEPS = {"records": 2, "others": 8, "gap": 512, "small": 4}
_RESTORE_STEP = 4  # of what is no record: one footer is as good as the other


def places(scene: SealedScene, name: str) -> Iterator[tuple[int, bool]]:
    """Yield some bytes of a file, and whether a restore is tried for each."""
    data = scene.files[name]
    rows = scene.pack(name).rows if name.startswith("packs/") else []
    stored = {at for row in rows for at in range(row.offset, row.offset + row.stored_size)}
    gap = scene.gap(name)
    tried = 0
    start = Random(name).randrange(8)
    for at in range(len(data)):
        step = _STEPS["small"] if not rows else _STEPS["others"]
        step = _STEPS["records"] if at in stored else _STEPS["gap"] if at in gap else step
        if (at + start) % step == 0:
            tried += 1
            yield at, at in stored or tried % _RESTORE_STEP == 0


def silent(scene: SealedScene, name: str, bits: Iterator[tuple[int, bool]]) -> list[int]:
    """Return the bits that were flipped and not named."""
    found = []
    for at, restore in bits:
        files = scene.files | {name: flipped(scene.files[name], at)}
        seen = scene.look(files, restore=restore)
        if not seen.names(name):
            found.append(at)
        if name in (scene.slot_of(FIRST), "features/test"):
            assert isinstance(seen.refused, Damaged), at
        elif not name.startswith(("packs", "snapshots")):
            assert not any(seen.lost.values()), at
    return found


def classes(scene: SealedScene) -> dict[str, list[str]]:
    return {
        "config": ["config"],
        "config.bak": ["config.bak"],
        "state": ["state"],
        "features": ["features/test"],
        "keys": scene.names("keys"),
        "snapshots": scene.names("snapshots"),
        "packs": scene.packs(),
    }


KINDS = ["config", "config.bak", "state", "features", "keys", "snapshots", "packs"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_flip_is_named(scene: SealedScene, kind: str) -> None:
    rng = Random(kind)
    for name in classes(scene)[kind]:
        bits = ((8 * at + rng.randrange(8), restore) for at, restore in places(scene, name))
        assert silent(scene, name, bits) == [], name


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_every_bit_of_every_byte_is_named(scene: SealedScene, kind: str) -> None:
    """All of them, or as many of each kind as asked."""
    with campaign("B1", f"encrypted: single bits of {kind}, by check and restore") as row:
        bits = [
            (name, at) for name in classes(scene)[kind] for at in range(8 * len(scene.files[name]))
        ]
        for number, (name, at) in enumerate(bits[:: max(1, len(bits) // trials(1, 1 << 30))]):
            assert silent(scene, name, iter([(at, number % 8 == 0)])) == [], name
            row.trials += 1
