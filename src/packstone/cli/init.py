"""`packstone init`: create a repository."""

from __future__ import annotations

import os
from pathlib import Path

import click

from packstone.cli import render, values
from packstone.cli.session import Session, global_options
from packstone.errors import UnsupportedFormat, UsageError

PASSPHRASE_SOURCES = (
    "PACKSTONE_PASSPHRASE",
    "PACKSTONE_PASSPHRASE_FILE",
    "PACKSTONE_PASSPHRASE_COMMAND",
)


@click.command()
@click.argument("repo", required=False, metavar="REPO")
@click.option("--encrypt/--plain", "encrypt", default=None, help="Encrypt, or expressly do not.")
@click.option(
    "--index-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the index here (default: in the repository on fixed local disks).",
)
@click.option(
    "--chunk-size",
    type=values.size,
    metavar="SIZE",
    default="256KiB",
    show_default=True,
    help="Average chunk.",
)
@click.option(
    "--pack-size",
    type=values.size,
    metavar="SIZE",
    default="64MiB",
    show_default=True,
    help="Target of packs.",
)
@click.option(
    "--level",
    type=click.IntRange(1, 19),
    default=3,
    show_default=True,
    help="zstd level.",
)
@global_options
@click.pass_obj
def init(
    session: Session,
    repo: str | None,
    encrypt: bool | None,
    index_dir: Path | None,
    chunk_size: int,
    pack_size: int,
    level: int,
) -> int:
    """Create a repository at REPO, a path or a URL.

    This version does not encrypt yet: say --plain.
    """
    import packstone

    location = repo or session.repository
    if not location:
        raise UsageError("no repository is named", hint="say where: packstone init --plain REPO")
    _require_plain(encrypt)
    packstone.init(
        location,
        chunk_size=chunk_size,
        pack_size=pack_size,
        level=level,
        index_dir=index_dir,
    ).close()
    if session.json:
        render.document({"repository": location, "encrypted": False})
    elif not session.quiet:
        render.line(f"plain repository created at {render.printable(location)}")
        render.line("Whoever can read it can read everything stored in it.")
    return 0


def _require_plain(encrypt: bool | None) -> None:
    """Refuse to store in the clear what somebody may expect to be encrypted."""
    if encrypt is False:
        return
    hint = "say --plain to create a repository without encryption"
    if encrypt:
        raise UnsupportedFormat("this version of Packstone cannot encrypt", hint=hint)
    for name in PASSPHRASE_SOURCES:
        if os.environ.get(name):
            raise UnsupportedFormat(
                f"{name} is set, but this version of Packstone cannot encrypt", hint=hint
            )
    raise UsageError("neither a passphrase nor --plain was given", hint=hint)
