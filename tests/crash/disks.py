"""A real file system whose power can be cut: ext4 on a loop device, shut down without a flush."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

_SHUTDOWN, _WITHOUT_FLUSH = 0x8004587D, struct.pack("I", 2)  # EXT4_IOC_SHUTDOWN, NOLOGFLUSH


class Disk:
    """An ext4 file system in a file, whose power can be cut."""

    def __init__(self, place: Path) -> None:
        self.mounted = place / "disk"
        self.mounted.mkdir()
        self._image = place / "image"
        self._fresh = place / "fresh image"
        self._make()
        self.is_mounted = False

    def _make(self) -> None:
        with open(self._fresh, "wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._fresh], check=True, capture_output=True)

    def prepare(self, source: Path) -> None:
        """Let every new file system begin with what is at `source`, durable."""
        self.end()
        self._make()
        assert self.begin()
        for each in source.iterdir():
            subprocess.run(["cp", "-a", each, self.mounted], check=True)
        self.end()
        self._image.replace(self._fresh)

    def begin(self) -> bool:
        """Mount a new file system; return whether that is allowed here."""
        self.end()
        subprocess.run(["cp", "--sparse=always", self._fresh, self._image], check=True)
        return self._mount()

    def _mount(self) -> bool:
        done = subprocess.run(
            ["mount", "-t", "ext4", "-o", "loop", self._image, self.mounted], capture_output=True
        )
        self.is_mounted = done.returncode == 0
        return self.is_mounted

    def cut(self) -> None:
        """Cut the power: what is in memory is lost."""
        fd = os.open(self.mounted, os.O_RDONLY)
        fcntl.ioctl(fd, _SHUTDOWN, _WITHOUT_FLUSH)
        os.close(fd)

    def back(self) -> None:
        """Mount what the cut has left."""
        self.end()
        assert self._mount(), "the file system does not mount any more"

    def end(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", self.mounted], check=True)
            self.is_mounted = False
