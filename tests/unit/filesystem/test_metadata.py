"""Attributes: what is read of a file, what is set on another, and in which order."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from packstone.filesystem import _scan
from packstone.filesystem.metadata import (
    ACL_ACCESS,
    ACL_DEFAULT,
    apply_attributes,
    has_default_acl,
    read_xattrs,
    read_xattrs_of,
    remove_xattr,
    stat_of,
)
from packstone.model import Entry, Extras

UID, GID = os.geteuid(), os.getegid()
INT64_MAX = (1 << 63) - 1


def entry(
    mode: int = 0o100644,
    *,
    uid: int = UID,
    gid: int = GID,
    mtime_ns: int = 1_234_567_890_123_456_789,
    xattrs: list[tuple[bytes, bytes]] | None = None,
) -> Entry:
    extras = Extras(xattrs=xattrs) if xattrs else None
    return Entry(b"f", mode, uid, gid, 0, mtime_ns, 0, 0, b"", extras)


def acl(user_obj: int, user: tuple[int, int], group_obj: int, mask: int, other: int) -> bytes:
    """A POSIX ACL as the kernel stores it, with one named user."""
    rows = [
        (1, user_obj, 0xFFFFFFFF),
        (2, user[1], user[0]),
        (4, group_obj, 0xFFFFFFFF),
        (16, mask, 0xFFFFFFFF),
        (32, other, 0xFFFFFFFF),
    ]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "f"
    path.write_bytes(b"content")
    path.chmod(0o600)
    return path


def apply(path: Path, wanted: Entry, *, owner: bool = True) -> list[str]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return [kind for kind, _ in apply_attributes(fd, wanted, owner=owner)]
    finally:
        os.close(fd)


def set_or_skip(path: Path, name: bytes, value: bytes) -> None:
    try:
        os.setxattr(path, name, value, follow_symlinks=False)
    except (AttributeError, OSError) as error:
        pytest.skip(f"{name.decode()} cannot be set here: {error}")


def test_stat_of_clamps_as_the_batched_calls_do() -> None:
    class Result:
        def __init__(self, seconds: int) -> None:
            self.st_mtime_ns = self.st_ctime_ns = seconds * 10**9 + 5

        def __getattr__(self, name: str) -> int:
            return 0

    assert stat_of(Result(1 << 40)).mtime_ns == INT64_MAX  # type: ignore[arg-type]
    assert stat_of(Result(-(1 << 40))).mtime_ns == -INT64_MAX - 1  # type: ignore[arg-type]
    assert stat_of(Result(-1)).mtime_ns == -999_999_995  # type: ignore[arg-type]


def test_times_far_away_fit_the_format(tmp_path: Path, here: int) -> None:
    path = tmp_path / "f"
    path.touch()
    for seconds in (1 << 33, 1 << 35, -(1 << 35)):
        try:
            os.utime(path, (0, seconds))
        except OverflowError:
            continue
        row = _scan.stat_names(here, [b"f"])[0]
        assert isinstance(row, tuple)
        assert row == stat_of(os.stat(path))
        assert -(1 << 63) <= row[4] < 1 << 63


@pytest.mark.parametrize("mtime_ns", [0, 1, -1, -999_999_999, -(10**9), 10**18 + 7])
def test_mode_and_time_are_set(file: Path, mtime_ns: int) -> None:
    assert apply(file, entry(0o100451, mtime_ns=mtime_ns)) == []
    status = file.stat()
    assert stat.S_IMODE(status.st_mode) == 0o451
    assert status.st_mtime_ns == mtime_ns


def test_hostile_numbers_lose_the_attribute_and_nothing_else(file: Path) -> None:
    """uid 2**32 must not wrap around to root, -1 must not mean "as it is"."""
    for number in (1 << 32, (1 << 32) - 1, (1 << 64) - 1):
        kinds = apply(file, entry(0o104755, uid=number, mtime_ns=(1 << 64) - 1))
        assert "owner" in kinds and "set-id" in kinds
        status = file.stat()
        assert status.st_uid == UID
        assert stat.S_IMODE(status.st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_owner_comes_before_mode(file: Path) -> None:
    assert apply(file, entry(0o106755, uid=1234, gid=4321)) == []
    status = file.stat()
    assert (status.st_uid, status.st_gid) == (1234, 4321)
    assert stat.S_IMODE(status.st_mode) == 0o6755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_owner_set_id_bits_of_others_are_dropped(file: Path) -> None:
    """A program of user 1234 must not become one that runs as root."""
    assert apply(file, entry(0o106755, uid=1234, gid=4321), owner=False) == ["set-id"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o755
    assert apply(file, entry(0o106755, gid=4321), owner=False) == ["set-id"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o4755
    assert apply(file, entry(0o106755), owner=False) == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o6755


def test_an_ordinary_user_keeps_his_files(open_place: Path, ordinary: Callable[..., None]) -> None:
    def work() -> None:
        path = open_place / "f"
        path.touch()
        assert apply(path, entry(0o104755, uid=0, gid=0)) == ["owner", "set-id"]
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())
        assert stat.S_IMODE(status.st_mode) == 0o755
        assert apply(path, entry(0o104755, uid=os.geteuid(), gid=os.getegid())) == []
        assert stat.S_IMODE(path.stat().st_mode) == 0o4755

    ordinary(work)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_an_ordinary_user_can_give_a_file_to_his_group(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    def work() -> None:
        path = open_place / "f"
        path.touch()
        assert apply(path, entry(uid=0, gid=777)) == ["owner"]
        assert path.stat().st_gid == 777
        assert apply(path, entry(uid=os.geteuid(), gid=os.getegid())) == []

    ordinary(work, groups=(777,))


def test_directories_keep_their_set_group_id(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir()
    assert apply(path, entry(0o042755)) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o2755


# ---------------------------------------------------------------- extended attributes


def test_attributes_are_read_and_set(file: Path, here: int, tmp_path: Path) -> None:
    values = [(b"user.a", b""), (b"user.b", b"\0\n\xff" * 300), (b"user.\xff", b"x")]
    for name, value in values:
        set_or_skip(file, name, value)
    assert read_xattrs(here, b"f") == sorted(values)
    other = tmp_path / "g"
    other.touch()
    assert apply(other, entry(0o100444, xattrs=values)) == []  # read-only in the end
    assert read_xattrs(here, b"g") == sorted(values)


def test_many_and_large_attributes(file: Path, here: int) -> None:
    values = [(b"user.%03d" % i, b"v" * i) for i in range(50)]
    for name, value in values:
        set_or_skip(file, name, value)
    assert read_xattrs(here, b"f") == values
    fd = os.open(file, os.O_RDONLY)
    assert read_xattrs_of(fd) == values
    os.close(fd)


def test_no_attributes_is_none(file: Path, here: int) -> None:
    if os.path.exists("/sys/fs/selinux"):
        pytest.skip("every file has a label here")
    assert read_xattrs(here, b"f") is None
    assert read_xattrs(here, b"missing") is None


def test_kinds_that_cannot_be_opened_are_read_without_waiting(here: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("nowhere", tmp_path / "link")
    for name in (b"fifo", b"link"):
        assert not [pair for pair in read_xattrs(here, name) or () if b"security" not in pair[0]]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_link_has_its_own_attributes(file: Path, here: int, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("f")
    set_or_skip(link, b"trusted.of-link", b"1")
    set_or_skip(file, b"trusted.of-file", b"2")
    assert read_xattrs(here, b"link") == [(b"trusted.of-link", b"1")]
    assert read_xattrs(here, b"f") == [(b"trusted.of-file", b"2")]


def test_attributes_one_may_not_set_are_named_by_namespace(
    open_place: Path, ordinary: Callable[..., None]
) -> None:
    def work() -> None:
        path = open_place / "f"
        path.touch()
        xattrs = [
            (b"security.one", b"1"),
            (b"trusted.two", b"2"),
            (b"user.fine", b"3"),
            (b"nonsense", b"4"),
            (b"user.nul\0inside", b"5"),
        ]
        kinds = apply(path, entry(0o100640, xattrs=xattrs))
        assert {"xattr security", "xattr trusted", "xattr nonsense"} <= set(kinds)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    ordinary(work)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_capabilities_survive_the_change_of_owner(file: Path, here: int) -> None:
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep
    set_or_skip(file, b"security.capability", capability)
    os.removexattr(file, b"security.capability")
    wanted = entry(0o100755, uid=1234, gid=1234, xattrs=[(b"security.capability", capability)])
    assert apply(file, wanted) == []
    assert dict(read_xattrs(here, b"f") or ())[b"security.capability"] == capability


@pytest.mark.parametrize("mode", [0o100640, 0o100670, 0o100604, 0o102770, 0o100000])
def test_an_acl_and_its_mode_come_back_together(
    file: Path, here: int, tmp_path: Path, mode: int
) -> None:
    """The group bits of the mode are the ACL's mask: neither may change the other."""
    bits = [(mode >> shift) & 7 for shift in (6, 3, 0)]
    wanted = acl(bits[0], (4242, 6), 5, bits[1], bits[2])
    set_or_skip(file, ACL_ACCESS, wanted)
    file.chmod(mode & 0o7777)
    recorded_mode = file.stat().st_mode
    recorded = read_xattrs(here, b"f")
    assert recorded is not None
    copy = tmp_path / "copy"
    copy.touch(mode=0o600)
    assert apply(copy, entry(recorded_mode, xattrs=recorded)) == []
    assert copy.stat().st_mode == recorded_mode
    assert read_xattrs(here, b"copy") == recorded


def test_a_default_acl_is_found_and_removed(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert not has_default_acl(fd)
        set_or_skip(tmp_path, ACL_DEFAULT, acl(7, (4242, 7), 7, 7, 5))
        assert has_default_acl(fd)
        remove_xattr(fd, ACL_DEFAULT)
        remove_xattr(fd, ACL_DEFAULT)  # none left: fine
        assert not has_default_acl(fd)
    finally:
        os.close(fd)


def test_removing_from_a_closed_descriptor_is_an_error() -> None:
    with pytest.raises(OSError) as caught:
        remove_xattr(-1, b"user.a")
    assert caught.value.errno in (errno.EBADF, errno.ENOENT)
