"""Every exception Packstone raises, with its exit code and the next thing to do.

    PackstoneError                exit 1
    ├─ UsageError                      2
    │  └─ StrategyInvalid                  a strategy file with mistakes, each with its line
    ├─ SourceError                     3   a file of the user: warned about, the rest goes on
    ├─ TargetError                     3   a file that could not be restored: likewise
    ├─ CommandFailed                   1   a command whose output was to be stored
    ├─ RepositoryMissing              10
    ├─ RepositoryLocked               11
    ├─ WrongPassphrase                12
    ├─ StorageError                   13   the repository's storage: aborts, never commits
    │  ├─ ObjectMissing
    │  ├─ StorageFull
    │  ├─ StorageUnavailable
    │  └─ GenerationChanged
    ├─ Damaged                        14   carries what was expected and what was found
    │  └─ IndexWrong                       the view contradicts the packs: rebuild it
    └─ UnsupportedFormat              15

SourceError and StorageError share no ancestor but the root: a full repository disk must
never look like an unreadable source file.
"""

from __future__ import annotations


class PackstoneError(Exception):
    """Something Packstone could not do; `hint` says what to try next."""

    exit_code = 1
    kind = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PackstoneError):
    """Arguments that make no sense together or name nothing."""

    exit_code = 2
    kind = "usage"


class StrategyInvalid(UsageError):
    """A strategy file that cannot be used; `mistakes` are all that were found, a line each."""

    kind = "strategy"

    def __init__(self, message: str, *, mistakes: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.mistakes = mistakes


class SourceError(PackstoneError):
    """A source file that could not be read, changed while it was read, or vanished."""

    exit_code = 3
    kind = "source"


class TargetError(PackstoneError):
    """A file or attribute that could not be restored."""

    exit_code = 3
    kind = "target"


class CommandFailed(PackstoneError):
    """A command whose output was to be stored did not exit with 0; nothing was committed."""

    exit_code = 1
    kind = "command"


class RepositoryMissing(PackstoneError):
    """There is no repository where one was named."""

    exit_code = 10
    kind = "no-repository"


class RepositoryLocked(PackstoneError):
    """Another process holds a lock that excludes this one."""

    exit_code = 11
    kind = "locked"


class WrongPassphrase(PackstoneError):
    """No key slot opens with this passphrase."""

    exit_code = 12
    kind = "passphrase"


class StorageError(PackstoneError):
    """The storage of the repository failed; nothing was committed."""

    exit_code = 13
    kind = "storage"


class ObjectMissing(StorageError):
    """A stored file or object that must exist does not."""

    kind = "missing"


class StorageFull(StorageError):
    """The storage has no room left."""

    kind = "full"


class StorageUnavailable(StorageError):
    """The storage cannot be reached, read or written."""

    kind = "unavailable"


class GenerationChanged(StorageError):
    """A sweep ran while this writer worked; its snapshot was withdrawn."""

    kind = "generation"


class Damaged(PackstoneError):
    """Stored bytes are not what they must be; never returned as good data."""

    exit_code = 14
    kind = "damaged"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        name: str = "",
        offset: int | None = None,
        record: int | None = None,
        expected: str = "",
        found: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.name = name
        self.offset = offset
        self.record = record
        self.expected = expected
        self.found = found


class IndexWrong(Damaged):
    """The index contradicts the packs; it is to be rebuilt from their footers."""


class UnsupportedFormat(PackstoneError):
    """A version, mode or feature that this program does not know."""

    exit_code = 15
    kind = "unsupported"
