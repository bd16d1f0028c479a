"""`packstone mount`: look at snapshots as directories."""

from __future__ import annotations

import click

from packstone.cli import render
from packstone.cli.session import Session, global_options


@click.command()
@click.argument("directory", type=click.Path(), metavar="DIR")
@click.option("--allow-other", is_flag=True, help="Let other users look, too.")
@global_options
@click.pass_obj
def mount(session: Session, directory: str, allow_other: bool) -> int:
    """Show all snapshots as read-only directories below DIR.

    \b
    packstone mount /mnt/snapshots
    packstone mount --allow-other /mnt/snapshots

    They stand under ids, times, hosts and tags. Runs until it is interrupted or DIR is unmounted
    (`umount DIR`), and holds no lock: a prune does not wait for it.
    """
    with session.open() as repository:
        if not session.quiet:
            render.message(
                f"snapshots are shown at {render.printable(directory)}; Ctrl-C or umount ends it"
            )
        repository.mount(
            directory,
            allow_other=allow_other,
            warn=lambda text: render.message(f"warning: {render.visible(text)}"),
        )
    return 0
