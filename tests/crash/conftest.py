"""A place in memory for thousands of trials, and a cache of the test's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.disks import Disk


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new directory; in memory, where no power is cut in truth."""
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(path / "cache"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def disk(place: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    disk = Disk(place)
    if not disk.begin():
        pytest.skip("mounting a loop device is not allowed here")
    yield disk
    disk.end()
