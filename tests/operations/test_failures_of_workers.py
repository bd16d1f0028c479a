"""What fails on a worker thread ends the snapshot, whatever else fails at the same time."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from random import Random

import pytest
from compare_trees import assert_equal_trees

import packstone
from packstone.model import MIB
from packstone.operations import files
from packstone.repository.packs import Pack, PackWriter


def test_a_full_disk_beside_an_unreadable_file(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks a full disk refused are missed, though the file they came from failed as well."""
    content = Random(1).randbytes(8 * MIB + 100_000)
    (source / "a bad").write_bytes(content)
    (source / "b good").write_bytes(content)  # would rely on the chunks that were refused
    bad = (source / "a bad").stat().st_ino
    reached, refused = threading.Event(), threading.Event()
    read_into, finish = files.read_into, PackWriter.finish
    full = [True]

    def read(fd: int, view: memoryview, offset: int) -> int:
        if os.fstat(fd).st_ino == bad and offset >= 8 * MIB:
            reached.set()
            assert refused.wait(20)
            raise OSError(errno.EIO, "Input/output error")
        return read_into(fd, view, offset)

    def refuse_once(self: PackWriter) -> Pack:
        if full and full.pop():
            assert reached.wait(20)  # until then the caller would see it in time
            refused.set()
            raise packstone.StorageFull("no room")
        return finish(self)

    packstone.init(tmp_path / "repository", pack_size=MIB).close()
    with packstone.open(tmp_path / "repository", threads=2) as repository:
        with monkeypatch.context() as patch:
            patch.setattr(files, "read_into", read)
            patch.setattr(PackWriter, "finish", refuse_once)
            with pytest.raises(packstone.StorageFull):
                repository.snapshot([source])
        assert repository.snapshots() == []
        assert repository.snapshot([source]).errors == []
        target = tmp_path / "target"
        assert repository.restore("latest", target, path=os.fsencode(source)).errors == []
        assert_equal_trees(source, target, top=False)
