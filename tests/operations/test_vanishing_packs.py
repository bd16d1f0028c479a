"""Packs that vanish while a snapshot is taken: it must not stand on them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from compare_trees import assert_equal_trees

import packstone
from packstone.operations.files import FileReader


def test_another_command_notices_first(
    settled: packstone.Repository, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A snapshot is refused when content it did not store again is lost before it commits."""
    (source / "unchanged").write_bytes(os.urandom(50_000))
    settled.snapshot([source])
    (source / "new").write_bytes(b"new")
    packs = [path for path in Path(settled.location, "packs").rglob("*") if path.is_file()]
    lost = max(packs, key=lambda path: path.stat().st_size)
    read = FileReader.read

    def lose(self: FileReader, *arguments: Any) -> Any:
        if lost.exists():
            lost.unlink()
            with packstone.open(settled.location) as other:
                other.check()
        return read(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FileReader, "read", lose)
        with pytest.raises(packstone.GenerationChanged):
            settled.snapshot([source])
    assert len(settled.snapshots()) == 1
    assert settled.snapshot([source]).errors == []
    target = tmp_path / "target"
    assert settled.restore("latest", target, path=os.fsencode(source)).errors == []
    assert_equal_trees(source, target, top=False)
