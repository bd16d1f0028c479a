"""PostgreSQL: one plain `pg_dump` per database, and the roles of the server.

Plain and uncompressed, for compressed dumps share nothing with yesterday's. COPY blocks in the
order of the tables' pages, so an unchanged page of a table is the same text every night. The line
that differs in every dump, `\\restrict` with a random key, stays: it keeps psql from running what
a malicious server hid in names, and a key that does not change would be known to that server
(docs/databases.md has what it costs).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import parse_qsl, urlsplit

from packstone.errors import UsageError
from packstone.operations.jobs.sources.base import Part
from packstone.operations.jobs.sources.client import (
    ClientPouring,
    ask,
    blocks,
    feed,
    find_client,
)
from packstone.operations.jobs.sources.names import require_distinct, stored_name
from packstone.operations.jobs.strategy import PostgresSource

ROLES = "roles.sql"
_PACKAGE = "postgresql-client"
_QUIET = ["-X", "-q", "-w", "-v", "ON_ERROR_STOP=1"]  # no ~/.psqlrc, never a prompt
# What stands in a database that somebody made, without what extensions brought.
_OBJECTS = """
SELECT what FROM (
    SELECT c.oid, 'pg_class'::regclass AS catalog, c.oid::regclass::text AS what
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT p.oid, 'pg_proc'::regclass, p.oid::regprocedure::text
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
    UNION ALL SELECT oid, 'pg_namespace'::regclass, nspname
        FROM pg_namespace
        WHERE nspname !~ '^pg_' AND nspname NOT IN ('information_schema', 'public')
) AS objects WHERE NOT EXISTS (
    SELECT FROM pg_depend d
        WHERE d.classid = objects.catalog AND d.objid = objects.oid AND d.deptype = 'e'
) ORDER BY what LIMIT 3;
"""
_ROLE = re.compile(rb'(?:CREATE|ALTER) ROLE ("(?:[^"]|"")+"|[^\s";]+)[\s;]')
_MAX_ROLES = 64 << 20  # bytes of roles that are played back


def conninfo(source: PostgresSource, database: str) -> str:
    """Return the connection to a database of a source, as clients take it after -d.

    Values are quoted: a database may be called `a b` or `x=y`.
    """
    words = {
        "service": source.service,
        "host": source.host,
        "port": "" if source.port is None else str(source.port),
        "user": source.user,
        "dbname": database,
    }
    return " ".join(f"{key}={_quoted(value)}" for key, value in words.items() if value)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def target_conninfo(source: PostgresSource, target: str) -> str:
    """Return the connection to a target: a database of the source's server, a URL or conninfo.

    Raises UsageError for one with a password in it: every user could read it.
    """
    if target.startswith(("postgresql://", "postgres://")):
        parts = urlsplit(target)
        keys = dict(parse_qsl(parts.query)).keys()
        secret = parts.password is not None or not keys.isdisjoint({"password", "sslpassword"})
    elif "=" in target:
        secret = re.search(r"(?:^|\s)(?:ssl)?password\s*=", target) is not None
    else:
        return conninfo(source, target)
    if secret:
        raise UsageError(
            "a target with a password in it can be read by every user of the machine",
            hint="Put the password into ~/.pgpass (mode 600) and leave it out here",
        )
    return target


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """One database."""

    name: str
    database: str
    source: PostgresSource

    def open(self) -> ClientPouring:
        """Start pg_dump; raises UsageError when it is missing, CommandFailed."""
        argv = [find_client(["pg_dump"], _PACKAGE), "-w", "--format=plain"]
        argv += [*self.source.options, "-d", conninfo(self.source, self.database)]
        return ClientPouring(argv, advice=_advice)

    def load(self, stream: BinaryIO, target: str, *, overwrite: bool = False) -> None:
        """Play a dump into a database, in one transaction: all of it or nothing.

        With `overwrite` the database need not be empty; what is in the way makes it fail.
        """
        psql = find_client(["psql"], _PACKAGE)
        where = target_conninfo(self.source, target)
        objects = ask([psql, *_QUIET, "-A", "-t", "-d", where], advice=_advice, question=_OBJECTS)
        if objects.strip() and not overwrite:
            raise UsageError(
                f"database {target!r} is not empty: there is {', '.join(objects.splitlines())}",
                hint=f"Nothing was changed. Make another, for example: createdb {target}_restored",
            )
        feed(
            [psql, *_QUIET, "-1", "-d", where, "-f", "-"],
            blocks(stream),
            advice=_advice,
            hint="The target is as it was before",
        )


@dataclass(frozen=True, slots=True)
class PostgresRoles:
    """The roles of a server: users, groups, memberships, their settings; no tablespaces."""

    name: str
    source: PostgresSource

    def open(self) -> ClientPouring:
        """Start pg_dumpall; without the right to see passwords, without them and with a warning."""
        dumpall = find_client(["pg_dumpall"], _PACKAGE)
        psql = find_client(["psql"], _PACKAGE)
        database = self.source.databases[0] if self.source.databases else "postgres"
        where = conninfo(self.source, database)
        question = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')"
        answer = ask([psql, *_QUIET, "-A", "-t", "-d", where, "-c", question], advice=_advice)
        words = [dumpall, "-w", "--roles-only", "-d", where, "-l", database]
        if answer.strip() == "t":
            return ClientPouring(words, advice=_advice)
        pouring = ClientPouring([*words, "--no-role-passwords"], advice=_advice)
        pouring.warnings.append(
            "roles are stored without their passwords: only a superuser may read them"
        )
        return pouring

    def load(self, stream: BinaryIO, target: str, *, overwrite: bool = False) -> None:
        """Make the roles that a server does not have, in one transaction; others stay as they are.

        `target` is a database to connect to. Raises CommandFailed; then nothing was changed.
        """
        psql = find_client(["psql"], _PACKAGE)
        where = target_conninfo(self.source, target)
        question = "SELECT quote_ident(rolname) FROM pg_catalog.pg_roles"
        answer = ask([psql, *_QUIET, "-A", "-t", "-d", where, "-c", question], advice=_advice)
        script = stream.read(_MAX_ROLES + 1)
        if len(script) > _MAX_ROLES:
            raise UsageError(f"the roles take more than {_MAX_ROLES >> 20} MiB")
        there = {name.encode() for name in answer.splitlines()}
        feed(
            [psql, *_QUIET, "-1", "-d", where, "-f", "-"],
            _new_roles(script, there),
            advice=_advice,
            hint="No role was changed",
        )


def _new_roles(script: bytes, there: set[bytes]) -> Iterator[bytes]:
    """Yield a script's lines but for those that make or alter roles which exist."""
    for line in script.splitlines(keepends=True):
        found = _ROLE.match(line)
        if not (found and found[1] in there):
            yield line


class PostgresServer:
    """The databases of a source, and before them the roles that own what is in them."""

    def __init__(self, source: PostgresSource) -> None:
        self._source = source

    def parts(self) -> list[Part]:
        """Return roles and databases; raises UsageError when a client is missing."""
        for client in ["pg_dump", *(["pg_dumpall", "psql"] if self._source.roles else [])]:
            find_client([client], _PACKAGE)
        return self.stored()

    def stored(self) -> list[Part]:
        """Return what `parts` returns without looking for the clients that dump."""
        for database in self._source.databases:
            if "://" in database:
                raise UsageError(
                    "a database is named by its name, not by a URL",
                    hint="Say host, port and user beside it; a password belongs into ~/.pgpass",
                )
        parts: list[Part] = [PostgresRoles(ROLES, self._source)] if self._source.roles else []
        parts += [
            PostgresDatabase(stored_name(database, ".sql"), database, self._source)
            for database in self._source.databases
        ]
        require_distinct(part.name for part in parts)
        return parts


_ADVICE = {
    r"no password supplied|password authentication failed": (
        "Put the password into ~/.pgpass (mode 600), and check `user`"
    ),
    r"server version mismatch": "Install the client of the server's version or a newer one",
    r'database ".*" does not exist': "Check the name, or make it: createdb NAME",
    r"permission denied|must be superuser": (
        "Let the user read everything: GRANT pg_read_all_data TO …"
    ),
    r'role ".*" does not exist': (
        "Play the roles first (--roles), or make it: createuser NAME; check `user`"
    ),
    r"could not translate host name|Connection refused|No such file|timed? ?out": (
        "Check `host` and `port` of the job, and that the server is up: pg_isready"
    ),
    r"definition of service": "Check `service`, and ~/.pg_service.conf",
    r"No space left on device|could not extend file": "The disk of the server is full",
}


def _advice(said: str) -> str:
    return next((advice for words, advice in _ADVICE.items() if re.search(words, said)), "")
