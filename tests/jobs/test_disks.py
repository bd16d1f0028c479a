"""Archive disks by their label: there, absent, back again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from jobs_scene import Scene

import packstone
from packstone.operations.jobs.disks import mount_point, parse_mounts, udev_name
from packstone.operations.jobs.strategy import RepositoryTarget

MOUNTS = """\
22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
40 22 8:17 /sub /mnt/bound rw - ext4 /dev/sdb1 rw
41 22 8:17 / /mnt/archive\\040disk rw,relatime shared:7 master:2 - ext4 /dev/sdb1 rw
42 22 0:50 /@data /mnt/btrfs rw - btrfs /dev/sdc1 rw,subvolid=256
broken
"""


def test_lines_of_mountinfo() -> None:
    found = {mount.point: mount for mount in parse_mounts(MOUNTS)}
    assert set(found) == {"/", "/mnt/bound", "/mnt/archive disk", "/mnt/btrfs"}
    assert found["/mnt/archive disk"].device == "8:17"
    assert found["/mnt/btrfs"].source == "/dev/sdc1" and found["/mnt/btrfs"].root == "/@data"


def test_names_udev_gives() -> None:
    assert udev_name("Archive-01_x.y") == "Archive-01_x.y"
    assert udev_name("My Disk/2") == "My\\x20Disk\\x2f2"
    assert udev_name("Größe") == "Größe"


@contextmanager
def disk(image: Path, point: Path) -> Iterator[None]:
    """Let the filesystem in an image be mounted, as a disk that was plugged in."""
    point.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr!r}")
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


def test_a_disk_that_comes_and_goes(scene: Scene, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    label = f"ps {os.getpid() % 100_000} a"
    image, point = tmp_path / "image", tmp_path / "a disk"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-L", label, image], check=True)
    target = RepositoryTarget(name="archive", location="crm/store", label=label)
    assert mount_point(label) is None
    scene.add("crm", copy_to=[target])
    with disk(image, point):
        assert mount_point(label) == str(point)
        (point / "crm").mkdir()
        packstone.init(point / "crm" / "store", chunk_size=4096).close()
    absent = [scene.one("crm") for _ in range(2)]
    for each in absent:
        assert (each.status, each.exit_code) == ("done", 0)
        assert label in each.notes[0] and not each.copies
    assert not any((point).iterdir()), "nothing is written where the disk would be"
    with disk(image, point):
        back = scene.one("crm")
        assert back.status == "done" and back.copies[0].snapshots == 3, "what was missed too"
        assert scene.one("crm").copies[0].snapshots == 1

    # a job whose own repository is on it waits for the disk
    scene.strategy.jobs.clear()
    scene.add("on disk", repository=target)
    scene.add("good")
    report = scene.run(due=True)
    assert {each.job: each.status for each in report.jobs} == {"on disk": "skipped", "good": "done"}
    assert report.exit_code == 0 and scene.run("on disk").exit_code == 10
    with disk(image, point):
        due = scene.one(due=True)
        assert due.status == "done", ("due as it was", due)


def test_an_archive_disk_that_is_full(scene: Scene, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("mounting needs root")
    point = tmp_path / "small"
    point.mkdir()
    if os.system(f"mount -t tmpfs -o size=20m none {point}"):
        pytest.skip("nothing can be mounted here")
    try:
        packstone.init(point / "store", chunk_size=4096).close()
        (scene.source / "big").write_bytes(os.urandom(30 << 20))
        scene.add("crm", copy_to=[RepositoryTarget(name="archive", location=str(point / "store"))])
        report = scene.one()
        assert (report.status, report.exit_code) == ("failed", 13)
        assert "copy to archive: " in report.message
        assert report.complete and len(scene.snapshots()) == 1, "the snapshot itself is safe"
        assert scene.run(due=True).jobs == []
    finally:
        os.system(f"umount {point}")


def test_of_two_that_are_labelled_alike_the_one_that_is_mounted(tmp_path: Path) -> None:
    """A volume and a copy of it: only one of them can be meant."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    label = f"ps {os.getpid() % 100_000} b"
    images = [tmp_path / "one", tmp_path / "two"]
    for image in images:
        with image.open("wb") as file:
            file.truncate(16 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-L", label, image], check=True)
    with disk(images[0], tmp_path / "point"), attached(images[1]):
        assert mount_point(label) == str(tmp_path / "point")
    with attached(images[1]):
        assert mount_point(label) is None
        with disk(images[0], tmp_path / "point"):
            assert mount_point(label) == str(tmp_path / "point")


@contextmanager
def attached(image: Path) -> Iterator[None]:
    """Let an image be a device that is not mounted."""
    done = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True)
    if done.returncode:
        pytest.skip("there is no loop device")
    try:
        yield
    finally:
        subprocess.run(["losetup", "-d", done.stdout.strip()], check=True)
