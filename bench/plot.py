"""Draw results/<date>.json as a PNG beside it; prints its name as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, StrMethodFormatter

SHOWN = ("first", "unchanged", "read all", "changed", "restore", "check")
COLOURS = {
    "packstone": "#1f5fa8", "restic": "#d9822b", "borg": "#4f9d4f",
    "bupstash": "#8a63b0", "casync": "#9a9a9a", "bup": "#b5a642",
}  # fmt: skip


def draw_corpus(axes: Axes, name: str, record: dict[str, Any]) -> None:
    """Draw the wall times of one corpus as groups of bars, on a logarithmic scale."""
    tools = list(record["tools"])
    width = 0.8 / len(tools)
    for number, tool in enumerate(tools):
        samples = record["tools"][tool]["samples"]
        walls = [
            median(s["wall"] for s in samples[row]) if samples.get(row) else float("nan")
            for row in SHOWN
        ]
        places = [place + (number - (len(tools) - 1) / 2) * width for place in range(len(SHOWN))]
        bars = axes.bar(places, walls, width, label=tool, color=COLOURS[tool])
        axes.bar_label(bars, fmt="%.1f", fontsize=6, padding=1)
    size = record["extents"]["v1"][1] / 1e6
    axes.set_title(f"{name}: {record['extents']['v1'][0]:,} files, {size:,.0f} MB", fontsize=10)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(top=axes.get_ylim()[1] * 3)  # room for the legend
    axes.set_ylabel("wall time, s")
    axes.set_xticks(range(len(SHOWN)), SHOWN, fontsize=8)


def draw_steps(axes: Axes, steps: dict[str, Any]) -> None:
    """Draw GB/s of each step on one and two threads."""
    names = [step["name"] for step in steps["steps"]]
    places = range(len(names))
    for key, shift, colour in (("one", 0.2, "#7fa8d6"), ("two", -0.2, "#1f5fa8")):
        values = [step[key] for step in steps["steps"]]
        bars = axes.barh(
            [-place + shift for place in places], values, 0.4, color=colour,
            label=f"{key} thread{'s' if key == 'two' else ''}",
        )  # fmt: skip
        axes.bar_label(bars, fmt="%.2f", fontsize=6, padding=1)
    axes.set_yticks([-place for place in places], names, fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("GB/s")
    axes.set_title("each step alone", fontsize=10)


def main() -> None:
    path = Path(sys.argv[1])
    results = json.loads(path.read_text())
    corpora = results["corpora"]
    count = len(corpora) + bool(results.get("steps"))
    if not count:
        print(json.dumps(""))
        return
    columns = min(2, count)
    rows = -(-count // columns)
    figure, grid = pyplot.subplots(rows, columns, figsize=(7 * columns, 4 * rows), squeeze=False)
    places = list(grid.flat)
    if results.get("steps"):
        draw_steps(places.pop(0), results["steps"])
    for name, record in corpora.items():
        draw_corpus(places.pop(0), name, record)
    for unused in places:
        unused.set_axis_off()
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, frameon=False, ncols=3)
    machine = results["machine"]
    figure.suptitle(
        f"{results['date'][:10]}, {machine['processor']}, {machine['processors']} processors, "
        f"{machine['file system']}",
        fontsize=9,
    )
    figure.tight_layout()
    picture = path.with_suffix(".png")
    figure.savefig(picture, dpi=130)
    print(json.dumps(str(picture)))


if __name__ == "__main__":
    main()
