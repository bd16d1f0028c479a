"""Filesystems in files, mounted while a test needs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_btrfs(image: Path, place: Path, size: int) -> Iterator[Path]:
    """Make a btrfs of `size` bytes in a file and mount it at a new directory; else skip."""
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None:
        pytest.skip("needs root and mkfs.btrfs")
    place.mkdir()
    with open(image, "wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, place], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
