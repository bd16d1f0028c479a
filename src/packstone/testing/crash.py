"""What a directory may hold after the power was cut, whatever a file system makes of it.

From a list of writes with the moments of fsync follow all states in which everything synced
is kept and any part of the rest was applied, in any order: bytes by sectors of 512, names one
by one. POSIX promises no more; real file systems lose less, each in its own way. The idea is
that of SQLite's test6.c.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from packstone.storage.local import LocalStorage
from packstone.testing.write_list import (
    Enter,
    MakeDirectory,
    Mark,
    Remove,
    SyncDirectory,
    SyncFile,
    Write,
    WriteList,
)

SECTOR = 512
Pending = Write | Enter | Remove | MakeDirectory


@dataclass(frozen=True, slots=True)
class CrashState:
    """One thing that may be left: files with their bytes, directories, by relative paths.

    `marks` are the moments that had passed; `lost` tells what was not applied.
    """

    files: dict[str, bytes]
    directories: frozenset[str]
    marks: tuple[Mark, ...]
    lost: tuple[str, ...] = ()

    def write_to(self, directory: str, previous: CrashState | None = None) -> None:
        """Make a directory hold this state; `previous` is what it holds, if it is not new."""
        if previous is None or previous.directories != self.directories:
            shutil.rmtree(directory, ignore_errors=True)
            previous = None
            for path in sorted(self.directories):
                os.makedirs(os.path.join(directory, path), mode=0o700, exist_ok=True)
        old = previous.files if previous else {}
        for path in old.keys() - self.files.keys():
            os.unlink(os.path.join(directory, path))
        for path, data in self.files.items():
            if old.get(path) != data:
                with open(os.path.join(directory, path), "wb") as file:
                    file.write(data)


@dataclass
class _Disk:
    """What is durable, and what is not yet; files are numbered as in the list."""

    contents: dict[int, bytes] = field(default_factory=dict)
    entries: dict[str, int] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    above: Sequence[str] = ()
    pending: list[tuple[int, Pending]] = field(default_factory=list)
    version: int = 0

    def settle(self, durable: Collection[int]) -> None:
        """Let pending steps of these numbers be durable."""
        if not durable:
            return
        for number, step in self.pending:
            if number in durable:
                if isinstance(step, Write):
                    old = self.contents.get(step.file, b"")
                    self.contents[step.file] = _overwrite(old, step, None)
                else:
                    _rename(self.entries, self.directories, step)
        self.pending = [each for each in self.pending if each[0] not in durable]
        self.version += 1


def _overwrite(old: bytes, step: Write, tear: Random | None) -> bytes:
    """Return a file's bytes after a write, of which `tear` may leave out sectors."""
    data = bytearray(old.ljust(step.offset + len(step.data), b"\0"))
    at = 0
    while at < len(step.data):
        # Sectors are those of the file, not of the write.
        end = min(len(step.data), at + SECTOR - (step.offset + at) % SECTOR)
        if tear is None or tear.random() < 0.5:
            data[step.offset + at : step.offset + end] = step.data[at:end]
        at = end
    return bytes(data)


def _rename(
    entries: dict[str, int], directories: set[str], step: Enter | Remove | MakeDirectory
) -> None:
    if isinstance(step, Enter):
        entries[step.path] = step.file
    elif isinstance(step, Remove):
        entries.pop(step.path, None)
    else:
        directories.add(step.path)


def _holder(path: str) -> str:
    """Return the directory that a path stands in; paths may lead above the root."""
    if path.rpartition("/")[2] in (".", ".."):
        return ".." if path == "." else f"{path}/.."
    return os.path.dirname(path) or "."


def crash_states(
    writes: WriteList,
    *,
    exhaustive: int = 12,
    samples: int = 1000,
    seed: int = 0,
    scratch: str = "tmp",
    deaf_to: Collection[str] = (),
) -> Iterator[CrashState]:
    """Yield states that a power cut at any moment may leave, each once.

    At each moment all subsets of what is pending, or `samples` of them where more than
    `exhaustive` steps are. Names in the folder `scratch` count as read by nobody: they are
    there or not by chance, and states that differ in them alone are one. `deaf_to` holds
    "files" or "directories" to take no notice of their fsyncs: what a test must then find.
    """
    disk = _Disk(
        contents=dict(enumerate(writes.files.values())),
        entries={path: number for number, path in enumerate(writes.files)},
        directories=set(writes.directories),
        above=writes.above,
    )
    marks: list[Mark] = []
    seen: set[object] = set()
    chance = Random(seed)

    def states(last: int | None) -> Iterator[CrashState]:
        yield from _states(disk, tuple(marks), last, seen, chance, exhaustive, samples, scratch)

    yield from states(None)
    for number, step in enumerate(list(writes.steps)):
        if isinstance(step, Mark):
            marks.append(step)
            yield from states(None)
        elif isinstance(step, SyncFile):
            if "files" not in deaf_to:
                disk.settle(
                    {
                        n
                        for n, each in disk.pending
                        if isinstance(each, Write) and each.file == step.file
                    }
                )
        elif isinstance(step, SyncDirectory):
            if "directories" not in deaf_to:
                disk.settle(
                    {
                        n
                        for n, each in disk.pending
                        if not isinstance(each, Write) and _holder(each.path) == step.path
                    }
                )
        else:
            disk.pending.append((number, step))
            yield from states(number)


def _states(
    disk: _Disk,
    marks: tuple[Mark, ...],
    last: int | None,
    seen: set[object],
    chance: Random,
    exhaustive: int,
    samples: int,
    scratch: str,
) -> Iterator[CrashState]:
    """Yield the states of one moment; those without its `last` step came before."""

    def is_scratch(path: str) -> bool:
        return path.startswith(scratch + "/")

    named = {number for path, number in disk.entries.items() if not is_scratch(path)}
    named |= {
        step.file
        for _, step in disk.pending
        if isinstance(step, Enter) and not is_scratch(step.path)
    }
    seen_by_readers = [
        (number, step)
        for number, step in disk.pending
        if (step.file in named if isinstance(step, Write) else not is_scratch(step.path))
    ]
    hidden = [
        (number, step)
        for number, step in disk.pending
        if not isinstance(step, Write) and is_scratch(step.path)
    ]
    if last is not None and not any(number == last for number, _ in seen_by_readers):
        return
    for chosen in _choices(seen_by_readers, last, chance, exhaustive, samples):
        entries, directories = dict(disk.entries), set(disk.directories)
        for _, step in chosen:
            if not isinstance(step, Write):
                _rename(entries, directories, step)
        reached = {number for path, number in entries.items() if not is_scratch(path)}
        kept = [
            each for each in chosen if not isinstance(each[1], Write) or each[1].file in reached
        ]
        written = [step for _, step in kept if isinstance(step, Write)]
        for torn in (False, True) if written else (False,):
            key = (disk.version, len(marks), torn, tuple(number for number, _ in kept))
            if key in seen:
                continue
            seen.add(key)
            contents = dict(disk.contents)
            for step in written:
                contents[step.file] = _overwrite(
                    contents.get(step.file, b""), step, chance if torn else None
                )
            for _, each in hidden:
                if chance.random() < 0.5:
                    _rename(entries, directories, each)
            found = _reachable(directories, disk.above)
            numbers = {number for number, _ in kept}
            yield CrashState(
                {
                    path: contents.get(number, b"")
                    for path, number in entries.items()
                    if _holder(path) in found
                },
                found,
                marks,
                tuple(_tell(step) for number, step in seen_by_readers if number not in numbers),
            )


def _choices(
    pending: Sequence[tuple[int, Pending]],
    last: int | None,
    chance: Random,
    exhaustive: int,
    samples: int,
) -> Iterator[Sequence[tuple[int, Pending]]]:
    """Yield subsets of what is pending, with the last step if there is one, in its order."""
    free = [each for each in pending if each[0] != last]
    fixed = [each for each in pending if each[0] == last]
    if len(free) <= exhaustive:
        for mask in range(1 << len(free)):
            yield [each for bit, each in enumerate(free) if mask >> bit & 1] + fixed
        return
    yield fixed
    yield [*free, *fixed]
    for left_out in chance.sample(range(len(free)), min(samples, len(free))):
        yield [each for at, each in enumerate(free) if at != left_out] + fixed
    for _ in range(samples):
        share = chance.random()
        yield [each for each in free if chance.random() < share] + fixed


def _reachable(directories: set[str], above: Sequence[str]) -> frozenset[str]:
    """Return the directories all of whose holders are there; above the root as well."""
    if not directories >= {".", *above}:
        return frozenset()
    found = {"."}
    for path in sorted(directories, key=lambda path: path.count("/")):
        if path not in (".", *above) and _holder(path) in found:
            found.add(path)
    return frozenset(found)


def _tell(step: Pending) -> str:
    if isinstance(step, Write):
        return f"{len(step.data)} bytes at {step.offset} of file {step.file}"
    return f"{type(step).__name__} {step.path}"


class CrashStorage(LocalStorage):
    """A directory as storage that knows what a power cut could leave of it.

    It works as LocalStorage does and writes down the calls that it makes; so does a storage of
    your own with a WriteList and crash_states.
    """

    def __init__(self, path: str, *, skipped: Collection[str] = ("index",)) -> None:
        """Begin with what is at `path`, all of it durable; `skipped` top folders are left out."""
        self.writes = WriteList(path, skipped=skipped)
        super().__init__(path, self.writes)

    def mark(self, text: str, payload: bytes = b"") -> None:
        """Write down a moment: what was acknowledged before it must survive from it on."""
        self.writes.mark(text, payload)

    def states(
        self,
        *,
        exhaustive: int = 12,
        samples: int = 1000,
        seed: int = 0,
        deaf_to: Collection[str] = (),
    ) -> Iterator[CrashState]:
        """Yield what a power cut at any moment may leave; arguments as in crash_states."""
        return crash_states(
            self.writes, exhaustive=exhaustive, samples=samples, seed=seed, deaf_to=deaf_to
        )
