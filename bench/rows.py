"""The rows of the comparison: whole commands on one corpus, every tool in turn.

One round is the life of a repository: init, first snapshot, unchanged, read all again, next
version, restore, check with data. Within a row the tools take turns, so that a noisy minute hits
all of them; a corpus too large to keep every repository at once goes tool by tool instead.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from compare import differences
from corpora.base import Corpus, Extent
from corpora.big import warm
from measure import CommandFailed, Sample, run, tree_size
from tool import Command, Tool

ROWS = ("init", "first", "unchanged", "read all", "changed", "restore", "check")
NEEDED = {"first"}  # the others may be left out


@dataclass(slots=True)
class Outcome:
    """Samples of one tool on one corpus, by row; sizes of its repository in bytes."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    first_size: int = 0
    added_size: int = 0
    problem: str = ""  # what stopped the tool
    remarks: list[str] = field(default_factory=list)

    def middle(self, row: str) -> Sample | None:
        """Return the medians of a row, of each figure by itself; memory is the maximum."""
        found = self.samples.get(row)
        if not found:
            return None
        return Sample(
            median(s.wall for s in found), median(s.cpu for s in found),
            max(s.rss for s in found), max(s.anon for s in found),
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        return {
            "samples": {row: [s.as_dict() for s in ss] for row, ss in self.samples.items()},
            "first_size": self.first_size,
            "added_size": self.added_size,
            "problem": self.problem,
            "remarks": self.remarks,
        }


class Round:
    """One tool's way through the rows, with a repository of its own below `scratch`."""

    def __init__(
        self, tool: Tool, outcome: Outcome, scratch: Path, rows: Sequence[str], verify: bool
    ) -> None:
        self.tool = tool
        self.outcome = outcome
        self.scratch = scratch
        self.rows = rows
        self.verify = verify

    def do(self, row: str) -> None:
        """Run one row; after a failure the tool's other rows are skipped."""
        wanted = row in self.rows or row in NEEDED or row == "init"
        if not wanted or self.outcome.problem or row not in self.tool.rows | {"init"}:
            return
        try:
            getattr(self, "_" + row.replace(" ", "_"))(row)
        except CommandFailed as error:
            self.outcome.problem = " ".join(f"{row}: {error}".split())[:400]

    def _measure(self, row: str, command: Command, cwd: Path | None = None) -> None:
        sample = run(
            command, env=self.tool.environment, cwd=cwd or self.scratch,
            log=self.scratch / f"{self.tool.name}.log",
            sample_anonymous=self.tool.name.startswith("packstone"),
        )  # fmt: skip
        if row in self.rows:
            self.outcome.samples.setdefault(row, []).append(sample)

    def _take_memory(self) -> None:
        """Start what writes as much as the source has with memory that is at hand."""
        script = Path(__file__).with_name("take_memory.py")
        subprocess.run([sys.executable, script, str(tree_size(self.tool.source))], check=True)

    def _init(self, row: str) -> None:
        shutil.rmtree(self.tool.home, ignore_errors=True)
        self.tool.home.mkdir(parents=True)
        self._measure(row, self.tool.init())

    def _first(self, row: str) -> None:
        self._take_memory()
        self._measure(row, self.tool.snapshot())
        self.outcome.first_size = tree_size(self.tool.repository)

    def _unchanged(self, row: str) -> None:
        self._measure(row, self.tool.snapshot())

    def _read_all(self, row: str) -> None:
        self._measure(row, self.tool.snapshot(read_all=True))

    def _changed(self, row: str) -> None:
        before = tree_size(self.tool.repository)
        self._measure(row, self.tool.snapshot())
        self.outcome.added_size = tree_size(self.tool.repository) - before

    def _restore(self, row: str) -> None:
        target = self.scratch / "restored"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        self._take_memory()
        try:
            self._measure(row, self.tool.restore(target), cwd=target)
            if self.verify:
                self._compare(self.tool.restored(target))
        finally:
            shutil.rmtree(target)

    def _compare(self, restored: Path) -> None:
        found = differences(self.tool.source, restored)
        lines = [line for line, _ in zip(found, range(5), strict=False)]
        if not lines:
            return
        text = "the restored tree differs: " + "; ".join(lines)
        if self.tool.name.startswith("packstone"):
            raise CommandFailed(text)
        self.outcome.remarks.append(text)

    def _check(self, row: str) -> None:
        self._measure(row, self.tool.check())


def measure_corpus(
    corpus: Corpus,
    extents: dict[str, Extent],
    make_tools: Callable[[Path, Path], list[Tool]],
    *,
    scratch: Path,
    rows: Sequence[str],
    repeat: int,
    say: Callable[[str], None],
) -> dict[str, Outcome]:
    """Run every row `repeat` times for every tool; return the outcomes by tool name."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    tools = make_tools(scratch, corpus.source)
    outcomes = {tool.name: Outcome() for tool in tools}
    try:
        for number in range(repeat):
            turns = tools[number % len(tools) :] + tools[: number % len(tools)]
            for group in [[tool] for tool in turns] if corpus.large else [turns]:
                say(f"{corpus.name} round {number + 1}: {', '.join(tool.name for tool in group)}")
                rounds = [
                    Round(tool, outcomes[tool.name], scratch, rows, verify=number == 0)
                    for tool in group
                ]
                for row, one in in_order(corpus, rounds):
                    one.do(row)
                for tool in group:
                    shutil.rmtree(tool.home, ignore_errors=True)
    finally:
        corpus.switch(corpus.versions[0])
        shutil.rmtree(scratch)
    return outcomes


def in_order(corpus: Corpus, rounds: Sequence[Round]) -> Iterator[tuple[str, Round]]:
    """Yield what to do next, with the right version of the corpus in place and in memory."""
    corpus.switch(corpus.versions[0])
    warm(corpus.source)
    for row in ROWS:
        if row == "changed":
            corpus.switch(corpus.versions[1])
            warm(corpus.source)
        for one in rounds:
            yield row, one
