"""Peers beyond the two that the goals name; used when they are on PATH and asked for."""

from __future__ import annotations

import shlex
from pathlib import Path

from tool import Command, Tool


class Bupstash(Tool):
    name = "bupstash"
    settings = "always encrypted, zstd 3"

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        super().__init__(program, scratch, source)
        self.environment |= {
            "BUPSTASH_REPOSITORY": str(self.repository),
            "BUPSTASH_KEY": str(self.home / "key"),
            "BUPSTASH_SEND_LOG": str(self.home / "send-log"),
            "BUPSTASH_QUERY_CACHE": str(self.home / "query-cache"),
        }
        self.count = 0

    def init(self) -> Command:
        self.count = 0
        key = [*self.program, "new-key", "-o", str(self.home / "key")]
        return self.shell([*self.program, "init"], key)

    def snapshot(self, read_all: bool = False) -> Command:
        self.count += 1
        more = ["--no-stat-caching"] if read_all else []
        named = f"name=v{self.count}"
        return [*self.program, "put", "-q", "--compression", "zstd:3", *more, named, "::",
                str(self.source)]  # fmt: skip

    def restore(self, target: Path) -> Command:
        return [*self.program, "restore", "-q", "--ownership", "--xattrs", "--into", str(target),
                f"name=v{self.count}"]  # fmt: skip

    def check(self) -> Command:
        # No check of its own: reading both versions authenticates every chunk they use.
        gets = [[*self.program, "get", "-q", f"name=v{n}"] for n in (1, self.count)]
        lines = [shlex.join(get) + " > /dev/null" for get in gets]
        return ["/bin/sh", "-ec", "\n".join(lines)]

    def restored(self, target: Path) -> Path:
        return target


class Casync(Tool):
    name = "casync"
    settings = "plain, zstd, reads everything always"
    rows = Tool.rows - {"read all"}

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        super().__init__(program, scratch, source)
        self.count = 0

    def _index(self) -> str:
        return str(self.repository / f"{self.count:04d}.caidx")

    def init(self) -> Command:
        self.count = 0
        return ["mkdir", str(self.repository)]

    def snapshot(self, read_all: bool = False) -> Command:
        self.count += 1
        store = f"--store={self.repository / 'store'}"
        return [*self.program, "make", "--compression=zstd", store, self._index(), str(self.source)]

    def restore(self, target: Path) -> Command:
        store = f"--store={self.repository / 'store'}"
        return [*self.program, "extract", store, self._index(), str(target)]

    def check(self) -> Command:
        # No check of its own: the manifest hashes the content of every file of the newest version.
        store = f"--store={self.repository / 'store'}"
        return [*self.program, "mtree", store, self._index()]

    def restored(self, target: Path) -> Path:
        return target


class Bup(Tool):
    name = "bup"
    settings = "plain, zlib 1"
    rows = Tool.rows - {"read all"}

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        super().__init__(program, scratch, source)
        self.environment["BUP_DIR"] = str(self.repository)

    def init(self) -> Command:
        return [*self.program, "init"]

    def snapshot(self, read_all: bool = False) -> Command:
        save = [*self.program, "save", "-q", "-n", "bench", str(self.source)]
        return self.shell([*self.program, "index", str(self.source)], save)

    def restore(self, target: Path) -> Command:
        return [*self.program, "restore", "-q", "-C", str(target), f"/bench/latest{self.source}/."]

    def check(self) -> Command:
        return [*self.program, "fsck", "--disable-par2"]

    def restored(self, target: Path) -> Path:
        return target
