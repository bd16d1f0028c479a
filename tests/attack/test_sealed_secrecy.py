"""What whoever can read the storage of an encrypted repository sees: nothing of the source.

The files of the repository are searched for content, names, ids, sizes, cut-point keys and
secrets, after snapshots of all kinds and after some that were cut off. AES is watched over
snapshots that fail at every step: no key takes two messages under one nonce.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import faults
import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import aead
from faults import Plan, faulty, in_child

import packstone
from packstone.codec.hashing import Hasher
from packstone.repository.packs import Pack, read_pack

CHEAP = packstone.Argon2(time=1, memory=8 * 1024, lanes=1)
PASSPHRASE = "Tr0ub4dour-and-three"
WORDS = {
    "user name": "ada.lovelace.analyst",
    "host": "difference-engine-7",
    "tag": "before-the-migration",
    "exclude": "*.punchcards-of-old",
    "stream": "piped-invoice-dump",
}
SHARED = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="packstone-", dir=SHARED))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", str(place / "cache"))
        yield place
    shutil.rmtree(place)


def write_source(root: Path) -> dict[str, bytes]:
    """Make files of all kinds; return what of them must not be seen."""
    rng = Random("secrecy")
    text = b"".join(
        b"INSERT INTO customers VALUES (%d, 'Grace Hopper %d');\n" % (n, n * n) for n in range(900)
    )
    contents = {
        "quarterly-results.csv": rng.randbytes(700),
        "customers-dump.sql": text,
        "photograph-of-charles.raw": rng.randbytes(150_000),
        "another-portrait.raw": rng.randbytes(90_000),
        "letters-to-babbage/chapter-the-first.txt": b"The Analytical Engine weaves patterns" * 9,
        "letters-to-babbage/deeper/notes-on-bernoulli.txt": rng.randbytes(40),
    }
    for name, data in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    with open(root / "sparse-ledger.bin", "wb") as file:
        file.seek(200_000)
        file.write(contents["quarterly-results.csv"][:300])
    os.symlink("/home/somebody/elsewhere-entirely", root / "shortcut-to-elsewhere")
    os.link(root / "quarterly-results.csv", root / "second-name-of-results")
    os.mkfifo(root / "queue-of-numbers")
    with socket.socket(socket.AF_UNIX) as server:
        directory = os.open(root, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{directory}/socket-of-the-loom")
        os.close(directory)
    os.setxattr(root / "quarterly-results.csv", "user.classification", b"for-the-board-only")
    return contents


@dataclass
class Seen:
    """A repository after all kinds of snapshots, with what its owner knows of it."""

    location: Path
    source: Path
    contents: dict[str, bytes]
    packs: list[Pack]
    secrets: Any
    failed: int = 0
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def everything(self) -> bytes:
        return (b"\n" * 32).join([*map(os.fsencode, self.files), *self.files.values()])


def files_of(location: Path) -> dict[str, bytes]:
    return {
        path.relative_to(location).as_posix(): path.read_bytes()
        for path in location.rglob("*")
        if path.is_file()
    }


def packs_of(location: Path, repository: packstone.Repository) -> list[Pack]:
    objects = repository._objects
    return [
        read_pack(objects.storage, path.name, path.stat().st_size, objects.sealer)
        for path in location.glob("packs/*/*")
    ]


@pytest.fixture(scope="module")
def seen(home: Path) -> Seen:
    """Snapshots of everything, of a stream and a command, failed ones, and killed ones."""
    location, source = home / "repository", home / "source-of-the-engine"
    source.mkdir()
    contents = write_source(source)
    opened = packstone.init(
        location, chunk_size=16_384, pack_size=1 << 20, passphrase=PASSPHRASE, argon2=CHEAP,
        index_dir=home / "index",
    )  # fmt: skip
    options: dict[str, Any] = {
        "host": WORDS["host"], "tags": [WORDS["tag"]],
        "rules": packstone.Rules(patterns=[WORDS["exclude"]]),
    }  # fmt: skip

    def take() -> None:
        with packstone.open(location, passphrase=PASSPHRASE, threads=1) as repository:
            (source / "changed-every-night.log").write_bytes(os.urandom(30_000))
            repository.snapshot([source], **options)

    with opened as repository:
        repository.add_recovery_key(argon2=CHEAP)
        secrets = repository._objects.secrets
        repository.snapshot([source], **options)
        with open(source / "customers-dump.sql", "rb") as stream:
            repository.snapshot_stream(stream, WORDS["stream"], **options)
        repository.snapshot_command(["cat", str(source / "quarterly-results.csv")], "dump.raw")
    plan = Plan()
    with faulty(plan):
        take()
    found = Seen(location, source, contents, [], secrets)
    for action in (faults.leave, faults.unavailable):
        for at in range(0, len(plan.steps), 5):
            cut = Plan(action, at)

            def cut_off(cut: Plan = cut) -> None:
                with faulty(cut):
                    take()

            if action is faults.leave:
                found.failed += in_child(cut_off) == faults.EXIT_CODE
            else:
                # random bytes are cut otherwise each time: there may be fewer steps
                with contextlib.suppress(packstone.StorageUnavailable):
                    cut_off()
                    assert not cut.fired
    found.contents["changed-every-night.log"] = (source / "changed-every-night.log").read_bytes()
    found.files = files_of(location)
    with packstone.open(location, passphrase=PASSPHRASE, threads=1) as repository:
        assert repository.check(read_data=True).errors == []
        found.packs = packs_of(location, repository)
    return found


def test_the_scene_has_what_it_is_about(seen: Seen) -> None:
    assert seen.failed > 5
    folders = {name.split("/")[0] for name in seen.files}
    assert {"packs", "snapshots", "keys", "config", "state"} <= folders
    assert any(name.startswith("tmp/") and data for name, data in seen.files.items())
    assert sum(len(pack.rows) for pack in seen.packs) > 20
    assert {pack.kind for pack in seen.packs} == {1, 2}


def windows(data: bytes, size: int) -> set[bytes]:
    return {data[at : at + size] for at in range(len(data) - size + 1)}


def test_no_content(seen: Seen) -> None:
    """No twelve bytes of any file."""
    stored = windows(seen.everything, 12)
    for name, data in seen.contents.items():
        found = {each for each in windows(data, 12) if each in stored and any(each)}
        assert not found, name


def assert_none(seen: Seen, needles: dict[str, bytes]) -> None:
    everything = seen.everything
    for name, needle in needles.items():
        assert needle not in everything, name


def test_no_names(seen: Seen) -> None:
    names = {path.name for path in seen.source.rglob("*")} | set(seen.source.parts[1:])
    names |= {*WORDS.values(), "elsewhere-entirely", "user.classification", "for-the-board-only"}
    names |= {socket.gethostname(), str(seen.source)}
    texts = {name: os.fsencode(name) for name in names if len(name) >= 6}
    assert len(texts) > 15
    assert_none(seen, texts)
    assert_none(seen, {f"beginning of {name}": text[:9] for name, text in texts.items()})


def test_no_ids_and_no_cut_point_keys(seen: Seen) -> None:
    ids, keys = set[bytes](), set[bytes]()
    for pack in seen.packs:
        for row in pack.rows:
            ids |= {object_id for object_id, _, _ in row.object_rows()}
            keys |= {row.keys[:8], row.keys[8:]} - {b""}
    assert len(ids) > 40 and len(keys) > 5
    for each in ids:
        assert_none(seen, {each.hex(): each[:12], "in hex": each.hex()[:16].encode()})
    for each in keys:
        number = int.from_bytes(each, "little")
        assert_none(seen, {each.hex(): each, "big-endian": number.to_bytes(8, "big")})


def test_no_sizes(seen: Seen) -> None:
    """Of chunks and records, as numbers are written in footers and lists; few by chance."""
    sizes = set[int]()
    for pack in seen.packs:
        for row in pack.rows:
            sizes |= {size for _, size, _ in row.object_rows() if size > 4096}
            sizes |= {row.stored_size, row.raw_size} if row.raw_size > 4096 else set()
    chosen = list(islice(sorted(sizes, key=lambda size: size % 251), 40))
    assert len(chosen) > 15
    everything = seen.everything
    for form in ("<I", ">I", "<Q", ">Q"):
        found = [size for size in chosen if struct.pack(form, size) in everything]
        assert len(found) < len(chosen) // 6, (form, found)
    as_msgpack = [size for size in chosen if b"\xcd" + struct.pack(">H", size & 0xFFFF)
        + b"\xcd" in everything]  # fmt: skip
    assert len(as_msgpack) < len(chosen) // 6


def test_no_secrets(seen: Seen) -> None:
    """Neither passphrase nor secrets nor what is derived from them, in any common form."""
    hasher = Hasher(seen.secrets.family)
    salts = [pack.salt for pack in seen.packs]
    secrets = {
        "family": seen.secrets.family,
        "sealing": seen.secrets.sealing,
        "cutting": hasher.cutting_secret,
    }
    for context in ("record key", "footer key", "padding"):
        for salt in salts:
            key = blake3(
                seen.secrets.sealing + salt, derive_key_context=f"packstone v1 {context}"
            ).digest()
            secrets[f"{context} {salt.hex()}"] = key
    for word in ("id chunk", "id tree", "id chunk list"):
        key = blake3(seen.secrets.family, derive_key_context=f"packstone v1 {word}").digest()
        secrets[word] = key
    assert len(secrets) > 9
    for name, secret in secrets.items():
        forms = {f"{name} at {at}": secret[at : at + 8] for at in (0, 8, 16, 24)}
        assert_none(seen, forms | {f"{name} in hex": secret.hex()[:16].encode()})
    texts = {"passphrase": PASSPHRASE.encode(), "part of it": PASSPHRASE.encode()[:9]}
    assert_none(seen, texts)


def test_the_index_is_not_there(seen: Seen, home: Path) -> None:
    """Neither where a directory was named for it nor where none was, nor what names one."""
    assert not [name for name in seen.files if name.startswith("index")]
    assert any((home / "index").iterdir())
    location = home / "without"
    packstone.init(location, passphrase=PASSPHRASE, argon2=CHEAP).close()
    with packstone.open(location, passphrase=PASSPHRASE) as repository:
        repository.snapshot([seen.source])
        assert repository.check().errors == []
    assert not (location / "index").exists()


def test_storage_does_not_say_where_the_index_goes(seen: Seen, home: Path) -> None:
    """It tells ids and sizes, so it would be a way to have them."""
    location, trap = home / "led", home / "led" / "packs"
    packstone.init(location, passphrase=PASSPHRASE, argon2=CHEAP).close()
    (location / "index").mkdir()
    (location / "index" / "location").write_text(f"{trap}\n")
    before = set(files_of(location))
    with packstone.open(location, passphrase=PASSPHRASE) as repository:
        assert repository.check().errors == []
    assert set(files_of(location)) == before


def is_padme(size: int) -> bool:
    """Return whether Padmé (docs/format.md §10) makes no more of a size."""
    exponent = size.bit_length() - 1
    return size % (1 << (exponent - exponent.bit_length())) == 0


def test_sizes_of_packs(seen: Seen) -> None:
    """Padmé's, and first footers where records end to within 64 KiB."""
    offsets = set()
    for name, data in seen.files.items():
        if name.startswith("packs/"):
            assert is_padme(len(data)), name
            offset, size = struct.unpack_from("<QQ", data, 64)
            offsets.add(offset)
            assert offset == 128 or offset % 65_536 == 0
            sealed = size - 64 - 32 - 16
            assert is_padme(sealed)
    for name, data in seen.files.items():
        if name == "state" or name.startswith("snapshots/"):
            sealed = len(data) - 64 - 32 - 16
            assert is_padme(sealed), name
    assert 128 in offsets


def test_sealed_bytes_look_random(seen: Seen) -> None:
    """Records, footers and padding cannot be told from each other by their bytes."""
    for name, data in seen.files.items():
        if name.startswith("packs/"):
            first, size = struct.unpack_from("<QQ", data, 64)
            (second,) = struct.unpack_from("<Q", data, len(data) - 56)
            parts = (data[128:first], data[first + 64 : first + size], data[first + size : second])
            inner = b"".join(parts)  # without the heads of footers
            expected = len(inner) / 256
            chi = sum((inner.count(bytes([value])) - expected) ** 2 for value in range(256))
            assert chi / expected < 400, name  # 255 ± 23; 400 is 6 deviations off
            assert bytes(6) not in inner


def test_two_repositories_of_the_same_content_have_nothing_in_common(
    seen: Seen, home: Path
) -> None:
    """Same passphrase, same files: no 32 bytes are the same, but for what is in the clear."""
    found = []
    for number in range(2):
        location = home / f"twin {number}"
        packstone.init(location, chunk_size=8192, passphrase=PASSPHRASE, argon2=CHEAP).close()
        with packstone.open(location, passphrase=PASSPHRASE, threads=1) as repository:
            repository.snapshot([seen.source], host="twin")
        shown = set[bytes]()
        for name, data in files_of(location).items():
            if name.startswith("packs/"):
                data = data[:64] + data[96:-64]  # without offsets and sizes
            elif name.startswith("config"):
                data = data[:64] + data[96:128] + data[-64:]  # the family's fingerprint
            elif name.startswith("keys/"):
                continue
            shown |= windows(data, 32)
        found.append(shown)
    assert len(found[0]) > 200_000
    assert not found[0] & found[1]


def test_key_slots_of_the_same_passphrase_have_nothing_in_common(home: Path) -> None:
    slots = []
    for number in range(2):
        location = home / f"slots {number}"
        packstone.init(location, passphrase=PASSPHRASE, argon2=CHEAP).close()
        (name,) = (location / "keys").iterdir()
        data = name.read_bytes()
        at = data.index(b"salt") + 6
        slots.append(windows(data[at : data.index(b"created_ns")], 16))
    assert not {each for each in slots[0] & slots[1] if b"wrapped" not in each and b"check" not in
        each}  # fmt: skip


# -- nonces ---------------------------------------------------------------------------------


class Watch:
    """AES-256-GCM that notes which key has sealed what under which nonce, in a file.

    In a file, so that what a killed process has sealed counts too.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        cipher = aead.AESGCM
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        class Watched:
            def __init__(self, key: bytes) -> None:
                self._key, self._cipher = bytes(key), cipher(key)

            def encrypt(self, nonce: bytes, data: Any, associated: Any) -> bytes:
                text = struct.pack("<Q", len(data)) + bytes(data) + bytes(associated or b"")
                os.write(file, self._key + bytes(nonce) + hashlib.sha256(text).digest())
                return self._cipher.encrypt(nonce, data, associated)

            def decrypt(self, nonce: bytes, data: Any, associated: Any) -> bytes:
                return self._cipher.decrypt(nonce, data, associated)

        self.cipher = Watched

    def sealed(self) -> list[tuple[bytes, bytes, bytes]]:
        """Return (key, nonce, digest of the message) of everything that was sealed."""
        data = self.path.read_bytes()
        return [(data[at : at + 32], data[at + 32 : at + 44], data[at + 44 : at + 76])
            for at in range(0, len(data), 76)]  # fmt: skip

    def verify(self, least: int) -> None:
        """Fail if a key sealed two messages under one nonce, or if hardly anything was sealed."""
        first: dict[tuple[bytes, bytes], bytes] = {}
        sealed = self.sealed()
        for key, nonce, message in sealed:
            assert first.setdefault((key, nonce), message) == message, nonce.hex()
        assert len(first) >= least
        assert any(nonce[0] > 3 for _, nonce, _ in sealed), "packs of several records"


@pytest.fixture
def watch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    made = Watch(tmp_path / "sealed")
    monkeypatch.setattr(aead, "AESGCM", made.cipher)
    return made


@pytest.fixture
def scene(home: Path) -> Iterator[Callable[[], Path]]:
    """Copies of a repository with one snapshot, for trials that begin from the same files."""
    place = Path(tempfile.mkdtemp(dir=home))
    source = place / "source"
    source.mkdir()
    rng = Random("nonces")
    for number in range(8):
        (source / f"{number}").write_bytes(rng.randbytes(17_000))
        (source / f"small {number}").write_bytes(rng.randbytes(500))
    location = place / "repository"
    with packstone.init(
        location, chunk_size=32 * 1024, pack_size=1 << 20, passphrase=PASSPHRASE, argon2=CHEAP
    ) as repository:
        repository.snapshot([source / "0"])

    def make() -> Path:
        shutil.rmtree(place / "copy", ignore_errors=True)
        shutil.copytree(location, place / "copy" / "repository")
        return place / "copy" / "repository"

    yield make
    shutil.rmtree(place)


def take(location: Path, source: Path, threads: int = 1) -> None:
    with packstone.open(location, passphrase=PASSPHRASE, threads=threads) as repository:
        repository.snapshot([source])


def source_of(location: Path) -> Path:
    return location.parents[1] / "source"


@pytest.mark.parametrize("action", [faults.leave, faults.unavailable])
def test_no_nonce_is_used_twice_when_snapshots_fail(
    scene: Callable[[], Path], watch: Watch, action: faults.Action
) -> None:
    """At every step of the storage; then the same snapshot is taken again."""
    location = scene()
    plan = Plan()
    with faulty(plan):
        take(location, source_of(location))
    assert len(plan.steps) > 40
    for at in range(len(plan.steps)):
        location = scene()

        def run(location: Path = location, at: int = at) -> None:
            with faulty(Plan(action, at)):
                take(location, source_of(location))

        if action is faults.leave:
            assert in_child(run) == faults.EXIT_CODE
        else:
            try:
                run()
            except packstone.StorageError:
                pass
        take(location, source_of(location))
    watch.verify(least=200)


def test_no_nonce_is_used_twice_in_a_session_that_goes_on(
    scene: Callable[[], Path], watch: Watch
) -> None:
    """The same open repository takes the snapshot again after each fault."""
    location = scene()
    plan = Plan()
    with faulty(plan):
        take(location, source_of(location))
    for at in range(len(plan.steps)):
        location = scene()
        with faulty(Plan(faults.unavailable, at)):
            try:
                repository = packstone.open(location, passphrase=PASSPHRASE, threads=1)
            except packstone.StorageError:
                continue
            with repository:
                for _ in range(2):
                    try:
                        repository.snapshot([source_of(location)])
                    except packstone.StorageError:
                        pass
    watch.verify(least=200)


def test_no_nonce_is_used_twice_by_threads(scene: Callable[[], Path], watch: Watch) -> None:
    location = scene()
    more = source_of(location)
    for number in range(60):
        (more / f"more {number}").write_bytes(os.urandom(20_000 + number))
    take(location, more, threads=8)
    watch.verify(least=60)
