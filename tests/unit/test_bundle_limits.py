"""What a bundle may hold: whoever may write to the bucket must not fill the memory of readers."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import msgspec
import pytest

import packstone
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import checksum
from packstone.errors import Damaged
from packstone.model import MIB
from packstone.repository.bundles import FOLDER, read_bundle
from packstone.repository.repository import ObjectRepository


def test_many_empty_rows_take_no_memory(tmp_path: Path) -> None:
    packstone.init(tmp_path / "r").close()
    row = msgspec.msgpack.encode([b"", 0, b""])
    count = 8 * MIB // len(row)
    payload = b"\x81\xa5packs\xdd" + count.to_bytes(4, "big") + count * row
    objects = ObjectRepository(str(tmp_path / "r"))
    try:
        data = seal_envelope(Kind.BUNDLE, objects.sealer, os.urandom(32), payload)
        name = f"{FOLDER}/{count}-{checksum(data).hex()}"
        objects.storage.make_directories([FOLDER])
        objects.storage.put(name, data)
        tracemalloc.start()
        try:
            with pytest.raises(Damaged, match="decode"):
                read_bundle(objects.storage, objects.sealer, name)
            assert tracemalloc.get_traced_memory()[1] < 5 * len(data)
        finally:
            tracemalloc.stop()
    finally:
        objects.close()
