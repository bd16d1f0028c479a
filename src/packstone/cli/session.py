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

    __slots__ = ("_told", "json", "lock_timeout", "quiet", "repository", "threads", "verbose")

    def __init__(self) -> None:
        self.repository: str | None = None
        self.json = False
        self.quiet = False
        self.verbose = 0
        self.threads: int | None = None
        self.lock_timeout = 0.0
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
            try:
                yield repository
            finally:
                self.warn(repository.warnings)

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
