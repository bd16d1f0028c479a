"""Snapshots that are forgotten while others list them: they are not there, and that is all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import packstone
from packstone.storage.local import LocalStorage


@pytest.mark.parametrize("when", ["while the folder is read", "before it is opened"])
def test_forgotten_meanwhile(
    repository: packstone.Repository, source: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    (source / "file").write_bytes(b"x")
    kept, gone = (repository.snapshot([source], tags=[tag]).snapshot_id for tag in "ab")
    path = f"{repository.location}/snapshots/{gone}"
    listing, scandir = LocalStorage.list, os.scandir

    if when == "before it is opened":

        def listed(self: LocalStorage, prefix: str) -> object:
            found = list(listing(self, prefix))
            if prefix == "snapshots" and os.path.exists(path):
                os.unlink(path)
            return iter(found)

        monkeypatch.setattr(LocalStorage, "list", listed)
    else:

        class Found(list):  # type: ignore[type-arg]
            def __enter__(self) -> Found:
                return self

            def __exit__(self, *_error: object) -> None:
                os.path.exists(path) and os.unlink(path)

        def read(folder: str) -> object:
            return Found(scandir(folder)) if folder.endswith("snapshots") else scandir(folder)

        monkeypatch.setattr(os, "scandir", read)
    assert [row.id for row in repository.snapshots()] == [kept]
    assert not os.path.exists(path)
