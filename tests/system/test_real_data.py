"""Real input: the standard library's source tree, dumps of a running PostgreSQL server.

Restored by the program and by tests/independent_reader.py, which shares no code with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees
from database_servers import PostgresServer, postgres_programs

import packstone

FILES, LARGEST = 3_000, 4 << 20
READER = Path(__file__).parent.parent / "independent_reader.py"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the standard library, without what is compiled and what is huge."""
    root = Path(sysconfig.get_path("stdlib"))
    copy = tmp_path_factory.mktemp("real") / "library"
    count = 0
    for directory, names, files in os.walk(root):
        names[:] = sorted(set(names) - {"__pycache__", "site-packages", "dist-packages"})
        target = copy / os.path.relpath(directory, root)
        target.mkdir(exist_ok=True)
        for name in sorted(files):
            path = Path(directory) / name
            if count < FILES and (path.is_symlink() or path.stat().st_size <= LARGEST):
                shutil.copy2(path, target / name, follow_symlinks=False)
                count += 1
    assert count > 500
    return copy


def independently(repository: packstone.Repository, snapshot: str, target: Path) -> None:
    """Restore a snapshot with the reader that was written from docs/format.md."""
    row = repository.find_snapshot(snapshot)
    done = subprocess.run(
        [sys.executable, READER, repository.location, row.id, target],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_source_tree_and_its_next_version(library: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(library, source, symlinks=True)
    packstone.init(tmp_path / "repository").close()
    ahead = lambda: time.time_ns() + 10_000_000_000  # noqa: E731 - files just made count as old
    with packstone.Repository(tmp_path / "repository", clock=ahead) as repository:
        first = repository.snapshot([source])
        assert first.errors == []
        files = sum(len(names) for _, _, names in os.walk(source))
        assert first.files_new == files
        assert first.bytes_stored < first.bytes_total / 2, "source code compresses"

        same = repository.snapshot([source])
        assert (same.files_unmodified, same.bytes_read, same.bytes_added) == (files, 0, 0)

        kept = tmp_path / "kept"
        shutil.copytree(source, kept, symlinks=True)
        edited = sorted(path for path in source.rglob("*.py") if path.stat().st_size)[::20]
        for at, path in enumerate(edited):
            text = path.read_bytes()
            path.write_bytes(text[: len(text) // 2] + b"# edited\n" * at + text[len(text) // 2 :])
        os.rename(source / "json", source / "json2")
        shutil.rmtree(source / "email")
        second = repository.snapshot([source])
        assert second.errors == []
        assert second.bytes_added < first.bytes_added / 5
        assert second.files_new == len(list((source / "json2").rglob("*.*")))

        for spec, expected in (("latest~2", kept), ("latest", source)):
            target = tmp_path / f"restored {spec}"
            assert repository.restore(spec, target, path=bytes(source)).errors == []
            assert_equal_trees(expected, target, top=False)
        independently(repository, "latest", tmp_path / "independent")
        assert_equal_trees(source, f"{tmp_path}/independent{source}", top=False, ignore=("holes",))
        assert repository.check(read_data=True).errors == []


def test_this_very_program(tmp_path: Path) -> None:
    """Binaries and links: the interpreter's own shared objects, as they are installed."""
    sources = sorted({Path(sys.executable).resolve(), *_shared_objects()})[:40]
    with packstone.init(tmp_path / "repository", chunk_size=32 << 10) as repository:
        result = repository.snapshot(sources)
        assert result.errors == []
        assert repository.restore("latest", tmp_path / "target").errors == []
        for path in sources:
            assert Path(f"{tmp_path}/target{path}").read_bytes() == path.read_bytes()


def _shared_objects() -> list[Path]:
    return [
        path.resolve()
        for path in Path(sysconfig.get_path("platstdlib")).glob("lib-dynload/*.so")
        if path.stat().st_size < 2 << 20
    ]


# -- PostgreSQL -----------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE companies (id int PRIMARY KEY, name text NOT NULL, country char(2), founded date);
CREATE TABLE contacts (
    id int PRIMARY KEY, company_id int REFERENCES companies, name text NOT NULL,
    email text UNIQUE, phone text, address jsonb, created timestamptz NOT NULL
);
CREATE TABLE deals (
    id int PRIMARY KEY, contact_id int REFERENCES contacts, amount numeric(12, 2),
    stage text, closed date, notes text
);
CREATE TABLE attachments (id int PRIMARY KEY, deal_id int REFERENCES deals, content bytea);
CREATE INDEX ON deals (stage, closed);
CREATE VIEW pipeline AS SELECT stage, sum(amount) AS amount FROM deals GROUP BY stage;

INSERT INTO companies SELECT n, 'Company ' || md5(n::text), chr(65 + n % 26) || chr(65 + n % 7),
    date '1950-01-01' + n % 25000 FROM generate_series(1, 2000) n;
INSERT INTO contacts SELECT n, 1 + n % 2000, 'Ada ' || substr(md5(n::text), 1, 8) || ' Ünïcödé ',
    n || '@example.org', '+49 ' || (n * 7919) % 10000000,
    jsonb_build_object('street', md5(n::text), 'zip', n % 99999, 'lines', E'a\\nb\\t'),
    timestamptz '2020-01-01 UTC' + n * interval '7 minutes' FROM generate_series(1, 60000) n;
INSERT INTO deals SELECT n, 1 + (n * 31) % 60000, (n * 7919 % 1000000) / 100.0,
    (ARRAY['lead', 'offer', 'won', 'lost'])[1 + n % 4], date '2021-01-01' + n % 1500,
    repeat(md5(n::text) || ' ', 1 + n % 4) FROM generate_series(1, 130000) n;
INSERT INTO attachments SELECT n, n, decode(repeat(md5(n::text), 20), 'hex')
    FROM generate_series(1, 3000) n;
"""
UPDATE = """
UPDATE contacts SET phone = 'moved ' || id WHERE id % 100 = 17;
UPDATE deals SET stage = 'won', amount = amount + 1 WHERE id % 100 = 42;
INSERT INTO deals SELECT n, 1, 1, 'lead', NULL, 'new' FROM generate_series(130001, 130500) n;
DELETE FROM attachments WHERE id % 100 = 3;
"""
TABLES = ("companies", "contacts", "deals", "attachments")


def sums(server: PostgresServer, database: str) -> dict[str, str]:
    """Return row count and checksum of every table, in the order of its keys."""
    return {
        table: server.sql(
            f"SELECT count(*), md5(string_agg(t::text, ',' ORDER BY id)) FROM {table} t",
            database,
        )
        for table in TABLES
    }


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    binaries = postgres_programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    place = Path(tempfile.mkdtemp(prefix="packstone-", dir="/tmp"))  # sockets have short paths
    try:
        server = PostgresServer(place, binaries)
        try:
            server.sql("CREATE DATABASE crm", "postgres")
            server.sql(SCHEMA)
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def dump(
    server: PostgresServer, repository: packstone.Repository, copy: Path
) -> packstone.SnapshotResult:
    """Store a dump through a command; `copy` receives the same bytes on their way."""
    words = server.argv("pg_dump", "crm")
    script = 'copy=$1; shift; set -o pipefail; "$@" | tee "$copy"'
    return repository.snapshot_command(["bash", "-c", script, "dump", str(copy), *words], "crm.sql")


def test_dumps_of_a_database(server: PostgresServer, tmp_path: Path) -> None:
    monday, tuesday = tmp_path / "monday", tmp_path / "tuesday"
    with packstone.init(tmp_path / "repository") as repository:
        first = dump(server, repository, monday)
        size = monday.stat().st_size
        assert first.bytes_total == first.bytes_read == size > 25 << 20
        assert first.bytes_stored < size / 2
        before = sums(server, "crm")
        server.sql(UPDATE)
        second = dump(server, repository, tuesday)
        assert second.parent_id == first.snapshot_id
        assert second.bytes_total == tuesday.stat().st_size != size
        after = sums(server, "crm")
        assert before["contacts"] != after["contacts"] and before["companies"] == after["companies"]

        for spec, original, expected in (("latest~1", monday, before), ("latest", tuesday, after)):
            target = tmp_path / f"restored {spec}"
            assert repository.restore(spec, target).errors == []
            restored = target / "crm.sql"
            assert restored.read_bytes() == original.read_bytes()
            independently(repository, spec, tmp_path / f"independent {spec}")
            assert (tmp_path / f"independent {spec}" / "crm.sql").read_bytes() == (
                original.read_bytes()
            )
            load(server, restored, expected)
        assert repository.check(read_data=True).errors == []


def load(server: PostgresServer, path: Path, expected: dict[str, str]) -> None:
    """Load a restored dump into a fresh database: the same rows, and they say the same."""
    server.sql("DROP DATABASE IF EXISTS fresh", "postgres")
    server.sql("CREATE DATABASE fresh", "postgres")
    with open(path, "rb") as file:
        done = subprocess.run(
            server.argv("psql", "fresh", "-X", "-q", "-v", "ON_ERROR_STOP=1"),
            stdin=file, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert sums(server, "fresh") == expected


def test_a_dump_that_fails(server: PostgresServer, tmp_path: Path) -> None:
    """A table that is gone, a server that hangs up: no snapshot of half a dump."""
    with packstone.init(tmp_path / "repository") as repository:
        for words in (["-t", "no_such_table"], ["--no-such-option"]):
            with pytest.raises(packstone.CommandFailed):
                repository.snapshot_command(server.argv("pg_dump", "crm", *words), "crm.sql")
        # Ended by the server in the middle of a table, while its reader is slow.
        script = 'set -o pipefail; "$@" | (head -c 2000000; sleep 1; cat)'
        words = ["bash", "-c", script, "slow", *server.argv("pg_dump", "crm")]
        timer = threading.Timer(0.5, lambda: end_dumps(server))
        timer.start()
        with pytest.raises(packstone.CommandFailed):
            repository.snapshot_command(words, "crm.sql")
        timer.join()
        assert repository.snapshots() == []


def end_dumps(server: PostgresServer) -> None:
    server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pg_dump'",
        "postgres",
    )
