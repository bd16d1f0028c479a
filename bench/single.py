"""Rows about packstone alone: start-up, and the unchanged snapshot beside a bare walk."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from typing import Any

from corpora.base import Corpus
from measure import run
from peers import Packstone
from tool import Command

WALK = Path(__file__).with_name("walk.py")


def start_up(program: Command, scratch: Path, rounds: int = 21) -> dict[str, float]:
    """Return medians in seconds: the interpreter alone, and `packstone --version`."""
    scratch.mkdir(parents=True, exist_ok=True)
    tool = Packstone(program, scratch, scratch)
    commands = {"python": [sys.executable, "-c", "pass"], "packstone": [*program, "--version"]}
    walls: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            sample = run(command, env=tool.environment, cwd=scratch, log=scratch / "log")
            walls[name].append(sample.wall)
    result = {name: median(times) for name, times in walls.items()}
    result["difference"] = result["packstone"] - result["python"]
    return result


def against_walk(
    program: Command, corpus: Corpus, scratch: Path, rounds: int = 5
) -> dict[str, Any]:
    """Return medians in seconds of an unchanged snapshot and of a bare walk, taken in turn.

    Both are whole processes of the same interpreter, start-up included.
    """
    tool = Packstone(program, scratch, corpus.source)
    tool.home.mkdir(parents=True, exist_ok=True)
    log = scratch / "log"
    for command in (tool.init(), tool.snapshot()):
        run(command, env=tool.environment, cwd=scratch, log=log)
    commands = {"walk": [sys.executable, str(WALK), str(corpus.source)]}
    commands["snapshot"] = tool.snapshot()
    walls: dict[str, list[float]] = {name: [] for name in commands}
    cpus: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            sample = run(command, env=tool.environment, cwd=scratch, log=log)
            walls[name].append(sample.wall)
            cpus[name].append(sample.cpu)
    result: dict[str, Any] = {name: median(times) for name, times in walls.items()}
    result |= {f"{name} cpu": median(times) for name, times in cpus.items()}
    result["ratio"] = result["snapshot"] / result["walk"]
    return result
