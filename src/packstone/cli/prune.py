"""`packstone prune`: give back the space that no snapshot needs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from packstone.cli import render, values
from packstone.cli.session import Session, global_options
from packstone.errors import Damaged

if TYPE_CHECKING:
    import packstone


@click.command()
@click.option(
    "--max-unused",
    type=values.share,
    default="5%",
    metavar="SHARE",
    show_default=True,
    help="Write a pack anew when more of it than this is not needed.",
)
@click.option(
    "--rebase",
    is_flag=True,
    help="Leave no byte of what no snapshot names, not even as the base of a delta.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be done.")
@global_options
@click.pass_obj
def prune(session: Session, max_unused: float, rebase: bool, dry_run: bool) -> int:
    """Delete what no snapshot needs any more.

    \b
    packstone prune
    packstone prune --dry-run
    packstone prune --rebase --max-unused 0%

    Packs that nobody needs go first, so it works on a full disk; others are written anew before
    the old ones go. It can be stopped at any moment and run again. Exit code 14 means that some
    pack with damage had to stay.
    """
    with session.open() as repository:
        result = repository.prune(max_unused=max_unused, rebase=rebase, dry_run=dry_run)
    tell(session, result)
    return Damaged.exit_code if result.damaged else 0


def tell(session: Session, result: packstone.PruneResult) -> None:
    """Say what a prune did."""
    session.warn(result.warnings)
    if session.json:
        session.document(asdict(result))
        return
    for reason in sorted(result.damaged.values()):
        render.message(
            f"error: {render.visible(reason)}; the pack stays. Run: packstone repair packs"
        )
    for pack_id, reason in sorted(result.kept.items()) if session.verbose else ():
        render.message(f"pack {pack_id[:12]}… stays: {render.visible(reason)}")
    if session.quiet:
        return
    would = "would be " if result.dry_run else ""
    render.line(
        f"{render.count(result.packs_deleted, 'pack')} {would}deleted, "
        f"{render.count(result.packs_rewritten, 'pack')} {would}written anew"
    )
    if result.chunks_rebased:
        render.line(f"{render.count(result.chunks_rebased, 'chunk')} made whole")
    render.line(
        f"{render.iec(result.bytes_freed)} {would}freed of {render.iec(result.bytes_before)}, "
        f"{render.count(result.packs_after, 'pack')} left, in {render.duration(result.seconds)}"
    )
