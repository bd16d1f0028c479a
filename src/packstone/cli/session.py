"""The global options of one run, and the repository they name.

Global options may stand before or after the command, as users of restic are used to. What
was found is written into the one `Session` of the run, so that an error knows how to speak
(`--json`, `-v`) even when the command line was only half read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from packstone.cli import passphrase, render, values
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone

Command = TypeVar("Command", bound=Callable[..., Any])


class Session:
    """What the global options of one run say; `threads` None means all processors."""

    __slots__ = (
        "_told",
        "config",
        "json",
        "limit_download",
        "limit_upload",
        "lock_timeout",
        "quiet",
        "repository",
        "requests",
        "threads",
        "verbose",
    )

    def __init__(self) -> None:
        self.repository: str | None = None
        self.config: str | None = None
        self.json = False
        self.quiet = False
        self.verbose = 0
        self.threads: int | None = None
        self.lock_timeout = 0.0
        self.limit_upload: int | None = None
        self.limit_download: int | None = None
        self.requests: dict[str, int] = {}  # what the storage of this run was asked
        self._told: set[str] = set()

    def location(self) -> str:
        """Return the repository that `-r` or the environment names; raises UsageError."""
        if not self.repository:
            raise UsageError(
                "no repository is named", hint="say -r REPO, or set PACKSTONE_REPO once"
            )
        return self.repository

    @contextlib.contextmanager
    def open(self) -> Iterator[packstone.Repository]:
        """Open the repository that `-r` or the environment names; tell its warnings at the end.

        Raises UsageError when none is named, and whatever `packstone.open` raises.
        """
        import packstone

        with packstone.open(
            self.location(),
            passphrase=passphrase.for_open(),
            threads=self.threads,
            lock_timeout=self.lock_timeout,
            waiting=lambda text: render.message(render.visible(text)),
        ) as repository:
            repository.limit_transfer(self.limit_upload, self.limit_download)
            try:
                yield repository
            finally:
                self.warn(repository.warnings)
                repository.close()  # gives the lock back, which is a request too
                self.count(repository.requests())

    def strategy(self) -> packstone.Strategy:
        """Read the strategy that --config or the environment names, or the first that is found.

        Raises UsageError.
        """
        import packstone

        return packstone.load_strategy(self.config)

    def opening(self) -> dict[str, Any]:
        """Return the keywords with which the repositories of a strategy are opened."""
        return {
            "threads": self.threads,
            "lock_timeout": self.lock_timeout,
            "waiting": lambda text: render.message(render.visible(text)),
        }

    def count(self, requests: dict[str, int]) -> None:
        """Add to what was asked of storages; tell it to whoever wants to hear more."""
        for name, number in requests.items():
            self.requests[name] = self.requests.get(name, 0) + number
        if requests and self.verbose and not self.quiet:
            render.message(render.requests(requests))

    def document(self, value: dict[str, Any]) -> None:
        """Write one JSON document to stdout, with what was asked of an object store."""
        render.document(value | {"requests": self.requests} if self.requests else value)

    def warn(self, warnings: Iterable[str]) -> None:
        """Tell warnings, each once, unless the user wants quiet."""
        for warning in warnings:
            if warning not in self._told and not self.quiet:
                self._told.add(warning)
                render.message(f"warning: {warning}")


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep what was said; what was not said here leaves the value from before the command."""
    session = context.ensure_object(Session)
    name = parameter.name or ""
    if name == "verbose":
        session.verbose += value or 0
        return
    said = context.get_parameter_source(name)
    # A command asks the environment again, which must not win over -r before the command.
    if value and not (said is ParameterSource.ENVIRONMENT and getattr(session, name)):
        setattr(session, name, value)


def global_options(command: Command) -> Command:
    """Add the global options to a command or to the group."""
    # Eager, so that --json is known before any other option is found wrong.
    options = [
        click.option(
            "-r",
            "--repo",
            "repository",
            metavar="REPO",
            envvar="PACKSTONE_REPO",
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="The repository: a path or a URL. [env: PACKSTONE_REPO]",
        ),
        click.option(
            "--json",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="Print one JSON document instead of text.",
        ),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="No progress and no summary; problems are still named.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="Say more; twice shows where an unexpected error arose.",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1, 1024),
            metavar="N",
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="Worker threads (default: the processors available).",
        ),
        click.option(
            "--limit-upload",
            type=values.size,
            metavar="SIZE",
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="Send at most so much a second to an object store: 5MiB.",
        ),
        click.option(
            "--limit-download",
            type=values.size,
            metavar="SIZE",
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="Fetch at most so much a second from an object store.",
        ),
        click.option(
            "--lock-timeout",
            type=values.seconds,
            metavar="TIME",
            expose_value=False,
            is_eager=True,
            callback=_store,
            help="Wait so long for others to give the lock back: 30s, 5m (default: not at all).",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def config_option(command: Command) -> Command:
    """Add --config, which commands that carry out a strategy have."""
    option = click.option(
        "--config",
        "config",
        metavar="FILE",
        envvar="PACKSTONE_CONFIG",
        expose_value=False,
        is_eager=True,
        callback=_store,
        help="The strategy (default: packstone.toml here, in ~/.config/packstone or in "
        "/etc/packstone). [env: PACKSTONE_CONFIG]",
    )
    return option(command)
