"""Describe a tree of files in full, and say in which ways two of them differ.

Independent of the package: only the standard library, no path longer than a name in any system
call, so trees of thousands of levels are compared too. Never compared: ctime, atime, inode
numbers and the sizes of directories, which nobody can restore.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK = 65536
_ZEROS = bytes(_BLOCK)

AnyPath = str | bytes | Path


class Description(NamedTuple):
    """All that two names must share to be equal."""

    kind: int  # the type bits of st_mode
    mode: int  # the permission bits
    uid: int
    gid: int
    size: int
    mtime_ns: int
    content: str  # a hash of a file's bytes, whatever is a hole
    holes: tuple[tuple[int, int], ...]  # (offset, size) of each hole, if the file has any
    target: bytes  # of a symbolic link
    group: bytes  # the first path, in order, of the same inode
    xattrs: tuple[tuple[str, bytes], ...]
    rdev: int


def describe(root: AnyPath, *, top: bool = True) -> dict[bytes, Description]:
    """Return path below `root` → description; `root` itself is b"", left out without `top`."""
    start = os.open(os.fsencode(root), os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    found: dict[bytes, Description] = {}
    try:
        if top:
            found[b""] = _describe(start, b".", os.fstat(start), b"")
        _below(start, found)
    finally:
        os.close(start)
    return _group(found)


def describe_one(path: AnyPath) -> Description:
    """Return the description of a single name; it is a hard-link group of its own."""
    raw = os.fsencode(path)
    fd = os.open(os.path.dirname(raw) or b".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        name = os.path.basename(raw)
        return _describe(fd, name, os.lstat(raw), b"")._replace(group=b"")
    finally:
        os.close(fd)


def _below(start: int, found: dict[bytes, Description]) -> None:
    """Describe everything below, holding two descriptors at any depth."""
    fd = os.dup(start)
    prefixes = [b""]
    waiting: list[list[bytes]] = [_names(fd, b"", found)]
    try:
        while waiting:
            if waiting[-1]:
                name = waiting[-1].pop()
                below = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=fd)
                prefixes.append(prefixes[-1] + name + b"/")
                waiting.append(_names(below, prefixes[-1], found))
            else:
                waiting.pop()
                prefixes.pop()
                if not waiting:
                    return
                below = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


def _names(fd: int, prefix: bytes, found: dict[bytes, Description]) -> list[bytes]:
    """Describe the names in a directory; return those that are directories, last one first."""
    directories = []
    for text in sorted(os.listdir(fd)):
        name = os.fsencode(text)
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        found[prefix + name] = _describe(fd, name, status, prefix + name)
        if stat.S_ISDIR(status.st_mode):
            directories.append(name)
    return directories[::-1]


def _describe(fd: int, name: bytes, status: os.stat_result, path: bytes) -> Description:
    mode = status.st_mode
    content, holes, target = "", (), b""
    if stat.S_ISREG(mode):
        content, holes = _content(fd, name, status)
    elif stat.S_ISLNK(mode):
        target = os.readlink(name, dir_fd=fd)
    # Inode and device for now; _group puts the group's first path in their place.
    group = b"%d:%d" % (status.st_dev, status.st_ino) if status.st_nlink > 1 else b""
    return Description(
        kind=stat.S_IFMT(mode),
        mode=stat.S_IMODE(mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if stat.S_ISREG(mode) else 0,
        mtime_ns=status.st_mtime_ns,
        content=content,
        holes=holes,
        target=target,
        group=group if not stat.S_ISDIR(mode) else b"",
        xattrs=_xattrs(fd, name),
        rdev=status.st_rdev if stat.S_ISBLK(mode) or stat.S_ISCHR(mode) else 0,
    )


def _group(found: dict[bytes, Description]) -> dict[bytes, Description]:
    first: dict[bytes, bytes] = {}
    for path in sorted(found):
        if found[path].group:
            first.setdefault(found[path].group, path)
    counts = Counter(row.group for row in found.values())
    return {
        # Names outside the tree do not count: of a group with one name inside, nothing is left.
        path: row._replace(group=first[row.group] if counts[row.group] > 1 else b"")
        if row.group
        else row
        for path, row in found.items()
    }


def _content(
    fd: int, name: bytes, status: os.stat_result
) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Hash all blocks but those of zeros with their offsets: holes cost nothing."""
    hasher = hashlib.blake2b(digest_size=16)
    holes: list[tuple[int, int]] = []
    position = following = 0
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
    try:
        for begin, end in _data(file, status):
            if begin > position:
                holes.append((position, begin - position))
            position = end
            # Whole blocks, each once, wherever in them a hole begins or ends.
            for offset in range(max(following, begin - begin % _BLOCK), end, _BLOCK):
                following = offset + _BLOCK
                block = os.pread(file, _BLOCK, offset)
                if block != _ZEROS[: len(block)]:
                    hasher.update(offset.to_bytes(8, "big") + block)
        if position < status.st_size:
            holes.append((position, status.st_size - position))
    finally:
        os.close(file)
    return hasher.hexdigest(), tuple(holes)


def _data(file: int, status: os.stat_result) -> Iterator[tuple[int, int]]:
    size = status.st_size
    if status.st_blocks * 512 >= size:
        if size:
            yield 0, size
        return
    end = 0
    while end < size:
        try:
            begin = os.lseek(file, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(file, begin, os.SEEK_HOLE)
        yield begin, end


def _xattrs(fd: int, name: bytes) -> tuple[tuple[str, bytes], ...]:
    # /proc leads to the name by way of the descriptor: the path stays short at any depth.
    path = b"/proc/self/fd/%d/" % fd + name
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError:
        return ()
    return tuple(sorted((each, os.getxattr(path, each, follow_symlinks=False)) for each in names))


def differences(
    expected: dict[bytes, Description],
    found: dict[bytes, Description],
    *,
    ignore: Collection[str] = (),
) -> list[str]:
    """Return one line for each difference; `ignore` names fields of Description."""
    lines = [f"missing: {path!r}" for path in sorted(expected.keys() - found.keys())]
    lines += [f"too much: {path!r}" for path in sorted(found.keys() - expected.keys())]
    for path in sorted(expected.keys() & found.keys()):
        for field, wanted, got in zip(
            Description._fields, expected[path], found[path], strict=True
        ):
            if wanted != got and field not in ignore:
                lines.append(f"{path!r}: {field} is {got!r}, expected {wanted!r}")
    return lines


def assert_equal_trees(
    expected: AnyPath, found: AnyPath, *, top: bool = True, ignore: Collection[str] = ()
) -> None:
    """Fail with the first differences of two directories."""
    lines = differences(describe(expected, top=top), describe(found, top=top), ignore=ignore)
    assert not lines, f"{len(lines)} differences:\n" + "\n".join(lines[:20])


def remove_tree(root: AnyPath) -> None:
    """Remove a directory of any depth (shutil.rmtree and pytest give up below 1,000 levels)."""
    fd = os.open(os.fsencode(root), os.O_RDONLY | os.O_DIRECTORY)
    names: list[bytes] = []
    try:
        while True:
            directory = None
            with os.scandir(fd) as entries:
                rows = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
            for text, is_directory in rows:
                if is_directory:
                    directory = os.fsencode(text)
                    break
                os.unlink(text, dir_fd=fd)
            if directory is not None:
                names.append(directory)
                below = os.open(directory, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
            elif names:
                below = os.open(b"..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                os.rmdir(names.pop(), dir_fd=below)
            else:
                break
            os.close(fd)
            fd = below
    finally:
        os.close(fd)
    os.rmdir(root)
