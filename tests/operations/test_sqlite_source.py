"""SQLite as a source: a database as it is at one moment, also while another process writes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import packstone
from packstone.operations.jobs.load import load_job
from packstone.operations.jobs.sources import open_source, sqlite_pages
from packstone.operations.jobs.sources.sqlite_pages import read_pages
from packstone.operations.jobs.sources.store import StoredPart, store_parts
from packstone.operations.jobs.strategy import Job, RepositoryTarget, SqliteSource

SCHEMA = """
CREATE TABLE companies (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,
    founder INTEGER REFERENCES contacts DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE contacts (id INTEGER PRIMARY KEY, company INTEGER REFERENCES companies, name TEXT,
    first TEXT GENERATED ALWAYS AS (substr(name, 1, 3)) STORED, amount REAL, photo BLOB, loose);
CREATE TABLE pairs (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE INDEX by_name ON contacts (lower(name)) WHERE amount > 10;
CREATE VIEW happy AS SELECT id, name FROM contacts WHERE amount > 500;
CREATE VIRTUAL TABLE words USING fts5 (line);
CREATE TRIGGER touched AFTER UPDATE OF name ON contacts BEGIN
    INSERT INTO pairs VALUES (new.id, old.name || new.name); END;
PRAGMA user_version = 4711;
PRAGMA application_id = 1234;
"""


def fill(path: Path, rows: int = 4000) -> None:
    rng = Random(7)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO contacts (id, company, name, amount, photo, loose)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    n,
                    n % 50 + 1 if n % 11 else None,
                    f"Ada {rng.randbytes(8).hex()} Ünïcödé 🎈",
                    rng.random() * 1000,
                    rng.randbytes(rng.randrange(200)),
                    [None, "", "a\0b", 1 << 62, 0.1, b"\0\xff"][n % 6],
                )
                for n in range(1, rows + 1)
            ),
        )
        connection.executemany(
            "INSERT INTO companies (name, founder) VALUES (?, ?)",
            ((f"Company {n}", n) for n in range(1, 51)),
        )
        connection.executemany(
            "INSERT INTO words VALUES (?)", ((f"w{n} x{n % 7}",) for n in range(300))
        )


def contents(path: Path | str) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of all tables and views, the schema, and what stands in the header."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        found = {
            "schema": connection.execute("SELECT * FROM sqlite_master ORDER BY name").fetchall()
        }
        for _, name, _, _, _ in list(found["schema"]):
            if str(name).startswith("sqlite_autoindex") or str(name) in ("by_name", "touched"):
                continue
            found[str(name)] = sorted(
                connection.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr
            )
        for pragma in ("user_version", "application_id", "encoding", "page_size"):
            found[pragma] = connection.execute(f"PRAGMA {pragma}").fetchall()
    return found


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[packstone.Repository]:
    with packstone.init(tmp_path / "repository", chunk_size=32 << 10) as repository:
        yield repository


def job_of(*files: Path) -> Job:
    return Job(
        name="crm",
        repository=RepositoryTarget(name="r", location="r"),
        source=SqliteSource(files=[str(file) for file in files]),
    )


def store(repository: packstone.Repository, *files: Path) -> list[StoredPart]:
    return list(store_parts(repository, open_source(job_of(*files).source), tags=["job:crm"]))


@pytest.mark.parametrize("mode", ["delete", "wal", "truncate", "persist"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_two_nights_and_both_played_back(
    repository: packstone.Repository, tmp_path: Path, mode: str, page_size: int
) -> None:
    path = tmp_path / "crm.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA page_size = {page_size}")
        connection.execute(f"PRAGMA journal_mode = {mode}")
    fill(path)
    (first,) = store(repository, path)
    assert first.error is None and first.name == "crm.db" and first.result is not None
    monday = contents(path)

    keep = sqlite3.connect(path)  # so that the log stays
    with keep:
        keep.execute("UPDATE contacts SET name = 'moved', photo = NULL WHERE id % 400 = 17")
        keep.execute("INSERT INTO contacts (id, name) VALUES (99999, 'new')")
    assert mode != "wal" or os.path.getsize(f"{path}-wal")
    (second,) = store(repository, path)
    assert second.result is not None
    assert second.result.parent_id == first.result.snapshot_id
    tuesday = contents(path)
    assert monday != tuesday
    keep.close()
    assert second.result.bytes_stored < first.result.bytes_stored / 8

    for spec, expected in (("latest~1", monday), ("latest", tuesday)):
        target = tmp_path / f"restored {spec}"
        (loaded,) = load_job(repository, job_of(path), str(target), snapshot=spec)
        assert loaded.bytes_loaded == target.stat().st_size
        assert target.stat().st_mode & 0o077 == 0
        assert contents(target) == expected


def test_an_unchanged_database_is_unmodified(
    repository: packstone.Repository, tmp_path: Path
) -> None:
    fill(tmp_path / "crm.db")
    store(repository, tmp_path / "crm.db")
    (again,) = store(repository, tmp_path / "crm.db")
    assert again.result is not None
    assert (again.result.files_unmodified, again.result.chunks_new) == (1, 0)


# -- while others write ----------------------------------------------------------------------

_WRITER = """
import random, sqlite3, sys, time
path, seed, pause = sys.argv[1:]
rng = random.Random(seed)
connection = sqlite3.connect(path, timeout=60, isolation_level=None)
connection.execute("PRAGMA synchronous = OFF")
connection.execute(f"PRAGMA wal_autocheckpoint = {rng.choice([1, 5, 50, 1000])}")
connection.execute("PRAGMA cache_spill = 2")
connection.execute("PRAGMA cache_size = 10")  # pages go to the log before a transaction ends
while True:
    connection.execute("BEGIN IMMEDIATE")
    a, b = rng.randrange(400), rng.randrange(400)
    connection.execute("UPDATE account SET money = money - 7, pad = ? WHERE id = ?",
                       (rng.randbytes(rng.randrange(600)), a))
    if rng.random() < 0.1:
        connection.execute("UPDATE account SET pad = randomblob(700) WHERE id % 4 = ?", (a % 4,))
    connection.execute("UPDATE account SET money = money + 7 WHERE id = ?", (b,))
    connection.execute("UPDATE count SET n = n + 1")
    if rng.random() < 0.2:
        connection.execute("DELETE FROM heap WHERE id IN (SELECT id FROM heap LIMIT 30)")
    else:
        connection.execute("INSERT INTO heap (x) VALUES (randomblob(?))", (rng.randrange(3000),))
    connection.execute("ROLLBACK" if rng.random() < 0.1 else "COMMIT")
    time.sleep(float(pause))  # without a log a reader finds no gap between busy writers
    if rng.random() < 0.05:
        mode = rng.choice(["PASSIVE", "FULL", "RESTART", "TRUNCATE"])
        connection.execute("PRAGMA busy_timeout = 20")
        connection.execute(f"PRAGMA wal_checkpoint({mode})")
        connection.execute("PRAGMA busy_timeout = 60000")
"""


def accounts(path: Path, mode: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.executescript(
            "CREATE TABLE account (id INTEGER PRIMARY KEY, money INTEGER, pad BLOB);"
            "CREATE TABLE count (n INTEGER); INSERT INTO count VALUES (0);"
            "CREATE TABLE heap (id INTEGER PRIMARY KEY, x BLOB); CREATE INDEX xs ON heap (x);"
        )
        with connection:
            connection.executemany(
                "INSERT INTO account VALUES (?, 1000, randomblob(300))", ((n,) for n in range(400))
            )


def check_accounts(path: Path) -> int:
    """Require a sound database in which no transaction is there by half; return their number."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT sum(money), count(*) FROM account").fetchall() == [
            (400_000, 400)
        ]
        return int(connection.execute("SELECT n FROM count").fetchone()[0])


@contextmanager
def writers(path: Path, count: int, pause: float) -> Iterator[None]:
    processes = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(number), str(pause)])
        for number in range(count)
    ]
    try:
        yield
        assert all(process.poll() is None for process in processes), "a writer came to its end"
    finally:
        for process in processes:
            process.kill()
            process.wait()


def dump(path: Path, target: Path, pause: float) -> None:
    """Read with the program itself, pausing after each piece as a busy store does."""
    words = [sys.executable, "-I", sqlite_pages.__file__, path]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process, open(target, "wb") as file:
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 17):
            file.write(piece)
            time.sleep(pause)
    assert process.returncode == 0


@pytest.mark.parametrize(("mode", "rounds", "pause"), [("wal", 40, 0.0), ("delete", 8, 0.02)])
def test_a_writer_going_on(tmp_path: Path, mode: str, rounds: int, pause: float) -> None:
    path = tmp_path / "crm.db"
    accounts(path, mode)
    seen = []
    with writers(path, 2, pause):
        time.sleep(0.5)
        for number in range(rounds):
            target = tmp_path / "copy"
            dump(path, target, 0.0 if number % 3 else 0.02)
            seen.append(check_accounts(target))
            target.unlink()
    assert seen == sorted(seen)
    assert len(set(seen)) > rounds / 2, "the writers went on meanwhile"


def blocks_after(path: Path, meanwhile: list[str]) -> bytes:
    """Read a database; after the moment is fixed, let another process do something to it."""
    pages = read_pages(str(path))
    first = next(pages)  # the transaction is open, the log was looked at
    script = (
        "import sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], timeout=0.05, isolation_level=None)\n"
        "c.execute('PRAGMA wal_autocheckpoint = 0')\n"
        "for statement in sys.argv[2:]:\n"
        "    c.execute(statement).fetchall()\n"
    )
    subprocess.run([sys.executable, "-c", script, path, *meanwhile], check=True)
    return first + b"".join(pages)


STEPS = [
    "PRAGMA wal_checkpoint(PASSIVE)",
    "PRAGMA wal_checkpoint(RESTART)",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "UPDATE big SET x = randomblob(2000) WHERE id % 3 = 0",
    "UPDATE big SET x = randomblob(2000)",
    "INSERT INTO big (x) SELECT randomblob(2000) FROM big LIMIT 100",
    "DELETE FROM big WHERE id % 2 = 0",
    "VACUUM",
]


@settings(max_examples=25)
@given(
    before=st.lists(st.sampled_from(STEPS), max_size=4),
    meanwhile=st.lists(st.sampled_from(STEPS), max_size=5),
)
def test_nothing_that_happens_later_is_seen(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], meanwhile: list[str]
) -> None:
    """Checkpoints, a log begun anew or cut, a vacuum: the moment stays what it was."""
    path = tmp_path_factory.mktemp("log") / "crm.db"
    keep = sqlite3.connect(path, isolation_level=None)  # so that the log is not put away
    keep.execute("PRAGMA journal_mode = wal")
    keep.execute("PRAGMA wal_autocheckpoint = 0")
    keep.execute("CREATE TABLE big (id INTEGER PRIMARY KEY, x BLOB)")
    keep.execute(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1500)"
        " INSERT INTO big (x) SELECT randomblob(2000) FROM n"
    )
    for statement in before:
        keep.execute(statement).fetchall()
    expected = keep.execute("SELECT id, x FROM big").fetchall()
    image = blocks_after(path, meanwhile)
    keep.close()
    copy = path.parent / "copy"
    copy.write_bytes(image)
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("SELECT id, x FROM big").fetchall() == expected


def test_it_is_what_the_backup_interface_of_sqlite_makes(tmp_path: Path) -> None:
    path = tmp_path / "crm.db"
    fill(path)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(":memory:")) as memory:
        source.backup(memory)
        ours, theirs = bytearray(b"".join(read_pages(str(path)))), bytearray(memory.serialize())
    for start, end in ((24, 28), (40, 44), (92, 100)):  # counters of changes: a backup is one
        ours[start:end] = theirs[start:end] = bytes(end - start)
    assert ours == theirs


# -- what goes wrong -------------------------------------------------------------------------


def test_a_writer_that_was_killed(repository: packstone.Repository, tmp_path: Path) -> None:
    """A hot journal: what stands in the file is half a transaction, which SQLite takes back."""
    path = tmp_path / "crm.db"
    accounts(path, "delete")
    script = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute('PRAGMA cache_size = 2')\n"
        "c.execute('BEGIN EXCLUSIVE')\n"
        "c.execute('UPDATE account SET money = 0, pad = randomblob(900)')\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, path])
    assert os.path.getsize(f"{path}-journal")
    (part,) = store(repository, path)
    assert part.error is None
    load_job(repository, job_of(path), str(tmp_path / "restored"))
    check_accounts(tmp_path / "restored")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"no database at all " * 100, "not a database")],
)
def test_no_database(
    repository: packstone.Repository, tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "crm.db"
    if content is not None:
        path.write_bytes(content)
    fill(tmp_path / "other.db", 10)
    wrong, right = store(repository, path, tmp_path / "other.db")
    assert isinstance(wrong.error, packstone.CommandFailed) and message in wrong.error.message
    assert right.error is None
    assert path.exists() == (content is not None)
    assert len(repository.snapshots()) == 1


def test_an_empty_database(repository: packstone.Repository, tmp_path: Path) -> None:
    (tmp_path / "crm.db").touch()
    (part,) = store(repository, tmp_path / "crm.db")
    assert part.error is None
    load_job(repository, job_of(tmp_path / "crm.db"), str(tmp_path / "restored"))
    assert (tmp_path / "restored").read_bytes() == b""


def test_files_of_one_name(repository: packstone.Repository, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name / "crm.db", 10)
    fill(tmp_path / "c.db", 10)
    parts = store(
        repository, tmp_path / "a" / "crm.db", tmp_path / "b" / "crm.db", tmp_path / "c.db"
    )
    assert all(part.error is None for part in parts)
    assert len({part.name for part in parts}) == 3 and parts[2].name == "c.db"
    with pytest.raises(packstone.UsageError):
        store(repository, tmp_path / "c.db", tmp_path / "c.db")


def test_a_link_and_an_odd_name(repository: packstone.Repository, tmp_path: Path) -> None:
    path = tmp_path / "a?b#c%20d ü.db"
    fill(path, 100)
    keep = sqlite3.connect(path)
    keep.execute("PRAGMA journal_mode = wal")
    with keep:
        keep.execute("DELETE FROM contacts WHERE id > 5")
    link = tmp_path / "link.db"
    link.symlink_to(path)
    (part,) = store(repository, link)
    assert part.error is None
    load_job(repository, job_of(link), str(tmp_path / "restored"))
    assert len(contents(tmp_path / "restored")["contacts"]) == 5
    keep.close()


def test_a_target_that_is_not_empty(repository: packstone.Repository, tmp_path: Path) -> None:
    path, target = tmp_path / "crm.db", tmp_path / "target.db"
    fill(path, 100)
    store(repository, path)
    target.write_bytes(b"mine")
    with pytest.raises(packstone.UsageError, match="exists"):
        load_job(repository, job_of(path), str(target))
    assert target.read_bytes() == b"mine"
    for ending in ("-journal", "-wal"):
        beside = tmp_path / f"target.db{ending}"
        beside.write_bytes(b"would be played in")
        with pytest.raises(packstone.UsageError, match=ending):
            load_job(repository, job_of(path), str(target), overwrite=True)
        beside.unlink()
    assert load_job(repository, job_of(path), str(target), overwrite=True)
    assert contents(target) == contents(path)
    assert sorted(name for name in os.listdir(tmp_path) if "target" in name) == ["target.db"]


def test_a_place_that_cannot_be_written(repository: packstone.Repository, tmp_path: Path) -> None:
    fill(tmp_path / "crm.db", 100)
    store(repository, tmp_path / "crm.db")
    with pytest.raises(packstone.CommandFailed, match="cannot write"):
        load_job(repository, job_of(tmp_path / "crm.db"), str(tmp_path / "nowhere" / "x.db"))
