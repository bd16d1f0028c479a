"""Repository size and time over many nights of a CRM database, with and without deltas.

    .venv/bin/python bench/crm_growth/run.py --nights 30
    .venv/bin/python bench/crm_growth/run.py --nights 70 --scale 0.25

Every tool takes a snapshot of the same files each night, in turn. At the end the first, the
middle and the last night are restored and compared, and 1 MiB is read out of the middle of
each dump. Prints a table, writes JSON and a PNG beside the other results.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import itertools

from corpora.catalogue import default_work
from measure import Sample, run, tree_size
from peers import TOOLS, Borg, Packstone, Restic, find_program
from tool import Command, Tool

from crm_growth.nights import Nights

HERE = Path(__file__).resolve().parent


class NoDelta(Packstone):
    """The same without deltas."""

    name = "packstone-no-delta"
    settings = "plain, zstd 3, --no-delta"

    def snapshot(self, read_all: bool = False) -> Command:
        return [*super().snapshot(read_all), "--no-delta"]


KINDS: dict[str, type[Tool]] = {**TOOLS, NoDelta.name: NoDelta}


def named(tool: Tool, night: int) -> str:
    """Return what a tool calls the snapshot of a night, oldest 0."""
    return f"latest~{tool.taken - 1 - night}"  # type: ignore[attr-defined]


def restore_night(tool: Tool, night: int, target: Path, ids: list[str]) -> Command:
    """Return the command that restores a night into `target`."""
    if isinstance(tool, Packstone):
        return tool._run("restore", f"latest~{len(ids) - 1 - night}", "--target", str(target))
    if isinstance(tool, Restic):
        return [*tool.program, "-q", "restore", ids[night], "--target", str(target)]
    assert isinstance(tool, Borg)
    return [*tool.program, "extract", f"::{night + 1:04d}"]


def cat_night(tool: Tool, night: int, path: str, size: int, count: int) -> Command | None:
    """Return the command that prints 1 MiB out of the middle of a night's dump."""
    if not isinstance(tool, Packstone):
        return None
    place = f"latest~{count - 1 - night}:{path}"
    return tool._run("cat", place, "--offset", str(size // 2), "--length", str(1 << 20))


def snapshot_id(tool: Tool, scratch: Path) -> str:
    """Return what the newest snapshot is called where it is not called by its number."""
    if not isinstance(tool, Restic):
        return ""
    import subprocess

    command = [*tool.program, "-q", "snapshots", "--json", "--latest", "1"]
    rows = json.loads(subprocess.check_output(command, env=tool.environment, cwd=scratch))
    newest: str = max(rows, key=lambda row: row["time"])["id"]
    return newest


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--tools", default="packstone,packstone-no-delta,restic,borg")
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--vacuum", action="store_true", help="as autovacuum would, every night")
    parser.add_argument("--packstone", type=shlex.split)
    parser.add_argument("--results", type=Path, default=HERE.parent / "results")
    arguments = parser.parse_args()
    packstone = arguments.packstone or [sys.executable, "-m", "packstone"]
    work = (arguments.work or default_work()).resolve() / "growth"
    nights = Nights(work, arguments.scale, arguments.vacuum)
    scratch = work / "scratch"
    scratch.mkdir()
    tools: list[Tool] = []
    for name in arguments.tools.split(","):
        program = packstone if name.startswith("packstone") else find_program(name, packstone)
        if program:
            tools.append(KINDS[name](program, scratch, nights.source))
    results: dict[str, Any] = {
        "nights": arguments.nights, "scale": arguments.scale, "vacuum": arguments.vacuum,
        "source": [],
        "tools": {tool.name: {"size": [], "wall": [], "cpu": [], "rss": []} for tool in tools},
    }  # fmt: skip
    ids: dict[str, list[str]] = {tool.name: [] for tool in tools}
    kept = {0, arguments.nights // 2, arguments.nights - 1}
    digests: dict[int, dict[str, str]] = {}
    for tool in tools:
        tool.home.mkdir(parents=True)
        run(tool.init(), env=tool.environment, cwd=scratch, log=scratch / "log")
    stamp = f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}"
    arguments.results.mkdir(parents=True, exist_ok=True)
    path = arguments.results / f"growth-{stamp}.json"
    for night in nights.run(arguments.nights):
        files = sorted(nights.source.iterdir())
        results["source"].append(sum(file.stat().st_size for file in files))
        if night in kept:
            digests[night] = {file.name: digest(file) for file in files}
        turned = tools[night % len(tools) :] + tools[: night % len(tools)]
        for tool in turned:
            sample = run(tool.snapshot(), env=tool.environment, cwd=scratch, log=scratch / "log")
            note(results["tools"][tool.name], sample, tree_size(tool.repository))
            ids[tool.name].append(snapshot_id(tool, scratch))
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(line(results, night), file=sys.stderr, flush=True)
    for tool in tools:
        look_back(tool, nights.source, scratch, digests, ids[tool.name], results)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))
    plot(results, path.with_suffix(".png"))
    shutil.rmtree(work)


def note(record: dict[str, list[float]], sample: Sample, size: int) -> None:
    record["size"].append(size)
    record["wall"].append(sample.wall)
    record["cpu"].append(sample.cpu)
    record["rss"].append(sample.rss)


def look_back(
    tool: Tool, source: Path, scratch: Path, digests: dict[int, dict[str, str]],
    ids: list[str], results: dict[str, Any],
) -> None:  # fmt: skip
    """Restore and read out of the kept nights; what comes back must be what was there."""
    record = results["tools"][tool.name]
    record["restore"], record["cat"] = {}, {}
    target = scratch / "restored"
    for night, files in digests.items():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        command = restore_night(tool, night, target, ids)
        sample = run(command, env=tool.environment, cwd=target, log=scratch / "log")
        record["restore"][str(night)] = [sample.wall, sample.cpu]
        root = tool.restored(target)
        for name, expected in files.items():
            if digest(root / name) != expected:
                raise SystemExit(f"{tool.name}: night {night}: {name} came back different")
        dump = max(root.iterdir(), key=lambda each: each.stat().st_size)
        cat = cat_night(tool, night, str(source / dump.name), dump.stat().st_size, len(ids))
        if cat:
            sample = run(cat, env=tool.environment, cwd=scratch, log=scratch / "cat")
            record["cat"][str(night)] = [sample.wall, sample.cpu]
    shutil.rmtree(target)


def line(results: dict[str, Any], night: int) -> str:
    parts = [f"night {night:3}: {results['source'][night] / 1e6:7.1f} MB"]
    for name, record in results["tools"].items():
        grown = record["size"][night] - (record["size"][night - 1] if night else 0)
        parts.append(f"{name} +{grown / 1e6:.2f} MB in {record['wall'][night]:.1f} s")
    return "; ".join(parts)


def table(results: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| tool | after the first night, MB | growth over all others, MB | a night, median MB |"
        " largest | night's wall s, median | cpu s | restore first / middle / last, wall s |"
        " cat 1 MiB first / middle / last, s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, record in results["tools"].items():
        sizes = record["size"]
        grown = sorted(later - size for size, later in itertools.pairwise(sizes))
        middle = len(grown) // 2
        walls, cpus = sorted(record["wall"][1:]), sorted(record["cpu"][1:])
        restores = " / ".join(f"{each[0]:.1f}" for each in record.get("restore", {}).values())
        cats = " / ".join(f"{each[0]:.2f}" for each in record.get("cat", {}).values())
        lines.append(
            f"| {name} | {sizes[0] / 1e6:.1f} | {(sizes[-1] - sizes[0]) / 1e6:.1f} |"
            f" {grown[middle] / 1e6:.2f} | {grown[-1] / 1e6:.2f} | {walls[middle]:.2f} |"
            f" {cpus[middle]:.2f} | {restores} | {cats or '–'} |"
        )
    return "\n".join(lines)


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw repository sizes over the nights, if matplotlib is there."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: is matplotlib installed?", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    for name, record in results["tools"].items():
        axes.plot([size / 1e6 for size in record["size"]], label=name, marker=".")
    axes.set_xlabel("night")
    axes.set_ylabel("repository, MB")
    axes.set_yscale("log")
    axes.set_title(
        f"{results['nights']} nights of a CRM database, {results['source'][0] / 1e6:.0f} MB"
    )
    axes.legend()
    axes.grid(True, which="both", alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
