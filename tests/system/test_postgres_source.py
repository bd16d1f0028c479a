"""PostgreSQL as a source: stored, changed, stored, played back into an empty database."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from database_servers import PostgresServer, place_for_server, postgres_programs

import packstone
from packstone.operations.jobs.load import load_job
from packstone.operations.jobs.sources import open_source
from packstone.operations.jobs.sources.store import StoredPart, store_parts
from packstone.operations.jobs.strategy import Job, PostgresSource, RepositoryTarget

SCHEMA = """
CREATE ROLE sales NOLOGIN;
CREATE ROLE "Ada ""of"" Sales" LOGIN PASSWORD 'secret' IN ROLE sales;
ALTER ROLE sales SET work_mem TO '8MB';
COMMENT ON ROLE sales IS 'who sells';
CREATE SCHEMA "Büro & Co";
CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE SEQUENCE numbers START 1000 INCREMENT 7;
CREATE TABLE companies (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, founder int
);
CREATE TABLE contacts (
    id int PRIMARY KEY, company int REFERENCES companies DEFERRABLE, name text, born date,
    first text GENERATED ALWAYS AS (split_part(name, ' ', 1)) STORED,
    seen timestamptz, wait interval, mood mood, share percent, tags text[], rest jsonb
);
ALTER TABLE companies ADD FOREIGN KEY (founder) REFERENCES contacts DEFERRABLE;
CREATE TABLE "Büro & Co"."sélect" (
    id bigint PRIMARY KEY DEFAULT nextval('numbers'), raw bytea, exact numeric, real8 float8,
    real4 float4, bits bit varying, flag bool, uid uuid, net inet, span tstzrange,
    "Spalte ""x"" z" text
);
CREATE TABLE parts (id int, kind text, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
CREATE TABLE parts_a PARTITION OF parts FOR VALUES IN ('a');
CREATE TABLE parts_rest PARTITION OF parts DEFAULT;
CREATE TABLE empty (id int PRIMARY KEY);
CREATE TABLE no_key (line text);
CREATE INDEX ON contacts (lower(name)) WHERE share > 10;
CREATE VIEW happy AS SELECT id, name FROM contacts WHERE mood = 'happy';
CREATE MATERIALIZED VIEW per_company AS SELECT company, count(*) FROM contacts GROUP BY company;
CREATE FUNCTION shout(words text) RETURNS text LANGUAGE plpgsql AS
    $$ BEGIN RETURN upper(words) || E'\\n!'; END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.seen := '2020-01-01 00:00+00'; RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON contacts FOR EACH ROW EXECUTE FUNCTION touch();
CREATE RULE nothing AS ON DELETE TO empty DO INSTEAD NOTHING;
ALTER TABLE contacts ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON contacts USING (name <> current_user);
ALTER TABLE empty OWNER TO "Ada ""of"" Sales";
GRANT SELECT ON contacts TO sales;

BEGIN;
SET CONSTRAINTS ALL DEFERRED;
INSERT INTO companies (name, founder) SELECT 'Company ' || md5(n::text), 1 + n * 7
    FROM generate_series(1, 500) n;
INSERT INTO contacts (id, company, name, born, seen, wait, mood, share, tags, rest)
    SELECT n, CASE WHEN n % 11 > 0 THEN 1 + n % 500 END, 'Ada ' || md5(n::text) || ' Ünïcödé 🎈',
    date '1950-01-01' + n % 25000, timestamptz '2020-03-29 00:30+01' + n * interval '13 minutes',
    n * interval '1.5 days', (ARRAY['sad', 'ok', 'happy'])[1 + n % 3]::mood, n % 101,
    ARRAY['a', NULL, 'c,"{}\\' || n], jsonb_build_object('k', E'\\t\\n\\\\' || n, 'n', n / 7.0)
    FROM generate_series(1, 12000) n;
COMMIT;
INSERT INTO "Büro & Co"."sélect"
    (raw, exact, real8, real4, bits, flag, uid, net, span, "Spalte ""x"" z")
    SELECT decode(md5(n::text) || '00ff5c0a0d', 'hex'), n * 1e30 + 0.000000000000000000000001,
    exp(n / 100.0), n / 3.0, n::bit(13), n % 2 = 0, md5(n::text)::uuid,
    ('10.0.0.' || n % 256)::inet,
    tstzrange(timestamptz '2020-01-01 UTC', timestamptz '2020-01-01 UTC' + n * interval '1s'),
    CASE n % 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN '\\N' WHEN 3 THEN E'\\\\.\\n'
        ELSE E'\\r\\n\\t' END
    FROM generate_series(1, 2000) n;
INSERT INTO "Büro & Co"."sélect" (exact, real8, real4) VALUES
    ('NaN', 'NaN', '-Infinity'), ('Infinity', '-0', 1e-40), (NULL, 4.9e-324, NULL);
INSERT INTO parts SELECT n, (ARRAY['a', 'b', 'c'])[1 + n % 3] FROM generate_series(1, 1000) n;
INSERT INTO no_key SELECT repeat('same ', 10) FROM generate_series(1, 50);
SELECT lo_from_bytea(4711, decode(repeat(md5('x'), 1000), 'hex'));
REFRESH MATERIALIZED VIEW per_company;
SELECT setval('numbers', 123457);
"""
CHANGES = """
UPDATE contacts SET rest = rest || '{"moved": true}', share = (share + 1) % 101 WHERE id % 100 = 17;
INSERT INTO contacts (id, name) SELECT n, 'new' FROM generate_series(12001, 12100) n;
DELETE FROM parts WHERE id % 100 = 3;
UPDATE "Büro & Co"."sélect" SET raw = raw || '\\x00'::bytea WHERE id % 100 = 9;
SELECT nextval('numbers');
REFRESH MATERIALIZED VIEW per_company;
"""
TABLES = """
SELECT c.oid::regclass FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 'v', 'p') AND n.nspname !~ '^pg_' AND
    n.nspname <> 'information_schema' ORDER BY 1::text
"""


def contents(server: PostgresServer, database: str) -> dict[str, str]:
    """Return all rows of every table, view and sequence, and what the catalog says of the rest."""
    found = {
        table: server.sql(f"SELECT md5(t::text), t::text FROM {table} t ORDER BY 1, 2", database)
        for table in server.sql(TABLES, database).splitlines()
    }
    assert len(found) >= 10
    found["sequences"] = server.sql("SELECT * FROM pg_sequences ORDER BY 1, 2", database)
    found["columns"] = server.sql(
        "SELECT * FROM (SELECT table_schema, table_name, column_name, ordinal_position,"
        " column_default, is_nullable, data_type, is_generated, generation_expression, is_identity"
        " FROM information_schema.columns) c"
        " WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2, 4",
        database,
    )
    found["constraints"] = server.sql(
        "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace::regnamespace::text !~ 'pg_|information' ORDER BY 1::text, 2",
        database,
    )
    found["functions"] = server.sql(
        "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " ORDER BY 1",
        database,
    )
    found["triggers"] = server.sql(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1", database
    )
    found["owners"] = server.sql(
        "SELECT relname, relowner::regrole, relacl::text, relrowsecurity FROM pg_class"
        " WHERE relnamespace::regnamespace::text !~ '^pg_|information' ORDER BY 1",
        database,
    )
    found["objects"] = server.sql(
        "SELECT loid, pageno, md5(data) FROM pg_largeobject ORDER BY 1, 2", database
    )
    found["indexes"] = server.sql(
        "SELECT indexdef FROM pg_indexes WHERE schemaname !~ '^pg_' ORDER BY 1", database
    )
    return found


@pytest.fixture(scope="module")
def binaries() -> Path:
    found = postgres_programs()
    if found is None or not (found / "pg_dumpall").exists():
        pytest.skip("PostgreSQL is not installed")
    return found


@pytest.fixture(scope="module")
def server(binaries: Path) -> Iterator[PostgresServer]:
    with place_for_server() as place:
        server = PostgresServer(place, binaries)
        try:
            server.sql("CREATE DATABASE crm", "postgres")
            server.sql(SCHEMA)
            yield server
        finally:
            server.stop()


@pytest.fixture
def other(binaries: Path) -> Iterator[PostgresServer]:
    """A server on which nothing was made yet."""
    with place_for_server() as place:
        server = PostgresServer(place, binaries)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(autouse=True)
def on_path(binaries: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of the server's own version; no settings of whoever runs the tests."""
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[packstone.Repository]:
    with packstone.init(tmp_path / "repository", chunk_size=32 << 10) as repository:
        yield repository


def source_of(server: PostgresServer, *databases: str) -> PostgresSource:
    return PostgresSource(databases=databases or ("crm",), host=str(server.place), user="crm")


def job_of(source: PostgresSource) -> Job:
    return Job(name="crm", repository=RepositoryTarget(name="r", location="r"), source=source)


def store(repository: packstone.Repository, source: PostgresSource) -> dict[str, StoredPart]:
    parts = store_parts(repository, open_source(source), tags=["job:crm"])
    return {part.name: part for part in parts}


def fresh(server: PostgresServer, name: str = "fresh") -> None:
    server.sql(f"DROP DATABASE IF EXISTS {name}", "postgres")
    server.sql(f"CREATE DATABASE {name}", "postgres")


def test_two_nights_and_both_played_back(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    source = source_of(server)
    first = store(repository, source)
    assert list(first) == ["roles.sql", "crm.sql"]
    assert all(part.error is None and not part.warnings for part in first.values())
    monday = contents(server, "crm")

    server.sql(CHANGES)
    tuesday = contents(server, "crm")
    assert monday != tuesday
    second = store(repository, source)["crm.sql"].result
    assert second is not None and first["crm.sql"].result is not None
    assert second.parent_id == first["crm.sql"].result.snapshot_id
    # 1 % of rows changed all over the tables: what is stored of it is a part of a dump that small
    assert second.bytes_stored < first["crm.sql"].result.bytes_stored / 15
    assert second.chunks_delta > second.chunks_new / 2

    for spec, expected in (("latest~1", monday), ("latest", tuesday)):
        fresh(server)
        loaded = load_job(repository, job_of(source), "fresh", part="crm.sql", snapshot=spec)
        assert [part.name for part in loaded] == ["crm.sql"]
        assert loaded[0].bytes_loaded > 1 << 20
        assert contents(server, "fresh") == expected


def test_an_unchanged_database_costs_next_to_nothing(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    source = replace(source_of(server), roles=False)
    store(repository, source)
    again = store(repository, source)["crm.sql"].result
    assert again is not None
    assert again.chunks_new <= 2, "the lines with the random key, at both ends"
    assert again.bytes_stored < 16 << 10, "the last chunk may be too small for a delta"


def test_another_server_gets_roles_first(
    server: PostgresServer, other: PostgresServer, repository: packstone.Repository
) -> None:
    source = source_of(server)
    store(repository, source)
    expected = contents(server, "crm")
    other.sql("CREATE DATABASE fresh", "postgres")
    other.sql("CREATE ROLE sales CREATEDB", "postgres")  # of the same name, and not ours to change
    there = f"postgresql://crm@/fresh?host={other.place}"

    with pytest.raises(packstone.CommandFailed, match="does not exist") as failed:
        load_job(repository, job_of(source), there)
    assert "--roles" in failed.value.hint and "as it was" in failed.value.hint
    assert not other.sql(TABLES, "fresh")  # all or nothing

    loaded = load_job(repository, job_of(source), there, roles=True)
    assert [part.name for part in loaded] == ["roles.sql", "crm.sql"]
    assert contents(other, "fresh") == expected
    question = (
        "SELECT rolname, rolcanlogin, rolcreatedb, pg_has_role(rolname, 'sales', 'member'),"
        " rolpassword IS NOT NULL FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1"
    )
    assert other.sql(question, "postgres").splitlines() == [
        'Ada "of" Sales|t|f|t|t',
        "crm|t|t|t|f",
        "sales|f|t|t|f",
    ]
    # and once more: nothing is in the way
    assert load_job(repository, job_of(source), there, part="roles.sql")


def test_a_user_who_may_read_little(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    """Roles are stored without their passwords, which is said; a table he may not read fails."""
    server.sql("CREATE ROLE guest LOGIN")
    stored = store(repository, replace(source_of(server), user="guest"))
    assert stored["roles.sql"].error is None
    assert any("passwords" in warning for warning in stored["roles.sql"].warnings)
    assert b"Ada" in (script := repository.open_file("latest", "roles.sql").read())
    assert b"PASSWORD" not in script
    error = stored["crm.sql"].error
    assert error is not None and "permission denied" in error.message
    assert "pg_read_all_data" in error.hint

    server.sql("CREATE ROLE reader LOGIN BYPASSRLS IN ROLE pg_read_all_data")
    server.sql("GRANT SELECT ON LARGE OBJECT 4711 TO reader")
    stored = store(repository, replace(source_of(server), user="reader"))
    assert all(part.error is None and not part.warnings for part in stored.values())


def test_a_target_that_is_not_empty(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    source = source_of(server)
    store(repository, source)
    for statement in (
        "CREATE TABLE mine (id int); INSERT INTO mine VALUES (1)",
        "CREATE SCHEMA mine",
        "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ):
        fresh(server)
        server.sql(statement, "fresh")
        with pytest.raises(packstone.UsageError, match="mine") as refused:
            load_job(repository, job_of(source), "fresh")
        assert "createdb" in refused.value.hint
    # told to go on: what is not in the way stays
    assert load_job(repository, job_of(source), "fresh", overwrite=True)
    # what is in the way makes all of it fail
    fresh(server)
    server.sql("CREATE TABLE empty (id int)", "fresh")
    before = server.sql(TABLES, "fresh")
    with pytest.raises(packstone.CommandFailed, match='"empty" already exists'):
        load_job(repository, job_of(source), "fresh", overwrite=True)
    assert server.sql(TABLES, "fresh") == before


def test_damage_on_the_way_rolls_everything_back(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    """A client whose input just ended would commit what it has got."""
    source = replace(source_of(server), roles=False)
    store(repository, source)
    row = repository.find_snapshot("latest")
    fresh(server)
    part = open_source(source).stored()[0]

    class Breaking:
        """A dump whose second half cannot be read, after a whole statement."""

        def __init__(self) -> None:
            script = repository.open_file(row.id, "crm.sql").read()
            self._rest = [script[: script.index(b"\n\n--", len(script) // 2) + 1]]

        def read(self, _size: int) -> bytes:
            if self._rest:
                return self._rest.pop()
            raise packstone.Damaged("a chunk is damaged")

    with pytest.raises(packstone.Damaged):
        part.load(Breaking(), "fresh")  # type: ignore[arg-type]
    for _ in range(50):  # the server notices that the client is gone
        if not server.sql(TABLES, "fresh"):
            break
        time.sleep(0.1)
    assert not server.sql(TABLES, "fresh")


@pytest.mark.parametrize(
    ("change", "message", "advice"),
    [
        ({"host": "/nonexistent"}, "No such file", "host"),
        ({"host": "127.0.0.1", "port": 1}, "refused", "host"),
        ({"host": "nowhere.invalid"}, "translate host name", "host"),
        ({"user": "nobody_here"}, "does not exist", "user"),
        ({"service": "nowhere"}, "service", "service"),
        ({"options": ["--table=nothing"]}, "no matching tables", ""),
        ({"options": ["--nonsense"]}, "nonsense", ""),
    ],
)
def test_a_wrong_connection(
    server: PostgresServer,
    repository: packstone.Repository,
    change: dict[str, object],
    message: str,
    advice: str,
) -> None:
    source = replace(source_of(server), **change)  # type: ignore[arg-type]
    stored = store(repository, replace(source, roles="options" not in change))
    assert stored
    for part in stored.values():
        assert part.result is None
        assert isinstance(part.error, packstone.CommandFailed)
        assert message in part.error.message and advice in part.error.hint
    assert repository.snapshots() == []


def test_one_failing_database_does_not_stop_the_others(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    stored = store(repository, source_of(server, "nothing", "crm"))
    assert {name: part.error is None for name, part in stored.items()} == {
        "roles.sql": False,  # read through the first database
        "nothing.sql": False,
        "crm.sql": True,
    }
    error = stored["nothing.sql"].error
    assert error is not None and 'database "nothing" does not exist' in error.message
    assert [row.snapshot.name for row in repository.snapshots()] == [b"crm.sql"]


def test_rows_that_a_user_may_not_see(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    """Row-level security makes a dump fail; it never makes it smaller."""
    server.sql("CREATE ROLE clerk LOGIN IN ROLE pg_read_all_data")
    stored = store(repository, replace(source_of(server), user="clerk", roles=False))
    error = stored["crm.sql"].error
    assert error is not None and "row-level security" in error.message


def test_a_server_that_hangs_up(server: PostgresServer, repository: packstone.Repository) -> None:
    source = replace(source_of(server), roles=False)

    def hang_up() -> None:
        for _ in range(200):
            ended = server.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'pg_dump'",
                "postgres",
            )
            if ended:
                return
            time.sleep(0.02)

    server.sql("BEGIN; LOCK TABLE contacts; SELECT pg_sleep(0); COMMIT")
    holding = subprocess.Popen(
        server.argv("psql", "crm", "-X", "-c", "BEGIN; LOCK TABLE contacts; SELECT pg_sleep(3)"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(0.5)
    timer = threading.Timer(0.5, hang_up)
    timer.start()
    stored = store(repository, source)
    timer.join()
    holding.kill()
    holding.wait()
    error = stored["crm.sql"].error
    assert isinstance(error, packstone.CommandFailed) and "terminat" in error.message
    assert repository.snapshots() == []


def test_odd_names(server: PostgresServer, repository: packstone.Repository) -> None:
    for name in ("a b", "it's", "x=y", "a/b", "-d", "back\\slash"):
        server.sql(f'CREATE DATABASE "{name}"', "postgres")
    source = replace(
        source_of(server, "a b", "it's", "x=y", "a/b", "-d", "back\\slash"), roles=False
    )
    stored = store(repository, source)
    assert all(part.error is None for part in stored.values()), stored
    assert list(stored)[3] == "a%2Fb.sql"


def test_passwords_are_not_for_command_lines(
    server: PostgresServer, repository: packstone.Repository
) -> None:
    part = open_source(source_of(server)).stored()[1]
    for target in (
        "postgresql://crm:secret@localhost/crm",
        "postgres://localhost/crm?password=secret",
        "postgres://localhost/crm?sslpassword=secret",
        "host=localhost password=secret dbname=crm",
    ):
        with pytest.raises(packstone.UsageError, match="password") as refused:
            part.load(repository, target)  # type: ignore[arg-type]
        assert "secret" not in refused.value.message + refused.value.hint
    with pytest.raises(packstone.UsageError, match="not by a URL"):
        open_source(PostgresSource(databases=["postgresql://crm:secret@host/crm"])).parts()


def test_a_missing_client(
    repository: packstone.Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(packstone.UsageError, match="pg_dump is not installed") as refused:
        list(store_parts(repository, open_source(PostgresSource(databases=["crm"]))))
    assert "postgresql-client" in refused.value.hint
