"""Key slots and sealed records made to exhaust time or memory (row X3), in a limited child.

Slots are forged without any key, since their checksum is all that the opener can test first;
bombs are sealed with the keys, as a client that was taken over would. Each is refused within
two seconds of processor time and 256 MiB, and an honest slot beside it goes on opening.
"""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from blake3 import blake3
from compare_trees import remove_tree
from faults import in_child
from hostile import Forger, encode, row

import packstone
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.codec.hashing import Hasher
from packstone.model import ObjectType
from packstone.repository import keyring
from packstone.repository.repository import ObjectRepository

MIB = 1 << 20
PASSPHRASE = "honest passphrase"
CHEAP = packstone.Argon2(time=1, memory=8 * 1024, lanes=1)
GOOD = b"this must be restored\n" * 100


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    place = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", str(place / "cache"))
        source = place / "source"
        source.mkdir()
        (source / "good").write_bytes(GOOD)
        packstone.init(place / "repository", passphrase=PASSPHRASE, argon2=CHEAP).close()
        with packstone.open(place / "repository", passphrase=PASSPHRASE, threads=1) as repository:
            repository.snapshot([source])
        yield place
    remove_tree(place)


@pytest.fixture
def place(original: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=original))
    shutil.copytree(original / "repository", path / "repository")
    yield path
    remove_tree(path)


# -- in a child -----------------------------------------------------------------------------


def size_of(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) << 10
    raise AssertionError(field)


def restore(place: Path, passphrase: str, said: dict[str, Any]) -> None:
    location = place / "repository"
    with packstone.open(location, passphrase=passphrase, threads=1) as repository:
        said["opened"] = True
        result = repository.restore("latest", place / "target")
        said["errors"] = [os.fsdecode(problem.path) for problem in result.errors]
        said["check"] = len(repository.check(read_data=True).errors)


def limited(
    place: Path, passphrase: str = PASSPHRASE, use: Callable[..., None] = restore
) -> dict[str, Any]:
    """Do something within two seconds and little memory; return what it said."""
    out = place / "said"

    def run() -> None:
        said: dict[str, Any] = {"opened": False, "error": "", "errors": [], "check": 0}
        idle = size_of("VmRSS")
        room = size_of("VmSize") + 640 * MIB  # the index maps 64 MiB, threads have stacks
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (2, 4))
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        try:
            use(place, passphrase, said)
        except packstone.PackstoneError as error:
            said["error"] = f"{type(error).__name__}: {error}"
        said["peak"] = size_of("VmHWM") - idle
        out.write_text(json.dumps(said))

    code = in_child(run)
    assert code == 0, f"exit code {code}: too much time or memory, or an error of no name"
    said: dict[str, Any] = json.loads(out.read_text())
    assert said["peak"] < 256 * MIB, f"{said['peak'] / MIB:.0f} MiB"
    return said


def assert_good(place: Path, original: Path) -> None:
    found = place / "target" / (original / "source" / "good").relative_to("/")
    assert found.read_bytes() == GOOD


# -- key slots ------------------------------------------------------------------------------


def forge_slot(place: Path, **changes: Any) -> None:
    """Add a slot whose checksum and name are right, newer than all others."""
    payload = {
        "kdf": "argon2id", "time": 1, "memory": 8, "lanes": 1, "salt": secrets.token_bytes(32),
        "check": secrets.token_bytes(32), "wrapped": secrets.token_bytes(80),
        "created_ns": 1 << 62, "role": "passphrase", "label": "",
    }  # fmt: skip
    write_slot(place, msgspec.msgpack.encode(payload | changes))


def write_slot(place: Path, payload: bytes) -> None:
    owner = (place / "repository" / "config").read_bytes()[16:32]
    data = seal_envelope(Kind.KEY_SLOT, Sealer(owner), secrets.token_bytes(32), payload)
    (place / "repository" / "keys" / blake3(data).hexdigest()).write_bytes(data)


HOSTILE: dict[str, dict[str, Any]] = {
    "16 GiB": {"memory": 16 << 20},
    "1 GiB and a block": {"memory": (1 << 20) + 1},
    "4 TiB": {"memory": (1 << 32) - 1},
    "more memory than numbers": {"memory": 1 << 63},
    "4 billion passes": {"time": (1 << 32) - 1},
    "33 passes": {"time": 33},
    "4 billion lanes": {"lanes": (1 << 32) - 1, "memory": 1 << 20},
    "65 lanes": {"lanes": 65, "memory": 8 * 65},
    "negative": {"memory": -1},
    "all of them": {"memory": (1 << 32) - 1, "time": (1 << 32) - 1, "lanes": (1 << 32) - 1},
    "a label of 15,000,000 characters": {"label": "x" * 15_000_000},
    "another kdf": {"kdf": "scrypt"},
}


@pytest.mark.parametrize("changes", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_slots(place: Path, original: Path, changes: dict[str, Any]) -> None:
    """Beside an honest slot it changes nothing, alone it is refused and named."""
    forge_slot(place, **changes)
    said = limited(place)
    assert said["opened"] and not said["error"]
    assert_good(place, original)
    said = limited(place, "another passphrase")
    assert said["error"].startswith(("UnsupportedFormat: keys/", "Damaged: no whole key slot"))
    honest = honest_slots(place)
    for name in honest:
        os.unlink(place / "repository" / "keys" / name)
    said = limited(place)
    assert said["error"].startswith(("UnsupportedFormat: keys/", "Damaged: no whole key slot"))


def honest_slots(place: Path) -> list[str]:
    """Return the names of slots that were there before."""
    return [
        path.name
        for path in (place / "repository" / "keys").iterdir()
        if int.from_bytes(path.read_bytes()[12:16], "little") < 1000
        and b"scrypt" not in path.read_bytes()
        and msgspec.msgpack.decode(path.read_bytes()[64:-32])["created_ns"] < 1 << 62
    ]


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\x80", b"\xc0", b"\xdf\xff\xff\xff\xff", b"\x91" * 60_000, b"\x81\xa3kdf" * 9999,
        encode({"kdf": "argon2id"}), bytes(range(256)),
    ],
    ids=lambda payload: f"{payload[:4].hex()}, {len(payload)} bytes",
)  # fmt: skip
def test_slots_that_do_not_decode(place: Path, original: Path, payload: bytes) -> None:
    write_slot(place, payload)
    said = limited(place)
    assert not said["error"] and said["check"] == 1
    assert_good(place, original)


def test_a_costly_slot_beside_a_cheap_one(place: Path, original: Path) -> None:
    """Within the limits, and still a minute and a gigabyte for each: the honest one goes first."""
    forge_slot(place, time=32, memory=1 << 20, lanes=1)
    said = limited(place)
    assert said["opened"]
    assert_good(place, original)


@pytest.mark.parametrize("kind", ["noise", "named as they should be", "other names"])
def test_ten_thousand_files_in_keys(place: Path, original: Path, kind: str) -> None:
    keys = place / "repository" / "keys"
    for number in range(10_000):
        data = number.to_bytes(4, "big") * 90
        name = secrets.token_hex(32) if kind == "noise" else blake3(data).hexdigest()
        (keys / (f"{number}" if kind == "other names" else name)).write_bytes(data)

    def use(place: Path, passphrase: str, said: dict[str, Any]) -> None:
        packstone.open(place / "repository", passphrase=passphrase).close()
        said["opened"] = True

    assert limited(place, use=use)["opened"]
    said = limited(place, "another passphrase", use)
    assert said["error"].startswith("WrongPassphrase" if kind == "other names" else "Damaged")


def test_ten_thousand_cheap_slots(place: Path) -> None:
    """Each takes an Argon2id of its own, and still nobody is held up for long."""
    for _ in range(10_000):
        forge_slot(place)

    def use(place: Path, passphrase: str, said: dict[str, Any]) -> None:
        packstone.open(place / "repository", passphrase=passphrase).close()
        said["opened"] = True

    said = limited(place, use=use)
    assert said["opened"] or said["error"]


def test_many_cheap_slots_do_not_make_a_passphrase_wrong(place: Path) -> None:
    for _ in range(70):
        forge_slot(place)
    said = limited(place)
    assert said["opened"] or not said["error"].startswith("WrongPassphrase")


def test_slots_that_cost_too_much_together(
    place: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more are tried than the limit allows, and it is not said that the passphrase is wrong.

    The limit is made small here: at its own it takes ten seconds.
    """
    for _ in range(50):
        forge_slot(place)
    assert limited(place)["opened"], "the control: all of them are within the limit"
    assert_good(place, original)
    monkeypatch.setattr(keyring, "MAX_SPENT", 20 * 8)
    for passphrase in (PASSPHRASE, "another passphrase"):
        said = limited(place, passphrase)
        assert said["error"].startswith("Damaged") and "not tried" in said["error"]


# -- with the keys --------------------------------------------------------------------------


class SealedForger(Forger):
    """Writes hostile objects into an encrypted repository, whose keys it has."""

    def __init__(self, location: Path) -> None:
        self._objects = ObjectRepository(str(location), passphrase=PASSPHRASE)
        self._writer = self._objects.writer()
        assert self._objects.secrets is not None
        self._hasher = Hasher(self._objects.secrets.family)
        self.sealer = self._objects.sealer


def bomb(size: int, *, window: int = 20, stated: bool = True) -> bytes:
    """A frame of zeros, small itself."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=window, write_content_size=stated
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj(
        size=size if stated else -1
    )
    parts = [compressor.compress(bytes(MIB)) for _ in range(size // MIB)]
    return b"".join([*parts, compressor.flush()])


DATA = b"12345" * 1000
FRAME = zstandard.ZstdCompressor().compress(DATA)
BOMBS: dict[str, tuple[bytes, int]] = {
    "a gigabyte, stated": (bomb(1 << 30), len(DATA)),
    "a gigabyte, not stated": (bomb(1 << 30, stated=False), len(DATA)),
    "a gigabyte, as the footer says": (bomb(1 << 30), 1 << 30),
    "64 MiB as the footer says, another id": (bomb(64 * MIB), 64 * MIB),
    "a window of a gigabyte": (bomb(16 * MIB, window=30), len(DATA)),
    "two frames": (FRAME + FRAME, 2 * len(DATA)),
    "nothing": (b"", len(DATA)),
    "other bytes of the same size": (zstandard.ZstdCompressor().compress(b"x" * 5000), 5000),
}


@pytest.mark.parametrize(("payload", "size"), BOMBS.values(), ids=BOMBS.keys())
def test_bombs_in_sealed_records(place: Path, payload: bytes, size: int) -> None:
    forger = SealedForger(place / "repository")
    chunk_id = forger.id_of(ObjectType.CHUNK, DATA)
    forger.write_pack([(payload, size, 1, [(chunk_id, size, 1)])])
    evil = row(b"evil", content=chunk_id, size=len(DATA))
    rows = [evil, forger.file(b"good", GOOD)]
    snapshot = packstone.Snapshot(
        time_ns=1 << 62, host="evil", paths=[b"/"], tree=forger.page(rows)
    )
    forger.write_snapshot(msgspec.msgpack.encode(snapshot))
    said = limited(place)
    assert [os.path.basename(path) for path in said["errors"]] == ["evil"]
    assert (place / "target" / "good").read_bytes() == GOOD
    assert not (place / "target" / "evil").exists()
    assert said["check"]


BODIES = {
    "a count of 2^32": b"\xdd\xff\xff\xff\xff",
    "nested without end": b"\x91" * 1_000_000,
    "no bytes": b"",
    "record in the header": encode([[5, 21, 5, 0, bytes(32) + b"\5\0\0\0\1", b"", [], 0, 0]]),
    "offset of 2^63": encode([[1 << 63, 21, 5, 0, bytes(32) + b"\5\0\0\0\1", b"", [], 0, 0]]),
    "stored size of 3": encode([[128, 3, 5, 0, bytes(32) + b"\5\0\0\0\1", b"", [], 0, 0]]),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_sealed_footers_that_lie(place: Path, original: Path, body: bytes) -> None:
    forger = SealedForger(place / "repository")
    forger.write_pack([], body=body)
    forger.close()
    said = limited(place)
    assert said["errors"] == []
    assert_good(place, original)
    assert said["check"], "check must find it"
