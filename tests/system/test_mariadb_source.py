"""MariaDB as a source: stored, changed, stored, played back into an empty database."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from database_servers import MariadbServer, mariadb_programs, place_for_server

import packstone
from packstone.operations.jobs.load import load_job
from packstone.operations.jobs.sources import open_source
from packstone.operations.jobs.sources.store import StoredPart, store_parts
from packstone.operations.jobs.strategy import Job, MariadbSource, RepositoryTarget

SCHEMA = """
CREATE TABLE companies (id int AUTO_INCREMENT PRIMARY KEY, name varchar(60) NOT NULL, founder int)
    ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE contacts (
    id int PRIMARY KEY, company int, name varchar(200) CHARACTER SET utf8mb4,
    old varchar(200) CHARACTER SET latin1, born date, seen timestamp(6) NULL, local datetime(3),
    mood enum('sad', 'ok', 'happy'), flags set('a', 'b', 'c'), rest json,
    first varchar(200) GENERATED ALWAYS AS (substring_index(name, ' ', 1)) STORED,
    twice int GENERATED ALWAYS AS (id * 2) VIRTUAL,
    CONSTRAINT company FOREIGN KEY (company) REFERENCES companies (id), KEY (born)
) ENGINE=InnoDB;
CREATE TABLE `sélect ``x` (
    id bigint unsigned PRIMARY KEY, raw varbinary(300), large longblob, exact decimal(40, 20),
    real8 double, real4 float, bits bit(13), t time(6), y year, shape point, net inet6, `a b` text
);
CREATE TABLE empty (id int PRIMARY KEY);
CREATE TABLE no_key (line text);
CREATE TABLE parts (id int, kind int, PRIMARY KEY (id, kind)) PARTITION BY HASH (kind) PARTITIONS 3;
CREATE SEQUENCE numbers START WITH 1000 INCREMENT BY 7 NOCACHE;
CREATE VIEW happy AS SELECT id, name, shout(name) AS loud FROM contacts WHERE mood = 'happy';
CREATE VIEW above AS SELECT count(*) AS n FROM happy;
"""
ROUTINES = """
DELIMITER ;;
CREATE FUNCTION shout(words varchar(200)) RETURNS varchar(210) DETERMINISTIC
BEGIN RETURN concat(upper(words), '\\n;!'); END;;
CREATE PROCEDURE fill(many int) BEGIN INSERT INTO empty VALUES (many); END;;
DELIMITER ;
"""
ROWS = """
INSERT INTO companies (name) SELECT concat('Company ', md5(seq)) FROM seq_1_to_500;
INSERT INTO contacts (id, company, name, old, born, seen, local, mood, flags, rest)
    SELECT seq, if(seq % 11, 1 + seq % 500, NULL), concat('Ada ', md5(seq), ' Ünïcödé 🎈'),
    concat('Größe ', seq), date '1950-01-01' + INTERVAL seq % 25000 DAY,
    timestamp '2020-03-29 00:30:00' + INTERVAL seq * 13 MINUTE,
    timestamp '2020-03-29 00:30:00' + INTERVAL seq * 13.5 SECOND, 1 + seq % 3, seq % 8,
    json_object('k', concat('\\t\\n\\\\', seq), 'n', seq / 7) FROM seq_1_to_6000;
UPDATE companies SET founder = 1 + id * 7;
ALTER TABLE companies ADD CONSTRAINT founder FOREIGN KEY (founder) REFERENCES contacts (id);
INSERT INTO `sélect ``x` SELECT seq, unhex(concat(md5(seq), '00ff5c0a0d1a27')),
    repeat(unhex(concat(md5(seq), 'ff00')), 20), seq * 1e15 + 0.00000000000000000001,
    exp(seq / 100), seq / 3, seq, sec_to_time(seq * 7.5), 1990 + seq % 50, point(seq, seq / 3),
    concat('2001:db8::', seq % 256),
    elt(1 + seq % 6, NULL, '', 'NULL', '\\\\N', '\\r\\n\\t', '''; -- "\\\\')
    FROM seq_1_to_2000;
INSERT INTO parts SELECT seq, seq % 5 FROM seq_1_to_1000;
INSERT INTO no_key SELECT repeat('same ', 10) FROM seq_1_to_50;
INSERT INTO `sélect ``x` (id, real8) VALUES (18446744073709551615, 2.2250738585072014e-308);
SELECT setval(numbers, 123457);
"""
TRIGGER = """
DELIMITER ;;
CREATE TRIGGER touched BEFORE UPDATE ON contacts FOR EACH ROW
BEGIN SET NEW.old = concat('old ', OLD.id); SET NEW.flags = 'b'; END;;
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY STARTS '2020-01-01 02:00:00' DO
BEGIN DELETE FROM no_key; DELETE FROM empty; END;;
DELIMITER ;
"""
CHANGES = """
UPDATE contacts SET rest = json_set(rest, '$.moved', true) WHERE id % 100 = 17;
INSERT INTO contacts (id, name) SELECT seq, 'new' FROM seq_6001_to_6100;
DELETE FROM parts WHERE id % 100 = 3;
UPDATE `sélect ``x` SET raw = concat(raw, unhex('00')) WHERE id % 100 = 9;
INSERT INTO companies (name) VALUES ('one more');
SELECT nextval(numbers);
"""
TABLES = ("companies", "contacts", "`sélect ``x`", "empty", "no_key", "parts", "happy", "above")


def contents(server: MariadbServer, database: str) -> dict[str, str]:
    """Return all rows of every table and view, and what the catalog says of everything."""
    found = {}
    for table in TABLES:
        plain = table.strip("`").replace("``", "`").replace("'", "''")
        columns = server.sql(
            "SELECT group_concat(concat('hex(`', replace(column_name, '`', '``'), '`)')"
            " ORDER BY ordinal_position) FROM information_schema.columns"
            f" WHERE table_schema = '{database}' AND table_name = '{plain}'",
            database,
        ).strip()
        found[table] = (
            server.sql(f"SELECT {columns} FROM {table} ORDER BY 1, 2", database)
            if ("," in columns)
            else server.sql(f"SELECT {columns} FROM {table} ORDER BY 1", database)
        )
        found[f"{table} made"] = server.sql(f"SHOW CREATE TABLE {table}", database)
    found["real"] = server.sql(
        "SELECT id, real8, real4, exact FROM `sélect ``x` ORDER BY 1", database
    )
    found["sequence"] = server.sql(
        "SELECT nextval(numbers); SHOW CREATE SEQUENCE numbers", database
    )
    for kind, name in (("FUNCTION", "shout"), ("PROCEDURE", "fill"), ("TRIGGER", "touched"),
                       ("EVENT", "nightly")):  # fmt: skip
        made = server.sql(f"SHOW CREATE {kind} {name}", database)
        # when a trigger was made is not in a dump
        found[name] = made.rsplit("\t", 1)[0] if kind == "TRIGGER" else made
    return {name: text.replace(f"`{database}`.", "") for name, text in found.items()}


@pytest.fixture(scope="module")
def server() -> Iterator[MariadbServer]:
    programs = mariadb_programs()
    if programs is None:
        pytest.skip("MariaDB is not installed")
    with place_for_server() as place:
        server = MariadbServer(place, programs)
        try:
            server.sql("CREATE DATABASE crm CHARACTER SET utf8mb4", "")
            server.sql(ROUTINES)
            server.sql(SCHEMA)
            server.sql(ROWS)
            server.sql(TRIGGER)
            yield server
        finally:
            server.stop()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MYSQL_PWD", raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[packstone.Repository]:
    with packstone.init(tmp_path / "repository", chunk_size=32 << 10) as repository:
        yield repository


def source_of(server: MariadbServer, *databases: str) -> MariadbSource:
    return MariadbSource(databases=databases or ("crm",), socket=server.socket, user="crm")


def job_of(source: MariadbSource) -> Job:
    return Job(name="crm", repository=RepositoryTarget(name="r", location="r"), source=source)


def store(repository: packstone.Repository, source: MariadbSource) -> dict[str, StoredPart]:
    parts = store_parts(repository, open_source(source), tags=["job:crm"])
    return {part.name: part for part in parts}


def fresh(server: MariadbServer, name: str = "fresh") -> None:
    server.sql(f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} CHARACTER SET utf8mb4", "")


def test_two_nights_and_both_played_back(
    server: MariadbServer, repository: packstone.Repository
) -> None:
    source = source_of(server)
    first = store(repository, source)["crm.sql"]
    assert first.error is None and first.result is not None and not first.warnings
    time.sleep(1.1)  # dates in dumps are in seconds
    again = store(repository, source)["crm.sql"].result
    assert again is not None and again.files_unmodified == 1, "a dump says when it was made"
    monday = contents(server, "crm")  # takes a number of the sequence

    server.sql(CHANGES)
    second = store(repository, source)["crm.sql"].result
    assert second is not None and second.parent_id == again.snapshot_id
    tuesday = contents(server, "crm")
    assert monday != tuesday
    assert second.bytes_stored < first.result.bytes_stored / 15
    assert second.chunks_delta > second.chunks_new / 2

    for spec, expected in (("latest~1", monday), ("latest", tuesday)):
        fresh(server)
        (loaded,) = load_job(repository, job_of(source), "fresh", snapshot=spec)
        assert loaded.bytes_loaded > 1 << 20
        found = contents(server, "fresh")
        assert found.keys() == expected.keys()
        for name in expected:
            assert found[name] == expected[name], name


def test_a_target_that_is_not_empty(
    server: MariadbServer, repository: packstone.Repository
) -> None:
    source = source_of(server)
    store(repository, source)
    for statement in (
        "CREATE TABLE companies (mine int)",
        "CREATE FUNCTION mine() RETURNS int RETURN 1",
        "CREATE EVENT mine ON SCHEDULE EVERY 1 DAY DO DELETE FROM mine",
    ):
        fresh(server)
        server.sql(statement, "fresh")
        with pytest.raises(packstone.UsageError, match=r"mine|companies"):
            load_job(repository, job_of(source), "fresh")
        assert "contacts" not in server.sql("SHOW TABLES", "fresh")
    fresh(server)
    server.sql("CREATE TABLE companies (mine int); CREATE TABLE other (mine int)", "fresh")
    url = f"mariadb://crm@/fresh?socket={server.socket}"
    assert load_job(repository, job_of(source), url, overwrite=True)
    assert server.sql("SELECT count(*) FROM companies", "fresh").strip() in ("500", "501")
    assert "other" in server.sql("SHOW TABLES", "fresh")


@pytest.mark.parametrize(
    ("change", "message", "advice"),
    [
        ({"socket": "/nonexistent"}, "connect", "socket"),
        ({"socket": "", "host": "127.0.0.1", "port": 1}, "connect", "host"),
        ({"socket": "", "host": "nowhere.invalid"}, "nowhere.invalid", "host"),
        ({"user": "nobody_here"}, "Access denied", "defaults_file"),
        ({"defaults_file": "/nonexistent"}, "/nonexistent", "defaults_file"),
        ({"databases": ["nothing"]}, "Unknown database", "CREATE DATABASE"),
        ({"options": ["--nonsense"]}, "nonsense", ""),
    ],
)
def test_a_wrong_connection(
    server: MariadbServer,
    repository: packstone.Repository,
    change: dict[str, object],
    message: str,
    advice: str,
) -> None:
    (part,) = store(repository, replace(source_of(server), **change)).values()  # type: ignore[arg-type]
    assert part.result is None and isinstance(part.error, packstone.CommandFailed)
    assert message in part.error.message and advice in part.error.hint
    assert repository.snapshots() == []


def test_one_failing_database_does_not_stop_the_others(
    server: MariadbServer, repository: packstone.Repository
) -> None:
    stored = store(repository, source_of(server, "nothing", "crm"))
    assert {name: part.error is None for name, part in stored.items()} == {
        "nothing.sql": False,
        "crm.sql": True,
    }


def test_a_password_comes_from_a_file(
    server: MariadbServer,
    repository: packstone.Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.sql("CREATE OR REPLACE USER ada IDENTIFIED BY 's3cret'; GRANT ALL ON *.* TO ada", "")
    options = tmp_path / "options"
    options.write_text("[client]\npassword=s3cret\n")
    options.chmod(0o600)
    source = replace(source_of(server), user="ada", defaults_file=str(options))
    assert store(repository, source)["crm.sql"].error is None
    fresh(server)
    assert load_job(repository, job_of(source), "fresh")
    # a password in a target would stand in the list of processes
    with pytest.raises(packstone.UsageError, match="password") as refused:
        load_job(repository, job_of(source), "mariadb://ada:s3cret@host/fresh")
    assert "s3cret" not in refused.value.message + refused.value.hint
    options.write_text("[client]\npassword=wr0ng\n")
    error = store(repository, source)["crm.sql"].error
    assert error is not None and "using password: YES" in error.message
    assert "wr0ng" not in error.message + error.hint


def test_a_view_that_is_broken_leaves_no_snapshot(
    server: MariadbServer, repository: packstone.Repository
) -> None:
    """The client fails after it has printed nearly everything."""
    server.sql("CREATE DATABASE IF NOT EXISTS broken", "")
    server.sql(
        "CREATE OR REPLACE TABLE t (id int); INSERT INTO t SELECT seq FROM seq_1_to_20000;"
        "CREATE OR REPLACE VIEW v AS SELECT id FROM t; CREATE OR REPLACE TABLE z (id int);"
        "CREATE OR REPLACE VIEW w AS SELECT id FROM z; DROP TABLE z",
        "broken",
    )
    error = store(repository, source_of(server, "broken"))["broken.sql"].error
    assert isinstance(error, packstone.CommandFailed) and "broken.w" in error.message
    assert repository.snapshots() == []


def test_a_dump_cannot_make_the_client_run_programs(
    server: MariadbServer, repository: packstone.Repository, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    source = source_of(server)
    script = f"\\! touch {marker}\nsystem touch {marker}\nSELECT 1;\n".encode()
    import io

    repository.snapshot_stream(io.BytesIO(script), "crm.sql", tags=["job:crm"])  # type: ignore[arg-type]
    fresh(server)
    with pytest.raises(packstone.CommandFailed) as failed:
        load_job(repository, job_of(source), "fresh")
    assert not marker.exists()
    assert "drop database 'fresh'" in failed.value.hint


def test_odd_names(server: MariadbServer, repository: packstone.Repository) -> None:
    names = ("a b", "it's", "-d", "--help", "a/b")
    for name in names:
        server.sql(f"CREATE DATABASE `{name}`; CREATE TABLE `{name}`.t (id int)", "")
    stored = store(repository, source_of(server, *names))
    assert all(part.error is None for part in stored.values()), stored
    for row in repository.snapshots():
        assert b"CREATE TABLE `t`" in repository.open_file(row.id, row.snapshot.name).read()


def test_a_missing_client(
    repository: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(packstone.UsageError, match="mariadb-dump or mysqldump is not installed"):
        list(store_parts(repository, open_source(MariadbSource(databases=["crm"]))))
    assert os.environ["PATH"] == "/nonexistent"
