"""CRM: the nightly plain dump of a PostgreSQL database of 1.35 GB, and that of the next night.

A private cluster is started below the work directory on a Unix socket, filled by COPY, dumped,
changed and dumped again. Dumps are in heap order: an updated row leaves its place and stands at
the end of its table. Without PostgreSQL's programs a dump of the same shape is written directly.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpora import crm_rows
from corpora.base import SwappedCorpus
from corpora.crm_rows import COUNTS, GROWING, NIGHT, UPDATED, Rows

# It is a scratch database: nothing is durable, and nothing may move rows behind our back.
SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "autovacuum": "off",
    "synchronize_seqscans": "off",
    "max_parallel_workers": "0",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
}


class Crm(SwappedCorpus):
    name = "CRM"
    revision = 2

    def generate(self) -> None:
        for version in self.versions:
            (self.root / version).mkdir()
        rows = Rows(seed=21, scale=self.scale)
        programs = find_programs()
        if programs is None:
            self.notes = "no PostgreSQL programs found: a synthetic dump of the same shape"
            self._imitate(rows)
        else:
            version = subprocess.check_output([programs / "postgres", "--version"], text=True)
            self.notes = f"{version.strip()}, plain pg_dump in heap order"
            self._dump(rows, programs)

    def _dump(self, rows: Rows, programs: Path) -> None:
        first, second = (self.root / version for version in self.versions)
        with Cluster(programs, self.root / "cluster") as cluster:
            cluster.sql(crm_rows.SCHEMA)
            for table, count in rows.counts.items():
                cluster.copy(table, rows.blocks(table, 1, count + 1))
            cluster.sql(crm_rows.KEYS)
            cluster.dump(first)
            cluster.sql(crm_rows.UPDATES)
            for table in GROWING:
                cluster.copy(table, new_rows(rows, table))
            cluster.dump(second)

    def _imitate(self, rows: Rows) -> None:
        first, second = (self.root / version / "crm.sql" for version in self.versions)
        with open(first, "wb") as old, open(second, "wb") as new:
            for file in (old, new):
                file.write(b"-- PostgreSQL database dump (imitated)\n" + crm_rows.SCHEMA.encode())
            for table, count in rows.counts.items():
                moved: list[bytes] = []
                for file in (old, new):
                    file.write(f"COPY public.{table} FROM stdin;\n".encode())
                for block in rows.blocks(table, 1, count + 1):
                    old.write(block)
                    if table in UPDATED:
                        new.writelines(split_off(block, moved))
                    else:
                        new.write(block)
                new.writelines(moved)
                if table in GROWING:
                    new.writelines(new_rows(rows, table))
                for file in (old, new):
                    file.write(b"\\.\n\n")
            for file in (old, new):
                file.write(crm_rows.KEYS.encode())


def new_rows(rows: Rows, table: str) -> Iterator[bytes]:
    """Return the rows that a day adds to `table`: 2 %."""
    count = rows.counts[table]
    return rows.blocks(table, count + 1, count + 1 + count // 50)


def split_off(block: bytes, moved: list[bytes]) -> Iterator[bytes]:
    """Yield the lines of `block` that stay; append the updated ones to `moved`."""
    for line in block.splitlines(keepends=True):
        row = int(line[: line.index(b"\t")])
        if row * 2654435761 % 1000003 % 100 == 7:
            moved.append(line[:-1] + f" updated {NIGHT} {row * 31 % 99991}\n".encode())
        else:
            yield line


def find_programs() -> Path | None:
    """Return the directory of initdb and its kin; Debian keeps it off PATH."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    return found[-1].parent if found else None


class Cluster:
    """A private PostgreSQL server; stopped and deleted at the end of the `with` block."""

    def __init__(self, programs: Path, data: Path) -> None:
        self.programs = programs
        self.data = data
        self.sockets = Path(tempfile.mkdtemp(prefix="pg-"))  # a socket's path is limited to 107
        self.account: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self.account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            os.chown(self.sockets, user.pw_uid, user.pw_gid)
        self.data.mkdir()
        if self.account:
            os.chown(self.data, self.account["user"], self.account["group"])

    def __enter__(self) -> Cluster:
        self._run("initdb", "-D", self.data, "-U", "crm", "-A", "trust", "-E", "UTF8",
                  "--locale=C", "--no-sync")  # fmt: skip
        options = " ".join(f"-c {key}={value}" for key, value in SETTINGS.items())
        options += f" -c unix_socket_directories={self.sockets}"
        self._run("pg_ctl", "-D", self.data, "-l", self.data / "log", "-w", "-o", options, "start")
        self._run("createdb", "-h", self.sockets, "-U", "crm", "crm")
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.data)
        shutil.rmtree(self.sockets)

    def _run(self, program: str, *arguments: object) -> None:
        subprocess.run(
            [str(self.programs / program), *map(str, arguments)],
            check=True, stdout=subprocess.DEVNULL, cwd="/", **self.account,
        )  # fmt: skip

    @contextmanager
    def _psql(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        command = [str(self.programs / "psql"), "-h", str(self.sockets), "-U", "crm", "-d", "crm"]
        command += ["-X", "-q", "-v", "ON_ERROR_STOP=1", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, cwd="/", **self.account)
        assert process.stdin is not None
        with process:
            yield process
            process.stdin.close()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)

    def sql(self, text: str) -> None:
        with self._psql("-f", "-") as process:
            assert process.stdin is not None
            process.stdin.write(text.encode())

    def copy(self, table: str, blocks: Iterable[bytes]) -> None:
        if table not in COUNTS:
            raise ValueError(table)
        with self._psql("-c", f"COPY {table} FROM STDIN") as process:
            assert process.stdin is not None
            for block in blocks:
                process.stdin.write(block)

    def dump(self, into: Path) -> None:
        """Write crm.sql and globals.sql, as a nightly job does."""
        where = ["-h", str(self.sockets), "-U", "crm"]
        for name, program, more in (
            ("crm.sql", "pg_dump", ["crm"]),
            ("globals.sql", "pg_dumpall", ["--globals-only", "-l", "crm"]),
        ):
            with open(into / name, "wb") as file:
                command = [str(self.programs / program), *where, *more]
                subprocess.run(command, check=True, stdout=file, cwd="/", **self.account)
