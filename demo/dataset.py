"""A small CRM data set and one day of changes to it, the same on every run.

What such data looks like decides what a snapshot store must be good at: a dump whose rows
change here and there, exports that grow, attachments that never change but move about, and
many small files. Some names and kinds of file are there because they break careless tools.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTACTS = 60_000
ACTIVITIES = 250_000
ATTACHMENTS = 1_500
NOTES = 2_500

WORDS = (
    "offer contract renewal invoice meeting call customer discount delivery support ticket "
    "reminder follow-up quarter budget decision proposal signed pending upgrade licence team"
).split()
CITIES = "Aachen Bern Cork Delft Espoo Faro Graz Huelva Izmir Jena Kaunas Lyon Malmö Nancy".split()


@dataclass(slots=True)
class Data:
    """The rows behind the dump, and the source of everything random."""

    random: random.Random
    contacts: list[str]
    activities: list[str]
    dump_size: int = 0


def _contact(draw: random.Random, number: int) -> str:
    name = f"{draw.choice(WORDS).title()} {draw.choice(CITIES)}"
    mail = f"{draw.getrandbits(48):012x}@example.com"
    return f"{number}\t{name}\t{mail}\t{draw.choice(CITIES)}\t{draw.randrange(10**9)}"


def _activity(draw: random.Random, number: int) -> str:
    text = " ".join(draw.choices(WORDS, k=9))
    day = f"2026-{draw.randrange(1, 12):02d}-{draw.randrange(1, 29):02d}"
    return f"{number}\t{draw.randrange(CONTACTS)}\t{day}\t{draw.getrandbits(64):016x}\t{text}"


def _write_dump(crm: Path, data: Data) -> None:
    """Write all tables in full, as pg_dump does every night."""
    crm.joinpath("dump").mkdir(exist_ok=True)
    path = crm / "dump" / "crm.sql"
    with path.open("w", encoding="utf-8") as file:
        file.write("-- CRM database dump\nSET client_encoding = 'UTF8';\n\n")
        for table, rows in (("contacts", data.contacts), ("activities", data.activities)):
            file.write(f"COPY public.{table} FROM stdin;\n")
            file.writelines(row + "\n" for row in rows)
            file.write("\\.\n\n")
    data.dump_size = path.stat().st_size


def _write_exports(crm: Path, data: Data) -> None:
    exports = crm / "exports"
    exports.mkdir(exist_ok=True)
    for city in CITIES:
        rows = [row.replace("\t", ",") for row in data.contacts if f"\t{city}\t" in row]
        text = "id,name,mail,city,number\n" + "\n".join(rows) + "\n"
        exports.joinpath(f"{city}.csv").write_text(text, encoding="utf-8")


def _attachment(crm: Path, draw: random.Random, number: int) -> Path:
    directory = crm / "attachments" / f"{number % 40:02d}"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{number:06d}.pdf"
    # scanned paper and photographs do not compress
    path.write_bytes(b"%PDF-1.7\n" + draw.randbytes(int(draw.lognormvariate(9.3, 1.0)) + 100))
    return path


def _note(crm: Path, draw: random.Random, number: int) -> None:
    directory = crm / "notes" / f"{number % 50:02d}"
    directory.mkdir(parents=True, exist_ok=True)
    text = " ".join(draw.choices(WORDS, k=draw.randrange(20, 300)))
    directory.joinpath(f"note {number}.txt").write_text(text + "\n")


def _write_oddities(crm: Path, draw: random.Random) -> None:
    """Kinds and names that careless tools lose."""
    odd = crm / "odd"
    odd.mkdir()
    odd.joinpath("empty").touch()
    odd.joinpath("empty directory").mkdir()
    odd.joinpath("two\nlines").write_text("a newline in a name\n")
    odd.joinpath("n" * 255).write_text("the longest name\n")
    try:
        Path(os.fsdecode(os.fsencode(odd) + b"/caf\xe9 latin-1")).write_text("not UTF-8\n")
    except OSError:
        pass  # some file systems take UTF-8 only
    odd.joinpath("latest").symlink_to("../dump/crm.sql")
    odd.joinpath("dangling").symlink_to("nowhere/at all")
    os.link(odd / "dangling", odd / "dangling again", follow_symlinks=False)
    os.link(crm / "dump" / "crm.sql", odd / "hard link to the dump")
    os.mkfifo(odd / "fifo")
    with odd.joinpath("sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(5_000_000)
        file.write(b"end")
    secret = odd / "read only"
    secret.write_bytes(draw.randbytes(20_000))
    secret.chmod(0o400)
    os.utime(secret, ns=(0, -1_234_567_890))  # before 1970
    if hasattr(os, "setxattr"):
        try:
            os.setxattr(secret, "user.origin", b"scanner \xff 7")
        except OSError:
            pass  # tmpfs of older kernels


def create(crm: Path) -> Data:
    """Write the data set to `crm`, a new directory."""
    draw = random.Random(2026)
    data = Data(
        draw,
        [_contact(draw, i) for i in range(CONTACTS)],
        [_activity(draw, i) for i in range(ACTIVITIES)],
    )
    crm.mkdir()
    _write_dump(crm, data)
    _write_exports(crm, data)
    for number in range(ATTACHMENTS):
        _attachment(crm, draw, number)
    for number in range(NOTES):
        _note(crm, draw, number)
    _write_oddities(crm, draw)
    return data


def change(crm: Path, data: Data) -> Iterator[str]:
    """Let a day go by, saying what happens."""
    draw = data.random
    for rows, make in ((data.contacts, _contact), (data.activities, _activity)):
        for number in draw.sample(range(len(rows)), len(rows) // 100):
            rows[number] = make(draw, number)
    yield "1 % of all rows change, anywhere in the dump"

    grown = len(data.activities) // 50
    data.activities += [_activity(draw, len(data.activities) + i) for i in range(grown)]
    _write_dump(crm, data)
    _write_exports(crm, data)
    yield f"{grown:,} rows are added; dump and exports are written anew"

    for number in range(ATTACHMENTS, ATTACHMENTS + 40):
        _attachment(crm, draw, number)
    yield "40 attachments arrive"

    moved = crm / "attachments" / "archive"
    crm.joinpath("attachments", "07").rename(moved)
    for path in sorted(moved.iterdir())[:10]:
        path.rename(path.with_name("renamed " + path.name))
    yield "a directory of attachments is renamed, and some files in it"

    gone = sorted(crm.joinpath("notes").rglob("*.txt"))[::50]
    for path in gone:
        path.unlink()
    crm.joinpath("odd", "empty directory").rmdir()
    yield f"{len(gone)} notes and a directory are deleted"

    crm.joinpath("notes", "00").chmod(0o2750)
    crm.joinpath("odd", "latest").unlink()
    crm.joinpath("odd", "latest").symlink_to("../exports")
    yield "a mode and a symbolic link change"
