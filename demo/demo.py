"""A first lesson: two nights of a small CRM system, saved and brought back.

Makes the data, runs the real command by name, and compares every byte and attribute of what
comes back with copies that were kept aside. `make demo` runs it; it takes less than a minute
and leaves nothing behind (`--keep DIR` does).
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import compare
import dataset

PACKSTONE = (sys.executable, "-m", "packstone")


class Lesson:
    """Says what it does, and runs commands in one directory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.number = 0
        self.colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def step(self, text: str) -> None:
        self.number += 1
        heading = f"{self.number}. {text}"
        print("\n" + (f"\x1b[1m{heading}\x1b[0m" if self.colour else heading), flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def run(self, *words: str) -> None:
        """Show a command, run it and show what it says; any exit code but 0 ends the demo."""
        print(f"   $ packstone {shlex.join(words)}", flush=True)
        done = subprocess.run(
            (*PACKSTONE, *words), cwd=self.place, capture_output=True, text=True, errors="replace"
        )
        for text in (done.stdout + done.stderr).splitlines():
            print(f"     {text}", flush=True)
        if done.returncode != 0:
            sys.exit(f"packstone ended with exit code {done.returncode}")


def stored_size(repository: Path) -> int:
    """Return the bytes that the packs of a repository take."""
    return sum(pack.stat().st_size for pack in (repository / "packs").glob("*/*"))


def mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def verify(lesson: Lesson, restored: Path, kept: Path, *, top: bool = True) -> None:
    """Compare a restored tree with the copy kept aside; a difference ends the demo.

    Not `top`: a directory that content was put into keeps its own attributes.
    """
    differences = compare.differences(kept, restored, top=top)
    if differences:
        for text in differences[:20]:
            lesson.say(text)
        sys.exit(f"{restored.name} differs from the original in {len(differences)} places")
    seen = compare.summary(kept)
    lesson.say(f"{restored.name} is identical to the original: {seen}")


def lesson_of(place: Path) -> None:
    lesson = Lesson(place)
    crm, store = place / "crm", place / "store"

    lesson.step("A small CRM system: a database dump, CSV exports, attachments")
    data = dataset.create(crm)
    first_size = compare.total_size(crm)
    lesson.say(f"{crm.name}/ holds {compare.summary(crm)}; the dump alone {mib(data.dump_size)}")
    compare.copy(crm, place / "kept-1")
    # A file written in the last two seconds would be read again next time, since one more write
    # could hide behind the same time. Real files are older.
    time.sleep(2.1)

    lesson.step("Make a repository, once")
    lesson.run("init", "--plain", store.name)

    lesson.step("Take the first snapshot")
    lesson.run("-r", store.name, "snapshot", crm.name)
    first_stored = stored_size(store)

    lesson.step("A day goes by")
    for change in dataset.change(crm, data):
        lesson.say(change)
    second_size = compare.total_size(crm)
    compare.copy(crm, place / "kept-2")

    lesson.step("Take the second snapshot: the same command")
    lesson.run("-r", store.name, "snapshot", crm.name)
    stored = stored_size(store)

    lesson.step("Look at what is there")
    lesson.run("-r", store.name, "snapshots")
    lesson.run("-r", store.name, "ls", "-l", f"latest:{crm}")

    lesson.step("Bring both days back, each to a new place")
    lesson.run("-r", store.name, "restore", "latest~1", "--target", "everything")
    lesson.run("-r", store.name, "restore", f"latest:{crm}", "--target", "day-2")
    # Without a path in the snapshot's name, everything keeps its whole path below the target.
    (place / "everything" / crm.relative_to("/")).rename(place / "day-1")
    verify(lesson, place / "day-1", place / "kept-1")
    verify(lesson, place / "day-2", place / "kept-2", top=False)

    lesson.step("Is all of it still whole?")
    lesson.run("-r", store.name, "check", "--read-data")

    lesson.step("What was saved")
    both = first_size + second_size
    lesson.say(f"two full copies      {mib(both):>10}")
    lesson.say(f"both snapshots take  {mib(stored):>10}   {both / stored:.1f} times less")
    lesson.say(f"  the first          {mib(first_stored):>10}   of {mib(first_size)}")
    lesson.say(f"  the second         {mib(stored - first_stored):>10}   of {mib(second_size)}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Two nights of a small CRM system.")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave it there")
    arguments = parser.parse_args()
    began = time.monotonic()
    if arguments.keep:
        arguments.keep.mkdir(parents=True)  # never into something that is there
        lesson_of(arguments.keep.resolve())
    else:
        with tempfile.TemporaryDirectory(prefix="packstone-demo-") as place:
            lesson_of(Path(place).resolve())
    print(f"\nDone in {time.monotonic() - began:.0f} seconds.")


if __name__ == "__main__":
    main()
