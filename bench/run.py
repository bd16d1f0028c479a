"""Measure everything, print the tables, write results/<date>.json and .png. See README.md.

Everything heavy runs in processes of its own, as measure.py explains: this one stays small.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import report
import single
from corpora.base import Extent
from corpora.catalogue import add_arguments, chosen, default_work
from machine import describe_machine
from peers import TOOLS, find_program
from rows import ROWS, measure_corpus
from tool import Command, Tool

HERE = Path(__file__).resolve().parent
PARTS = ("steps", "single", "corpora", "index", "everyday")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, by comma")
    parser.add_argument("--rows", default=",".join(ROWS), help="which rows, by comma")
    parser.add_argument(
        "--tools", default="packstone,packstone-encrypted,restic,borg,bupstash", help="by comma"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--packstone", type=shlex.split, help="how to call it, if not this one")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where to write")
    parser.add_argument("--chunks", type=int, default=10_000_000, help="in the large index")
    parser.add_argument("--no-plot", action="store_true")
    return parser.parse_args()


def say(text: str) -> None:
    """Tell what is being done; results go to stdout, this does not."""
    now = datetime.datetime.now().strftime("%H:%M:%S")
    print(f"[{now}] {text}", file=sys.stderr, flush=True)


def in_own_process(script: str, *arguments: str) -> Any:
    """Run a script of this directory and return the JSON it prints last; None if it failed."""
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        return None
    lines = done.stdout.strip().splitlines()
    return json.loads(lines[-1]) if lines else None


def make_corpora(arguments: argparse.Namespace) -> None:
    """Run the generators, which take much memory, in a process of their own."""
    command = [sys.executable, str(HERE / "make_corpora.py"), "--only", arguments.only]
    command += ["--scale", str(arguments.scale)]
    for option in ("work", "big"):
        if value := getattr(arguments, option):
            command += [f"--{option}", str(value)]
    subprocess.run(command, check=True)


def find_tools(names: str, packstone: Command) -> dict[str, Command]:
    """Return how to call each tool that is there."""
    found = {}
    for name in names.split(","):
        if name not in TOOLS:
            raise SystemExit(f"no such tool: {name}")
        program = find_program(name, packstone)
        if program:
            found[name] = program
        else:
            say(f"{name} is not on PATH: left out")
    return found


def main() -> None:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that scratch files are removed
    parts = arguments.parts.split(",")
    packstone = arguments.packstone or [sys.executable, "-m", "packstone"]
    programs = find_tools(arguments.tools, packstone)
    work = (arguments.work or default_work()).resolve()
    scratch = work / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    started = datetime.datetime.now()
    results: dict[str, Any] = {
        "date": started.isoformat(timespec="seconds"),
        "machine": describe_machine(work),
        "scale": arguments.scale,
        "repeat": arguments.repeat,
        "tools": {
            name: {
                "version": TOOLS[name](program, scratch, scratch).version(),
                "settings": TOOLS[name].settings,
            }
            for name, program in programs.items()
        },
        "corpora": {},
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"{started:%Y-%m-%d-%H%M%S}.json"

    def save() -> None:
        path.write_text(json.dumps(results, indent=1) + "\n")

    corpora = chosen(arguments) if {"single", "corpora", "index"} & set(parts) else []
    extents: dict[str, dict[str, Extent]] = {}
    if corpora:
        say(f"making {arguments.only}, unless they are there")
        make_corpora(arguments)
        extents = {corpus.name: corpus.prepare() for corpus in corpora}
    if "steps" in parts:
        say("each step alone")
        results["steps"] = in_own_process(
            "steps.py", "--work", str(work), "--scale", str(arguments.scale)
        )
        save()
    if "single" in parts and "packstone" in programs:
        say("start-up, and unchanged TINY beside a bare walk")
        results["start-up"] = single.start_up(packstone, scratch / "start-up")
        for corpus in corpora:
            if corpus.name == "TINY":
                results["walk"] = single.against_walk(packstone, corpus, scratch / "walk")
        save()
    for corpus in corpora if "corpora" in parts else []:

        def make_tools(where: Path, source: Path) -> list[Tool]:
            return [TOOLS[name](program, where, source) for name, program in programs.items()]

        outcomes = measure_corpus(
            corpus, extents[corpus.name], make_tools,
            scratch=scratch / corpus.name, rows=arguments.rows.split(","),
            repeat=arguments.repeat, say=say,
        )  # fmt: skip
        results["corpora"][corpus.name] = report.corpus_record(
            extents[corpus.name], corpus.notes, outcomes
        )
        results["floor"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        save()
        say("\n" + report.corpus_table(corpus.name, results))
    if "index" in parts and "packstone" in programs:
        say(f"an index of {arguments.chunks} chunks")
        sources = [c.source for c in corpora if c.name in ("SRC", "TINY")]
        if sources:
            results["index"] = in_own_process(
                "big_index.py", "--scratch", str(scratch / "index"),
                "--chunks", str(arguments.chunks), "--packstone", shlex.join(packstone),
                *(word for source in sources for word in ("--source", str(source))),
            )  # fmt: skip
        save()
    if "everyday" in parts and "packstone" in programs:
        say("find, diff, mount, copy")
        repeat = str(arguments.repeat)
        files, snapshots = (max(5, round(arguments.scale * full)) for full in (200_000, 50))
        look = ["--files", str(files), "--snapshots", str(snapshots), "--work", str(scratch)]
        sources = [c.source for c in corpora if c.name == "SRC"]
        look += [word for source in sources for word in ("--source", str(source))]
        results["look"] = in_own_process("look.py", "--repeat", repeat, *look)
        results["transfer"] = in_own_process(
            "transfer.py", "--repeat", repeat, "--work", str(work), "--scratch", str(scratch),
            "--scale", str(arguments.scale),
        )  # fmt: skip
        save()
    print("\n" + report.everything(results))
    if not arguments.no_plot and in_own_process("plot.py", str(path)) is None:
        say("no plot: is matplotlib installed?")
    say(f"written: {os.path.relpath(path)}")


if __name__ == "__main__":
    main()
