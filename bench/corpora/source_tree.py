"""SRC: a source tree of 9,300 files, three consecutive releases of several packages from PyPI.

Offline it falls back to the standard library and site-packages of this Python, and edits them.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
import zlib
from pathlib import Path

from corpora.base import SwappedCorpus, measure_tree

# Pure Python only, so that every platform downloads the same bytes. Each release follows the one
# before it; that of Sphinx is a large one, the others are small: 15 % of the bytes change.
# (name, as source archive, releases)
PINS = (
    ("django", True, "5.2", "5.2.1", "5.2.2"),
    ("sympy", False, "1.13.1", "1.13.2", "1.13.3"),
    ("sphinx", False, "8.1.3", "8.2.0", "8.2.1"),
    ("faker", False, "33.0.0", "33.1.0", "33.2.0"),
)
FIRST_SECOND = 1_730_000_000
RELEASE_SECONDS = 90 * 86_400
FALLBACK_FILES = 10_000


class SourceTree(SwappedCorpus):
    name = "SRC"
    revision = 2
    versions = ("v1", "v2", "v3")

    def generate(self) -> None:
        share = self.scale
        try:
            self._download()
        except (OSError, subprocess.SubprocessError) as error:
            shutil.rmtree(self.root)
            self.root.mkdir(parents=True)
            self._from_this_python()
            self.notes = f"made from this Python's own library, as PyPI did not answer: {error}"
            share *= min(1.0, FALLBACK_FILES / measure_tree(self.root / "v1").file_count)
        for number, version in enumerate(self.versions):
            finish(self.root / version, share, FIRST_SECOND + number * RELEASE_SECONDS)

    def _download(self) -> None:
        archives = self.root / "archives"
        for number, version in enumerate(self.versions):
            for name, as_source, *releases in PINS:
                into = archives / version / name
                pip_download(f"{name}=={releases[number]}", as_source, into)
                (archive,) = into.iterdir()
                unpack(archive, self.root / version / name)
        shutil.rmtree(archives)
        self.notes = ", ".join(f"{name} {' → '.join(rest)}" for name, _, *rest in PINS)

    def _from_this_python(self) -> None:
        first = self.root / self.versions[0]
        for number, key in enumerate(("stdlib", "purelib")):
            shutil.copytree(
                sysconfig.get_path(key), first / str(number), symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__", "*.so"), dirs_exist_ok=True,
            )  # fmt: skip
        rng = random.Random(41)
        before = first
        for version in self.versions[1:]:
            shutil.copytree(before, self.root / version, symlinks=True)
            before = self.root / version
            for path in sorted(p for p in before.rglob("*.py") if rng.random() < 0.2):
                edit(path, rng)


def pip_download(requirement: str, as_source: bool, into: Path) -> None:
    """Download one archive; raise subprocess.CalledProcessError when pip cannot."""
    kind = "--no-binary" if as_source else "--only-binary"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
    if as_source:  # only the package itself, or pip would build its build tools as well
        command[-1] = requirement.split("==")[0]
    else:  # wheels of pure Python do not care, but their metadata may
        command += ["--python-version", "3.13"]
    subprocess.run(
        [*command, "--dest", str(into), requirement],
        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600,
    )  # fmt: skip


def unpack(archive: Path, into: Path) -> None:
    """Unpack a wheel or a source archive, without the folder that carries the release number."""
    into.mkdir(parents=True)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(into)
    else:
        with tarfile.open(archive) as source:
            if hasattr(tarfile, "data_filter"):
                source.extractall(into, filter="data")
            else:
                source.extractall(into)
        (top,) = into.iterdir()
        top.rename(into / "source")
    for path in list(into.iterdir()):
        plain = re.sub(r"-[0-9][^-/]*(?=\.dist-info)", "", path.name)
        path.rename(into / plain)


def finish(root: Path, share: float, second: int) -> None:
    """Thin the tree out to `share`, and set times and modes, which archives keep or not."""
    for directory, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            path = os.path.join(directory, name)
            place = zlib.crc32(os.fsencode(os.path.relpath(path, root))) % 1000
            if place >= share * 1000:
                os.unlink(path)
                continue
            if not stat.S_ISREG(os.lstat(path).st_mode):
                continue
            with open(path, "rb") as file:
                script = file.read(2) == b"#!"
            os.chmod(path, 0o755 if script else 0o644)
            second += 1
            os.utime(path, (second, second))


def edit(path: Path, rng: random.Random) -> None:
    """Change, add and remove a few lines, as a release does."""
    if path.is_symlink():
        return
    lines = path.read_bytes().splitlines(keepends=True)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(lines) + 1)
        lines[at : at + rng.randrange(3)] = [b"    # edited %08x\n" % rng.getrandbits(32)]
    path.write_bytes(b"".join(lines))
