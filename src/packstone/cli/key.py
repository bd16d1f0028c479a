"""`packstone key`: the passphrases and recovery keys that open a repository."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import passphrase, render, values
from packstone.cli.session import Session, global_options
from packstone.errors import UsageError

if TYPE_CHECKING:
    import packstone
    from packstone.cli.values import Command


def cost_options(command: Command) -> Command:
    """Add the options that say what one guess of a passphrase costs."""
    options = [
        click.option(
            "--kdf-time",
            type=int,
            metavar="N",
            default=3,
            show_default=True,
            help="Passes of Argon2id.",
        ),
        click.option(
            "--kdf-memory",
            type=values.size,
            metavar="SIZE",
            default="64MiB",
            show_default=True,
            help="Memory of Argon2id.",
        ),
        click.option(
            "--kdf-lanes",
            type=int,
            metavar="N",
            default=4,
            show_default=True,
            help="Lanes of Argon2id.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def cost_of(options: dict[str, Any]) -> packstone.Argon2:
    """Return the cost that the options say."""
    import packstone

    return packstone.Argon2(options["kdf_time"], options["kdf_memory"], options["kdf_lanes"])


@click.group()
def key() -> None:
    """List, add, replace, remove and save keys.

    Every key opens the same repository; none of these commands rewrites data.
    """


@key.command("list")
@global_options
@click.pass_obj
def list_keys(session: Session) -> int:
    """List the key slots; the one that opened this session is marked.

    \b
    packstone key list
    """
    with session.open() as repository:
        rows = repository.keys()
    if session.json:
        render.document([_document(row) for row in rows])
        return 0
    header = ("", "id", "made", "role", "label", "cost")
    render.table(header, [_row(row) for row in rows], right=frozenset())
    return 0


def _document(row: packstone.ListedKey) -> dict[str, Any]:
    return {
        "id": row.id,
        "role": row.role,
        "label": row.label,
        "time": render.rfc3339(row.created_ns) if not row.damage else None,
        "current": row.current,
        "kdf": {"time": row.time, "memory": row.memory, "lanes": row.lanes},
        "damage": row.damage or None,
    }


def _row(row: packstone.ListedKey) -> tuple[str, ...]:
    if row.damage:
        return ("!", row.id[:8], "", "damaged", render.visible(row.damage), "")
    return (
        "*" if row.current else "",
        row.id[:8],
        render.local_time(row.created_ns),
        render.printable(row.role),
        render.printable(row.label),
        f"t={row.time}, m={render.iec(row.memory)}, p={row.lanes}",
    )


@key.command()
@click.option("--recovery", is_flag=True, help="Make a random key to print, and show it once.")
@click.option("--label", default="", metavar="TEXT", help="What to call it; not encrypted.")
@click.option("--new-passphrase-file", metavar="FILE", help="Read the new passphrase here.")
@cost_options
@global_options
@click.pass_obj
def add(
    session: Session, /, recovery: bool, label: str, new_passphrase_file: str | None, **options: Any
) -> int:
    """Let one more passphrase, or a recovery key, open the repository.

    \b
    packstone key add --recovery > recovery-key-to-print
    packstone key add --label deputy --new-passphrase-file deputy.txt

    The new passphrase comes from --new-passphrase-file, PACKSTONE_NEW_PASSPHRASE and its kin,
    or a prompt.
    """
    if recovery and new_passphrase_file:
        raise UsageError("a recovery key is random: --recovery takes no passphrase")
    cost = cost_of(options)
    with session.open() as repository:
        repository.keys()  # a plain one has none: before anything is asked
        shown: str | None = None
        if recovery:
            slot, shown = repository.add_recovery_key(label=label, argon2=cost)
        else:
            slot = repository.add_key(_new(new_passphrase_file), label=label, argon2=cost)
    if session.json:
        session.document({"id": slot, "recovery_key": shown})
        return 0
    if shown is not None:
        render.line(shown)
        render.message("This key opens everything. It is shown once and kept nowhere: print it.")
    if not session.quiet:
        render.message(f"key {slot[:8]} added")
    return 0


@key.command()
@click.argument("slot", metavar="ID")
@global_options
@click.pass_obj
def remove(session: Session, slot: str) -> int:
    """Remove the key whose id starts with ID; the last one cannot be removed.

    \b
    packstone key remove 3f2a91c4

    Who has copied the repository and knows the old passphrase can still open that copy.
    """
    with session.open() as repository:
        removed = repository.remove_key(slot)
    return _done(session, removed, "removed")


@key.command()
@click.option("--new-passphrase-file", metavar="FILE", help="Read the new passphrase here.")
@cost_options
@global_options
@click.pass_obj
def passwd(session: Session, /, new_passphrase_file: str | None, **options: Any) -> int:
    """Replace the passphrase that opens this session by another.

    \b
    packstone key passwd
    packstone key passwd --new-passphrase-file new.txt
    """
    cost = cost_of(options)
    with session.open() as repository:
        repository.keys()
        slot = repository.change_passphrase(_new(new_passphrase_file), argon2=cost)
    return _done(session, slot, "is the new passphrase's")


@key.command()
@click.argument("slot", metavar="[ID]", default="")
@click.option("--output", "-o", metavar="FILE", help="Write here; the file must be new.")
@global_options
@click.pass_obj
def export(session: Session, slot: str, output: str | None) -> int:
    """Print a key slot as text, to keep on paper or in a file.

    \b
    packstone key export
    packstone key export --output key-slot-to-print 3f2a91c4

    Losing all of the repository's `keys/` loses everything; an export brings a slot back. It
    still needs its passphrase.
    """
    with session.open() as repository:
        text = repository.export_key(slot)
    if output is not None:
        try:
            with open(output, "x", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"--output {render.printable(output)}: {error.strerror}") from error
    if session.json:
        session.document({"export": text})
    elif output is None:
        render.line(text.rstrip("\n"))
    return 0


@key.command("import")
@click.argument("file", metavar="FILE")
@global_options
@click.pass_obj
def import_slot(session: Session, file: str) -> int:
    """Put an exported key slot back from FILE, or from standard input with '-'.

    \b
    packstone key import key-slot-to-print
    """
    import packstone

    location = session.location()
    try:
        if file == "-":
            text = sys.stdin.read()
        else:
            with open(file, encoding="ascii", errors="replace") as lines:
                text = lines.read()
    except OSError as error:
        raise UsageError(f"{render.printable(file)}: {error.strerror}") from error
    return _done(session, packstone.import_key(location, text), "is back")


def _new(path: str | None) -> str | bytes:
    if path is not None:
        return passphrase.from_file(path, "--new-passphrase-file")
    found = passphrase.for_new("New passphrase", passphrase.NEW)
    if found is None:
        raise UsageError(
            "no new passphrase was given",
            hint="Set PACKSTONE_NEW_PASSPHRASE_FILE, or say --new-passphrase-file FILE",
        )
    return found


def _done(session: Session, slot: str, what: str) -> int:
    if session.json:
        render.document({"id": slot})
    elif not session.quiet:
        render.line(f"key {slot[:8]} {what}")
    return 0
