"""An encrypted repository whose files are a dict, to damage, to forge and to look at again.

As `scene.Scene` is of plain ones, and seen by the same eyes: a file is restored as it was, or
it is named. The passphrases cost next to nothing to try.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import msgspec
import pytest
from damage.scene import FAST, Contents, Scene, Shelf

import packstone
from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.repository import keyring, layout
from packstone.repository import repository as repository_module

CHEAP = packstone.Argon2(time=1, memory=8 * 1024, lanes=1)
FIRST, SECOND = "first passphrase", "second passphrase"


class SealedScene(Scene):
    """The repository, its secrets and what was stored in it; nothing but the look is inherited."""

    def __init__(
        self,
        root: Path,
        snapshots: list[Contents],
        chunk_size: int = 4096,
        like: packstone.Repository | None = None,
    ) -> None:
        self.root = root
        self.home = tempfile.mkdtemp(dir=FAST)  # always one place: it is known to be encrypted
        self.files, self.stored = {}, {}
        source, location = root / "source", root / "repository"
        opened = packstone.init(
            location,
            chunk_size=None if like else chunk_size,
            pack_size=1 << 20,
            passphrase=FIRST,
            argon2=CHEAP,
            like=like,
        )
        with opened as repository:
            repository.add_key(SECOND, argon2=CHEAP)
            assert repository._objects.secrets is not None
            self.secrets = repository._objects.secrets
        for contents in snapshots:
            for name, data in contents.items():
                path = source / name.decode()
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            with packstone.open(location, passphrase=FIRST, threads=1) as repository:
                taken = repository.snapshot([source], host="test")
                assert taken.snapshot_id is not None
                self.stored[taken.snapshot_id] = dict(contents)
        self.base = bytes(source)
        for path in location.rglob("*"):
            if path.is_file() and path.name != "reserve":  # of bytes that mean nothing
                self.files[path.relative_to(location).as_posix()] = path.read_bytes()
        self.sealer = Sealer(self.files["config"][16:32], self.secrets.sealing)
        need = msgspec.msgpack.encode({"need": "ignore"})
        feature = seal_envelope(Kind.FEATURE, self.sealer, bytes(range(32)), need)
        self.files["features/test"] = feature

    @contextmanager
    def opened(
        self, files: dict[str, bytes], index: str | None = None
    ) -> Iterator[packstone.Repository]:
        """Open it as somebody does who was here before."""
        with (
            tempfile.TemporaryDirectory(dir=FAST) as made,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(repository_module, "LocalStorage", lambda _: Shelf(files, self.home))
            with packstone.open(
                self.home, passphrase=FIRST, index_dir=index or made, threads=1
            ) as opened:
                yield opened

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder."""
        return sorted(name for name in self.files if name.startswith(folder + "/"))

    def slot_of(self, passphrase: str) -> str:
        """Return the name of the key slot that a passphrase opens."""
        found = keyring.unlock(Shelf(self.files, ""), self.sealer.repository_id, passphrase, print)
        return layout.key_name(found[1])


def small_sealed_scene(root: Path) -> SealedScene:
    """Two snapshots in about 20 KB, with every kind of file."""
    rng = Random("sealed")
    first = {b"empty": b"", b"zeros": bytes(9000), b"deep/er/noise": rng.randbytes(200)}
    first |= {b"row %d" % number: b"row %d\n" % number * 9 for number in range(4)}
    second = first | {b"new": rng.randbytes(300), b"row 1": b"changed"}
    return SealedScene(root, [first, second])


def large_sealed_scene(root: Path, like: packstone.Repository | None = None) -> SealedScene:
    """Data packs of several records of one size, and small files in a record together."""
    rng = Random("large sealed")
    first = {b"file %02d" % number: rng.randbytes(16_384) for number in range(4)}
    first |= {b"small %d" % number: rng.randbytes(700) for number in range(6)}
    second = first | {b"more %02d" % number: rng.randbytes(16_384) for number in range(4)}
    return SealedScene(root, [first, second], 32 * 1024, like)
