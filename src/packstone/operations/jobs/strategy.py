"""What a strategy says: repositories and jobs, typed as they stand in `packstone.toml`.

Times are texts in the file and are parsed by `config`: what stands here is already checked.
Sizes in bytes, durations in nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar, Protocol

from packstone.repository.retention import Retention

JOB_TAG = "job:"  # what the tag of a job's snapshots begins with


class Priority(IntEnum):
    """What runs, and comes back, first."""

    URGENT = 0
    NORMAL = 1
    LOW = 2


class Every(Protocol):
    """When a job is to run."""

    def next_after(self, time_ns: int) -> int:
        """Return the first moment after a Unix time at which it is to run; both in ns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryTarget:
    """A repository by the name that jobs call it.

    With a `label` it is on an archive disk: `location` is then a path on the filesystem of that
    label, relative to its root; the disk may be absent. `max_size` is what it may take, if that
    is not the whole disk.
    """

    name: str
    location: str
    label: str = ""
    passphrase_file: str = ""
    passphrase_command: str = ""
    index_dir: str = ""
    max_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathSource:
    """Files and directories of this machine."""

    kind: ClassVar[str] = "paths"  # the key that begins it in the file; likewise below

    paths: Sequence[str]
    exclude: Sequence[str] = ()
    exclude_caches: bool = False
    exclude_if_present: Sequence[str] = ()
    exclude_larger_than: int | None = None
    one_file_system: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSource:
    """Databases of a PostgreSQL server; empty connection values are the client's own defaults.

    Passwords come from where the client looks (`~/.pgpass`, a service file), never from here.
    """

    kind: ClassVar[str] = "postgresql"

    databases: Sequence[str]
    host: str = ""
    port: int | None = None
    user: str = ""
    service: str = ""
    roles: bool = True
    options: Sequence[str] = ()  # more for pg_dump


@dataclass(frozen=True, slots=True, kw_only=True)
class MariadbSource:
    """Databases of a MariaDB or MySQL server; its client finds a password in `defaults_file`."""

    kind: ClassVar[str] = "mariadb"

    databases: Sequence[str]
    host: str = ""
    port: int | None = None
    socket: str = ""
    user: str = ""
    defaults_file: str = ""
    options: Sequence[str] = ()  # more for the dump client


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteSource:
    """SQLite databases, by their files."""

    kind: ClassVar[str] = "sqlite"

    files: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSource:
    """What a command prints, stored as one file `name`; `load` takes it back on its input."""

    kind: ClassVar[str] = "command"

    argv: Sequence[str]
    name: str
    load: Sequence[str] = ()


Source = PathSource | PostgresSource | MariadbSource | SqliteSource | CommandSource


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckBudget:
    """How much of a repository a run verifies afterwards: `subset` and seconds as in check.

    A subset is `5%`, `2/7`, or bytes; empty without one.
    """

    subset: str | int = ""
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing that is stored again and again.

    `rpo_ns` is what may be lost, `rto_ns` how long it may take to be back. `before`, `after` and
    `on_error` are shell commands. `line` is where the file begins to speak of it, from 1.
    """

    name: str
    repository: RepositoryTarget
    source: Source
    every: Every | None = None
    every_text: str = ""
    keep: Retention | None = None
    prune: bool = False  # give the space back after expiring
    priority: Priority = Priority.NORMAL
    copy_to: Sequence[RepositoryTarget] = ()
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    on_error: Sequence[str] = ()
    check: CheckBudget | None = None
    tags: Sequence[str] = ()
    rpo_ns: int | None = None
    rto_ns: int | None = None
    ping: str = ""  # URL that is told of starts, successes and failures
    timeout_ns: int | None = None
    line: int = 0

    @property
    def tag(self) -> str:
        """What marks this job's snapshots."""
        return JOB_TAG + self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """A whole file: `path` is where it is, `metrics` where a Prometheus text file goes."""

    path: str
    repositories: dict[str, RepositoryTarget] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    metrics: str = ""
    state_dir: str = ""  # where runs remember; by default below the user's state directory
