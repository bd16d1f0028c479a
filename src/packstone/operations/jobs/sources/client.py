"""Run clients of databases: find them, read what they print, feed them what is played back.

Whatever they say on stderr is read all the time, or they would wait for us, and kept within a
bound. No password is ever put on a command line or into a message. A client that is still going
when nobody needs it any more is ended; one that is fed and cut short is killed before its input
ends, for an end would tell it to commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, BinaryIO, cast

from packstone.errors import CommandFailed, UsageError
from packstone.operations.processes import end_process, told_end

_KEPT = 4096  # bytes of messages from the beginning, and as many from the end
_LAST_WORDS = 5  # seconds for messages of a client that has ended; its children may go on
_ANSWER = 1 << 20  # largest answer to a question
_FEED = 1 << 20

Advice = Callable[[str], str]  # messages of a client → what to do about them, or nothing


def find_client(names: Sequence[str], package: str) -> str:
    """Return the path of the first of some programs; raises UsageError when none is installed."""
    for name in names:
        if path := shutil.which(name):
            return path
    raise UsageError(
        f"{' or '.join(names)} is not installed",
        hint=f"Install the database's client (Debian: apt install {package}) or put it on PATH",
    )


class Messages:
    """What a program writes to stderr: read to its end by a thread, its middle thrown away."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._first = b""
        self._last = b""
        self._lost = 0
        self._thread = threading.Thread(target=self._read, name="packstone-messages", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream as stream:
            while data := os.read(stream.fileno(), 1 << 16):
                room = _KEPT - len(self._first)
                self._first += data[:room]
                last = self._last + data[room:] if room < len(data) else self._last
                self._lost += max(len(last) - _KEPT, 0)
                self._last = last[-_KEPT:]

    def text(self) -> str:
        """Return what was said, on one line; call it when the program has ended."""
        self._thread.join(_LAST_WORDS)
        gap = b"\n[\xe2\x80\xa6]\n" if self._lost else b""
        lines = (self._first + gap + self._last).decode("utf-8", "replace").splitlines()
        return "; ".join(line.strip() for line in lines if line.strip())


def _start(
    argv: Sequence[str], env: Mapping[str, str] | None, *, stdin: int, stdout: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            bufsize=0,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
        )
    except (OSError, ValueError) as error:  # a name with a zero byte in it
        raise CommandFailed(f"cannot run {argv[0]}: {error}", hint="Nothing was changed") from error


def _failure(program: str, code: int, said: str, advice: Advice, hint: str) -> CommandFailed:
    message = f"{program} {told_end(code)}" + (f": {said}" if said else " and said nothing")
    return CommandFailed(message, hint=". ".join(filter(None, (advice(said), hint))))


def no_advice(_said: str) -> str:
    """Return nothing: of programs that we do not know."""
    return ""


class ClientPouring:
    """The output of a program while it is stored; a `Pouring`.

    What a program says that succeeds is among the `warnings`.
    With `must_print` a program that says that it succeeded without a byte is not believed.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        advice: Advice = no_advice,
        must_print: bool = True,
        program: str = "",
    ) -> None:
        self._program = program or os.path.basename(argv[0])
        self._advice = advice
        self._must_print = must_print
        self._process = _start(argv, None, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None and self._process.stderr is not None
        self._messages = Messages(self._process.stderr)
        self._output = _Counted(self._process.stdout)
        self.warnings: list[str] = []

    @property
    def stream(self) -> BinaryIO:
        """What the program prints, from a pipe."""
        return cast(BinaryIO, self._output)

    def finish(self) -> None:
        """Wait for the program; raises CommandFailed unless it exits with 0."""
        code = self._process.wait()
        if code:
            raise _failure(
                self._program, code, self._messages.text(), self._advice, "Nothing was committed"
            )
        if self._must_print and not self._output.count:
            raise CommandFailed(
                f"{self._program} exited with 0 but printed nothing", hint="Nothing was committed"
            )
        if said := self._messages.text():
            self.warnings.append(f"{self._program}: {said}")

    def close(self) -> None:
        """End the program if it still runs."""
        self._process.stdout.close()  # type: ignore[union-attr]
        end_process(self._process)


class _Counted:
    """A pipe that remembers how much came out of it."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self.count = 0

    def readinto(self, buffer: memoryview) -> int:
        """Read what is there, 0 at the end."""
        count: int = self._pipe.readinto(buffer)  # type: ignore[attr-defined]
        self.count += count
        return count

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, all by default; fewer only at the end."""
        parts = []
        while size and (data := self._pipe.read(size)):
            parts.append(data)
            self.count += len(data)
            size -= len(data) if size > 0 else 0
        return b"".join(parts)


def ask(argv: Sequence[str], *, advice: Advice = no_advice, question: str = "") -> str:
    """Return what a program prints, `question` on its input; raises CommandFailed.

    For short answers only: one of more than 1 MiB fails.
    """
    pouring = _start(argv, None, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert pouring.stdin is not None and pouring.stdout is not None and pouring.stderr is not None
    messages = Messages(pouring.stderr)
    try:
        try:
            pouring.stdin.write(question.encode("utf-8", "surrogateescape"))  # fits a pipe
            pouring.stdin.close()
        except BrokenPipeError:
            pass
        answer = b""
        while len(answer) <= _ANSWER and (data := pouring.stdout.read(1 << 16)):
            answer += data
        if len(answer) > _ANSWER:
            raise CommandFailed(f"{os.path.basename(argv[0])} answered with more than 1 MiB")
        code = pouring.wait()
    finally:
        pouring.stdout.close()
        end_process(pouring)
    if code:
        raise _failure(os.path.basename(argv[0]), code, messages.text(), advice, "")
    return answer.decode("utf-8", "replace")


def blocks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of a stream to its end."""
    while data := stream.read(_FEED):
        yield data


def feed(
    argv: Sequence[str],
    content: Iterator[bytes],
    *,
    advice: Advice = no_advice,
    hint: str = "",
    env: Mapping[str, str] | None = None,
) -> str:
    """Give content to a program's input; return its messages, raise CommandFailed when it fails.

    Whatever `content` raises passes on, and the program is killed before it sees an end.
    """
    process = _start(argv, env, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stdin is not None and process.stderr is not None
    messages = Messages(process.stderr)
    whole = False
    try:
        try:
            for block in content:
                view = memoryview(block)
                while view:  # unbuffered pipes take what fits
                    view = view[process.stdin.write(view) :]
            whole = True
        except BrokenPipeError:  # it has ended, or takes no more: its code tells
            whole = False
            process.wait()
        if whole:
            process.stdin.close()
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass
    if code:
        raise _failure(os.path.basename(argv[0]), code, messages.text(), advice, hint)
    if not whole:
        raise CommandFailed(
            f"{os.path.basename(argv[0])} exited with 0 before it had read everything", hint=hint
        )
    return messages.text()
