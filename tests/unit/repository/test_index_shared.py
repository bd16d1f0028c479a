"""A process takes up many packs at once while another adds one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from unit.repository.making import OURS, found_by, make_pack, object_id, where

from packstone.repository import index as index_module
from packstone.repository.index import Index
from packstone.repository.layout import pack_name
from packstone.repository.packs import read_pack
from packstone.storage.local import LocalStorage

OTHER = """
import sys
sys.path[:0] = {paths!r}
from packstone.repository.index import Index
from packstone.storage.local import LocalStorage
from unit.repository.making import OURS, make_pack
index = Index({directory!r}, OURS)
pack = make_pack(LocalStorage({store!r}), [[100, 101]], 100)
index.add(pack)
index.flush()
print(pack.id)
index.close()
"""


class Interrupted(LocalStorage):
    """Packs, at the first reading of which another process stores one more."""

    code = ""
    other = ""

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        if self.code:
            words, self.code = [sys.executable, "-c", self.code], ""
            done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
            self.other = done.stdout.strip()
        return super().get_range(name, offset, size)


def test_a_number_is_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in a pack that is lost is never called present because another has its number."""
    monkeypatch.setattr(index_module, "_MANY_PACKS", 3)
    storage = Interrupted(str(tmp_path / "store"))
    storage.make_directories(["tmp", "packs", *(f"packs/{first:02x}" for first in range(256))])
    packs = [make_pack(storage, [[2 * n, 2 * n + 1]], n) for n in range(5)]
    directory = str(tmp_path / "index")
    index = Index(directory, OURS)
    storage.code = OTHER.format(paths=sys.path, directory=directory, store=storage.path)
    assert index.refresh(storage) == []
    assert storage.other
    name = pack_name(storage.other)
    packs.append(read_pack(storage, storage.other, storage.size(name), OURS))
    assert sorted(index.packs.values()) == sorted(pack.id for pack in packs)
    for pack in packs:
        for each, place in where(pack):
            assert found_by(index, each) == {place}
    storage.delete(name)
    index.refresh(storage)
    ids = [object_id(number) for number in (100, 101, *range(10))]
    assert index.present(ids) == [False, False, *[True] * 10]
    index.close()
