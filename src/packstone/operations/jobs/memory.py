"""What is remembered of a job between runs, and the lock that keeps two of them apart.

One small file for each job, by where its strategy is and what it is called. It is a
convenience: lost or damaged, it costs a look into the repository for the newest snapshot. The
lock is the kernel's, so that nobody ever removes it by hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import urllib.parse
from datetime import UTC, datetime

import msgspec

from packstone.errors import PackstoneError, RepositoryLocked
from packstone.operations.jobs.strategy import Strategy

ROOT_STATE = "/var/lib/packstone"
_NAME_SIZE = 100  # characters of a job's name that its files show
_NOTE_SIZE = 4096


class Memory(msgspec.Struct, kw_only=True):
    """What is known of the runs of a job; zeros where nothing is.

    `good_ns` is when the last run began that stored all of it. `running` stays true when a run
    was killed. `failures` counts the attempts since the last good one, a running one included.
    """

    job: str = ""
    began_ns: int = 0
    running: bool = False
    failures: int = 0
    good_ns: int = 0
    status: str = ""
    error: str = ""
    seconds: float = 0.0
    bytes_total: int = 0
    bytes_read: int = 0
    bytes_stored: int = 0
    snapshots: list[str] = []


class Holder(msgspec.Struct, frozen=True):
    """Who runs a job; `since` is RFC 3339."""

    pid: int
    since: str


def state_directory(strategy: Strategy) -> str:
    """Return where runs remember: what the strategy says, else where such things belong."""
    if strategy.state_dir:
        return strategy.state_dir
    base = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(base):  # the specification says to ignore any other
        return os.path.join(base, "packstone")
    if os.geteuid() == 0:
        return ROOT_STATE
    return os.path.expanduser("~/.local/state/packstone")


class JobFiles:
    """The files of one job."""

    def __init__(self, strategy: Strategy, job: str) -> None:
        self._job = job
        self._directory = state_directory(strategy)
        key = f"{os.path.realpath(strategy.path)}\0{job}".encode("utf-8", "surrogateescape")
        name = urllib.parse.quote(job, safe="", errors="surrogateescape")[:_NAME_SIZE]
        stem = f"{name}-{hashlib.blake2b(key, digest_size=8).hexdigest()}"
        self._state = os.path.join(self._directory, stem + ".json")
        self._lock = os.path.join(self._directory, stem + ".lock")

    def load(self) -> Memory | None:
        """Return what is remembered; None where that is nothing, or cannot be read."""
        try:
            with open(self._state, "rb") as file:
                memory = msgspec.json.decode(file.read(1 << 20), type=Memory)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return memory if memory.job == self._job else None

    def save(self, memory: Memory) -> None:
        """Remember; whole or not at all. Raises OSError."""
        os.makedirs(self._directory, 0o700, exist_ok=True)
        draft = f"{self._state}.tmp"  # the lock is held: nobody else writes one
        with open(draft, "wb") as file:
            file.write(msgspec.json.encode(memory))
            file.flush()
            # Else a power cut could leave an empty file in the place of the old one.
            os.fsync(file.fileno())
        os.replace(draft, self._state)

    def lock(self) -> JobLock:
        """Take the job; raises RepositoryLocked while another run is at it."""
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise PackstoneError(
                f"cannot keep the state of jobs in {self._directory}: {error.strerror}",
                hint="Say another place with state_dir in the strategy's file",
            ) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            text = f"it is still going: {_holder(fd)}"
            os.close(fd)
            if not isinstance(error, BlockingIOError):
                raise PackstoneError(
                    f"cannot lock {self._lock}: {error.strerror}",
                    hint="Say another place with state_dir in the strategy's file",
                ) from error
            raise RepositoryLocked(text, hint="Run again when it has finished") from None
        with contextlib.suppress(OSError):  # a full disk keeps nobody from the work
            os.ftruncate(fd, 0)
            since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            os.pwrite(fd, msgspec.json.encode(Holder(os.getpid(), since)), 0)
        return JobLock(fd)

    def going(self) -> str:
        """Return who is at the job, empty if nobody is; changes nothing."""
        try:
            fd = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return ""
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return ""
        except OSError:
            return _holder(fd)
        finally:
            os.close(fd)


class JobLock:
    """A job that is taken, until `release` or the end of all processes that work on it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Give it back; a process of the job that could not be ended keeps it."""
        # Not unlocked: that would take it from our child too, which shares the open file.
        os.close(self._fd)


def _holder(fd: int) -> str:
    try:
        holder = msgspec.json.decode(os.pread(fd, _NOTE_SIZE, 0), type=Holder)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "a process that left no note of itself"
    return f"process {holder.pid} since {holder.since}"
