"""Target: small files in batches, every other kind, what exists already, what goes wrong."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from restoring import BLOCK, CHARACTER, FIFO, FILE, GID, LINK, TIME_NS, UID, entry, file_entry

from packstone.errors import TargetError, UsageError
from packstone.filesystem import _scan
from packstone.filesystem.confine import Outcome, Target, validate_name

WRITTEN, KEPT, FAILED = Outcome.WRITTEN, Outcome.KEPT, Outcome.FAILED
BAD_NAMES = [b"", b".", b"..", b"a/b", b"/", b"/abs", b"../x", b"a\0b", b"\0", b"x" * 256]
OVERWRITE = [None, "never", "changed", "always"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def target(root: Path) -> Iterator[Target]:
    with Target(os.fsencode(root)) as target:
        yield target


def names(path: Path) -> list[str]:
    return sorted(os.listdir(path))


# ---------------------------------------------------------------- the root


def test_the_root_is_made_or_taken(tmp_path: Path) -> None:
    with Target(os.fsencode(tmp_path / "a" / "b")) as target:
        assert target.root.made
    with Target(os.fsencode(tmp_path / "a" / "b")) as target:
        assert not target.root.made
        assert target.names(target.root) == []
    (tmp_path / "link").symlink_to("a")
    with Target(os.fsencode(tmp_path / "link")) as target:  # the user's own way
        assert target.names(target.root) == [b"b"]


def test_a_root_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TargetError, match="target"):
            Target(os.fsencode(path))
    with pytest.raises(UsageError):
        Target(os.fsencode(tmp_path), overwrite="sometimes")


# ---------------------------------------------------------------- small files


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("replace", [True, False])
def test_write_files_writes_what_it_was_given(
    here: int, tmp_path: Path, nameless: bool, replace: bool
) -> None:
    datas = [b"", b"x", os.urandom(100_000), memoryview(b"view of bytes")[5:]]
    rows = [(here, b"f%d" % i, data, 0o100640, UID, GID, TIME_NS) for i, data in enumerate(datas)]
    assert _scan.write_files(rows, b".tmp-", True, replace, nameless) == [0] * len(datas)
    assert names(tmp_path) == [f"f{i}" for i in range(len(datas))]
    for i, data in enumerate(datas):
        path = tmp_path / f"f{i}"
        status = path.stat()
        assert path.read_bytes() == bytes(data)
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, TIME_NS)
        assert (status.st_uid, status.st_gid, status.st_nlink) == (UID, GID, 1)


@pytest.mark.parametrize("nameless", [True, False])
@pytest.mark.parametrize("existing", ["file", "link", "directory", "fifo"])
def test_write_files_takes_no_place_unless_asked(
    here: int, tmp_path: Path, nameless: bool, existing: str
) -> None:
    path = tmp_path / "f"
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    if existing == "file":
        path.write_bytes(b"old")
    elif existing == "link":
        path.symlink_to("secret")
    elif existing == "directory":
        path.mkdir()
    else:
        os.mkfifo(path)
    before = os.lstat(path)
    row = (here, b"f", b"new", FILE, UID, GID, TIME_NS)
    assert _scan.write_files([row], b".tmp-", True, False, nameless) == [-17]
    after = os.lstat(path)
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    result = _scan.write_files([row], b".tmp-", True, True, nameless)
    if existing == "directory":
        assert result[0] < 0
    else:
        assert result == [0]
        assert not path.is_symlink() and path.read_bytes() == b"new"
    assert secret.read_bytes() == b"secret"
    assert names(tmp_path) == ["f", "secret"]


def test_rename_exclusively_keeps_what_is_there(here: int, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    (tmp_path / "there").write_bytes(b"there")
    with pytest.raises(FileExistsError):
        _scan.rename_exclusively(here, b"new", b"there")
    assert (tmp_path / "there").read_bytes() == b"there"
    _scan.rename_exclusively(here, b"new", b"free")
    assert names(tmp_path) == ["free", "there"]
    with pytest.raises(FileNotFoundError):
        _scan.rename_exclusively(here, b"new", b"elsewhere")


def test_many_small_files_in_many_directories(target: Target, root: Path) -> None:
    """More directories in one batch than are held at once."""
    directories = [target.make_directory(target.root, b"d%03d" % i) for i in range(300)]
    items = [
        (directory, file_entry(b"f%d" % i, b"%d" % i), b"%d" % i)
        for i in range(3)
        for directory in directories
    ]
    assert target.write_small(items) == [WRITTEN] * 900
    assert target.problems == []
    for directory in directories:
        assert names(root / os.fsdecode(directory.name)) == ["f0", "f1", "f2"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_and_the_rest_goes_on(
    target: Target, root: Path, name: bytes
) -> None:
    with pytest.raises(TargetError, match="refused"):
        validate_name(name)
    with pytest.raises(TargetError, match="refused"):
        target.make_directory(target.root, name)
    with pytest.raises(TargetError, match="refused"):
        target.create_file(target.root, name, 0)
    good = (target.root, file_entry(b"good", b"1"), b"1")
    assert target.write_small([(target.root, file_entry(name, b"x"), b"x"), good]) == [
        FAILED,
        WRITTEN,
    ]
    assert target.make_symlink(target.root, entry(name, LINK, b"t")) == FAILED
    assert target.make_fifo(target.root, entry(name, FIFO, None)) == FAILED
    assert target.make_device(target.root, entry(name, CHARACTER, [1, 3])) == FAILED
    assert target.link(target.root, name, target.root, b"good") == FAILED
    assert target.link(target.root, b"other", target.root, name) == FAILED
    assert names(root) == ["good"]
    assert sorted(os.listdir(root.parent)) == ["target"]
    assert all("refused" in problem.message for problem in target.problems)
    assert len(target.problems) == 6


def test_odd_names_are_fine(target: Target, root: Path) -> None:
    odd = [b"\xff", b"a\nb", b"\x1b[31m", b"-rf", b"...", b"x" * 255, b" "]
    items = [(target.root, file_entry(name, name), name) for name in odd]
    assert target.write_small(items) == [WRITTEN] * len(odd)
    assert sorted(os.listdir(os.fsencode(root))) == sorted(odd)


@pytest.mark.parametrize("overwrite", OVERWRITE)
def test_what_exists(root: Path, overwrite: str | None) -> None:
    root.mkdir()
    (root / "f").write_bytes(b"old")
    (root / "d").mkdir()
    (root / "d" / "inner").touch()
    os.link(root / "f", root / "other name of f")
    replaced = overwrite in ("changed", "always")
    expected = WRITTEN if replaced else KEPT if overwrite == "never" else FAILED
    with Target(os.fsencode(root), overwrite=overwrite) as target:
        assert target.write_small([(target.root, file_entry(b"f", b"new"), b"new")]) == [expected]
        assert (root / "f").read_bytes() == (b"new" if replaced else b"old")
        assert (root / "other name of f").read_bytes() == b"old"

        file = target.create_file(target.root, b"f", 4)
        file.write_at(0, b"long")
        assert file.finish(file_entry(b"f", b"long")) == expected

        assert target.make_symlink(target.root, entry(b"f", LINK, b"t")) == expected
        assert (root / "f").is_symlink() == replaced
        assert target.make_fifo(target.root, entry(b"f", FIFO, None)) == expected
        assert target.link(target.root, b"f", target.root, b"other name of f") == expected
        assert (root / "f").read_bytes() == b"old"

        # a directory with something in it gives way to nobody
        item = (target.root, file_entry(b"d", b"x"), b"x")
        in_the_way = KEPT if overwrite == "never" else FAILED
        assert target.write_small([item]) == [in_the_way]
        assert target.make_symlink(target.root, entry(b"d", LINK, b"t")) == in_the_way
        assert names(root) == ["d", "f", "other name of f"]
        assert names(root / "d") == ["inner"]


@pytest.mark.parametrize("overwrite", OVERWRITE)
def test_what_is_no_directory_in_the_place_of_one(root: Path, overwrite: str | None) -> None:
    (root / "outside").mkdir(parents=True)
    (root / "file").write_bytes(b"old")
    (root / "link").symlink_to("outside")
    (root / "dir").mkdir()
    (root / "dir" / "kept").touch()
    with Target(os.fsencode(root), overwrite=overwrite) as target:
        there = target.make_directory(target.root, b"dir")
        assert not there.made
        for name in (b"file", b"link"):
            if overwrite in ("changed", "always"):
                made = target.make_directory(target.root, name)
                assert made.made
                assert (root / os.fsdecode(name)).is_dir()
                assert not (root / os.fsdecode(name)).is_symlink()
            else:
                with pytest.raises(TargetError, match="in its place"):
                    target.make_directory(target.root, name)
        if overwrite not in ("changed", "always"):
            assert (root / "file").read_bytes() == b"old"
            assert (root / "link").is_symlink()
    assert names(root / "outside") == []
    assert names(root / "dir") == ["kept"]


# ---------------------------------------------------------------- links, fifos, devices


def test_links_are_taken_as_they_are(target: Target, root: Path) -> None:
    contents = [b"x", b"/etc/passwd", b"../../..", b"\xff\n", b"x" * 4000]
    for i, content in enumerate(contents):
        assert target.make_symlink(target.root, entry(b"l%d" % i, LINK, content)) == WRITTEN
        path = os.fsencode(root / f"l{i}")
        assert os.readlink(path) == content
        status = os.lstat(path)
        assert (status.st_uid, status.st_mtime_ns) == (UID, TIME_NS)
    assert target.problems == []


@pytest.mark.parametrize("content", [b"", b"a\0b", b"x" * 5000, None, 7])
def test_links_that_cannot_be(target: Target, root: Path, content: Any) -> None:
    assert target.make_symlink(target.root, entry(b"l", LINK, content)) == FAILED
    assert names(root) == []
    assert len(target.problems) == 1


def test_a_link_changes_nothing_where_it_points(target: Target, root: Path) -> None:
    outside = root.parent / "outside"
    outside.write_bytes(b"secret")
    os.utime(outside, ns=(7, 7))
    outside.chmod(0o640)
    wanted = entry(b"l", LINK, os.fsencode(outside), xattrs=[(b"user.x", b"1")])
    assert target.make_symlink(target.root, wanted) == WRITTEN
    status = outside.stat()
    assert (status.st_mtime_ns, stat.S_IMODE(status.st_mode)) == (7, 0o640)
    if hasattr(os, "listxattr"):
        assert os.listxattr(outside) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_links_belong_to_whom_they_should(target: Target, root: Path) -> None:
    xattrs = [(b"trusted.x", b"1")]
    wanted = entry(b"l", LINK, b"nowhere", uid=1234, gid=4321, xattrs=xattrs)
    assert target.make_symlink(target.root, wanted) == WRITTEN
    status = os.lstat(root / "l")
    assert (status.st_uid, status.st_gid) == (1234, 4321)
    assert os.getxattr(root / "l", b"trusted.x", follow_symlinks=False) == b"1"


def test_fifos(target: Target, root: Path) -> None:
    assert target.make_fifo(target.root, entry(b"p", FIFO, None)) == WRITTEN
    status = os.lstat(root / "p")
    assert stat.S_ISFIFO(status.st_mode)
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, TIME_NS)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_devices(target: Target, root: Path) -> None:
    for name, mode in ((b"c", CHARACTER), (b"b", BLOCK)):
        outcome = target.make_device(target.root, entry(name, mode, [250, 77]))
        if outcome == FAILED:
            pytest.skip("no devices here, even for root")
        status = os.lstat(root / os.fsdecode(name))
        assert status.st_mode == mode
        assert (os.major(status.st_rdev), os.minor(status.st_rdev)) == (250, 77)


def test_devices_are_not_for_everyone(open_place: Path, ordinary: Callable[..., None]) -> None:
    def work() -> None:
        with Target(os.fsencode(open_place / "t")) as target:
            assert target.make_device(target.root, entry(b"c", CHARACTER, [1, 3])) == FAILED
            assert names(open_place / "t") == []
            assert "not permitted" in target.problems[0].message

    ordinary(work)


@pytest.mark.parametrize("content", [[-1, 0], [1 << 70, 0], [1], None, b"x", ["a", "b"]])
def test_devices_that_cannot_be(target: Target, root: Path, content: Any) -> None:
    assert target.make_device(target.root, entry(b"c", CHARACTER, content)) == FAILED
    assert names(root) == []


# ---------------------------------------------------------------- hard links


def test_hard_links_also_to_links_and_fifos(target: Target, root: Path) -> None:
    canary = root.parent / "canary"
    canary.write_bytes(b"canary")
    sub = target.make_directory(target.root, b"sub")
    target.write_small([(target.root, file_entry(b"f", b"1"), b"1")])
    target.make_symlink(target.root, entry(b"l", LINK, os.fsencode(canary)))
    target.make_fifo(target.root, entry(b"p", FIFO, None))
    for name in (b"f", b"l", b"p"):
        assert target.link(sub, name, target.root, name) == WRITTEN
        one, other = os.lstat(root / os.fsdecode(name)), os.lstat(root / "sub" / os.fsdecode(name))
        assert one.st_ino == other.st_ino
    assert canary.stat().st_nlink == 1
    assert target.link(sub, b"x", target.root, b"missing") == FAILED
    assert target.link(sub, b"x", target.root, b"sub") == FAILED
    assert names(root / "sub") == ["f", "l", "p"]


def test_linking_what_is_linked_already(root: Path) -> None:
    with Target(os.fsencode(root), overwrite="always") as target:
        target.write_small([(target.root, file_entry(b"f", b"1"), b"1")])
        for _ in range(2):
            assert target.link(target.root, b"g", target.root, b"f") == WRITTEN
    assert names(root) == ["f", "g"]  # no temporary name stays


# ---------------------------------------------------------------- attributes


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_owner_before_mode_so_that_set_id_stays(target: Target, root: Path) -> None:
    items = [
        (target.root, file_entry(b"f%d" % i, b"x", 0o106755, uid=1000 + i, gid=2000), b"x")
        for i in range(3)
    ]
    assert target.write_small(items) == [WRITTEN] * 3
    for i in range(3):
        status = os.stat(root / f"f{i}")
        assert (status.st_uid, status.st_gid) == (1000 + i, 2000)
        assert stat.S_IMODE(status.st_mode) == 0o6755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_no_owner_drops_the_set_id_bits_of_others(root: Path) -> None:
    with Target(os.fsencode(root), owner=False) as target:
        small = file_entry(b"f", b"x", 0o104755, uid=1000)
        mine = file_entry(b"g", b"x", 0o104755)
        assert target.write_small([(target.root, small, b"x"), (target.root, mine, b"x")]) == [
            WRITTEN,
            WRITTEN,
        ]
        assert [problem.path for problem in target.problems] == [os.fsencode(root / "f")]
        assert target.lost_count("set-id") == 1
    assert stat.S_IMODE(os.stat(root / "f").st_mode) == 0o755
    assert stat.S_IMODE(os.stat(root / "g").st_mode) == 0o4755
    assert os.stat(root / "f").st_uid == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_set_group_id_target_gives_its_group_and_loses(root: Path) -> None:
    root.mkdir()
    os.chown(root, 0, 5555)
    root.chmod(0o2755)
    with Target(os.fsencode(root)) as target:
        assert target.write_small([(target.root, file_entry(b"f", b"x"), b"x")]) == [WRITTEN]
    assert os.stat(root / "f").st_gid == GID


def test_owners_that_cannot_be_set_are_reported_once(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    def work() -> None:
        with Target(os.fsencode(open_place / "t")) as target:
            items = [
                (target.root, file_entry(b"f%d" % i, b"x", uid=0, gid=0), b"x") for i in range(50)
            ]
            assert target.write_small(items) == [WRITTEN] * 50
            assert len(target.problems) == 1
            assert "49 more" in target.problems[0].message
            assert target.lost_count("owner") == 50

    ordinary(work)


def test_attributes_that_cannot_be_set_are_reported_once(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    def work() -> None:
        with Target(os.fsencode(open_place / "t")) as target:
            mine = {"uid": os.geteuid(), "gid": os.getegid()}
            xattrs = [(b"security.a", b"1"), (b"security.b", b"2"), (b"trusted.c", b"3")]
            items = [
                (target.root, file_entry(b"f%d" % i, b"x", xattrs=xattrs, **mine), b"x")
                for i in range(5)
            ]
            assert target.write_small(items) == [WRITTEN] * 5
            assert len(target.problems) == 2
            assert target.lost_count("xattr security") == 10
        assert len(names(open_place / "t")) == 5

    ordinary(work)


def test_attributes_of_small_files(target: Target, root: Path) -> None:
    xattrs = [(b"user.a", b"1"), (b"user.b", b"\0" * 100)]
    items = [
        (target.root, file_entry(b"with", b"x", xattrs=xattrs), b"x"),
        (target.root, file_entry(b"without", b"y"), b"y"),
    ]
    assert target.write_small(items) == [WRITTEN] * 2
    if target.lost_count("xattr user"):
        pytest.skip("no extended attributes here")
    assert {os.fsencode(n): os.getxattr(root / "with", n) for n in os.listxattr(root / "with")} == (
        dict(xattrs)
    )
    assert (root / "without").read_bytes() == b"y"


# ---------------------------------------------------------------- what is there


def test_looking_at_what_is_there(root: Path) -> None:
    root.mkdir()
    (root / "f").write_bytes(b"content")
    (root / "l").symlink_to("f")
    (root / "d").mkdir()
    with Target(os.fsencode(root), overwrite="changed") as target:
        assert target.names(target.root) == [b"d", b"f", b"l"]
        rows = target.stat_names(target.root, [b"f", b"l", b"missing"])
        assert rows[0] is not None and rows[0][3] == 7
        assert rows[1] is not None and stat.S_ISLNK(rows[1][0])
        assert rows[2] is None
        fd = target.open_existing(target.root, b"f")
        assert os.read(fd, 100) == b"content"
        os.close(fd)
        for name in (b"l", b"d", b"missing"):
            with pytest.raises(OSError):
                target.open_existing(target.root, name)
        with pytest.raises(TargetError):
            target.open_existing(target.root, b"../target/f")


def test_a_socket_in_the_way_is_an_ordinary_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root.mkdir()
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("s")
    with Target(os.fsencode(root), overwrite="always") as target:
        assert target.write_small([(target.root, file_entry(b"s", b"x"), b"x")]) == [WRITTEN]
    assert (root / "s").read_bytes() == b"x"
