"""Where the bytes of a job come from, and how they go back: databases, commands."""

from __future__ import annotations

from packstone.errors import UsageError
from packstone.operations.jobs.sources.base import StreamedSource
from packstone.operations.jobs.sources.command import CommandStream
from packstone.operations.jobs.sources.mariadb import MariadbServer
from packstone.operations.jobs.sources.postgres import PostgresServer
from packstone.operations.jobs.sources.sqlite import SqliteFiles
from packstone.operations.jobs.strategy import (
    CommandSource,
    MariadbSource,
    PathSource,
    PostgresSource,
    Source,
    SqliteSource,
)


def open_source(source: Source) -> StreamedSource:
    """Return what can pour out a source and take it back; UsageError for files and directories."""
    match source:
        case PostgresSource():
            return PostgresServer(source)
        case MariadbSource():
            return MariadbServer(source)
        case SqliteSource():
            return SqliteFiles(source)
        case CommandSource():
            return CommandStream(source)
    raise UsageError("the job stores files and directories: it has no stream")


def part_names(source: Source) -> list[str]:
    """Return what each run stores one snapshot of, by its name; that of paths has none: "".

    Raises UsageError for a source whose parts cannot be told apart.
    """
    if isinstance(source, PathSource):
        return [""]
    return [part.name for part in open_source(source).stored()]
