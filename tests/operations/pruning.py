"""A history of snapshots to prune, and what every one of them must restore to.

Files are a dict of names to bytes; dumps that resemble each other make deltas. Imported as
`operations.pruning`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tables import next_night, table

import packstone
from packstone.codec.compression import Compressor
from packstone.codec.delta import DELTA_CODECS
from packstone.model import ObjectType
from packstone.operations.prune_plan import PackUse, measure
from packstone.repository.layout import list_ids, snapshot_name
from packstone.repository.marks import Marker
from packstone.repository.packs import read_pack
from packstone.repository.repository import ObjectRepository

CHEAP = packstone.Argon2(time=1, memory=8192, lanes=1)
Contents = dict[str, bytes]


class History:
    """A source that changes, its snapshots, and the repository they are in."""

    def __init__(
        self,
        place: Path,
        seed: object = 0,
        *,
        passphrase: str | None = None,
        chunk: int = 32 << 10,
        disk: Path | None = None,
    ) -> None:
        """Everything is in `place`, but the repository is on another `disk` if one is named."""
        self.place = place
        self.source = place / "source"
        self.location = (disk or place) / "repository"
        self.chance = Random(repr(seed))
        self.passphrase = passphrase
        self.contents: Contents = {}
        self.rows = table(self.chance, 2000)
        self.stored: dict[str, Contents] = {}
        packstone.init(
            self.location, chunk_size=chunk, pack_size=1 << 20, passphrase=passphrase, argon2=CHEAP
        ).close()

    def open(self, **options: object) -> packstone.Repository:
        options.setdefault("threads", 2)
        return packstone.open(self.location, passphrase=self.passphrase, **options)

    def change(self) -> None:
        """Do to the tree what a day does: some files new, some changed, some gone."""
        chance = self.chance
        for _ in range(chance.randrange(1, 12)):
            name = f"{chance.choice('abc')}/{chance.choice('xyz')}/{chance.randrange(30)}"
            self.contents[name] = chance.randbytes(chance.choice([0, 10, 300, 3000, 20_000]))
        for name in chance.sample(sorted(self.contents), len(self.contents) // 6):
            del self.contents[name]
        if chance.random() < 0.7:
            next_night(chance, self.rows)
            self.contents[f"dump {chance.randrange(3)}"] = b"".join(self.rows)
        if chance.random() < 0.3:
            self.contents[f"noise {chance.randrange(4)}"] = chance.randbytes(150_000)

    def write(self, contents: Contents) -> None:
        shutil.rmtree(self.source, ignore_errors=True)
        self.source.mkdir()
        for name, data in contents.items():
            path = self.source / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def take(self, repository: packstone.Repository, **options: object) -> str:
        """Take a snapshot of what is there; return its id."""
        self.write(self.contents)
        result = repository.snapshot([self.source], **options)
        assert result.errors == [] and result.snapshot_id is not None
        self.stored[result.snapshot_id] = dict(self.contents)
        return result.snapshot_id

    def fill(self, repository: packstone.Repository, count: int, **options: object) -> list[str]:
        """Let days pass, each with a snapshot."""
        taken = []
        for _ in range(count):
            self.change()
            taken.append(self.take(repository, **options))
        return taken

    def forget(self, *snapshot_ids: str) -> None:
        """Delete snapshots as their owner does, behind the back of whoever has them open."""
        for snapshot_id in snapshot_ids:
            os.unlink(self.location / snapshot_name(snapshot_id))
            del self.stored[snapshot_id]

    def forget_some(self) -> None:
        chance = self.chance
        self.forget(*chance.sample(sorted(self.stored), chance.randrange(len(self.stored))))

    def read(self, repository: packstone.Repository, snapshot_id: str) -> Contents:
        """Return what a snapshot restores to."""
        target = self.place / "target"
        shutil.rmtree(target, ignore_errors=True)
        result = repository.restore(snapshot_id, target, path=bytes(self.source))
        assert result.errors == [] and result.warnings == []
        return {
            path.relative_to(target).as_posix(): path.read_bytes()
            for path in target.rglob("*")
            if path.is_file()
        }

    def verify(self, repository: packstone.Repository, *, data: bool = True) -> None:
        """Require every snapshot, byte for byte, and a repository without a fault."""
        assert {row.id for row in repository.snapshots()} == self.stored.keys()
        for snapshot_id, contents in self.stored.items():
            assert self.read(repository, snapshot_id) == contents
        errors = repository.check(read_data=data).errors
        assert errors == []

    def packs(self) -> dict[str, int]:
        return {
            path.name: path.stat().st_size
            for path in (self.location / "packs").rglob("*")
            if path.is_file()
        }


def uses(repository: packstone.Repository) -> list[PackUse]:
    """Return what each pack holds that snapshots need, asked from scratch."""
    objects = repository._objects
    objects.index.refresh(objects.storage)
    marker = Marker(objects.index, objects.reader.get)
    marker.add(row.snapshot.tree for row in objects.snapshots())
    assert not marker.missing
    return measure(objects, marker.marks)


def decoded(objects: ObjectRepository) -> Iterator[bytes]:
    """Yield what each record of each pack decodes to: of deltas the chunk, and the delta."""
    codec = Compressor(3)
    for pack_id, size in list_ids(objects.storage, "packs"):
        pack = read_pack(objects.storage, pack_id, size, objects.sealer)
        seal = objects.sealer.pack(pack.kind, pack.salt)
        for number, row in enumerate(pack.rows):
            stored = objects.storage.get_range(
                f"packs/{pack_id[:2]}/{pack_id}", row.offset, row.stored_size
            )
            payload = seal.open(number, row.raw_size, row.codec, stored)
            if row.codec in DELTA_CODECS:
                yield bytes(payload)
                yield objects.reader.get(ObjectType.CHUNK, row.objects[:32])
            else:
                yield bytes(codec.decode(row.codec, payload, row.raw_size))
