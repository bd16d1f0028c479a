"""Every vector of tests/vectors/sealing.json, through src and through the independent reader.

A vector says what must open and to what, and what must be refused and as what. The reader knows
one way to refuse; of the package nothing but the error that stands there may come.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import independent_reader as reader
import pytest
from blake3 import blake3
from contract.storage_suite import MemoryStorage
from cryptography.hazmat.primitives.ciphers import aead

from packstone.codec.encryption import Sealer, padme
from packstone.codec.envelope import Kind, open_envelope, seal_envelope
from packstone.codec.keys import passphrase_bytes, recovery_key
from packstone.errors import Damaged, UnsupportedFormat, UsageError, WrongPassphrase
from packstone.repository.keyring import export_slot, import_slot, parse_export, unlock
from packstone.repository.layout import key_name, pack_name
from packstone.repository.packs import read_pack

HERE = Path(__file__).parents[1] / "vectors"
VECTORS: list[dict[str, Any]] = json.loads((HERE / "sealing.json").read_text())
ERRORS = {
    "damaged": Damaged,
    "unsupported": UnsupportedFormat,
    "wrong passphrase": WrongPassphrase,
    "usage": UsageError,
}
Each = dict[str, Any]


class Fields(dict[str, Any]):
    """A vector whose bytes are bytes again."""

    TEXTS = frozenset({"what", "name", "expect", "typed", "text"})

    def __missing__(self, key: str) -> Any:
        raise AssertionError(f"{self['what']}: {self['name']} has no {key}")


def fields(each: Each) -> Fields:
    return Fields(
        {
            key: bytes.fromhex(value)
            if isinstance(value, str) and key not in Fields.TEXTS
            else value
            for key, value in each.items()
        }
    )


def sealer_of(each: Fields) -> Sealer:
    return Sealer(each["repository_id"], each["sealing"])


def storage_of(**files: bytes) -> MemoryStorage:
    storage = MemoryStorage()
    storage.files = {name.replace("__", "/"): data for name, data in files.items()}
    return storage


# -- src ------------------------------------------------------------------------------------


def keys_taken(use: Callable[[Sealer], object], each: Fields) -> list[bytes]:
    """Return the keys that a sealer hands to AES, in their order."""
    taken: list[bytes] = []
    cipher = aead.AESGCM

    def take(key: bytes) -> Any:
        taken.append(bytes(key))
        return cipher(key)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aead, "AESGCM", take)
        use(Sealer(bytes(16), each["sealing"]))
    return taken


def run_record_key(each: Fields) -> None:
    taken = keys_taken(lambda sealer: sealer.pack(1, each["salt"]).seal(0, 1, 0, b"x"), each)
    assert each["value"] in taken


def run_footer_key(each: Fields) -> None:
    def use(sealer: Sealer) -> None:
        sealer.pack(1, each["salt"]).seal_footer(bytes(64), b"x")

    assert each["value"] in keys_taken(use, each)


def run_object_key(each: Fields) -> None:
    taken = keys_taken(lambda sealer: sealer.seal_object(bytes(64), each["salt"], b"x"), each)
    assert taken == [each["value"]]


def run_authentication_key(each: Fields) -> None:
    code = Sealer(bytes(16), each["sealing"]).authenticate(b"data")
    assert code == blake3(b"data", key=each["value"]).digest()


def run_padding_key(each: Fields) -> None:
    found = Sealer(bytes(16), each["sealing"]).pack(1, each["salt"]).padding(0, 100)
    assert found == blake3(b"", key=each["value"]).digest(length=100)


def run_padding(each: Fields) -> None:
    for kind in (1, 2):
        pack = Sealer(bytes(16), each["sealing"]).pack(kind, each["salt"])
        assert pack.padding(each["offset"], each["size"]) == each["value"]


def run_padme(each: Fields) -> None:
    assert padme(each["size"]) == each["value"]


def run_envelope(each: Fields) -> None:
    kind, sealer = Kind(each["kind"]), sealer_of(each)
    opened = open_envelope(each["data"], kind, "name", sealer)
    assert opened.payload == each["payload"]
    assert seal_envelope(kind, sealer, each["data"][32:64], each["payload"]) == each["data"]


def run_sealed_record(each: Fields) -> None:
    pack = sealer_of(each).pack(each["kind"], each["salt"])
    place = each["number"], each["raw_size"], each["codec"]
    for stored in (each["stored"], bytearray(each["stored"]), memoryview(each["stored"])):
        assert pack.open(*place, stored) == each["payload"]
    assert pack.seal(*place, each["payload"]) == each["stored"]


def run_sealed_pack(each: Fields) -> None:
    pack_id = blake3(each["data"]).hexdigest()
    storage = storage_of(**{pack_name(pack_id): each["data"]})
    sealer = sealer_of(each)
    pack = read_pack(storage, pack_id, len(each["data"]), sealer)
    (row,) = pack.rows
    seal = sealer.pack(pack.kind, pack.salt)
    stored = each["data"][row.offset : row.offset + row.stored_size]
    assert seal.open(0, row.raw_size, row.codec, stored) == b"hello"
    assert next(iter(row.object_rows()))[0] == bytes(range(32, 64))


def run_passphrase(each: Fields) -> None:
    given = each["given"] * each.get("times", 1)
    expected = each.get("value", given)
    assert passphrase_bytes(given) == expected
    # as it comes from the environment
    assert passphrase_bytes(given.decode(errors="surrogateescape")) == expected


def run_recovery_key(each: Fields) -> None:
    assert recovery_key(each["random"]) == each["text"]


def run_key_slot(each: Fields) -> None:
    name = key_name(each["name_of_file"].hex())
    warnings: list[str] = []
    storage = storage_of(**{name: each["data"]})
    secrets, slot_id = unlock(storage, each["repository_id"], each["passphrase"], warnings.append)
    assert (secrets.family, secrets.sealing) == (each["family"], each["sealing"])
    assert (key_name(slot_id), warnings) == (name, [])


def run_export(each: Fields) -> None:
    data = parse_export(each["typed"])
    slot_id = import_slot(storage := storage_of(), each["repository_id"], each["typed"])
    assert data == storage.files[key_name(slot_id)] == each["data"]
    assert export_slot(storage, each["repository_id"], slot_id) == each["text"]


RUN: dict[str, Callable[[Fields], None]] = {
    "record key": run_record_key,
    "footer key": run_footer_key,
    "object key": run_object_key,
    "authentication key": run_authentication_key,
    "padding key": run_padding_key,
    "padding": run_padding,
    "padme": run_padme,
    "envelope": run_envelope,
    "sealed record": run_sealed_record,
    "sealed pack": run_sealed_pack,
    "passphrase": run_passphrase,
    "recovery key": run_recovery_key,
    "key slot": run_key_slot,
    "export": run_export,
}


# -- the independent reader -----------------------------------------------------------------


def reader_of(each: Fields, data: bytes) -> reader.Reader:
    """Return a reader that has the keys, and one pack."""
    made = reader.Reader.__new__(reader.Reader)
    made.owner, made.sealing, made.family = each["repository_id"], each["sealing"], bytes(32)
    made.places = {}
    made.read = lambda name: data
    return made


def read_key(each: Fields) -> None:
    context = {"padding key": "padding"}.get(each["what"], each["what"])
    assert reader.derive(context, each["sealing"] + each["salt"]) == each["value"]


def read_authentication_key(each: Fields) -> None:
    assert reader.derive("object authentication", each["sealing"]) == each["value"]


def read_envelope(each: Fields) -> None:
    data = each["data"]
    found = reader.open_envelope(data, each["kind"], each["repository_id"], each["sealing"])
    assert found == reader.unpack(each["payload"])


def read_sealed_record(each: Fields) -> None:
    """Through a place of its own, for an object that is the whole record."""
    each = Fields(each)
    data = b"hello"
    made = reader_of(each, each["stored"])
    object_id = blake3(data, key=reader.derive("id chunk", made.family)).digest()
    head = struct.pack("<8sHBB4x", b"PKSTPACK", 1, each["kind"], 1)
    row = (0, len(each["stored"]), each["raw_size"], each["codec"], b"", b"", [], 0, 0)
    prefix = head + made.owner + each["salt"]
    made.places[1, object_id] = [("pack", prefix, each["number"], row, 0, len(data))]
    assert made.load(1, object_id) == data


def read_sealed_pack(each: Fields) -> None:
    data = each["data"]
    made = reader_of(each, data)
    reader.first_good(made.learn, [("pack", 0, 128), ("pack", len(data) - 64, 64)])
    ((_type, object_id), places), *others = made.places.items()
    assert object_id == bytes(range(32, 64)) and not others
    _pack, prefix, number, (offset, size, raw_size, codec, *_), _at, _size = places[-1]
    key = reader.derive("record key", each["sealing"] + prefix[32:])
    about = prefix + struct.pack("<QIIB", number, raw_size, size, codec)
    assert reader.unseal(key, data[offset : offset + size], about, number) == b"hello"


def read_passphrase(each: Fields) -> None:
    given = each["given"] * each.get("times", 1)
    assert reader.passphrase_bytes(given) == each.get("value", given)


def read_key_slot(each: Fields) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_PASSPHRASE", each["passphrase"].decode(errors="surrogateescape"))
        secrets = reader_of(each, each["data"]).unlock("keys/" + each["name_of_file"].hex())
    assert secrets == each["family"] + each["sealing"]


READ: dict[str, Callable[[Fields], None]] = {
    "record key": read_key,
    "footer key": read_key,
    "object key": read_key,
    "authentication key": read_authentication_key,
    "padding key": read_key,
    "envelope": read_envelope,
    "sealed record": read_sealed_record,
    "sealed pack": read_sealed_pack,
    "passphrase": read_passphrase,
    "key slot": read_key_slot,
}


# -------------------------------------------------------------------------------------------


def name_of(each: Each) -> str:
    return f"{each['what']}: {each['name']}"


def cases() -> list[Any]:
    rows = []
    for each in VECTORS:
        name = name_of(each)
        rows.append(pytest.param(each, id=name))
    return rows


@pytest.mark.parametrize("each", cases())
def test_vector(each: Each) -> None:
    run = RUN[each["what"]]
    if each["expect"] == "ok":
        run(fields(each))
        return
    with pytest.raises(ERRORS[each["expect"]]) as caught:
        run(fields(each))
    assert type(caught.value) is ERRORS[each["expect"]] and caught.value.message


@pytest.mark.parametrize(
    "each",
    [
        pytest.param(each, id=name_of(each))
        for each in VECTORS
        if each["what"] in READ and each["expect"] != "usage"
    ],
)
def test_vector_by_the_page_alone(each: Each) -> None:
    read = READ[each["what"]]
    if each["expect"] == "ok":
        read(fields(each))
        return
    with pytest.raises(Exception) as caught:
        read(fields(each))
    assert not isinstance(caught.value, AssertionError)
    wrong = each["expect"] == "wrong passphrase"
    assert ("another passphrase" in str(caught.value)) == wrong


def test_vectors_are_those_of_the_generator() -> None:
    words = [sys.executable, "-B", HERE / "make_sealing.py"]
    made = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout
    assert made == (HERE / "sealing.json").read_text()
    assert {each["what"] for each in VECTORS} == RUN.keys()
