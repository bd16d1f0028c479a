"""The goals that the project has set itself for speed and memory, and whether a run met them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any, NamedTuple

OURS = "packstone"
RIVALS = ("restic", "borg")
COMPARED = ("first", "unchanged", "read all", "changed", "restore", "check")
MIB = 1 << 20


class Goal(NamedTuple):
    """One goal: what was wanted, what was found, and whether it was met."""

    what: str
    wanted: str
    found: str
    met: bool


def wall(record: Mapping[str, Any], tool: str, row: str) -> float | None:
    """Return a tool's median wall time of a row in seconds, None if it was not measured."""
    samples = record["tools"].get(tool, {"samples": {}})["samples"].get(row)
    return median(sample["wall"] for sample in samples) if samples else None


def check_goals(results: Mapping[str, Any]) -> Iterator[Goal]:
    """Yield the goals that this run measured."""
    yield from _steps(results.get("steps") or {})
    if start := results.get("start-up"):
        difference = start["difference"] * 1e3
        yield Goal("start-up beyond the interpreter's", "≤ 80 ms", f"{difference:.0f} ms",
                   difference <= 80)  # fmt: skip
    if walk := results.get("walk"):
        ratio = walk["ratio"]
        yield Goal("unchanged TINY by a bare walk", "≤ 2.5", f"{ratio:.2f}", ratio <= 2.5)
    for name, record in results["corpora"].items():
        yield from _against_rivals(name, record)
        yield from _memory(name, record)
    yield from _read_all(results)
    yield from _everyday(results)
    if index := results.get("index"):
        worst = max(line["rss"] for line in index["lines"])
        yield Goal(f"peak RSS, index of {index['chunks']:,}", "< 300 MiB",
                   f"{worst / MIB:.0f} MiB", worst < 300 * MIB)  # fmt: skip
        anon = max(line["anon"] for line in index["lines"])
        yield Goal(f"anonymous memory, index of {index['chunks']:,}", "< 300 MiB",
                   f"{anon / MIB:.0f} MiB", anon < 300 * MIB)  # fmt: skip


def _everyday(results: Mapping[str, Any]) -> Iterator[Goal]:
    look = (results.get("look") or {"rows": {}})["rows"]
    diff, both = (look.get(f"{what}, within one process") for what in ("diff", "listing both"))
    if diff and both:
        share = diff["cpu"] / both["cpu"]
        yield Goal("diff of neighbours, of listing both", "≤ 0.10", f"{share:.3f}", share <= 0.1)
    rows = (results.get("transfer") or {"rows": {}})["rows"]
    for what, fast, slow, least in (
        ("reading through a mount, of restore's rate", "packstone restore", "packstone mount", 0.5),
        ("copy to an empty repository, of cp's rate", "cp of the packs, sync",
         "packstone copy, empty", 0.7),
    ):  # fmt: skip
        if fast in rows and slow in rows:
            share = rows[fast]["wall"] / rows[slow]["wall"]
            yield Goal(what, f"≥ {least:.0%}", f"{share:.0%}", share >= least)


def _steps(steps: Mapping[str, Any]) -> Iterator[Goal]:
    ones = {step["name"]: step["one"] for step in steps.get("steps", ())}
    for name, least in (("cut, avx2", 8.0), ("cut, portable", 2.0)):
        if name in ones:
            yield Goal(f"{name}, one thread", f"≥ {least:.0f} GB/s", f"{ones[name]:.1f} GB/s",
                       ones[name] >= least)  # fmt: skip


def _against_rivals(name: str, record: Mapping[str, Any]) -> Iterator[Goal]:
    for row in COMPARED:
        ours = wall(record, OURS, row)
        theirs = {rival: found for rival in RIVALS if (found := wall(record, rival, row))}
        if ours and theirs:
            best = min(theirs.values())
            yield Goal(f"{name}, {row}: faster than {' and '.join(theirs)}", f"< {best:.2f} s",
                       f"{ours:.2f} s, {ours / best:.2f} times", ours < best)  # fmt: skip


def _memory(name: str, record: Mapping[str, Any]) -> Iterator[Goal]:
    rows = record["tools"].get(OURS, {"samples": {}})["samples"].values()
    found = [sample["rss"] for samples in rows for sample in samples]
    if found:
        worst = max(found)
        yield Goal(f"{name}: peak RSS", "< 300 MiB", f"{worst / MIB:.0f} MiB", worst < 300 * MIB)


def _read_all(results: Mapping[str, Any]) -> Iterator[Goal]:
    record = results["corpora"].get("BIG")
    ours = wall(record, OURS, "read all") if record else None
    if not record or not ours:
        return
    rate = record["extents"]["v1"][1] / 1e9 / ours
    if steps := results.get("steps"):
        share = rate / steps["limit"]
        yield Goal("BIG read all, of the limit for two threads", "≥ 60 %",
                   f"{share:.0%}, {rate:.2f} GB/s", share >= 0.6)  # fmt: skip
    for rival in RIVALS:
        theirs = wall(record, rival, "read all")
        if theirs:
            yield Goal(f"BIG read all, times {rival}'s rate", "≥ 3", f"{theirs / ours:.2f}",
                       theirs / ours >= 3)  # fmt: skip
