"""Each system call of a batch fails once, by strace: what is reported is what is there.

A run with no fault finds which calls of the process belong to the batch (between two calls of
getppid); then each kind of call is made to fail at its first and at its last occurrence.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from packstone.filesystem import _scan

COUNT = 6  # files per batch

PRELUDE = """
import importlib.util, json, os, sys
spec = importlib.util.spec_from_file_location("_scan", sys.argv[3])  # without the package: fast
_scan = importlib.util.module_from_spec(spec)
spec.loader.exec_module(_scan)
fd = os.open(sys.argv[1], os.O_RDONLY)
data = b"x" * 100
names = [b"f%d" % i for i in range(int(sys.argv[2]))]
rows = [(fd, name, data, 0o100640, os.geteuid(), os.getegid(), 5) for name in names]
"""

WORK = {
    "write": "r = _scan.write_files(rows, b'.t-', True, False)",
    "write named": "r = _scan.write_files(rows, b'.t-', True, False, False)",
    "replace": "r = _scan.write_files(rows, b'.t-', True, True)",
    "replace named": "r = _scan.write_files(rows, b'.t-', True, True, False)",
    "read": "r = [x if isinstance(x, int) else [x[1] == data, x[2]]"
    " for x in _scan.read_files([(fd, name, 100) for name in names], 1000)]",
    "stat": "r = [x if isinstance(x, int) else x[3] for x in _scan.stat_names(fd, names)]",
    "list": "r = [os.fsdecode(x) for x in _scan.list_names(fd)]",
}

CASES = [
    *[
        (work, call)
        for work in ("write", "write named")
        for call in ("openat", "write", "fchmod", "utimensat", "close")
    ],
    ("write", "linkat"),
    ("write named", "/^rename"),
    *[
        (work, call)
        for work in ("replace", "replace named")
        for call in ("openat", "close", "/^rename")
    ],
    *[("read", call) for call in ("openat", "readv", "/fstat", "flistxattr", "close")],
    ("stat", "newfstatat"),
    ("list", "getdents64"),
    ("list", "lseek"),
]


def run(directory: Path, work: str, *options: str) -> tuple[Any, str]:
    """Run a batch under strace; return what it printed and the calls that were traced."""
    log = directory.parent / "strace.log"
    script = (
        f"{PRELUDE}os.getppid()\ntry:\n    {WORK[work]}\nexcept OSError as error:\n"
        "    r = {'errno': error.errno}\nos.getppid()\nprint(json.dumps(r))\n"
    )
    done = subprocess.run(
        [
            "strace",
            "-q",
            "-o",
            log,
            *options,
            sys.executable,
            "-S",
            "-E",
            "-c",
            script,
            directory,
            str(COUNT),
            _scan.__file__,
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode != 0 or not done.stdout:
        pytest.skip(f"strace does not work here: {done.stderr[-200:]}")
    return json.loads(done.stdout), log.read_text()


@pytest.fixture(scope="module")
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")


def prepare(directory: Path, work: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    if "write" not in work:
        for i in range(COUNT):
            (directory / f"f{i}").write_bytes(b"x" * 100 if work == "read" else b"old")


def check(directory: Path, work: str, result: Any, error: int) -> None:
    found = {path.name: path.read_bytes() for path in directory.iterdir()}
    old = {} if "write" in work else {f"f{i}": b"old" for i in range(COUNT)}
    if "write" in work or "replace" in work:
        assert all(each >= -error for each in result)
        expected = {f"f{i}": b"x" * 100 for i, each in enumerate(result) if each >= 0}
        assert found == old | expected
    elif work == "read":
        # an error, or the whole content, and only called stable if nothing went wrong
        assert all(each in (error, [True, True]) for each in result)
    elif work == "stat":
        assert all(each in (error, 3) for each in result)
    else:
        assert result in ({"errno": error}, sorted(found))


@pytest.mark.parametrize(("work", "call"), CASES)
@pytest.mark.usefixtures("strace")
def test_one_failing_call(tmp_path: Path, work: str, call: str) -> None:
    directory = tmp_path / "d"
    prepare(directory, work)
    _, log = run(directory, work, "-e", f"trace={call},getppid")
    before, inside, _ = log.split("getppid()")[:3]
    first = sum("(" in line for line in before.splitlines()) + 1
    count = sum("(" in line for line in inside.splitlines())
    assert count > 0
    for offset, name, number in ((0, "EIO", 5), (count - 1, "ENOSPC", 28)):
        prepare(directory, work)
        result, log = run(
            directory, work, "-e", f"trace={call}",
            "-e", f"inject={call}:error={name}:when={first + offset}",
        )  # fmt: skip
        assert "INJECTED" in log
        check(directory, work, result, number)


@pytest.mark.parametrize("work", list(WORK))
@pytest.mark.usefixtures("strace")
def test_interrupted_calls_are_repeated(tmp_path: Path, work: str) -> None:
    directory = tmp_path / "d"
    calls = "linkat,/^rename,readv,flistxattr,fchmod,utimensat"
    prepare(directory, work)
    result, _ = run(
        directory, work, "-e", f"trace={calls}", "-e", f"inject={calls}:error=EINTR:when=1+2"
    )
    check(directory, work, result, 0)
    if "write" in work or "replace" in work:
        assert result == [0] * COUNT
