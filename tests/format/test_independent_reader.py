"""A reader written from docs/format.md alone restores what Packstone stored (docs/format.md).

Plain and encrypted. Positive controls: it refuses a damaged record, and each feature of the page
it is meant to meet was really in the repository it read.
"""

from __future__ import annotations

import ast
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import hostile
import independent_reader
import pytest
import zstandard
from blake3 import blake3
from compare_trees import describe, differences
from tables import CHUNK_SIZE, deltas, nights, records

import packstone

READER = Path(independent_reader.__file__)
TINY = packstone.Argon2(time=1, memory=8 * 1024, lanes=1)
FIRST, SECOND = "Gru\u0308ße aus Köln", b"\xff no text \x80"


def write_every_kind(root: Path) -> None:
    """Make a tree that uses every row of the tables in docs/format.md §6."""
    rng = Random("every kind of entry")
    root.mkdir()
    os.chmod(root, 0o750)
    (root / "empty").write_bytes(b"")
    (root / "small").write_bytes(b"small\n")
    (root / "one chunk").write_bytes(rng.randbytes(1500))
    (root / "some chunks").write_bytes(rng.randbytes(60_000))
    (root / "text").write_bytes(b"INSERT INTO contacts VALUES (1, 'Ada');\n" * 5_000)
    (root / "long").write_bytes(rng.randbytes(7_000_000))
    with open(root / "sparse", "wb") as file:
        for offset in (1 << 20, 9 << 20):
            file.seek(offset)
            file.write(rng.randbytes(70_000))
        file.truncate(20 << 20)
    with open(root / "only a hole", "wb") as file:
        file.truncate(3 << 20)
    big = root / "big"
    big.mkdir()
    for number in range(3000):
        (big / f"row {number:05}").write_bytes(b"%d\n" % number if number % 3 else b"")
    (root / "bare").mkdir(mode=0o711)
    os.symlink("small", root / "link")
    os.symlink(b"\xff/nowhere", root / "dangling")
    os.mkfifo(root / "fifo", 0o620)
    os.link(root / "some chunks", root / "big" / "second name")
    os.link(root / "some chunks", root / "a first name")
    os.link(root / "link", root / "hard link to the link", follow_symlinks=False)
    os.link(root / "fifo", root / "hard link to the fifo")
    for name in (b"new\nline", b"latin-\xe9", b"\x01", b"-rf", b"n" * 255, b"a\\b", b"..."):
        (root / os.fsdecode(name)).write_bytes(name)
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(root, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{directory}/socket")
        finally:
            os.close(directory)
    for name, value in (("user.note", b"\x00\xff"), ("user.empty", b"")):
        for path in (root / "small", root / "bare", root / "sparse"):
            os.setxattr(path, name, value)
    os.chmod(root / "small", 0o4751)
    os.chmod(root / "bare", 0o1777)
    os.chmod(root / "one chunk", 0)
    if os.geteuid() == 0:
        os.chown(root / "small", 12_345, 54_321)
        os.chown(root / "link", 12_345, 54_321, follow_symlinks=False)
        os.chown(root / "big", 7, 8)
        os.chmod(root / "small", 0o4751)
        try:
            os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
            os.mknod(root / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
        except PermissionError:
            pass  # a container that may not
    os.utime(root / "text", ns=(0, -1_234_567_891))
    os.utime(root / "link", ns=(0, 1_234_567_891_012_345_678), follow_symlinks=False)
    os.utime(root / "big", ns=(0, 999_999_999))


def run_reader(
    repository: Path, snapshot_id: str, target: Path, passphrase: str | bytes = FIRST
) -> subprocess.CompletedProcess:
    # Isolated: neither PYTHONPATH nor the working directory lead to the package.
    words = [sys.executable, "-I", READER, repository, snapshot_id, target]
    given = {b"PACKSTONE_PASSPHRASE": os.fsencode(passphrase)}
    environment = dict(os.environb) | given
    return subprocess.run(words, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written") / "source"
    write_every_kind(path)
    return path


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def stored(
    request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A source tree and a repository with a snapshot of it; nobody changes either."""
    directory = tmp_path_factory.mktemp("stored")
    repository = directory / "repository"
    encrypted = request.param == "encrypted"
    more: dict[str, Any] = {"passphrase": FIRST, "argon2": TINY} if encrypted else {}
    found: dict[str, Any] = {"source": source, "repository": repository, "at": directory}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", str(directory / "cache"))
        patch.setenv("PACKSTONE_PASSPHRASE", FIRST)  # for readers in this process
        # Above 1 MiB, so that packs have records before their first footers.
        with packstone.init(repository, chunk_size=4096, pack_size=2 << 20, **more) as opened:
            if encrypted:
                opened.add_key(SECOND, argon2=TINY, label="Köln")
                found["recovery"] = opened.add_recovery_key(argon2=TINY)[1]
            result = opened.snapshot([source], host="test")
            assert not result.errors
            opened.restore(result.snapshot_id, directory / "ours")
        yield found | {"id": result.snapshot_id, "encrypted": encrypted}


def below(target: Path, source: Path) -> Path:
    return target / source.relative_to("/")


def test_restores_every_kind_of_entry(stored: dict[str, Any], tmp_path: Path) -> None:
    done = run_reader(stored["repository"], stored["id"], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected = describe(stored["source"])
    del expected[b"socket"]  # worth nothing without its process
    found = describe(below(tmp_path / "out", stored["source"]))
    assert differences(expected, found) == []
    ours = describe(below(stored["at"] / "ours", stored["source"]))
    assert differences(ours, found) == []


def test_ancestors_are_the_same(stored: dict[str, Any], tmp_path: Path) -> None:
    done = run_reader(stored["repository"], stored["id"], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    expected, found = describe(stored["at"] / "ours"), describe(tmp_path / "out")
    del expected[b""], found[b""]  # the root has no entry, so nobody knows its attributes
    assert differences(expected, found) == []


def packs_of(stored: dict[str, Any]) -> list[Path]:
    return list(stored["repository"].glob("packs/*/*"))


def test_the_repository_used_the_features(stored: dict[str, Any]) -> None:
    reader = independent_reader.Reader(str(stored["repository"]))
    codecs, found, runs = Counter[int](), set(), 0
    levels: dict[int, set[int]] = {2: set(), 3: set()}
    for (type_, object_id), places in reader.places.items():
        pack, _prefix, number, row, begin, _size = places[0]
        assert number < 65536
        runs += begin > 0
        found.add((pack, type_ == 1))
        codecs[row[3]] += 1
        if type_ != 1:
            levels[type_].add(independent_reader.unpack(reader.load(type_, object_id))[0])
    assert codecs[0] and codecs[1], "stored and compressed records"
    assert runs, "runs of small objects"
    assert levels[2] >= {0, 1}, "a directory of several pages"
    assert levels[3] >= {0}, "a chunk list in pages"
    assert len([pack for pack, is_data in found if is_data]) > 3
    first = {int.from_bytes(path.read_bytes()[64:72], "little") for path in packs_of(stored)}
    assert first - {128}, "records before the first footer"
    if stored["encrypted"]:
        assert {offset % 65_536 for offset in first - {128}} == {0}


def test_refuses_a_damaged_record(stored: dict[str, Any], tmp_path: Path) -> None:
    """Every data pack is damaged in its middle: some object is refused, none is invented."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", stored["repository"], copy], check=True)
    reader = independent_reader.Reader(str(copy))
    pack, _, _, row, _, _ = next(
        places[0] for (type_, _), places in reader.places.items() if type_ == 1
    )
    with open(copy / pack, "r+b") as file:
        file.seek(row[0] + row[1] // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))
    done = run_reader(copy, stored["id"], tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert "ValueError: object" in done.stderr and "is missing" in done.stderr


def test_uses_the_second_copies(stored: dict[str, Any], tmp_path: Path) -> None:
    """Config is gone, the head of every pack unreadable."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", stored["repository"], copy], check=True)
    os.unlink(copy / "config")
    for pack in copy.glob("packs/*/*"):
        with open(pack, "r+b") as file:
            file.write(bytes(128))
    done = run_reader(copy, stored["id"], tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "config: FileNotFound" in done.stderr
    found = describe(below(tmp_path / "out", stored["source"]))
    ours = describe(below(stored["at"] / "ours", stored["source"]))
    assert differences(ours, found) == []


# -- deltas ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def nightly(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, dict[str, dict[str, bytes]]]]:
    """A repository of eight nights, and what each snapshot holds; nearly all of it deltas."""
    directory = tmp_path_factory.mktemp("nightly")
    source, repository = directory / "source", directory / "repository"
    source.mkdir()
    more: dict[str, Any] = {}
    if request.param == "encrypted":
        more = {"passphrase": FIRST, "argon2": TINY}
    chance = Random("nightly")
    noise = chance.randbytes(300_000)
    stored: dict[str, dict[str, bytes]] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", str(directory / "cache"))
        patch.setenv("PACKSTONE_PASSPHRASE", FIRST)
        with packstone.init(repository, chunk_size=CHUNK_SIZE, **more) as opened:
            for night, dump in enumerate(nights("nightly", 8_000, 8)):
                at = chance.randrange(len(noise))
                noise = noise[:at] + chance.randbytes(2000) + noise[at + 1000 :]
                contents = {"table.sql": dump, "noise": noise, f"part {night}": dump[-70_000:]}
                for name, data in contents.items():
                    (source / name).write_bytes(data)
                result = opened.snapshot([source], host="test")
                assert result.snapshot_id is not None
                stored[result.snapshot_id] = contents
            rows = records(opened)
            assert len(deltas(rows)) > len(rows) / 2 and max(row.depth for row in rows) >= 3
        yield repository, stored


def test_restores_every_generation(
    nightly: tuple[Path, dict[str, dict[str, bytes]]], tmp_path: Path
) -> None:
    repository, stored = nightly
    for number, (snapshot_id, contents) in enumerate(stored.items()):
        target = tmp_path / f"{number}"
        done = run_reader(repository, snapshot_id, target)
        assert done.returncode == 0, done.stderr
        found = {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()}
        assert {name: found[name] for name in contents} == contents


def test_the_generations_used_the_codecs(
    nightly: tuple[Path, dict[str, dict[str, bytes]]],
) -> None:
    reader = independent_reader.Reader(str(nightly[0]))
    rows = [place[3] for places in reader.places.values() for place in places]
    assert {row[3] for row in rows} >= {1, 2, 3}
    assert {len(row[6]) for row in rows} >= {0, 1, 2}, "deltas on one chunk and on two"
    for row in rows:
        for base in row[6]:
            assert min(place[3][7] for place in reader.places[1, base]) < row[7]


def test_a_damaged_base_takes_what_stands_on_it(
    nightly: tuple[Path, dict[str, dict[str, bytes]]], tmp_path: Path
) -> None:
    repository, stored = nightly
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", repository, copy], check=True)
    reader = independent_reader.Reader(str(copy))
    bases = {base for places in reader.places.values() for place in places for base in place[3][6]}
    (pack, _, _, row, _, _) = next(
        places[0] for (_, each), places in reader.places.items() if each in bases
    )
    with open(copy / pack, "r+b") as file:
        file.seek(row[0] + row[1] // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))
    refused = 0
    for number, (snapshot_id, contents) in enumerate(stored.items()):
        target = tmp_path / f"{number}"
        done = run_reader(copy, snapshot_id, target)
        if done.returncode:
            assert "is missing" in done.stderr, done.stderr
            refused += 1
            continue
        found = {path.name: path.read_bytes() for path in target.rglob("*") if path.is_file()}
        assert {name: found[name] for name in contents} == contents
    assert refused >= 2, "the base and what stands on it"


VECTORS = json.loads((READER.parent / "vectors" / "format.json").read_text())


@pytest.mark.parametrize(
    "each", [each for each in VECTORS if each["what"] == "delta"], ids=lambda each: each["name"]
)
def test_vectors_of_deltas(each: dict[str, Any]) -> None:
    data, text = bytes.fromhex(each["data"]), b"".join(map(bytes.fromhex, each["bases"]))
    arguments = data, each["codec"], each["raw_size"], text
    if each["expect"] == "ok":
        assert independent_reader.expand(*arguments).hex() == each["chunk"]
    elif 1 <= len(each["bases"]) <= 3:  # more or fewer are refused in the footer
        with pytest.raises((ValueError, zstandard.ZstdError)):
            independent_reader.expand(*arguments)


SIZE, MIB = 20_000, 1 << 20
WHOLE = zstandard.ZstdCompressor().compress(hostile.counted(SIZE, 0))
LIES: dict[str, dict[str, Any]] = {
    "on itself": {"bases": [0]},
    "in a circle": {"bases": [1]},
    "in a circle, deeper": {"bases": [1], "depth": 2},
    "on nothing": {"bases": []},
    "on what is nowhere": {"bases": [9]},
    "on a chunk beside a missing one": {"bases": [2, 9]},
    "on four": {"bases": [2, 2, 2, 2]},
    "no depth": {"bases": [2], "depth": 0},
    "depth 65": {"bases": [2], "depth": 65},
    "a whole one": {"bases": [2], "codec": 1, "body": WHOLE},
    "codec 4": {"bases": [2], "codec": 4},
    "shorter": {"bases": [2], "raw_size": SIZE - 1},
    "longer": {"bases": [2], "raw_size": SIZE + 1},
    "another chunk": {"bases": [2], "body": hostile.step(SIZE, 7)},
}


# numbers that are longer than they need be: of the size of the instructions, and of these
LONG = b"".join(
    bytes([each & 127 | 128, each >> 7 & 127 | 128, each >> 14]) for each in (9, 8, SIZE - 8, 16)
)
SOUND: dict[str, dict[str, Any]] = {
    "no lie": {"bases": [2]},
    "long numbers": {"bases": [2], "body": LONG + bytes(8)},
    "the same base twice": {
        "bases": [2, 2],
        "body": hostile.body(8, SIZE - 8, 2 * (SIZE + 8), literals=bytes(8)),
    },
    "another lineage": {"bases": [2], "lineage": 1 << 31},
    "more depth than it has": {"bases": [2], "depth": 64},
}


@pytest.mark.parametrize("lie", [*LIES.values(), *SOUND.values()], ids=[*LIES, *SOUND])
def test_refuses_deltas_that_lie(lie: dict[str, Any], tmp_path: Path) -> None:
    """docs/format.md §4 and §9; the package does the same."""
    repository = hostile.new_repository(tmp_path / "repository")
    forger = hostile.Forger(repository)
    contents = [hostile.counted(SIZE, count) for count in range(10)]
    ids = [forger.id_of(packstone.model.ObjectType.CHUNK, data) for data in contents]
    forger.stored_record(packstone.model.ObjectType.CHUNK, contents[2])
    fields = {"body": hostile.step(SIZE, 0)} | lie | {"bases": [ids[at] for at in lie["bases"]]}
    forger.write_deltas(
        hostile.Delta(contents[0], **fields),
        hostile.Delta(contents[1], hostile.step(SIZE, 1), [ids[0]]),
    )
    snapshot_id = forger.commit([hostile.row(b"evil", content=ids[0], size=SIZE)])
    done = run_reader(repository, snapshot_id, tmp_path / "out")
    with packstone.open(repository) as opened:
        errors = opened.restore(snapshot_id, tmp_path / "ours").errors
    assert bool(errors) == (lie not in SOUND.values())
    if lie in SOUND.values():
        assert (tmp_path / "ours" / "evil").read_bytes() == contents[0]
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "evil").read_bytes() == contents[0]
    else:
        assert done.returncode == 1 and "is missing" in done.stderr, done.stderr
        assert "RecursionError" not in done.stderr, "refused for its depth"


@pytest.mark.parametrize(
    ("bases", "sound"), [([0, 1], True), ([0, 1, 2], False), ([3], False)], ids=str
)
def test_what_a_delta_stands_on_is_bounded(bases: list[int], sound: bool, tmp_path: Path) -> None:
    """Two chunks of 64 MiB are as much as may be: no third beside them, and no step more."""
    repository = hostile.new_repository(tmp_path / "repository")
    forger = hostile.Forger(repository)
    chunk = packstone.model.ObjectType.CHUNK
    contents = [hostile.counted(64 * MIB, at) for at in range(3)]
    for data in contents:
        forger.stored_record(chunk, data)
    contents += [hostile.counted(SIZE, 3), hostile.counted(SIZE, 4)]
    ids = [forger.id_of(chunk, data) for data in contents]
    forger.write_deltas(
        hostile.Delta(contents[3], hostile.step(SIZE, 3), ids[:2]),
        hostile.Delta(contents[4], hostile.step(SIZE, 4), [ids[at] for at in bases], depth=2),
    )
    snapshot_id = forger.commit([hostile.row(b"file", content=ids[4], size=SIZE)])
    done = run_reader(repository, snapshot_id, tmp_path / "out")
    with packstone.open(repository) as opened:
        errors = opened.restore(snapshot_id, tmp_path / "ours").errors
    assert (done.returncode == 0, not errors) == (sound, sound), done.stderr
    if sound:
        assert (tmp_path / "ours" / "file").read_bytes() == contents[4]
    else:
        assert "stands on too much" in done.stderr
        assert "128 MiB" in errors[0].message


# -- encrypted ------------------------------------------------------------------------------


encrypted_only = pytest.mark.parametrize("stored", ["encrypted"], indirect=True)


@encrypted_only
@pytest.mark.parametrize("key", ["second", "recovery", "recovery as somebody typed it"])
def test_every_key_opens(stored: dict[str, Any], key: str, tmp_path: Path) -> None:
    passphrase: str | bytes = stored["recovery"] if key != "second" else SECOND
    if key == "recovery as somebody typed it":
        typed = stored["recovery"].lower().replace("-", " ")
        passphrase = typed.replace("o", "0").replace("i", "1").replace("b", "8")
    done = run_reader(stored["repository"], stored["id"], tmp_path / "out", passphrase)
    assert done.returncode == 0, done.stderr


@encrypted_only
@pytest.mark.parametrize("passphrase", ["", "wrong", "Grusse aus Koln"])
def test_no_other_key_opens(stored: dict[str, Any], passphrase: str, tmp_path: Path) -> None:
    done = run_reader(stored["repository"], stored["id"], tmp_path / "out", passphrase)
    assert done.returncode == 1 and "another passphrase" in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


@encrypted_only
def test_forms_of_the_same_text_open(stored: dict[str, Any], tmp_path: Path) -> None:
    composed = "Gr\u00fc\u00dfe aus Ko\u0308ln"
    done = run_reader(stored["repository"], stored["id"], tmp_path / "out", composed)
    assert done.returncode == 0, done.stderr


@encrypted_only
@pytest.mark.parametrize("part", ["config", "snapshot", "footer", "record"])
def test_refuses_what_was_made_without_keys(
    stored: dict[str, Any], part: str, tmp_path: Path
) -> None:
    """One bit is changed, then checksums and names are made right, as anybody can."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", stored["repository"], copy], check=True)
    snapshot_id = stored["id"]
    if part in ("config", "snapshot"):
        names = ["config", "config.bak"] if part == "config" else [f"snapshots/{snapshot_id}"]
        for name in names:
            data = bytearray((copy / name).read_bytes())
            data[70] ^= 1
            data[-32:] = blake3(data[:-32]).digest()
            if part == "snapshot":
                snapshot_id = blake3(data).hexdigest()
                name = f"snapshots/{snapshot_id}"
            (copy / name).write_bytes(data)
    else:
        for pack in list(copy.glob("packs/*/*")):  # others are made in the loop
            data = bytearray(pack.read_bytes())
            first, size = struct.unpack_from("<QQ", data, 64)
            if part == "record":  # records stand before or behind the first footer
                data[128 if first > 128 else 128 + size] ^= 1
            for at in (first, struct.unpack_from("<Q", data, len(data) - 56)[0]):
                data[at + 64] ^= part == "footer"
                footer = data[at : at + size - 32]
                data[at + size - 32 : at + size] = blake3(footer).digest()
            name = blake3(data).hexdigest()
            pack.unlink()
            (copy / "packs" / name[:2] / name).write_bytes(data)
    done = run_reader(copy, snapshot_id, tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert ("not authentic" if part == "config" else "InvalidTag") in done.stderr


def test_is_short_and_imports_nothing_of_ours() -> None:
    text = READER.read_text()
    assert len(text.splitlines()) <= 270
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {
        "blake3", "cryptography", "msgspec", "zstandard",
    }  # fmt: skip
