"""The real command while the kernel gives errors: rows E3 (strace) and E5 (no memory).

strace makes the k-th call of a kind fail; that goes through Python, LMDB and the C extensions
alike. Every day some calls, `make soak` all that have to do with the repository.
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from campaign import IS_SOAK, campaign, control, trials
from campaign import Caught as CaughtDefect
from crash.commands import Stage, copies, judge_snapshot, make_stage

import packstone

SYNCS = ["fsync", "fdatasync", "rename"]
# unlink first: the longest lists come last, so that a run that is cut off has seen something
OTHERS = [
    ["unlink"],
    ["write", "pwrite64", "pread64", "read"],
    ["getdents64"],
    ["close"],
    ["openat"],
]
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)$")
_STRACE = ["strace", "-f", "-qq", "-y", "--seccomp-bpf"]


def words(stage: Stage) -> list[str]:
    return [
        sys.executable, "-m", "packstone", "--threads", "1", "-r", str(stage.location),
        "snapshot", str(stage.source),
    ]  # fmt: skip


def run(prefix: Sequence[str | Path], stage: Stage) -> tuple[int, str]:
    """Take a snapshot by the command; return its exit code and what it said."""
    done = subprocess.run(
        [*prefix, *words(stage)], capture_output=True, timeout=120, cwd=stage.location.parent
    )
    return done.returncode, done.stderr.decode("utf-8", "replace")


def calls(log: Path) -> list[tuple[str, int, str]]:
    """Return (call, its number in its thread, the line) from what strace wrote."""
    counts: Counter[tuple[str, str]] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        match = _LINE.match(line)
        if match:
            counts[match[1], match[2]] += 1
            found.append((match[2], counts[match[1], match[2]], line))
    return found


@pytest.fixture
def original(place: Path) -> Stage:
    if not shutil.which("strace"):
        pytest.skip("needs strace")
    done = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True)
    if done.returncode:
        pytest.skip("tracing is not allowed here")
    return make_stage(place)


def where(stage: Stage, kinds: Sequence[str], log: Path) -> list[tuple[str, int]]:
    """Return the calls of these kinds that have to do with the repository."""
    argv = [*_STRACE, "-e", f"trace={','.join(kinds)}", "-o", log]
    code, said = run(argv, stage)
    assert code == 0, said
    return sorted({(call, k) for call, k, line in calls(log) if is_ours(stage, line)})


def is_ours(stage: Stage, line: str) -> bool:
    """Whether a call is for a descriptor, or a path, of the repository."""
    return f"<{stage.location}" in line or f'"{stage.location}' in line


def inject(stage: Stage, call: str, k: int, log: Path) -> tuple[int, str]:
    argv = [
        *_STRACE, "-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={k}", "-o", log,
    ]  # fmt: skip
    return run(argv, stage)


@pytest.mark.parametrize("kinds", [SYNCS, *OTHERS], ids=" ".join)
def test_every_call_of_the_command(original: Stage, place: Path, kinds: list[str]) -> None:
    log = place / "log"
    with copies(original) as copy:
        found = where(copy(), kinds, log)
        count = trials(3 if kinds is SYNCS else 1, len(found))
        found = found[:: max(1, -(-len(found) // max(1, count)))]
        for kind in kinds:
            chosen = [(call, k) for call, k in found if call == kind]
            if not chosen:
                continue
            with campaign("E3", f"snapshot by the command, EIO from {kind}") as row:
                codes: Counter[int] = Counter()
                for call, k in chosen:
                    stage = copy()
                    code, said = inject(stage, call, k, log)
                    assert "Traceback" not in said, (call, k, said)
                    lines = [line for each, _, line in calls(log) if each == call]
                    hits = [line for line in lines if "INJECTED" in line]
                    hit = next(iter(hits), "")
                    # Each thread counts its calls: another one's may be of stdout or a source.
                    others = () if all(is_ours(stage, line) for line in hits) else (1, 3)
                    assert code in (0, 13, 14, *others), (call, k, code, said)
                    if call in SYNCS:
                        assert hit, "nothing was injected"
                        assert not tried_again(lines, hit), (call, k, lines)
                    try:
                        if code == 3:  # a source: what could be read of it was committed
                            with stage.open() as repository:
                                assert repository.check(read_data=True).errors == []
                        else:
                            judge_snapshot(stage, done=code == 0)
                    except BaseException as error:
                        error.add_note(f"{hit}: exit code {code}, {said}")
                        raise
                    codes[code] += 1
                    row.trials += 1
                row.note = f", exit codes {dict(sorted(codes.items()))}"


def tried_again(lines: list[str], hit: str) -> bool:
    """Whether a file whose fsync failed is synced once more."""
    path = re.search(r"<([^>]*)>", hit)
    if path is None or path[1].split("/")[-2:-1] != ["tmp"]:
        return False  # directories, and files of LMDB, are synced for other reasons, too
    later = lines[lines.index(hit) + 1 :]
    return any(f"<{path[1]}>" in line for line in later)


def test_a_second_fsync_would_be_noticed(original: Stage, place: Path) -> None:
    log = place / "log"
    patched = place / "retry.py"
    patched.write_text(
        "import os, sys\n"
        "fsync = os.fsync\n"
        "def again(fd):\n"
        "    try:\n"
        "        fsync(fd)\n"
        "    except OSError:\n"
        "        fsync(fd)\n"
        "os.fsync = again\n"
        "from packstone.cli.main import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    with control("E3", "fsync is tried again") as row, copies(original) as copy:
        stage = copy()
        argv = [*_STRACE, "-e", "trace=fsync", "-e", "inject=fsync:error=EIO:when=1", "-o", log]
        subprocess.run(
            [*argv, sys.executable, patched, *words(stage)[3:]], capture_output=True, timeout=120
        )
        lines = [line for _, _, line in calls(log)]
        hit = next(line for line in lines if "INJECTED" in line)
        row.trials += 1
        if tried_again(lines, hit):
            raise CaughtDefect


# -- no memory ------------------------------------------------------------------------------

_MIB = 1 << 20


def limited(stage: Stage, size: int, argv: list[str]) -> tuple[int, str]:
    done = subprocess.run(
        argv, capture_output=True, timeout=120, cwd=stage.location.parent,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (size, size)),
    )  # fmt: skip
    return done.returncode, done.stderr.decode("utf-8", "replace")


def enough(copy: Callable[[], Stage], argv: Callable[[Stage], list[str]]) -> int:
    """Return a limit, in MiB, from which on a command succeeds; about the least."""
    low, high = 8, 1024
    while high - low > (2 if IS_SOAK else 24):
        middle = (low + high) // 2
        stage = copy()
        if limited(stage, middle * _MIB, argv(stage))[0] == 0:
            high = middle
        else:
            low = middle
    return high


def test_no_memory(original: Stage) -> None:
    """Exit code 1 or 13 or success at every limit of address space, and never half a commit."""
    with campaign("E5", "snapshot by the command, RLIMIT_AS") as row, copies(original) as copy:
        least = enough(copy, lambda stage: [sys.executable, "-m", "packstone", "--version"])
        most = enough(copy, words)
        codes: Counter[int] = Counter()
        count = trials(4, 200)
        for number in range(count):
            stage = copy()
            size = least * _MIB + (most + 16 - least) * _MIB * (number + 1) // count
            code, said = limited(stage, size, words(stage))
            codes[code] += 1
            try:
                assert code in (0, 1, 13), said
                judge_snapshot(stage, done=code == 0)
            except (AssertionError, packstone.PackstoneError) as error:
                error.add_note(f"limit {size}: exit code {code}, {said[-2000:]}")
                raise
            row.trials += 1
        row.note = f", exit codes {dict(sorted(codes.items()))}"
