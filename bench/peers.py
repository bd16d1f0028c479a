"""Packstone and the tools that are compared, each told how to do the same seven things.

Settings are chosen for the tool's good where there is a choice: caches are allowed, progress is
off, compression is zstd at a level near 3, no tool asks for a password. What cannot be made equal
is in `settings`, which the table shows: packstone and borg run without encryption, restic and
bupstash know no other way than with it; packstone runs a second time as they do.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from other_peers import Bup, Bupstash, Casync
from tool import Command, Tool


class Packstone(Tool):
    name = "packstone"
    settings = "plain, zstd 3"

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        super().__init__(program, scratch, source)
        self.environment["PACKSTONE_CACHE_DIR"] = str(self.home / "cache")
        for key in ("PYTHONPATH", "PACKSTONE_KERNEL"):
            if key in os.environ:
                self.environment[key] = os.environ[key]

    def _run(self, *arguments: str) -> Command:
        return [*self.program, "-q", "-r", str(self.repository), *arguments]

    def init(self) -> Command:
        return [*self.program, "-q", "init", "--plain", str(self.repository)]

    def snapshot(self, read_all: bool = False) -> Command:
        return self._run("snapshot", *(["--read-all"] if read_all else []), str(self.source))

    def restore(self, target: Path) -> Command:
        return self._run("restore", "latest", "--target", str(target))

    def check(self) -> Command:
        return self._run("check", "--read-data")


class PackstoneEncrypted(Packstone):
    name = "packstone-encrypted"
    settings = "encrypted (key derivation in each command), zstd 3"

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        super().__init__(program, scratch, source)
        self.environment["PACKSTONE_PASSPHRASE"] = "benchmark"

    def init(self) -> Command:
        return [*self.program, "-q", "init", str(self.repository)]


class Restic(Tool):
    name = "restic"
    settings = "always encrypted (key derivation in each command), zstd auto"
    ask_version = "version"

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        super().__init__(program, scratch, source)
        self.environment |= {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": "benchmark",
            "RESTIC_CACHE_DIR": str(self.home / "cache"),
        }

    def init(self) -> Command:
        return [*self.program, "-q", "init", "--repository-version", "2"]

    def snapshot(self, read_all: bool = False) -> Command:
        return [*self.program, "-q", "backup", *(["--force"] if read_all else []), str(self.source)]

    def restore(self, target: Path) -> Command:
        return [*self.program, "-q", "restore", "latest", "--target", str(target)]

    def check(self) -> Command:
        return [*self.program, "-q", "check", "--read-data"]


class Borg(Tool):
    name = "borg"
    settings = "not encrypted, zstd 3"

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        super().__init__(program, scratch, source)
        self.environment |= {
            "BORG_REPO": str(self.repository),
            "BORG_BASE_DIR": str(self.home / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        self.count = 0

    def init(self) -> Command:
        self.count = 0
        return [*self.program, "init", "--encryption", "none"]

    def snapshot(self, read_all: bool = False) -> Command:
        self.count += 1
        more = ["--files-cache", "disabled"] if read_all else []
        more += ["--compression", "zstd,3"]
        return [*self.program, "create", *more, f"::{self.count:04d}", str(self.source)]

    def restore(self, target: Path) -> Command:
        return [*self.program, "extract", f"::{self.count:04d}"]

    def check(self) -> Command:
        return [*self.program, "check", "--verify-data"]


TOOLS: dict[str, type[Tool]] = {
    tool.name: tool for tool in (Packstone, PackstoneEncrypted, Restic, Borg, Bupstash, Casync, Bup)
}


def find_program(name: str, packstone: Command) -> Command | None:
    """Return how to call the tool, None if it is not there; PACKSTONE_BENCH_<NAME> decides."""
    if name.startswith("packstone"):
        return packstone
    wanted = os.environ.get(f"PACKSTONE_BENCH_{name.upper()}")
    if wanted:
        return shlex.split(wanted)
    found = shutil.which(name)
    return [found] if found else None
