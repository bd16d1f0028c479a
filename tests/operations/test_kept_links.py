"""Hard links beside files that are kept, and attributes that a source does not give."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

import packstone
from packstone.operations import build_tree


@pytest.mark.parametrize("size", [10, 3 << 20], ids=["small", "long"])
def test_no_link_to_a_file_that_was_there(
    repository: packstone.Repository, source: Path, tmp_path: Path, size: int
) -> None:
    """With overwrite="never" a missing name gets the stored content, not the user's own file."""
    content = Random(size).randbytes(size)
    (source / "a").write_bytes(content)
    os.link(source / "a", source / "b")
    repository.snapshot([source])
    target = tmp_path / "target"
    target.mkdir()
    (target / "a").write_bytes(b"the user's")
    result = repository.restore("latest", target, path=os.fsencode(source), overwrite="never")
    assert result.errors == []
    assert (result.files_restored, result.files_skipped) == (1, 1)
    assert (target / "a").read_bytes() == b"the user's"
    assert (target / "b").read_bytes() == content


@pytest.mark.parametrize("reader", ["read_xattrs", "read_xattrs_of"])
def test_attributes_that_do_not_read(
    repository: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    """One link or directory whose attributes do not read is named; the snapshot is taken."""
    (source / "directory").mkdir()
    (source / "directory" / "file").write_bytes(b"1")
    os.symlink("directory", source / "link")

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(build_tree, reader, fail)
    result = repository.snapshot([source])
    named = source / ("link" if reader == "read_xattrs" else "directory")
    assert os.fsencode(named) in [problem.path for problem in result.errors]
    stored = {row.path for row in repository.ls("latest", os.fsencode(source), recursive=True)}
    assert {os.fsencode(source / name) for name in ("directory/file", "link")} <= stored
