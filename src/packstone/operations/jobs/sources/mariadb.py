"""MariaDB and MySQL: one dump per database, a line for each row, in the order of the keys.

So an unchanged row is the same line every night, and changed ones stay where they were. One
transaction keeps the moment; tables without transactions (MyISAM, Aria) are read as they come.
Accounts and grants are not in a dump: they belong to the server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from packstone.errors import UsageError
from packstone.operations.jobs.sources.base import Part
from packstone.operations.jobs.sources.client import ClientPouring, ask, blocks, feed, find_client
from packstone.operations.jobs.sources.names import require_distinct, stored_name
from packstone.operations.jobs.strategy import MariadbSource

_DUMP = ["mariadb-dump", "mysqldump"]
_CLIENT = ["mariadb", "mysql"]
_PACKAGE = "mariadb-client"
_OPTIONS = [
    "--single-transaction",
    "--quick",
    "--order-by-primary",
    "--skip-extended-insert",  # a row is a line of its own
    "--skip-dump-date",
    "--no-autocommit",  # or every line is a transaction when it is played back
    "--hex-blob",  # bytes that are no text pass through every character set
    "--routines",
    "--triggers",
    "--events",
    "--default-character-set=utf8mb4",
    "--max-allowed-packet=1G",  # a row larger than 24 MiB ends a dump otherwise
]
# What some clients know and need; the others would refuse it.
_WHERE_KNOWN = {
    "column-statistics": "--column-statistics=0",  # MySQL 8 asks for what MariaDB has not
    "set-gtid-purged": "--set-gtid-purged=OFF",  # or the dump says where to go on replicating
    "no-tablespaces": "--no-tablespaces",  # or MySQL 8 needs the right PROCESS
}
_OBJECTS = """
SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()
UNION ALL
SELECT routine_name FROM information_schema.routines WHERE routine_schema = DATABASE()
UNION ALL
SELECT event_name FROM information_schema.events WHERE event_schema = DATABASE()
LIMIT 3
"""


def _connection(source: MariadbSource) -> list[str]:
    """Return the words that name a server; a file with options must come first."""
    words = [f"--defaults-file={source.defaults_file}"] if source.defaults_file else []
    words += [f"--host={source.host}"] if source.host else []
    words += [f"--port={source.port}"] if source.port is not None else []
    words += [f"--socket={source.socket}"] if source.socket else []
    words += [f"--user={source.user}"] if source.user else []
    return words


def target_of(source: MariadbSource, target: str) -> tuple[MariadbSource, str]:
    """Return server and database of a target: a name, or mariadb://USER@HOST:PORT/NAME.

    A socket is said as mariadb://USER@/NAME?socket=PATH. Raises UsageError for a password.
    """
    if not target.startswith(("mariadb://", "mysql://")):
        return source, target
    try:
        parts = urlsplit(target)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"the target is no URL: {error}") from error
    if parts.password is not None:
        raise UsageError(
            "a target with a password in it can be read by every user of the machine",
            hint="Put the password into a file for `defaults_file` and leave it out here",
        )
    database = unquote(parts.path.removeprefix("/"))
    if not database:
        raise UsageError("the target names no database", hint="Say mariadb://USER@HOST/NAME")
    server = replace(
        source,
        host=parts.hostname or "",
        port=port,
        user=unquote(parts.username or "") or source.user,
        socket=parse_qs(parts.query).get("socket", [""])[0],
    )
    return server, database


@dataclass(frozen=True, slots=True)
class MariadbDatabase:
    """One database."""

    name: str
    database: str
    source: MariadbSource

    def open(self) -> ClientPouring:
        """Start the dump; raises UsageError when the client is missing, CommandFailed."""
        client = find_client(_DUMP, _PACKAGE)
        known = ask([client, "--no-defaults", "--help"])
        options = [word for name, word in _WHERE_KNOWN.items() if name in known]
        return ClientPouring(
            [client, *_connection(self.source), *_OPTIONS, *options, *self.source.options]
            + ["--", self.database],
            advice=_advice,
        )

    def load(self, stream: BinaryIO, target: str, *, overwrite: bool = False) -> None:
        """Play a dump into a database; with `overwrite` its tables replace those of their names.

        Tables are made one after the other, not in one transaction: after a failure the target
        holds a part. Raises UsageError when it is not empty, CommandFailed.
        """
        client = find_client(_CLIENT, _PACKAGE)
        server, database = target_of(self.source, target)
        words = [client, *_connection(server), "--batch", "--default-character-set=utf8mb4"]
        objects = ask(
            [*words, "--skip-column-names", "--", database], advice=_advice, question=_OBJECTS
        )
        if objects.strip() and not overwrite:
            raise UsageError(
                f"database {database!r} is not empty: there is {', '.join(objects.splitlines())}",
                hint="Nothing was changed. Make another: CREATE DATABASE …",
            )
        feed(
            # binary-mode: nothing in a dump can make the client run programs or read files
            [*words, "--binary-mode", "--max-allowed-packet=1G", "--", database],
            blocks(stream),
            advice=_advice,
            hint=f"A part was played back: drop database {database!r} and make it anew",
        )


class MariadbServer:
    """The databases of a source."""

    def __init__(self, source: MariadbSource) -> None:
        self._source = source

    def parts(self) -> list[Part]:
        """Return one part for each database; raises UsageError when the client is missing."""
        find_client(_DUMP, _PACKAGE)
        return self.stored()

    def stored(self) -> list[Part]:
        """Return what `parts` returns without looking for the client that dumps."""
        databases = self._source.databases
        parts: list[Part] = [
            MariadbDatabase(stored_name(database, ".sql"), database, self._source)
            for database in databases
        ]
        require_distinct(part.name for part in parts)
        return parts


_ADVICE = {
    r"Access denied": (
        "Check `user`; put the password into a file with [client] and password=…, mode 600, and "
        "name it as `defaults_file`"
    ),
    r"Unknown database": "Check the name, or make it: CREATE DATABASE …",
    r"Can't connect|Unknown (?:MySQL |MariaDB )?server host|Unknown server host": (
        "Check `host`, `port` and `socket` of the job, and that the server is up"
    ),
    r"command denied|need \(at least one of\) the": (
        "Let the user read everything: GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES …"
    ),
    r"max_allowed_packet": "Let the server take larger rows: SET GLOBAL max_allowed_packet = …",
    r"defaults-file|defaults file|open required": "Check `defaults_file`",
}


def _advice(said: str) -> str:
    return next((advice for words, advice in _ADVICE.items() if re.search(words, said)), "")
