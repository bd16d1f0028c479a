"""Time `find` over many snapshots of a source tree, and `diff` of two of many tiny files.

    .venv/bin/python bench/look.py --snapshots 50 --files 100000

Beside restic and borg where these are on PATH and can do it (borg has no find). Commands take
turns; figures are the medians of wall and processor seconds of whole processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

NAME = "test_site.py"  # what is looked for
Figures = tuple[float, float]  # wall, processor seconds


def timed(command: list[str], environment: dict[str, str]) -> Figures:
    """Run a command to its end, output thrown away; raises CalledProcessError."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL)
    wall = time.perf_counter() - started
    if done.returncode not in (0, 1):  # borg's 1 is a warning
        raise subprocess.CalledProcessError(done.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Tools:
    """The tools that are there, with a repository each."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.environment = os.environ | {
            "PACKSTONE_CACHE_DIR": str(work / "cache"),
            "PACKSTONE_REPO": str(work / "packstone"),
            "RESTIC_REPOSITORY": str(work / "restic"),
            "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(work / "cache"),
            "BORG_REPO": str(work / "borg"),
            "BORG_BASE_DIR": str(work / "base"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        self.packstone = [sys.executable, "-m", "packstone", "-q"]
        self.names = ["packstone", *(name for name in ("restic", "borg") if shutil.which(name))]
        self._number = 0
        self.figures: dict[str, dict[str, float]] = {}  # all that was found, by row
        self.run([*self.packstone, "init", "--plain", str(work / "packstone")])
        if "restic" in self.names:
            self.run(["restic", "-q", "init", "--repository-version", "2"])
        if "borg" in self.names:
            self.run(["borg", "init", "--encryption", "none"])

    def run(self, command: list[str]) -> None:
        """Run a command whose time does not matter."""
        subprocess.run(command, env=self.environment, stdout=subprocess.DEVNULL, check=True)

    def snapshot(self, source: Path) -> None:
        """Take a snapshot with every tool."""
        self._number += 1
        self.run([*self.packstone, "snapshot", str(source)])
        if "restic" in self.names:
            self.run(["restic", "-q", "backup", str(source)])
        if "borg" in self.names:
            self.run(["borg", "create", f"::{self._number:04d}", str(source)])

    def restic_ids(self) -> list[str]:
        """Return the ids of the last two snapshots of restic."""
        listed = subprocess.run(
            ["restic", "snapshots", "--json"], env=self.environment, capture_output=True, check=True
        )
        return [row["id"] for row in json.loads(listed.stdout)][-2:]

    def compare(self, rows: dict[str, list[str]], repeat: int) -> dict[str, Figures]:
        """Time commands in turns; return and print the medians."""
        found: dict[str, list[Figures]] = {name: [] for name in rows}
        for _ in range(repeat):
            for name, command in rows.items():
                found[name].append(timed(command, self.environment))
        result = {}
        for name, figures in found.items():
            wall, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
            result[name] = (wall, cpu)
            self.figures[name] = {"wall": wall, "cpu": cpu}
            print(f"  {name:<34}{wall:8.2f} s {cpu:8.2f} s")
        return result


def look_for(tools: Tools, origin: Path, snapshots: int, repeat: int) -> None:
    """Copy a source tree, edit it between snapshots, find a name in one and in all."""
    source = tools.work / "library"
    skip = shutil.ignore_patterns("__pycache__", "site-packages", "dist-packages", "*.so")
    shutil.copytree(origin, source, ignore=skip, symlinks=True)
    files = sorted(path for path in source.rglob("*.py") if path.is_file())
    for number in range(snapshots):
        for path in files[number % 7 :: len(files) // 10]:
            path.write_bytes(path.read_bytes() + b"# edited\n")
        tools.snapshot(source)
    print(f"find in {snapshots} snapshots of {len(files):,} Python files (wall, processor)")
    packstone = [*tools.packstone, "find", NAME]
    rows = {
        "packstone find, one snapshot": [*packstone, "--snapshot", "latest"],
        "packstone find, all": packstone,
        "packstone find, JSON of every path": [*tools.packstone, "--json", "find"],
    }
    if "restic" in tools.names:
        rows["restic find, one snapshot"] = [
            "restic",
            "-q",
            "find",
            "-s",
            tools.restic_ids()[-1],
            NAME,
        ]
        rows["restic find, all"] = ["restic", "-q", "find", NAME]
    found = tools.compare(rows, repeat)
    ratio = found["packstone find, all"][1] / found["packstone find, one snapshot"][1]
    print(f"  all / one: {ratio:.2f} times the processor time\n")


def differ(tools: Tools, files: int, repeat: int) -> None:
    """Make tiny files, edit a few, compare the two snapshots; beside listing both."""
    source = tools.work / "tiny"
    for number in range(files):
        path = source / f"{number % 300:03d}"
        if number < 300:
            path.mkdir(parents=True)
        (path / f"{number:06d}.txt").write_bytes(b"%d\n" % (number * 7919))
    tools.snapshot(source)
    for number in range(0, files, max(1, files // 20)):
        (source / f"{number % 300:03d}" / f"{number:06d}.txt").write_bytes(b"edited\n")
    tools.snapshot(source)
    print(f"diff of two snapshots of {files:,} tiny files, 20 of which differ")
    rows = {
        "packstone diff": [*tools.packstone, "diff", "latest~1", "latest"],
        "packstone snapshots": [*tools.packstone, "snapshots"],
        "packstone ls -R (one of two)": [*tools.packstone, "ls", "-R", "latest"],
        "packstone ls -R --json (one)": [*tools.packstone, "ls", "-R", "--json", "latest"],
        "packstone diff --against": [
            *tools.packstone, "diff", "latest", "--against", str(source),
        ],
    }  # fmt: skip
    if "restic" in tools.names:
        rows["restic diff"] = ["restic", "-q", "diff", *tools.restic_ids()]
    if "borg" in tools.names:
        number = tools._number
        rows["borg diff"] = ["borg", "diff", f"::{number - 1:04d}", f"{number:04d}"]
    found = tools.compare(rows, repeat)
    share = found["packstone diff"][1] / (2 * found["packstone ls -R (one of two)"][1])
    print(f"  diff / listing both: {share:.3f} of the processor time")
    start = found["packstone snapshots"][1]
    print(f"  most of a diff is the start of the program: {start:.2f} s to list snapshots")
    in_one_process(tools, repeat)


def in_one_process(tools: Tools, repeat: int) -> None:
    """Compare the same through the Python API, in processor seconds."""
    import packstone

    diffs, lists = [], []
    for _ in range(repeat):
        for figures in (diffs, lists):
            with packstone.open(tools.work / "packstone") as repository:
                repository.stats()  # the index is open, and pages are in the system's cache
            with packstone.open(tools.work / "packstone") as repository:
                started = time.process_time()
                if figures is diffs:
                    repository.diff("latest~1", "latest")
                else:
                    for name in ("latest~1", "latest"):
                        for _row in repository.ls(name, recursive=True):
                            pass
                figures.append(time.process_time() - started)
    diff, both = statistics.median(diffs), statistics.median(lists)
    tools.figures["diff, within one process"] = {"cpu": diff}
    tools.figures["listing both, within one process"] = {"cpu": both}
    print(f"  within one process: diff {diff:.4f} s, listing both {both:.4f} s: {diff / both:.3f}")


def main() -> None:
    """Run both parts in a directory that is removed."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--snapshots", type=int, default=50)
    options.add_argument("--files", type=int, default=100_000)
    options.add_argument("--repeat", type=int, default=5)
    options.add_argument(
        "--source", type=Path, default=Path(sysconfig.get_path("stdlib")),
        help="a tree of Python files to look in (default: the standard library)",
    )  # fmt: skip
    options.add_argument("--work", type=Path, help="default: /dev/shm or the system's")
    said = options.parse_args()
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    parts: list[Callable[[Tools], None]] = [
        lambda tools: look_for(tools, said.source, said.snapshots, said.repeat),
        lambda tools: differ(tools, said.files, said.repeat),
    ]
    figures: dict[str, dict[str, float]] = {}
    for part in parts:
        work = Path(tempfile.mkdtemp(prefix="packstone-look-", dir=said.work or shared))
        try:
            tools = Tools(work)
            part(tools)
            figures |= tools.figures
        finally:
            shutil.rmtree(work)
    print(json.dumps({"snapshots": said.snapshots, "files": said.files, "rows": figures}))


if __name__ == "__main__":
    main()
