"""`packstone init`: create a repository."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import passphrase, render, values
from packstone.cli.key import cost_of, cost_options
from packstone.cli.session import Session, global_options
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone


@click.command()
@click.argument("repo", required=False, metavar="REPO")
@click.option("--encrypt/--plain", "encrypt", default=None, help="Encrypt, or expressly do not.")
@click.option(
    "--like",
    metavar="OTHER",
    help="Cut and name chunks as OTHER does, so that they travel between the two unchanged.",
)
@click.option(
    "--index-dir",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the index here (default: in the repository on fixed local disks).",
)
@click.option(
    "--chunk-size",
    type=values.size,
    metavar="SIZE",
    help="Average chunk (default: 256KiB, or that of OTHER).",
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
    metavar="N",
    default=3,
    show_default=True,
    help="zstd level.",
)
@click.option(
    "--delta-versions",
    type=click.IntRange(2, 1024),
    metavar="N",
    default=64,
    show_default=True,
    help="Versions of a chunk that stand on one whole copy, at most.",
)
@cost_options
@global_options
@click.pass_obj
def init(
    session: Session,
    /,
    repo: str | None,
    encrypt: bool | None,
    like: str | None,
    index_dir: Path | None,
    chunk_size: int | None,
    pack_size: int,
    level: int,
    delta_versions: int,
    **options: Any,
) -> int:
    """Create a repository at REPO, a path or a URL.

    \b
    packstone init /backup/crm
    packstone init --plain /backup/public
    packstone init --like /backup/crm /media/disk/crm
    packstone init s3://bucket/prefix

    It is encrypted if a passphrase is configured or can be asked for. Without either, --plain
    must be said.
    """
    import packstone

    location = repo or session.repository
    if not location:
        raise UsageError("no repository is named", hint="say where: packstone init REPO")
    secret = None if encrypt is False else _new_passphrase()
    with (
        _opened(like) as other,
        packstone.init(
            location,
            chunk_size=chunk_size,
            pack_size=pack_size,
            level=level,
            delta_versions=delta_versions,
            passphrase=secret,
            like=other,
            argon2=cost_of(options),
            index_dir=index_dir,
        ) as made,
    ):
        made.close()
        session.count(made.requests())
    if session.json:
        session.document({"repository": location, "encrypted": secret is not None})
    elif not session.quiet:
        _tell(location, secret is not None)
    return 0


def _new_passphrase() -> str | bytes:
    """Return the passphrase to set; what is to be encrypted is never stored in the clear."""
    found = passphrase.for_new("Passphrase for the new repository")
    if found is None:
        raise UsageError(
            "no passphrase is configured and there is no terminal to ask on",
            hint="Set PACKSTONE_PASSPHRASE_FILE, or say --plain to do without encryption",
        )
    return found


@contextlib.contextmanager
def _opened(like: str | None) -> Iterator[packstone.Repository | None]:
    """Open the repository that a new one is made like."""
    import packstone

    if like is None:
        yield None
        return
    secret = passphrase.configured(passphrase.FROM)
    if secret is None:
        secret = passphrase.configured()
    asked = (
        passphrase.for_open(f"Passphrase of {render.printable(like)}") if secret is None else secret
    )
    with packstone.open(like, passphrase=asked) as other:
        yield other


def _tell(location: str, encrypted: bool) -> None:
    if not encrypted:
        render.line(f"plain repository created at {render.printable(location)}")
        render.line("Whoever can read it can read everything stored in it.")
        return
    render.line(f"encrypted repository created at {render.printable(location)}")
    render.line("Without the passphrase nothing can be restored, by anybody. Run next:")
    render.line(
        f"  packstone -r {render.printable(location)} key add --recovery   to print a second key"
    )
    render.line(
        f"  packstone -r {render.printable(location)} key export           to save the key slot"
    )
