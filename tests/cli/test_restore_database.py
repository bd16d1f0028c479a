"""`packstone restore --job NAME --to-database TARGET`, with the strategy that stored the dump."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Packstone

STRATEGY = """
[repositories.main]
location = "{place}/store"

[repositories.copies]
location = "{place}/copies"

[jobs.tickets]
repository = "main"
copy_to = ["copies"]
sqlite = {{ files = ["{place}/tickets.db", "{place}/other.db"] }}

[jobs.words]
repository = "main"

[jobs.words.command]
argv = ["cat", "{place}/words"]
name = "words.txt"
load = ["sh", "-c", "cat > $0", "{{target}}"]

[jobs.files]
repository = "main"
paths = ["{place}/words"]
"""


def fill(path: Path, rows: list[int]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS t (n)")
        connection.executemany("INSERT INTO t VALUES (?)", [(row,) for row in rows])


def rows_of(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT n FROM t")]


@pytest.fixture
def stored(run: Packstone, store: Path) -> Packstone:
    """Two nights of two databases, and a command's output."""
    place = run.directory
    run("init", "--plain", "--like", store, place / "copies")
    (place / "packstone.toml").write_text(STRATEGY.format(place=place))
    (place / "packstone.toml").chmod(0o600)
    (place / "words").write_text("words\n")
    fill(place / "other.db", [7])
    for night in (1, 2):
        fill(place / "tickets.db", [night])
        run("run", "tickets", "words", "files")
    run.environment.pop("PACKSTONE_REPO")
    return run


def test_the_newest_an_older_and_one_by_its_id(stored: Packstone) -> None:
    place = stored.directory
    words = ("restore", "--job", "tickets", "--to-database")
    told = stored(*words, place / "new.db", "--part", "tickets.db").text
    assert told.startswith("tickets.db of ") and f" is in {place}/new.db: " in told
    assert rows_of(place / "new.db") == [1, 2]
    stored(*words, place / "old.db", "--part", "tickets.db", "latest~1")
    assert rows_of(place / "old.db") == [1]
    rows = stored("snapshots", "-r", place / "store", "--tag", "job:tickets", "--json").json
    first = next(row for row in rows if row["name"] == "tickets.db")
    stored(*words, place / "by id.db", first["id"][:12])  # an id says which part
    assert rows_of(place / "by id.db") == [1]
    found = stored(*words, place / "at.db", "--part", "tickets.db", "--at", first["time"], "--json")
    assert rows_of(place / "at.db") == [1]
    (part,) = found.json["parts"]
    assert part["snapshot_id"] == first["id"] and part["part"] == "tickets.db"
    assert part["bytes"] == found.json["bytes"] == (place / "at.db").stat().st_size


def test_from_a_copy_when_the_first_is_lost(stored: Packstone) -> None:
    place = stored.directory
    shutil.rmtree(place / "store")
    words = ("restore", "--job", "tickets", "--part", "other.db", "--to-database")
    stored(*words, place / "new.db", code=10)
    stored(*words, place / "new.db", "--from", "copies")
    assert rows_of(place / "new.db") == [7]
    assert "main, copies" in stored(*words, place / "x.db", "--from", "usb", code=2).messages


def test_a_newer_dump_that_cannot_be_read_is_said(stored: Packstone) -> None:
    place = stored.directory
    rows = stored("snapshots", "-r", place / "store", "--tag", "job:tickets", "--json").json
    newest = [row for row in rows if row["name"] == "tickets.db"][-1]["id"]
    path = place / "store" / "snapshots" / newest
    path.chmod(0o600)
    path.write_bytes(bytes(path.stat().st_size))
    words = ("restore", "--job", "tickets", "--part", "tickets.db", "--to-database")
    done = stored(*words, place / "new.db")
    assert rows_of(place / "new.db") == [1], "the one before it"
    assert "warning: " in done.messages and newest[:8] in done.messages


def test_a_command_takes_its_output_back(stored: Packstone) -> None:
    stored("restore", "--job", "words", "--to-database", stored.directory / "back")
    assert (stored.directory / "back").read_text() == "words\n"


MISTAKES: list[tuple[list[str], str]] = [
    (["--job", "tickets"], "go together"),
    (["--to-database", "x"], "go together"),
    (["--job", "tickets", "--to-database", "x"], "--part"),
    (["--job", "tickets", "--to-database", "x", "--part", "y.db"], "tickets.db, other.db"),
    (["--job", "nothing", "--to-database", "x"], "tickets"),
    (["--job", "files", "--to-database", "x"], "files and directories"),
    (["--job", "words", "--to-database", "x", "--roles"], "no roles"),
    (["--job", "words", "--to-database", "x", "--target", "y"], "no options of files"),
    (["--job", "words", "--to-database", "x", "--overwrite", "changed"], "always"),
    (["--job", "words", "--to-database", "x", "--host", "elsewhere"], "no dump"),
    (["--job", "words", "--to-database", "x", "--at", "2001-01-01"], "no dump"),
    (["--job", "words", "--to-database", "x", "ffff"], "ffff"),
    (["latest", "--target", "x", "--roles"], "--to-database"),
    (["--target", "x"], "no snapshot"),
]


def test_what_cannot_be_meant(stored: Packstone) -> None:
    before = set(stored.directory.iterdir())
    for words, message in MISTAKES:
        assert message in stored("restore", *words, code=2).messages
    assert set(stored.directory.iterdir()) == before


def test_a_target_that_is_there(stored: Packstone) -> None:
    place = stored.directory
    fill(place / "mine.db", [99])
    words = (
        "restore",
        "--job",
        "tickets",
        "--part",
        "other.db",
        "--to-database",
        place / "mine.db",
    )
    assert "exists" in stored(*words, code=2).messages
    assert rows_of(place / "mine.db") == [99]
    stored(*words, "--overwrite", "always")
    assert rows_of(place / "mine.db") == [7]


def test_damage_is_never_played_back(stored: Packstone) -> None:
    place = stored.directory
    for pack in (place / "store" / "packs").glob("*/*"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 100 :] = bytes(len(data) - len(data) // 100)
        pack.chmod(0o600)
        pack.write_bytes(data)
    words = ("restore", "--job", "words", "--to-database", place / "back")
    assert stored(*words, code=None).code in (13, 14)
    assert not (place / "back").exists() or (place / "back").read_bytes() != b"words\n"
