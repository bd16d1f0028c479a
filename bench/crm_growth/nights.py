"""The nights of a CRM database: a real PostgreSQL server, dumped, changed, dumped again.

One night's day before it: 1 % of contacts and opportunities updated at random places, 2 % more
activities and audit rows, 0.1 % of contacts and opportunities deleted. Dumps are plain, in heap
order, and have a dated name each night; two tables come as CSV exports beside them.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Iterator
from pathlib import Path

from corpora import crm_rows
from corpora.crm import Cluster, find_programs
from corpora.crm_rows import GROWING, UPDATED, Rows

FIRST = datetime.date(2026, 3, 1)
EXPORTED = ("companies", "opportunities")


def updates(night: int) -> str:
    """Return the SQL of one day: other rows every night, spread over the tables."""
    day = FIRST + datetime.timedelta(days=night)
    chosen = f"((id + {night} * 7919) * 2654435761 % 1000003) % 100 = 7"
    gone = f"((id + {night} * 104729) * 2654435761 % 1000003) % 1000 = 3"
    return f"""
UPDATE contacts SET status = 'customer', phone = '+49 30 ' || ((id + {night}) * 7919 % 9000000),
    updated_at = '{day} 09:00+00'::timestamptz + (id % 28800) * interval '1 second',
    note = left(note, 80) || ' Called back, wants offer ' || (id + {night}) * 31 % 99991
    WHERE {chosen};
UPDATE opportunities SET stage = 'negotiation', probability = (id + {night}) % 100,
    updated_at = '{day} 09:00+00'::timestamptz + (id % 28800) * interval '1 second',
    amount = round(amount * 1.05, 2) % 1000000,
    note = left(note, 90) || ' New price ' || (id + {night}) * 17 % 99991
    WHERE {chosen};
DELETE FROM contacts WHERE {gone};
DELETE FROM opportunities WHERE {gone};
"""


class Nights:
    """A source directory whose files are those of one night after the other."""

    def __init__(self, root: Path, scale: float, vacuum: bool) -> None:
        """`vacuum` lets new rows fill the holes of old ones, as autovacuum does."""
        programs = find_programs()
        if programs is None:
            raise SystemExit("this needs the programs of PostgreSQL (Debian: postgresql)")
        self.source = root / "source"
        self._rows = Rows(seed=21, scale=scale)
        self._counts = dict(self._rows.counts)
        self._vacuum = vacuum
        shutil.rmtree(root, ignore_errors=True)
        self.source.mkdir(parents=True)
        self._exports = root / "exports"
        self._exports.mkdir(mode=0o777)
        self._exports.chmod(0o777)
        self._cluster = Cluster(programs, root / "cluster")

    def run(self, count: int) -> Iterator[int]:
        """Make each night's files in turn and yield its number, from 0."""
        with self._cluster as cluster:
            cluster.sql(crm_rows.SCHEMA)
            for table, rows in self._counts.items():
                cluster.copy(table, self._rows.blocks(table, 1, rows + 1))
            cluster.sql(crm_rows.KEYS)
            for night in range(count):
                if night:
                    self._day(night)
                self._dump(night)
                yield night

    def _day(self, night: int) -> None:
        self._cluster.sql(updates(night))
        for table in GROWING:
            more = self._rows.counts[table] // 50
            first = self._counts[table] + 1
            self._cluster.copy(table, self._rows.blocks(table, first, first + more))
            self._counts[table] += more
        if self._vacuum:
            for table in UPDATED:
                self._cluster.sql(f"VACUUM {table};")

    def _dump(self, night: int) -> None:
        for old in self.source.iterdir():
            old.unlink()
        day = FIRST + datetime.timedelta(days=night)
        self._cluster.dump(self.source)
        (self.source / "crm.sql").rename(self.source / f"crm-{day}.sql")
        for table in EXPORTED:
            exported = self._exports / f"{table}-{day}.csv"
            self._cluster.sql(f"COPY {table} TO '{exported}' WITH (FORMAT csv, HEADER);")
            shutil.copyfile(exported, self.source / exported.name)
            exported.unlink()
