"""What every streamed source can do: say its parts, pour one out, take one back."""

from __future__ import annotations

from typing import BinaryIO, Protocol


class Pouring(Protocol):
    """A part while it is read; close it in any case.

    `warnings` are complete after `finish`.
    """

    warnings: list[str]

    @property
    def stream(self) -> BinaryIO:
        """The bytes, read once to their end."""
        ...

    def finish(self) -> None:
        """Wait for the client after the last byte; raises CommandFailed with its messages.

        Only then may a snapshot be committed.
        """
        ...

    def close(self) -> None:
        """End what still runs."""
        ...


class Part(Protocol):
    """One stream of a source, stored as one file: a database, or the roles of a server."""

    @property
    def name(self) -> str:
        """What it is stored as; the same at every run, so that deltas find their bases."""
        ...

    def open(self) -> Pouring:
        """Begin to pour it out; raises CommandFailed, UsageError when the client is missing."""
        ...

    def load(self, stream: BinaryIO, target: str, *, overwrite: bool = False) -> None:
        """Play a stored stream back into `target`, which must be empty unless `overwrite`.

        Raises CommandFailed with what the client said, UsageError if the target is not empty.
        """
        ...


class StreamedSource(Protocol):
    """A source that is no files and directories."""

    def parts(self) -> list[Part]:
        """Return what there is to store, in the order in which it must be played back.

        Raises UsageError when the client is missing, CommandFailed when a server does not answer.
        """
        ...

    def stored(self) -> list[Part]:
        """Return the same parts for playing back; needs neither the server nor what dumps it."""
        ...
