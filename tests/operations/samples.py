"""Trees that hold one of everything the machine can make, and a way to be somebody else.

Imported as `operations.samples`: tests/ is on the path of imports.
"""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = os.geteuid() == 0
BASE_NS = 1_000_000_000_123_456_789  # a time whose nanoseconds would be lost by floats


def has_xattrs(directory: Path) -> bool:
    """Say whether user attributes can be set here."""
    try:
        os.setxattr(directory, "user.test", b"1")
        os.removexattr(directory, "user.test")
    except (OSError, AttributeError):
        return False
    return True


def has_holes(directory: Path) -> bool:
    """Say whether this file system has sparse files and tells where their holes are."""
    path = directory / "has-holes"
    with open(path, "wb") as file:
        file.truncate(1 << 24)
    try:
        return path.stat().st_blocks * 512 < 1 << 24
    finally:
        path.unlink()


def make_one_of_each(root: Path) -> list[str]:
    """Make one entry of every kind that this user and file system allow; return the kinds."""
    kinds = ["directory", "file", "empty file", "empty directory", "symlink", "hard link", "fifo"]
    (root / "directory").mkdir(mode=0o750)
    (root / "directory" / "file").write_bytes(b"some text\n" * 3000)
    (root / "directory" / "one byte").write_bytes(b"x")
    (root / "empty").write_bytes(b"")
    (root / "bare").mkdir()
    os.symlink("directory/file", root / "link")
    os.symlink("/nowhere/at all", root / "dangling")
    os.symlink(b"bytes \xff\xfe" + b"x" * 2000, os.fsencode(root) + b"/long link")
    os.link(root / "directory" / "file", root / "hard link")
    os.mkfifo(root / "fifo", 0o640)
    make_socket(root / "socket")
    for name, mode in (("mode 000", 0), ("mode 7777", 0o7777), ("mode 2755", 0o2755)):
        (root / name).write_bytes(b"1")
        os.chmod(root / name, mode)
    (root / "sticky").mkdir()
    os.chmod(root / "sticky", 0o1777)
    if not ROOT:
        os.chmod(root / "mode 000", 0o400)
    if has_holes(root):
        kinds.append("holes")
        with open(root / "sparse", "wb") as file:
            file.seek(1 << 20)
            file.write(b"x" * 100_000)
            file.truncate(3 << 20)
    if has_xattrs(root):
        kinds.append("xattrs")
        for name in ("directory", "directory/file", "bare"):
            os.setxattr(root / name, "user.colour", b"blue\x00\xff")
            os.setxattr(root / name, "user.empty", b"")
    if ROOT:
        kinds.append("owners")
        os.chown(root / "directory" / "one byte", 4_000_000_123, 12345)
        os.chown(root / "dangling", 54321, 12345, follow_symlinks=False)
        os.chown(root / "bare", 65534, 65534)
        try:
            os.mknod(root / "character", stat.S_IFCHR | 0o620, os.makedev(1, 3))
            os.mknod(root / "block", stat.S_IFBLK | 0o660, os.makedev(7, 200))
            kinds.append("devices")
        except PermissionError:
            pass  # a container without the right to make devices
    for at, name in enumerate(sorted(os.listdir(root))):
        time = BASE_NS - at * 86_400_000_000_001
        os.utime(root / name, ns=(time, time), follow_symlinks=False)
    os.utime(root / "directory" / "one byte", ns=(0, -1_500_000_001))  # before 1970
    os.utime(root / "directory", ns=(0, 4_400_000_000_000_000_001))  # after 2038
    return kinds


def make_socket(path: Path) -> None:
    """Leave a socket nobody listens on; a child makes it, so that its path may be long."""
    code = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, path.name], cwd=path.parent, check=True)


def as_nobody(function: Callable[[], None]) -> None:
    """Run `function` as an unprivileged user, in a child process if we are root.

    An exception there fails the test with its text.
    """
    if not ROOT:
        function()
        return
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            function()
            code = 0
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            os.write(writing, text.encode("utf-8", "backslashreplace")[-4000:])
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"as nobody: {text or status}"


def make_deep(root: Path, *, levels: int, name: bytes) -> None:
    """Make a chain of directories, with a file at every hundredth level."""
    root.mkdir()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for level in range(levels):
        os.mkdir(name, dir_fd=fd)
        if level % 100 == 99:
            file = os.open(b"file", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd)
            os.write(file, b"at level %d" % level)
            os.close(file)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)


def make_many(root: Path, count: int) -> None:
    """Make a directory of `count` small files."""
    root.mkdir()
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for at in range(count):
        file = os.open(f"name {at}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=fd)
        if at % 64 == 0:
            os.write(file, b"%d" % at)
        os.close(file)
    os.close(fd)
