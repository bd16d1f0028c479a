"""Time reading through a mount, and copying to a second repository, on two versions of CRM.

    .venv/bin/python bench/transfer.py --scale 0.25

Reading: the newest snapshot restored into an empty directory, beside the same files read from a
mount from front to end, each mount a new one. Copying: to an empty repository, beside `cp` of the
packs and `sync` of what it wrote, and then one more night, of which little is new. restic copies
and mounts, borg mounts where llfuse is there. Rows take turns; figures are medians of wall and
processor seconds of all processes that had a part. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from corpora.base import Corpus
from corpora.catalogue import add_arguments, chosen, default_work
from measure import CommandFailed, Sample, run, tree_size
from peers import Borg, Packstone, Restic, find_program
from tool import Command, Tool

MB = 1e6


class Row(NamedTuple):
    """One thing that is timed: what comes before it does not count."""

    before: Callable[[], None]
    timed: Callable[[], Sample]


class Place:
    """The corpus, the tools with a repository each, and where everything goes."""

    def __init__(self, work: Path, corpus: Corpus, packstone: Command) -> None:
        self.work = work
        self.corpus = corpus
        self.tools: dict[str, Tool] = {}
        for kind in (Packstone, Restic, Borg):
            program = find_program(kind.name, packstone)
            if program is not None:
                tool = self.tools[kind.name] = kind(program, work, corpus.source)
                tool.home.mkdir(parents=True)
                self.run(tool, tool.init())

    def run(self, tool: Tool, command: Command, cwd: Path | None = None) -> Sample:
        """Run a command of a tool to its end; raises CommandFailed."""
        return run(command, env=tool.environment, cwd=cwd or self.work, log=self.work / "log")

    def snapshot(self, version: str) -> None:
        """Take a snapshot of a version of the corpus with every tool."""
        self.corpus.switch(version)
        for tool in self.tools.values():
            self.run(tool, tool.snapshot())

    def empty(self, name: str) -> Path:
        """Return a new, empty directory."""
        path = self.work / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        return path


def processor_seconds(pid: int) -> float:
    """Return user and system seconds of a process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- reading --------------------------------------------------------------------------------------


def restored(place: Place, tool: Tool) -> Row:
    """Restore the newest snapshot."""
    where = place.work / "restored"
    return Row(lambda: None, lambda: place.run(tool, tool.restore(place.empty("restored")), where))


def mounted(place: Place, tool: Tool, command: Command, below: str) -> Row:
    """Mount, then time how long every file of the corpus takes to be read at `below`."""
    where = place.work / "mounted"

    def timed() -> Sample:
        place.empty("mounted")
        with open(place.work / "log", "wb") as log:
            process = subprocess.Popen(
                [*command, str(where)], env=tool.environment, stdout=log, stderr=log
            )
        try:
            late = time.monotonic() + 30
            while not os.path.ismount(where):
                if process.poll() is not None or time.monotonic() > late:
                    raise CommandFailed((place.work / "log").read_text(errors="replace")[-400:])
                time.sleep(0.02)
            root = next(where.glob(below)) / place.corpus.source.relative_to("/")
            used = processor_seconds(process.pid)
            began, ours = time.perf_counter(), time.process_time()
            found = read_everything(root)
            wall = time.perf_counter() - began
            cpu = time.process_time() - ours + processor_seconds(process.pid) - used
        finally:
            subprocess.run(["fusermount3", "-u", "-z", str(where)], stderr=subprocess.DEVNULL)
            process.send_signal(signal.SIGINT)
            process.wait()
        if found != tree_size(place.corpus.source):
            raise CommandFailed(f"{found} bytes read through the mount")
        return Sample(wall, cpu, 0)

    return Row(lambda: None, timed)


def read_everything(root: Path) -> int:
    """Read every file below a directory from front to end; return the bytes read."""
    size = 0
    buffer = bytearray(1 << 20)
    for directory, _, names in os.walk(root):
        for name in names:
            with open(os.path.join(directory, name), "rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    size += got
    return size


def reading_rows(place: Place) -> dict[str, Row]:
    """Return the rows about reading."""
    rows = {f"{name} restore": restored(place, tool) for name, tool in place.tools.items()}
    if not os.access("/dev/fuse", os.W_OK) or not shutil.which("fusermount3"):
        print("no FUSE: nothing is mounted", file=sys.stderr)
        return rows
    for name, tool in place.tools.items():
        start = [*tool.program, "-r", str(tool.repository)] if name == "packstone" else tool.program
        command = {
            "packstone": [*start, "-q", "mount"],
            "restic": [*start, "mount"],
            "borg": [*start, "mount", "--foreground", "::0002"],
        }[name]
        below = {"packstone": "times/latest", "restic": "snapshots/latest", "borg": ""}[name] or "."
        rows[f"{name} mount"] = mounted(place, tool, command, below)
    return rows


# -- copying --------------------------------------------------------------------------------------


def copying_rows(place: Place) -> dict[str, Row]:
    """Return the rows about copying: to an empty repository, and of one more night."""
    ours = place.tools["packstone"]
    first, target = place.work / "first.copy", place.work / "copy"
    packs = ours.repository / "packs"
    start = [*ours.program, "-q", "-r", str(ours.repository), "copy", "--to"]
    init = [*ours.program, "-q", "init", "--plain", "--like", str(ours.repository)]

    def fresh() -> None:
        shutil.rmtree(target, ignore_errors=True)
        place.run(ours, [*init, str(target)])

    def with_first() -> None:
        shutil.rmtree(target, ignore_errors=True)
        if not first.exists():
            fresh()
            place.run(ours, [*start, str(target), "latest~1"])
            target.rename(first)
        shutil.copytree(first, target)

    # `sync` of the files, as a copy has its packs on the disk before it counts.
    cp = 'cp -r "$1" "$2" && find "$2" -type f -exec sync {} +'
    rows = {
        "cp of the packs, sync": Row(
            lambda: shutil.rmtree(target, ignore_errors=True),
            lambda: place.run(ours, ["sh", "-c", cp, "sh", str(packs), str(target)]),
        ),
        "packstone copy, empty": Row(fresh, lambda: place.run(ours, [*start, str(target)])),
        "packstone copy, a night": Row(with_first, lambda: place.run(ours, [*start, str(target)])),
    }
    if restic := place.tools.get("restic"):
        other = restic.home / "copy"
        at = ["--repo", str(other)]
        restic.environment["RESTIC_FROM_PASSWORD"] = restic.environment["RESTIC_PASSWORD"]
        source = ["--from-repo", str(restic.repository)]

        def fresh_restic() -> None:
            shutil.rmtree(other, ignore_errors=True)
            more = [*source, "--copy-chunker-params", "--repository-version", "2"]
            place.run(restic, [*restic.program, "-q", *at, "init", *more])

        def with_first_restic() -> None:
            fresh_restic()
            listed = subprocess.run(
                [*restic.program, "snapshots", "--json"],
                env=restic.environment, capture_output=True, check=True,
            )  # fmt: skip
            oldest = json.loads(listed.stdout)[0]["id"]
            place.run(restic, [*restic.program, "-q", *at, "copy", *source, oldest])

        command = [*restic.program, "-q", *at, "copy", *source]
        rows["restic copy, empty"] = Row(fresh_restic, lambda: place.run(restic, command))
        rows["restic copy, a night"] = Row(with_first_restic, lambda: place.run(restic, command))
    return rows


# -- all of it ------------------------------------------------------------------------------------


def measure(rows: dict[str, Row], repeat: int) -> dict[str, list[Sample]]:
    """Run rows in turns; one that fails is named and left out."""
    found: dict[str, list[Sample]] = {}
    for _ in range(repeat):
        for name in list(rows):
            try:
                rows[name].before()
                found.setdefault(name, []).append(rows[name].timed())
            except CommandFailed as error:
                print(f"{name}: {' '.join(str(error).split())[:300]}", file=sys.stderr)
                del rows[name]
                found.pop(name, None)
    return found


def median(samples: Sequence[Sample], figure: str) -> float:
    return statistics.median(getattr(sample, figure) for sample in samples)


def main() -> None:
    """Make the corpus, measure in a directory that is removed, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.set_defaults(only="CRM")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rows", default="", help="only rows with one of these words, by comma")
    parser.add_argument("--scratch", type=Path, default=None, help="default: below --work")
    arguments = parser.parse_args()
    (corpus,) = chosen(arguments)
    corpus.prepare()
    work = ((arguments.scratch or arguments.work or default_work()) / "transfer").resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        place = Place(work, corpus, [sys.executable, "-m", "packstone"])
        for version in corpus.versions[:2]:
            place.snapshot(version)
        size = tree_size(corpus.source)
        stored = tree_size(place.tools["packstone"].repository / "packs")
        words = arguments.rows.split(",")
        rows = {
            name: row
            for name, row in (reading_rows(place) | copying_rows(place)).items()
            if any(word in name for word in words)
        }
        found = measure(rows, arguments.repeat)
    finally:
        corpus.switch(corpus.versions[0])
        shutil.rmtree(work)
    print(f"{corpus.name}: {size / MB:.0f} MB, {stored / MB:.0f} MB of packs (wall, processor)")
    result = {name: {"wall": median(samples, "wall"), "cpu": median(samples, "cpu")}
              for name, samples in found.items()}  # fmt: skip
    for name, figures in result.items():
        print(f"  {name:<28}{figures['wall']:8.2f} s {figures['cpu']:8.2f} s")
    print(json.dumps({"size": size, "stored": stored, "rows": result}))


if __name__ == "__main__":
    main()
