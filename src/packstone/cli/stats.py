"""`packstone stats`: how much there is and what it takes."""

from __future__ import annotations

from dataclasses import asdict

import click

from packstone.cli import render
from packstone.cli.session import Session, global_options


@click.command()
@global_options
@click.pass_obj
def stats(session: Session) -> int:
    """Say how much is stored, what it takes, and what deltas save."""
    with session.open() as repository:
        found = repository.stats()
    if session.json:
        session.document(asdict(found))
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
