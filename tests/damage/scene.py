"""A repository of two snapshots whose files are a dict, to damage and to look at again quickly.

What stands in the dict is what `LocalStorage` would find on a disk; only the lock, the index
and what is restored are real. `look` opens, checks and restores it and never lets a wrong
byte pass: a file is restored as it was, or it is named.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from contract.storage_suite import MemoryStorage

import packstone
from packstone.codec.encryption import Sealer
from packstone.errors import Damaged, PackstoneError, UnsupportedFormat
from packstone.repository import repository as repository_module
from packstone.repository.packs import Pack, read_pack

# Thousands of small files are made and removed; where memory is no disk, a disk will do.
FAST = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
Contents = dict[bytes, bytes]


class Shelf(MemoryStorage):
    """Files in a dict, with a directory for what is not storage."""

    files_now: dict[str, bytes]

    def __init__(self, files: dict[str, bytes], path: str) -> None:
        super().__init__()
        self.files = files
        self.path = self.url = path

    def full_path(self, name: str) -> str:
        return os.path.join(self.path, name)


@dataclass
class Seen:
    """What a look found: texts that name damage, and what each snapshot restored to."""

    refused: PackstoneError | None = None
    texts: list[str] = field(default_factory=list)
    packs: set[str] = field(default_factory=set)
    paths: set[bytes] = field(default_factory=set)
    lost: dict[str, set[bytes]] = field(default_factory=dict)

    def names(self, name: str) -> bool:
        """Return whether the damage of a stored file is named, by its id where it has one."""
        word = name.rpartition("/")[2][:12]
        return word in self.packs or any(word in text for text in self.texts)


class Scene:
    """The repository, and what was stored in it."""

    def __init__(self, root: Path, snapshots: list[Contents], chunk_size: int = 4096) -> None:
        self.root = root
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, Contents] = {}
        source = root / "source"
        location = root / "repository"
        packstone.init(location, chunk_size=chunk_size, pack_size=1 << 20).close()
        for contents in snapshots:
            for name, data in contents.items():
                path = source / os.fsdecode(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            with packstone.open(location, threads=1) as repository:
                taken = repository.snapshot([source], host="test")
                assert taken.snapshot_id is not None
                self.stored[taken.snapshot_id] = dict(contents)
        self.base = os.fsencode(source)
        for path in location.rglob("*"):
            name = path.relative_to(location).as_posix()
            # Bytes that mean nothing are no damage: the reserve is never read.
            if path.is_file() and not name.startswith("index/") and name != "reserve":
                self.files[name] = path.read_bytes()
        self.sealer = Sealer(self.files["config"][16:32])

    def packs(self) -> list[str]:
        return sorted(name for name in self.files if name.startswith("packs/"))

    def pack(self, name: str) -> Pack:
        """Return what a pack's footer says."""
        storage = Shelf(self.files, "")
        size = len(self.files[name])
        return read_pack(storage, name.rpartition("/")[2], size, self.sealer)

    def gap(self, name: str) -> range:
        """Return the bytes of a pack that no table names."""
        data = self.files[name]
        if not name.startswith("packs/"):
            return range(0)
        last = self.pack(name).rows[-1]
        second = int.from_bytes(data[-56:-48], "little")
        return range(last.offset + last.stored_size, second)

    @contextmanager
    def opened(
        self, files: dict[str, bytes], index: str | None = None
    ) -> Iterator[packstone.Repository]:
        """Open the repository as it would be with these files, with a new index or a given one."""
        with (
            tempfile.TemporaryDirectory(dir=FAST) as home,
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(repository_module, "LocalStorage", lambda _: Shelf(files, home))
            with packstone.open(home, index_dir=index or home + "/index", threads=1) as opened:
                yield opened

    def look(
        self, files: dict[str, bytes], *, restore: bool = True, index: str | None = None
    ) -> Seen:
        """Check and restore everything; fail on a wrong byte and on silence about a lost file."""
        seen = Seen()
        try:
            with self.opened(files, index) as repository:
                result = repository.check(read_data=True)
                seen.texts += [finding.message for finding in result.errors]
                seen.texts += result.warnings
                seen.packs = {finding.pack[:12] for finding in result.errors if finding.pack}
                seen.paths = {path for finding in result.errors for path in finding.paths}
                for snapshot_id in self.stored if restore else ():
                    seen.lost[snapshot_id] = self._restore(repository, snapshot_id)
        except (Damaged, UnsupportedFormat, PackstoneError) as error:
            seen.refused = error
            seen.texts.append(error.message)
        return seen

    def _restore(self, repository: packstone.Repository, snapshot_id: str) -> set[bytes]:
        """Restore one snapshot and return the names that did not come back, all of them named."""
        expected = self.stored[snapshot_id]
        with tempfile.TemporaryDirectory(dir=FAST) as home:
            target = os.path.join(home, "target")
            try:
                result = repository.restore(snapshot_id, target)
            except PackstoneError:
                shutil.rmtree(target, ignore_errors=True)
                return set(expected)
            top = os.fsencode(target) + self.base
            lost = set()
            for name, data in expected.items():
                path = os.path.join(top, name)
                if not os.path.exists(path):
                    lost.add(name)
                    continue
                with open(path, "rb") as file:
                    assert file.read() == data, f"{name!r} was restored with other bytes"
            found = sum(len(names) for _, _, names in os.walk(target))
            assert found == len(expected) - len(lost), "something else was restored"
            named = [os.fsencode(problem.path) for problem in result.errors]
            for name in lost:
                full = self.base + b"/" + name
                assert any(
                    full == path or full.startswith(path.rstrip(b"/") + b"/") or path.endswith(full)
                    for path in named
                ), f"{name!r} is lost and not named: {named}"
            return lost


def small_scene(root: Path) -> Scene:
    """About 20 KB with every kind of file; half of it is zeros between footers."""
    rng = Random("small")
    first = {b"empty": b"", b"zeros": bytes(20_000), b"deep/er/noise": rng.randbytes(200)}
    first |= {b"row %d" % number: b"row %d\n" % number * 9 for number in range(5)}
    second = first | {b"new": rng.randbytes(300), b"row 1": b"changed"}
    return Scene(root, [first, second])


def large_scene(root: Path) -> Scene:
    """A data pack of several records: small files in one, a file of one chunk in each other."""
    rng = Random("large")
    files = {b"file %02d" % number: rng.randbytes(16_384) for number in range(4)}
    files |= {b"small %d" % number: rng.randbytes(700) for number in range(6)}
    return Scene(root, [files], chunk_size=32 * 1024)
