"""What options of dump clients cost: bytes stored for a first and a second night of one table.

    .venv/bin/python bench/databases.py [--rows 150000] [postgres mariadb sqlite]

Between the nights 1 % of the rows change, all over the table, 2 % are added and 0.1 % deleted.
The servers are private ones, as the tests start them. The figures of docs/databases.md.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from database_servers import (
    MariadbServer,
    PostgresServer,
    mariadb_programs,
    place_for_server,
    postgres_programs,
)
from measure import run

import packstone
from packstone.operations.jobs.sources import mariadb, open_source, sqlite_pages
from packstone.operations.jobs.sources.client import ClientPouring
from packstone.operations.jobs.sources.store import store_parts
from packstone.operations.jobs.strategy import SqliteSource

POSTGRES_ROWS = """SELECT n, n % 5000, 'Ada ' || md5(n::text), n || '@example.org',
    (n::bigint * 7919) % 10000000, repeat(md5((n * 3)::text) || ' ', 1 + n % 4),
    CASE n % 20 WHEN 0 THEN decode(repeat(md5((n * 5)::text) || md5((n * 11)::text), 8), 'hex')
    END, timestamptz '2020-01-01 UTC' + n * interval '7 min' FROM generate_series({}, {}) n;"""
MARIADB_ROWS = """SELECT seq, seq % 5000, concat('Ada ', md5(seq)), concat(seq, '@example.org'),
    (seq * 7919) % 10000000, repeat(concat(md5(seq * 3), ' '), 1 + seq % 4),
    if(seq % 20, null, unhex(repeat(concat(md5(seq * 5), md5(seq * 11)), 8))),
    timestamp '2020-01-01 00:00:00' + interval seq * 7 minute FROM seq_{}_to_{};"""


def store(repository: packstone.Repository, argv: list[str]) -> packstone.SnapshotResult:
    pouring = ClientPouring(argv)
    try:
        return repository.snapshot_stream(pouring.stream, "crm.sql", finish=pouring.finish)
    finally:
        pouring.close()


def output(argv: list[str]) -> bytes:
    return subprocess.run(argv, stdout=subprocess.PIPE, check=True).stdout


def compare(scratch: Path, variants: dict[str, list[str]], change: Callable[[], object]) -> None:
    """Store both nights of every variant in a repository of its own, and print a row each."""
    nights = {}
    for number, (name, argv) in enumerate(variants.items()):
        repository = packstone.init(scratch / f"repository-{number}")
        nights[name] = repository, store(repository, argv), set(output(argv).splitlines())
    change()
    for name, argv in variants.items():
        repository, first, lines = nights[name]
        changed = sum(len(line) + 1 for line in set(output(argv).splitlines()) - lines)
        second = store(repository, argv)
        print(
            f"{name:36} dump {first.bytes_total / 1e6:5.1f} MB, first night"
            f" {first.bytes_stored / 1e6:5.2f}, second {second.bytes_stored / 1e6:5.2f}"
            f" (lines new or changed {changed / 1e6:.2f})",
            flush=True,
        )
        repository.close()


def postgres(scratch: Path, rows: int) -> None:
    programs = postgres_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed")
    with place_for_server() as place:
        server = PostgresServer(place, programs)
        try:
            server.sql("CREATE DATABASE crm", "postgres")
            server.sql(
                "CREATE TABLE contacts (id int PRIMARY KEY, company int, name text, email text"
                " UNIQUE, phone text, note text, photo bytea, seen timestamptz);"
                "INSERT INTO contacts " + POSTGRES_ROWS.format(1, rows)
            )
            plain = server.argv("pg_dump", "crm", "-w")
            variants = {
                "plain, as Packstone does": [*plain, "--format=plain"],
                "--inserts": [*plain, "--inserts"],
                "--format=custom": [*plain, "--format=custom"],
            }
            compare(
                scratch,
                variants,
                lambda: server.sql(
                    "UPDATE contacts SET phone = 'moved ' || id,"
                    " note = left(note, 20) || ' called ' || id::bigint * 31 % 9991"
                    " WHERE (id::bigint * 2654435761 % 1000003) % 100 = 7;"
                    "DELETE FROM contacts WHERE (id::bigint * 104729 % 1000003) % 1000 = 3;"
                    "INSERT INTO contacts " + POSTGRES_ROWS.format(rows + 1, rows + rows // 50)
                ),
            )
        finally:
            server.stop()


def maria(scratch: Path, rows: int) -> None:
    programs = mariadb_programs()
    if programs is None:
        raise SystemExit("MariaDB is not installed")
    with place_for_server() as place:
        server = MariadbServer(place, programs)
        try:
            server.sql("CREATE DATABASE crm CHARACTER SET utf8mb4", "")
            server.sql(
                "CREATE TABLE contacts (id int PRIMARY KEY, company int, name varchar(80),"
                " email varchar(60) UNIQUE, phone varchar(30), note text, photo blob,"
                " seen timestamp NULL);"
                "INSERT INTO contacts " + MARIADB_ROWS.format(1, rows)
            )
            login = ["--no-defaults", f"--socket={server.socket}", "--user=crm"]
            base = [str(programs["mariadb-dump"]), *login, *mariadb._OPTIONS, "--", "crm"]
            variants = {"as Packstone does": base}
            for option in ("--skip-extended-insert", "--order-by-primary", "--hex-blob"):
                variants[f"without {option}"] = [word for word in base if word != option]
            dumps = {"as Packstone does": base}
            dumps["without --skip-extended-insert"] = variants["without --skip-extended-insert"]
            played = {name: output(argv) for name, argv in dumps.items()}
            compare(
                scratch,
                variants,
                lambda: server.sql(
                    "UPDATE contacts SET phone = concat('moved ', id),"
                    " note = concat(left(note, 20), ' called ', id * 31 % 9991)"
                    " WHERE (id * 2654435761 % 1000003) % 100 = 7;"
                    "DELETE FROM contacts WHERE (id * 104729 % 1000003) % 1000 = 3;"
                    "INSERT INTO contacts " + MARIADB_ROWS.format(rows + 1, rows + rows // 50)
                ),
            )
            for name, dump in played.items():
                server.sql("DROP DATABASE IF EXISTS played; CREATE DATABASE played", "")
                client = [str(programs["mariadb"]), *login, "--binary-mode", "played"]
                begin = time.perf_counter()
                subprocess.run(client, input=dump, check=True)
                print(f"{name:36} played back in {time.perf_counter() - begin:.1f} s", flush=True)
        finally:
            server.stop()


def lite(scratch: Path, rows: int) -> None:
    seeded = random.Random(1)

    def row(n: int) -> tuple[object, ...]:
        photo = seeded.randbytes(256) if n % 20 == 0 else None
        note = (seeded.randbytes(16).hex() + " ") * (1 + n % 4)
        name = "Ada " + seeded.randbytes(16).hex()
        return n, n % 5000, name, f"{n}@example.org", n * 7919 % 10_000_000, note, photo, n * 420

    file = scratch / "crm.db"
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = wal")
    connection.execute(
        "CREATE TABLE contacts (id integer PRIMARY KEY, company, name, email UNIQUE, phone, note,"
        " photo, seen)"
    )
    insert = "INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    with connection:
        connection.executemany(insert, map(row, range(1, rows + 1)))
    source = open_source(SqliteSource(files=[str(file)]))
    with packstone.init(scratch / "repository") as repository:
        (first,) = store_parts(repository, source)
        with connection:
            connection.execute(
                "UPDATE contacts SET phone = 'moved ' || id,"
                " note = substr(note, 1, 20) || ' called ' || id * 31 % 9991"
                " WHERE (id * 2654435761 % 1000003) % 100 = 7"
            )
            connection.execute("DELETE FROM contacts WHERE (id * 104729 % 1000003) % 1000 = 3")
            connection.executemany(insert, map(row, range(rows + 1, rows + rows // 50 + 1)))
        (second,) = store_parts(repository, source)
    connection.close()
    assert first.result is not None and second.result is not None
    reader = [sys.executable, "-I", sqlite_pages.__file__, str(file)]
    memory = run(
        reader, env=os.environ, cwd=scratch, log=scratch / "log", sample_anonymous=True
    ).anon
    print(
        f"{'SQLite, write-ahead log':36} file {first.result.bytes_total / 1e6:5.1f} MB, first night"
        f" {first.result.bytes_stored / 1e6:5.2f}, second {second.result.bytes_stored / 1e6:5.2f};"
        f" read in {memory / 1e6:.0f} MB of anonymous memory"
    )


PARTS = {"postgres": postgres, "mariadb": maria, "sqlite": lite}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS))
    parser.add_argument("--rows", type=int, default=150_000)
    arguments = parser.parse_args()
    for name in arguments.parts or PARTS:
        with tempfile.TemporaryDirectory(prefix="packstone-databases-") as scratch:
            PARTS[name](Path(scratch), arguments.rows)


if __name__ == "__main__":
    main()
