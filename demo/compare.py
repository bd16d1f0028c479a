"""Trees of files, compared in every byte and attribute. Knows nothing of Packstone.

Not compared: access and change times and inode numbers, which no program can set.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """Yield every path below `root`, relative to it and in order, beginning with the root."""
    pending = [b""]
    while pending:
        path = pending.pop()
        found = os.lstat(os.path.join(root, path))
        yield path, found
        if stat.S_ISDIR(found.st_mode):
            names = sorted(os.listdir(os.path.join(root, path)), reverse=True)
            pending += [os.path.join(path, name) for name in names]


def _xattrs(path: bytes) -> dict[str, bytes]:
    if not hasattr(os, "listxattr"):
        return {}
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names}


def _digest(path: bytes) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(root: Path) -> dict[bytes, dict[str, Any]]:
    top = os.fsencode(root)
    groups: dict[tuple[int, int], bytes] = {}
    tree: dict[bytes, dict[str, Any]] = {}
    for path, found in _walk(top):
        full = os.path.join(top, path)
        kind = stat.S_IFMT(found.st_mode)
        facts: dict[str, Any] = {
            "kind": KINDS[kind],
            "mode": oct(stat.S_IMODE(found.st_mode)),
            "owner": (found.st_uid, found.st_gid),
            "mtime_ns": found.st_mtime_ns,
            "xattrs": _xattrs(full),
        }
        if kind == stat.S_IFREG:
            facts["size"] = found.st_size
            facts["content"] = _digest(full)
        elif kind == stat.S_IFLNK:
            facts["target"] = os.readlink(full)
        elif kind in (stat.S_IFBLK, stat.S_IFCHR):
            facts["device"] = found.st_rdev
        if kind != stat.S_IFDIR and found.st_nlink > 1:
            # the first path of a hard-link group stands for it
            facts["linked with"] = groups.setdefault((found.st_dev, found.st_ino), path)
        tree[path] = facts
    return tree


def differences(expected: Path, actual: Path, *, top: bool = True) -> list[str]:
    """Return one line for every difference between two trees; not `top`: below the roots."""
    old, new = _described(expected), _described(actual)
    if not top:
        del old[b""], new[b""]
    lines = [f"{path!r} is missing" for path in old.keys() - new.keys()]
    lines += [f"{path!r} is not in the original" for path in new.keys() - old.keys()]
    for path in old.keys() & new.keys():
        for fact in old[path].keys() | new[path].keys():
            was, is_now = old[path].get(fact), new[path].get(fact)
            if was != is_now:
                lines.append(f"{path!r}: {fact} is {is_now!r}, was {was!r}")
    return sorted(lines)


def total_size(root: Path) -> int:
    """Return the bytes of all files, those of a hard-link group once and holes not at all."""
    sizes = {
        (found.st_dev, found.st_ino): min(found.st_size, found.st_blocks * 512)
        for _, found in _walk(os.fsencode(root))
        if stat.S_ISREG(found.st_mode)
    }
    return sum(sizes.values())


def summary(root: Path) -> str:
    """Return what there is below `root`, in words."""
    kinds = Counter(KINDS[stat.S_IFMT(found.st_mode)] for _, found in _walk(os.fsencode(root)))
    links = kinds["symbolic link"]
    size = total_size(root) / 2**20
    return (
        f"{kinds['file']:,} files, {kinds['directory']:,} directories, "
        f"{links:,} symbolic links, {size:.1f} MiB"
    )


def copy(source: Path, target: Path) -> None:
    """Copy a tree with every attribute that `differences` looks at."""
    top, new = os.fsencode(source), os.fsencode(target)
    groups: dict[tuple[int, int], bytes] = {}
    directories: list[tuple[bytes, bytes, os.stat_result]] = []
    for path, found in _walk(top):
        old_path = os.path.join(top, path)
        # join(x, b"") ends in a slash, which is fine for the root alone
        new_path = os.path.join(new, path)
        kind = stat.S_IFMT(found.st_mode)
        if kind != stat.S_IFDIR and found.st_nlink > 1:
            first = groups.setdefault((found.st_dev, found.st_ino), new_path)
            if first != new_path:
                os.link(first, new_path, follow_symlinks=False)
                continue
        if kind == stat.S_IFDIR:
            os.mkdir(new_path)
            directories.append((old_path, new_path, found))
            continue
        if kind == stat.S_IFREG:
            with open(old_path, "rb") as reader, open(new_path, "xb") as writer:
                while block := reader.read(1 << 20):
                    writer.write(block)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(old_path), new_path)
        elif kind == stat.S_IFIFO:
            os.mkfifo(new_path)
        _attributes(old_path, new_path, found)
    # last, because filling a directory changes its time
    for old_path, new_path, found in reversed(directories):
        _attributes(old_path, new_path, found)


def _attributes(old_path: bytes, new_path: bytes, found: os.stat_result) -> None:
    os.chown(new_path, found.st_uid, found.st_gid, follow_symlinks=False)
    for name, value in _xattrs(old_path).items():
        os.setxattr(new_path, name, value, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(new_path, stat.S_IMODE(found.st_mode))
    os.utime(new_path, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)
