"""What decoders really get: the stored bytes of small repositories, plain and encrypted."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import packstone
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, open_envelope
from packstone.codec.keys import Argon2, Secrets
from packstone.repository import keyring
from packstone.repository.packs import Pack, read_pack
from packstone.storage.local import LocalStorage

CHEAP = Argon2(time=1, memory=8192, lanes=1)
PASSPHRASE = "words"


@dataclass
class Stored:
    """One repository: its files by name, and what opens them."""

    files: dict[str, bytes]
    sealer: Sealer
    secrets: Secrets | None
    index: dict[str, bytes] = field(default_factory=dict)
    packs: dict[str, Pack] = field(default_factory=dict)
    trees: list[bytes] = field(default_factory=list)
    lists: list[bytes] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    records: list[tuple[int, int, int, bytes]] = field(default_factory=list)

    def names(self, folder: str) -> list[str]:
        return sorted(name for name in self.files if name.startswith(folder + "/"))

    def payload(self, name: str, kind: Kind) -> bytes:
        sealer = Sealer(self.sealer.repository_id) if kind == Kind.KEY_SLOT else self.sealer
        return open_envelope(self.files[name], kind, name, sealer).payload


def _fill(source: Path, chance: Random) -> None:
    (source / "many").mkdir(parents=True)
    for number in range(90):
        (source / "many" / f"{number:03d}").write_bytes(b"%d\n" % number)
    (source / "long").write_bytes(chance.randbytes(1_500_000))
    (source / "text").write_bytes(b"one row and another\n" * 3000)
    os.truncate(source / "text", 400_000)  # a hole
    os.symlink("long", source / "link")
    os.link(source / "text", source / "hard")
    os.mkfifo(source / "fifo")


def make(*, encrypted: bool) -> Stored:
    """Make a repository of three snapshots with deltas, long lists and paged directories."""
    with tempfile.TemporaryDirectory() as home:
        place, source = Path(home), Path(home, "source")
        os.environ["PACKSTONE_CACHE_DIR"] = str(place / "cache")
        passphrase = PASSPHRASE if encrypted else None
        chance = Random(1)
        _fill(source, chance)
        location = place / "repository"
        packstone.init(
            location, chunk_size=4096, passphrase=passphrase, argon2=CHEAP, index_dir=place / "i"
        ).close()
        for turn in range(3):
            changed = bytearray((source / "long").read_bytes())
            changed[700_000 + turn * 9000 : 700_100 + turn * 9000] = chance.randbytes(50)
            (source / "long").write_bytes(changed)
            (source / f"new {turn}").write_bytes(chance.randbytes(300))
            with packstone.open(
                location, passphrase=passphrase, threads=1, index_dir=place / "i"
            ) as repository:
                repository.snapshot([source], tags=["daily"])
                repository.check(read_data=True)
        storage = LocalStorage(str(location))
        files = {
            name: (location / name).read_bytes()
            for name in (path.relative_to(location).as_posix() for path in location.rglob("*"))
            if (location / name).is_file() and not name.startswith(("index", "lock", "reserve"))
        }
        repository_id = files["config"][16:32]
        secrets = None
        if encrypted:
            secrets, _slot = keyring.unlock(storage, repository_id, PASSPHRASE, lambda text: None)
        stored = Stored(files, Sealer(repository_id, secrets.sealing if secrets else None), secrets)
        stored.index = {path.name: path.read_bytes() for path in (place / "i").iterdir()}
        _read(stored, storage, location, passphrase, place / "i")
        return stored


def _read(
    stored: Stored, storage: LocalStorage, location: Path, passphrase: str | None, index: Path
) -> None:
    """Take the packs apart: records as a decoder gets them, objects by their types."""
    with packstone.open(location, passphrase=passphrase, threads=1, index_dir=index) as repository:
        for name in stored.names("packs"):
            data = stored.files[name]
            pack_id = name.rpartition("/")[2]
            pack = stored.packs[name] = read_pack(storage, pack_id, len(data), stored.sealer)
            seal = stored.sealer.pack(pack.kind, pack.salt)
            for number, row in enumerate(pack.rows):
                raw = data[row.offset : row.offset + row.stored_size]
                payload = bytes(seal.open(number, row.raw_size, row.codec, raw))
                stored.records.append((row.codec, row.raw_size, len(row.bases), payload))
                for object_id, _size, object_type in row.object_rows():
                    kept = (stored.chunks, stored.trees, stored.lists)[object_type - 1]
                    if len(kept) < 40:
                        kept.append(bytes(repository._objects.reader.get(object_type, object_id)))
