"""What a command prints, and the command that takes it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from packstone.errors import UsageError
from packstone.operations.jobs.sources.base import Part
from packstone.operations.jobs.sources.client import ClientPouring, blocks, feed
from packstone.operations.jobs.sources.names import stored_name
from packstone.operations.jobs.strategy import CommandSource

TARGET = "{target}"  # replaced in the words of `load`
TARGET_VARIABLE = "PACKSTONE_TARGET"


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """The output of one command; what it means only its `load` knows."""

    name: str
    source: CommandSource

    def open(self) -> ClientPouring:
        """Start the command; raises CommandFailed when it cannot be."""
        return ClientPouring(self.source.argv, must_print=False)

    def load(self, stream: BinaryIO, target: str, *, overwrite: bool = False) -> None:
        """Give it to `load`, with the target for `{target}` and in PACKSTONE_TARGET.

        Whether the target is empty only the command can tell. Raises UsageError when the job has
        no `load`, CommandFailed.
        """
        if not self.source.load:
            raise UsageError(
                f"the job does not say how {self.name!r} is loaded",
                hint='Add load = ["COMMAND", …] to it, or restore the file with --target',
            )
        argv = [word.replace(TARGET, target) for word in self.source.load]
        feed(argv, blocks(stream), env={TARGET_VARIABLE: target})


class CommandStream:
    """A source that is the output of one command."""

    def __init__(self, source: CommandSource) -> None:
        self._source = source

    def parts(self) -> list[Part]:
        """Return the one part; raises UsageError for no command."""
        if not self._source.argv:
            raise UsageError("no command is named")
        return [CommandOutput(stored_name(self._source.name), self._source)]

    def stored(self) -> list[Part]:
        """Return the same."""
        return self.parts()
