"""`packstone cat`: a file of a snapshot, or a part of it, to standard output."""

from __future__ import annotations

import sys

import click

from packstone.cli import values
from packstone.cli.session import Session, global_options
from packstone.cli.values import narrowing_options, split_place
from packstone.errors import UsageError

_READ = 1 << 20


@click.command()
@click.argument("place", metavar="SNAPSHOT:PATH")
@click.option("--offset", type=values.size, default="0", metavar="N", help="Begin at this byte.")
@click.option("--length", type=values.size, metavar="N", help="Print so many bytes at most.")
@narrowing_options
@global_options
@click.pass_obj
def cat(
    session: Session,
    place: str,
    offset: int,
    length: int | None,
    host: str | None,
    path: bytes | None,
    tag: str | None,
) -> int:
    """Print the file at PATH in SNAPSHOT; only the chunks that it needs are read.

    \b
    packstone cat latest:/srv/crm/contacts.csv
    packstone cat latest~1:/crm.sql --offset 1GiB --length 1MiB
    """
    if session.json:
        raise UsageError("cat prints bytes and has no --json")
    name, inside = split_place(place)
    if not inside:
        raise UsageError("no file is named", hint="say SNAPSHOT:PATH")
    with session.open() as repository:
        row = repository.find_snapshot(name, host=host, path=path, tag=tag)
        with repository.open_file(row.id, inside) as file:
            file.seek(offset)
            while data := file.read(_READ if length is None else min(_READ, length)):
                sys.stdout.buffer.write(data)
                if length is not None:
                    length -= len(data)
        sys.stdout.buffer.flush()
    return 0
