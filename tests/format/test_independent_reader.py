"""A reader written from docs/format.md alone restores what Packstone stored (docs/format.md).

Positive controls: it refuses a damaged record, and each feature of the page it is meant to meet
was really in the repository it read.
"""

from __future__ import annotations

import ast
import os
import socket
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import independent_reader
import pytest
from compare_trees import describe, differences

import packstone

READER = Path(independent_reader.__file__)


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
    (root / "long").write_bytes(rng.randbytes(6_000_000))
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


def run_reader(repository: Path, snapshot_id: str, target: Path) -> subprocess.CompletedProcess:
    # Isolated: neither PYTHONPATH nor the working directory lead to the package.
    words = [sys.executable, "-I", READER, repository, snapshot_id, target]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A source tree and a repository with a snapshot of it; nobody changes either."""
    directory = tmp_path_factory.mktemp("stored")
    source, repository = directory / "source", directory / "repository"
    write_every_kind(source)
    with packstone.init(repository, chunk_size=4096, pack_size=1 << 20) as opened:
        result = opened.snapshot([source], host="test")
        assert not result.errors
        opened.restore(result.snapshot_id, directory / "ours")
    return {"source": source, "repository": repository, "id": result.snapshot_id, "at": directory}


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


def test_the_repository_used_the_features(stored: dict[str, Any]) -> None:
    reader = independent_reader.Reader(str(stored["repository"]))
    codecs, packs, runs, keys = Counter[int](), set(), 0, 0
    levels: dict[int, set[int]] = {2: set(), 3: set()}
    for (type_, object_id), places in reader.places.items():
        pack, row, _begin, _size = places[0]
        packs.add((pack, type_ == 1))
        codecs[row[3]] += 1
        runs += len(row[4]) > 37
        keys += bool(row[5])
        if type_ != 1:
            levels[type_].add(independent_reader.unpack(reader.load(type_, object_id))[0])
    assert codecs[0] and codecs[1], "stored and compressed records"
    assert runs and keys, "runs of small objects, and large ones with keys"
    assert levels[2] >= {0, 1}, "a directory of several pages"
    assert levels[3] >= {0}, "a chunk list in pages"
    assert len([pack for pack, is_data in packs if is_data]) > 3


def test_refuses_a_damaged_record(stored: dict[str, Any], tmp_path: Path) -> None:
    """Every data pack is damaged in its middle: some object is refused, none is invented."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", stored["repository"], copy], check=True)
    reader = independent_reader.Reader(str(copy))
    (pack, row, _, _) = next(
        places[0] for (type_, _), places in reader.places.items() if type_ == 1
    )
    with open(copy / pack, "r+b") as file:
        file.seek(row[0] + row[1] // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 4]))
    done = run_reader(copy, stored["id"], tmp_path / "out")
    assert done.returncode == 1 and "refused: object" in done.stderr, done.stderr


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
    assert "config.bak" in done.stderr
    found = describe(below(tmp_path / "out", stored["source"]))
    ours = describe(below(stored["at"] / "ours", stored["source"]))
    assert differences(ours, found) == []


def test_is_short_and_imports_nothing_of_ours() -> None:
    text = READER.read_text()
    assert len(text.splitlines()) <= 250
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level
            names.add((node.module or "").partition(".")[0])
    assert names - set(sys.stdlib_module_names) == {"blake3", "msgspec", "zstandard"}
