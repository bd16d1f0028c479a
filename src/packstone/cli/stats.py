"""`packstone stats`: how much there is, what it takes, whose it is, how it grew."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render
from packstone.cli.session import Session, global_options
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone

_BAR = 30  # characters of the longest one


@click.command()
@click.argument("names", nargs=-1, metavar="[SNAPSHOT]...")
@click.option("--growth", is_flag=True, help="What each snapshot added to the older ones.")
@click.option(
    "--png", metavar="FILE", type=click.Path(), help="Draw that into a file; needs matplotlib."
)
@global_options
@click.pass_obj
def stats(session: Session, names: tuple[str, ...], growth: bool, png: str | None) -> int:
    """Say how much is stored, what it takes, and what deltas save.

    \b
    packstone stats
    packstone stats latest latest~1
    packstone stats --growth --png growth.png

    Of each SNAPSHOT: what is in it, each object once, and what these take; what no older one
    has; and what would come free if it alone were forgotten and the repository pruned.
    """
    if growth and names:
        raise UsageError("--growth is told of all snapshots")
    with session.open() as repository:
        if growth or png:
            return _growth(session, repository.growth(), png)
        found = repository.stats()
        each = repository.snapshot_stats(names)
    if session.json:
        document = asdict(found)
        if names:
            document["per_snapshot"] = [_document(one) for one in each]
        session.document(document)
        return 0
    if names:
        _show(each)
        return 0
    render.line(
        f"{render.count(found.snapshots, 'snapshot')}, {render.count(found.objects, 'object')} of "
        f"{render.iec(found.bytes_objects)}"
    )
    render.line(
        f"{render.count(found.packs, 'pack')} of {render.iec(found.bytes_packs)}, of which "
        f"{render.iec(found.bytes_live)} hold what snapshots need; "
        f"index {render.iec(found.bytes_index)}"
    )
    if found.chunks_delta:
        render.line(
            f"{render.count(found.chunks_delta, 'chunk')} as deltas: "
            f"{render.iec(found.bytes_delta)} in {render.iec(found.bytes_delta_stored)}"
        )
    return 0


def _document(one: packstone.SnapshotStats) -> dict[str, Any]:
    return {
        "id": one.row.id,
        "time": render.rfc3339(one.row.snapshot.time_ns),
        "files": one.files,
        "bytes_total": one.bytes_total,
        **asdict(one.reached),
        "bytes_objects": one.named.bytes_objects,
        "bytes_new": one.new.bytes_objects,
        "bytes_new_stored": one.new.bytes_stored,
        "bytes_unique": one.unique.bytes_objects,
        "bytes_unique_stored": one.unique.bytes_stored,
        "bytes_freed": one.bytes_freed,
    }


def _show(each: list[packstone.SnapshotStats]) -> None:
    header = ("id", "time", "files", "size", "deduplicated", "stored", "new", "frees")
    rows = [
        (
            one.row.id[:8],
            render.local_time(one.row.snapshot.time_ns),
            "" if one.files is None else f"{one.files:,}",
            "" if one.bytes_total is None else render.iec(one.bytes_total),
            render.iec(one.named.bytes_objects),
            render.iec(one.reached.bytes_stored),
            render.iec(one.new.bytes_stored),
            render.iec(one.bytes_freed),
        )
        for one in each
    ]
    render.table(header, rows, right=frozenset(range(2, 8)))


def _growth(session: Session, rows: list[packstone.Growth], png: str | None) -> int:
    if png:
        _draw(rows, png)
    if session.json:
        render.document(
            [
                {
                    "id": one.row.id,
                    "time": render.rfc3339(one.row.snapshot.time_ns),
                    "bytes_total": one.row.snapshot.summary.get("bytes_total"),
                    "bytes_new": one.new.bytes_objects,
                    "bytes_new_stored": one.new.bytes_stored,
                    "bytes_stored": one.bytes_stored,
                }
                for one in rows
            ]
        )
        return 0
    if png and session.quiet:
        return 0
    most = max((one.bytes_stored for one in rows), default=0) or 1
    cells = [
        (
            one.row.id[:8],
            render.local_time(one.row.snapshot.time_ns),
            render.iec(one.new.bytes_objects),
            render.iec(one.new.bytes_stored),
            render.iec(one.bytes_stored),
            "#" * round(_BAR * one.bytes_stored / most),
        )
        for one in rows
    ]
    header = ("id", "time", "new", "stored", "all so far", "")
    render.table(header, cells, right=frozenset((2, 3, 4)))
    return 0


def _draw(rows: list[packstone.Growth], png: str) -> None:
    """Draw the stored bytes over time; raises UsageError without matplotlib."""
    import datetime

    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            "--png needs matplotlib", hint="run: pip install 'packstone[plot]'"
        ) from None
    times = [
        datetime.datetime.fromtimestamp(one.row.snapshot.time_ns / 1e9, datetime.UTC)
        for one in rows
    ]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.add_subplot()
    sizes = [one.bytes_stored / 1024**2 for one in rows]
    axes.fill_between(times, sizes, step="post", alpha=0.3)
    axes.step(times, sizes, where="post", marker="o", markersize=3)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("MiB stored for the snapshots so far")
    axes.grid(alpha=0.3)
    figure.autofmt_xdate()
    figure.savefig(png, format="png")
