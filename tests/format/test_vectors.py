"""Every vector of tests/vectors/format.json, through the decoders of codec and repository.

A vector says what a reader must do with some bytes: accept them, or refuse them as damaged or
as of a later version. Nothing but these two errors may come out of a decoder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from packstone.chunking._kernel import siphash24
from packstone.codec.compression import Compressor
from packstone.codec.delta import DeltaCoder
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope
from packstone.codec.hashing import Hasher, checksum, plain_family
from packstone.errors import Damaged, UnsupportedFormat
from packstone.model import Entry, ObjectType
from packstone.repository.contents import decode_list_page, iter_content
from packstone.repository.layout import check_features, pack_name, read_config, read_state
from packstone.repository.packs import read_pack
from packstone.repository.snapshots import read_snapshot
from packstone.repository.trees import check_entry, decode_page

HERE = Path(__file__).parents[1] / "vectors"
VECTORS: list[dict[str, Any]] = json.loads((HERE / "format.json").read_text())


class Names:
    """A storage that holds the given names and nothing else."""

    url = "vectors"

    def __init__(self, **names: bytes) -> None:
        self.names = {name.replace("__", "/"): data for name, data in names.items()}

    def get(self, name: str, limit: int) -> bytes:
        assert len(self.names[name]) <= limit
        return self.names[name]

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        return self.names[name][offset : offset + size]

    def list(self, prefix: str) -> list[tuple[str, int]]:
        return [(name, 0) for name in self.names if name.startswith(prefix + "/")]


def run_family(each: dict[str, Any]) -> None:
    assert plain_family().hex() == each["value"]


def run_fingerprint(each: dict[str, Any]) -> None:
    assert Hasher(bytes.fromhex(each["family"])).fingerprint.hex() == each["value"]


def run_cutting_secret(each: dict[str, Any]) -> None:
    assert Hasher(bytes.fromhex(each["family"])).cutting_secret.hex() == each["value"]


def run_id(each: dict[str, Any]) -> None:
    hasher = Hasher(bytes.fromhex(each["family"]))
    size = each["size"]
    data = (bytes(range(each["repeat"])) * (size // each["repeat"] + 1))[:size]
    kind = ObjectType(each["type"])
    assert hasher.id(kind, data).hex() == each["value"]
    assert hasher.function(kind)(memoryview(data)).hex() == each["value"]


def run_siphash(each: dict[str, Any]) -> None:
    found = siphash24(bytes.fromhex(each["key"]), bytes.fromhex(each["data"]))
    assert f"{found:016x}" == each["value"]


def sealer_of(each: dict[str, Any]) -> Sealer:
    return Sealer(bytes.fromhex(each["repository_id"]))


def run_envelope(each: dict[str, Any]) -> None:
    owner = sealer_of(each) if "repository_id" in each else None
    data = bytes.fromhex(each["data"])
    envelope = open_envelope(data, Kind(each["kind"]), "name", owner)
    assert envelope.repository_id == data[16:32]
    assert envelope.payload == data[64:-32]


def run_config(each: dict[str, Any]) -> None:
    data = bytes.fromhex(each["data"])
    # both copies, or the other one would be used
    storage = Names(**{"config": data, "config.bak": data})
    repository_id, encrypted, config = read_config(storage, pytest.fail)  # type: ignore[arg-type]
    assert repository_id == data[16:32] and not encrypted
    assert config.level == 3


def run_state(each: dict[str, Any]) -> None:
    storage = Names(state=bytes.fromhex(each["data"]))
    state = read_state(storage, sealer_of(each))  # type: ignore[arg-type]
    assert state.generation == bytes(16)


def run_snapshot(each: dict[str, Any]) -> None:
    storage = Names(**{"snapshots/" + each["name_of_file"]: bytes.fromhex(each["data"])})
    snapshot = read_snapshot(storage, each["name_of_file"], sealer_of(each))  # type: ignore[arg-type]
    assert (snapshot.time_ns, snapshot.host, snapshot.paths) == (1, "h", [b"/a"])


def run_feature(each: dict[str, Any]) -> None:
    storage = Names(**{"features/parity": bytes.fromhex(each["data"])})
    check_features(storage, sealer_of(each), writing=each["writing"])  # type: ignore[arg-type]


def run_pack(each: dict[str, Any]) -> None:
    data = bytes.fromhex(each["data"])
    pack_id = checksum(data).hex()
    storage = Names(**{pack_name(pack_id): data})
    pack = read_pack(storage, pack_id, len(data), sealer_of(each))  # type: ignore[arg-type]
    (record,) = pack.rows
    assert data[record.offset : record.offset + record.stored_size] == b"hello"
    assert pack.kind == (1 if next(iter(record.object_rows()))[2] == 1 else 2)


def run_record(each: dict[str, Any]) -> None:
    payload = bytes.fromhex(each["data"])
    for buffer in (payload, bytearray(payload), memoryview(payload)):
        raw = Compressor(3).decode(each["codec"], buffer, each["raw_size"])
        assert bytes(raw) == (b"hello" if each["raw_size"] == 5 else b"x" * each["raw_size"])


def run_delta(each: dict[str, Any]) -> None:
    payload = bytes.fromhex(each["data"])
    bases = [bytes.fromhex(base) for base in each["bases"]]
    for buffer in (payload, bytearray(payload), memoryview(payload)):
        chunk = DeltaCoder(Compressor(3)).decode(each["codec"], buffer, bases, each["raw_size"])
        assert chunk.hex() == each["chunk"]


def run_tree_page(each: dict[str, Any]) -> None:
    level, rows = decode_page(bytes.fromhex(each["data"]))
    assert all(isinstance(row, Entry) == (level == 0) for row in rows)


def run_entry(each: dict[str, Any]) -> None:
    _level, rows = decode_page(bytes.fromhex(each["data"]))
    check_entry(rows[0])  # type: ignore[arg-type]
    # no pages are below: the lists of these entries stand in them
    if rows[0].mode & 0o170000 == 0o100000 and rows[0].content is not None:  # type: ignore
        assert sum(size for _, size in iter_content(None, rows[0])) == rows[0].size  # type: ignore


def run_list_page(each: dict[str, Any]) -> None:
    ids, sizes = decode_list_page(bytes.fromhex(each["data"]), each["level"])
    assert len(ids) == 32 * sum(size > 0 for size in sizes)


RUN: dict[str, Callable[[dict[str, Any]], None]] = {
    "family": run_family,
    "fingerprint": run_fingerprint,
    "cutting secret": run_cutting_secret,
    "id": run_id,
    "siphash": run_siphash,
    "envelope": run_envelope,
    "config": run_config,
    "state": run_state,
    "snapshot": run_snapshot,
    "feature": run_feature,
    "pack": run_pack,
    "record": run_record,
    "delta": run_delta,
    "tree page": run_tree_page,
    "entry": run_entry,
    "chunk-list page": run_list_page,
}


# What the page refuses and the code lets pass; a vector that passes leaves this list.
KNOWN: dict[str, str] = {}


def name_of(each: dict[str, Any]) -> str:
    return f"{each['what']}: {each['name']}"


@pytest.mark.parametrize(
    "each",
    [
        pytest.param(
            each,
            id=name_of(each),
            marks=[pytest.mark.xfail(reason=KNOWN[name_of(each)])]
            if name_of(each) in KNOWN
            else [],
        )
        for each in VECTORS
    ],
)
def test_vector(each: dict[str, Any]) -> None:
    run = RUN[each["what"]]
    if each["expect"] == "ok":
        run(each)
        return
    error = {"damaged": Damaged, "unsupported": UnsupportedFormat}[each["expect"]]
    with pytest.raises(error) as caught:
        run(each)
    assert caught.value.message


def test_vectors_are_those_of_the_generator() -> None:
    words = [sys.executable, "-B", HERE / "make_format.py"]
    made = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    assert made == (HERE / "format.json").read_text()
    assert {each["what"] for each in VECTORS} == RUN.keys()
