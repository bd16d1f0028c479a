"""Where the filesystem of a label is mounted, as the kernel and udev say it. Reads only.

The device comes from /dev/disk/by-label, or from `blkid` where no udev keeps that; its mount
point from /proc/self/mountinfo (proc(5)).
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import NamedTuple

BY_LABEL = "/dev/disk/by-label"
MOUNTS = "/proc/self/mountinfo"
_BLKID_S = 20.0  # it may have to wake a disk


class Mount(NamedTuple):
    """One line of mountinfo: what part of a filesystem is seen where."""

    device: str  # major:minor
    root: str
    point: str
    source: str


def mount_point(label: str) -> str | None:
    """Return where the filesystem with a label is mounted; None if it is not."""
    devices = _devices(label)
    try:
        with open(MOUNTS, encoding="utf-8", errors="surrogateescape") as lines:
            mounts = parse_mounts(lines.read())
    except OSError:
        return None
    # Of two that are labelled alike, such as a volume and its snapshot, the one that is mounted.
    found = [mount for device in devices for mount in mounts if _is_of(mount, device)]
    whole = [mount for mount in found if mount.root == "/"]
    return (whole or found)[0].point if found else None


def parse_mounts(text: str) -> list[Mount]:
    """Return the mounts that the text of a mountinfo lists, the latest first."""
    mounts = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) >= 6 and len(rest) >= 2:
            mounts.append(Mount(fields[2], *map(_plain, (fields[3], fields[4], rest[1]))))
    return mounts[::-1]  # a later mount hides what was there before


def _is_of(mount: Mount, device: str) -> bool:
    try:
        number = os.stat(device).st_rdev
    except OSError:
        return False
    if mount.device == f"{os.major(number)}:{os.minor(number)}":
        return True
    # btrfs gives itself a number of its own: there the name of the device must tell
    return mount.source.startswith("/") and os.path.realpath(mount.source) == device


def _devices(label: str) -> list[str]:
    """Return the devices with a label."""
    link = os.path.join(BY_LABEL, udev_name(label))
    if os.path.exists(link):
        return [os.path.realpath(link)]
    if os.path.isdir(BY_LABEL):
        return []
    try:
        # -c: its cache believes for a while what a device held before another disk took its name
        done = subprocess.run(
            ["blkid", "-c", os.devnull, "-o", "device", "-t", f"LABEL={label}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_BLKID_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return []
    return [os.path.realpath(name) for name in os.fsdecode(done.stdout).splitlines()]


def udev_name(label: str) -> str:
    """Return the file name udev gives a label: odd bytes as \\xNN (udev_util_encode_string)."""
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#+-.:=@_"
    return "".join(
        char
        if char in plain or (ord(char) > 127 and not 0xDC80 <= ord(char) <= 0xDCFF)
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in label
    )


def _plain(field: str) -> str:
    """Undo the octal escapes of mountinfo for space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
