"""Tables from results, as Markdown that reads well on a terminal too.

`bench/report.py results/<date>.json` prints the tables of an earlier run again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from corpora.base import Extent
from goals import check_goals
from rows import ROWS, Outcome

MB = 1e6
OURS = "packstone"


def corpus_record(
    extents: Mapping[str, Extent], notes: str, outcomes: Mapping[str, Outcome]
) -> dict[str, Any]:
    """Return what results keep of one corpus."""
    return {
        "extents": {version: [e.file_count, e.total_size] for version, e in extents.items()},
        "notes": notes,
        "tools": {name: outcome.as_dict() for name, outcome in outcomes.items()},
    }


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table with columns aligned."""
    lines = [head, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    padded = []
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        padded.append(f"| {' | '.join(cells)} |")
    padded.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(padded)


def cell(samples: list[dict[str, float]] | None) -> tuple[str, float]:
    """Return `wall s / cpu s / peak RSS MB`, and the wall time; medians, memory the maximum."""
    if not samples:
        return "–", 0.0
    wall = median(sample["wall"] for sample in samples)
    cpu = median(sample["cpu"] for sample in samples)
    rss = max(sample["rss"] for sample in samples)
    return f"{wall:.2f} / {cpu:.2f} / {rss / MB:.0f}", wall


def corpus_table(name: str, results: Mapping[str, Any]) -> str:
    """Return the table of one corpus: a line for each row, a column for each tool."""
    record = results["corpora"][name]
    tools = record["tools"]
    sizes = ", ".join(
        f"{version} {count} files {size / MB:.0f} MB"
        for version, (count, size) in record["extents"].items()
    )
    peers = [tool for tool in tools if tool != OURS] if OURS in tools else []
    lines = []
    for row in ROWS:
        cells = {tool: cell(outcome["samples"].get(row)) for tool, outcome in tools.items()}
        if not any(wall for _, wall in cells.values()):
            continue
        ours = cells.get(OURS, ("", 0.0))[1]
        ratios = [
            f"{ours / cells[peer][1]:.2f}" if ours and cells[peer][1] else "–" for peer in peers
        ]
        lines.append([row, *[text for text, _ in cells.values()], *ratios])
    blank = ["" for _ in peers]
    for label, key in (("MB after first", "first_size"), ("MB added by changed", "added_size")):
        values = [f"{outcome[key] / MB:.2f}" for outcome in tools.values()]
        lines.append([label, *values, *blank])
    head = ["row", *tools, *[f"ours/{peer}" for peer in peers]]
    parts = [f"## {name}: {sizes}", "", record["notes"], "", table(head, lines)]
    for tool, outcome in tools.items():
        for text in [outcome["problem"], *outcome["remarks"]]:
            if text:
                parts.append(f"\n{tool}: {text}")
    return "\n".join(parts) + "\n"


def steps_table(steps: Mapping[str, Any]) -> str:
    """Return GB/s of each step alone."""
    lines = [
        [
            step["name"],
            f"{step['one']:.2f}",
            f"{step['two']:.2f}",
            f"{step['used']:.2f}",
            step["note"],
        ]
        for step in steps["steps"]
    ]
    text = table(["step, GB/s", "1 thread", "2 threads", "processors", ""], lines)
    return f"## Each step alone\n\n{text}\n\n{steps['limit_note']}\n"


def read_all_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the rates of `read all` beside the limit that the same run computed."""
    lines = []
    limit = (results.get("steps") or {}).get("limit", 0.0)
    for name, record in results["corpora"].items():
        size = record["extents"]["v1"][1]
        rates = []
        for tool, outcome in record["tools"].items():
            wall = cell(outcome["samples"].get("read all"))[1]
            if wall:
                share = f" ({size / 1e9 / wall / limit:.0%} of the limit)" if limit else ""
                rates.append(f"{tool} {size / 1e9 / wall:.2f} GB/s{share if tool == OURS else ''}")
        if rates:
            lines.append(f"- read all again, {name}: {', '.join(rates)}")
    return lines


def single_lines(results: Mapping[str, Any]) -> list[str]:
    """Return start-up, walk, memory and index lines."""
    lines = []
    if start := results.get("start-up"):
        lines.append(
            f"- start-up: `packstone --version` {start['packstone'] * 1e3:.0f} ms, "
            f"`python -c pass` {start['python'] * 1e3:.0f} ms: "
            f"{start['difference'] * 1e3:.0f} ms more"
        )
    if walk := results.get("walk"):
        lines.append(
            f"- unchanged TINY: {walk['snapshot']:.2f} s, a bare walk and lstat "
            f"{walk['walk']:.2f} s: {walk['ratio']:.2f} times"
        )
    for name, record in results["corpora"].items():
        samples = record["tools"].get(OURS, {"samples": {}})["samples"]
        found = [sample for row in samples.values() for sample in row]
        if found:
            worst = max(samples, key=lambda row: max(s["rss"] for s in samples[row]))
            lines.append(
                f"- peak memory, {name}: RSS {max(s['rss'] for s in found) / MB:.0f} MB ({worst}), "
                f"anonymous {max(s['anon'] for s in found) / MB:.0f} MB"
            )
    if floor := results.get("floor"):
        lines.append(
            f"- peak RSS below {floor / MB:.0f} MB cannot be seen: it is that of this script"
        )
    if index := results.get("index"):
        lines += [
            f"- {line['what']}: {line['wall']:.2f} s, peak RSS {line['rss'] / MB:.0f} MB, "
            f"anonymous {line['anon'] / MB:.0f} MB"
            for line in index["lines"]
        ]
    return lines


def everyday_table(results: Mapping[str, Any]) -> str:
    """Return wall and processor seconds of looking, mounting and copying."""
    rows: dict[str, Mapping[str, float]] = {}
    for part in ("look", "transfer"):
        rows |= (results.get(part) or {"rows": {}})["rows"]
    if not rows:
        return ""
    lines = [
        [name, f"{figures['wall']:.2f}" if "wall" in figures else "–", f"{figures['cpu']:.3f}"]
        for name, figures in rows.items()
    ]
    return "## Everyday work\n\n" + table(["row", "wall s", "processor s"], lines)


def everything(results: Mapping[str, Any]) -> str:
    """Return all tables of a run."""
    machine = results["machine"]
    parts = [
        f"# Packstone benchmark, {results['date'][:10]}",
        f"{machine['processor']}, {machine['processors']} processors, "
        f"{machine['memory'] / 2**30:.0f} GiB, {machine['system']}, Python {machine['python']}, "
        f"repositories and restores on {machine['file system']}, page cache warm, "
        f"scale {results['scale']:g}, medians of {results['repeat']}. "
        f"Load when it began: {machine['load']:.1f}.",
        "Cells are wall s / cpu s (user + system) / peak RSS MB; the last columns are ratios of "
        "wall time, packstone's by the other's.",
        "\n".join(
            f"- {tool}: {facts['version']}; {facts['settings']}"
            for tool, facts in results["tools"].items()
        ),
    ]
    if results.get("steps"):
        parts.append(steps_table(results["steps"]))
    parts += [corpus_table(name, results) for name in results["corpora"]]
    if text := everyday_table(results):
        parts.append(text)
    if lines := read_all_lines(results) + single_lines(results):
        parts.append("\n".join(lines))
    rows = [[goal.what, goal.wanted, goal.found, "yes" if goal.met else "**no**"]
            for goal in check_goals(results)]  # fmt: skip
    if rows:
        parts.append("## Goals\n\n" + table(["goal", "wanted", "found", "met"], rows))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    print(everything(json.loads(Path(sys.argv[1]).read_text())))
