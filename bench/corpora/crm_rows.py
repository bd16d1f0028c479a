"""Rows of a CRM as lines of PostgreSQL's COPY text format, and its schema.

Only text without tabs, newlines and backslashes is made, so nothing needs escaping but the
newlines inside e-mails, which are written as `\\n` here as COPY would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from corpora.text import Prose, make_words, pick

NIGHT = "2026-03-02"

SCHEMA = """
CREATE TABLE companies (
    id bigint NOT NULL, name text NOT NULL, industry text, street text, zip text, city text,
    country text, website text, employees integer, revenue numeric(14,2), note text,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE contacts (
    id bigint NOT NULL, company_id bigint NOT NULL, first_name text, last_name text, email text,
    phone text, title text, status text NOT NULL, note text,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE opportunities (
    id bigint NOT NULL, company_id bigint NOT NULL, contact_id bigint NOT NULL, title text,
    stage text NOT NULL, amount numeric(12,2), probability smallint, close_on date, note text,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL);
CREATE TABLE activities (
    id bigint NOT NULL, contact_id bigint NOT NULL, kind text NOT NULL, subject text, body text,
    done_at timestamptz NOT NULL);
CREATE TABLE audit (
    id bigint NOT NULL, at timestamptz NOT NULL, actor text NOT NULL, action text NOT NULL,
    entity text NOT NULL, entity_id bigint NOT NULL, change jsonb, address inet);
"""
KEYS = "".join(
    f"ALTER TABLE {table} ADD PRIMARY KEY (id);\n"
    for table in ("companies", "contacts", "opportunities", "activities", "audit")
)

# Rows of the first night at full size; 1.37 GB as a plain dump, two thirds of it in tables whose
# rows are updated.
COUNTS = {
    "companies": 150_000,
    "contacts": 2_400_000,
    "opportunities": 1_400_000,
    "activities": 850_000,
    "audit": 1_000_000,
}
GROWING = ("activities", "audit")  # 2 % more every night
UPDATED = ("contacts", "opportunities")  # 1 % of the rows at random places every night
CHOSEN = "(id * 2654435761 % 1000003) % 100 = 7"  # which 1 %; the same in SQL and in Python

UPDATES = f"""
UPDATE contacts SET status = 'customer', updated_at = '{NIGHT} 09:00+00'::timestamptz
    + (id % 28800) * interval '1 second', phone = '+49 30 ' || (id * 7919 % 9000000 + 1000000),
    note = left(note, 80) || ' Called back, wants offer ' || id * 31 % 99991 WHERE {CHOSEN};
UPDATE opportunities SET stage = 'negotiation', probability = 60,
    updated_at = '{NIGHT} 09:00+00'::timestamptz + (id % 28800) * interval '1 second',
    amount = round(amount * 1.05, 2), note = left(note, 90) || ' New price ' || id * 17 % 99991
    WHERE {CHOSEN};
"""


class Rows:
    """Makes the rows of every table; ids count up, foreign keys point anywhere."""

    def __init__(self, seed: int, scale: float) -> None:
        self.prose = Prose(seed)
        self.rng = self.prose.rng
        self.counts = {table: max(50, int(count * scale)) for table, count in COUNTS.items()}
        self.names = [word.capitalize() for word in make_words(self.rng, 6_000)[100:]]
        self.makers: dict[str, Callable[[int], str]] = {
            table: getattr(self, f"_{table}") for table in COUNTS
        }

    def blocks(self, table: str, begin: int, end: int) -> Iterator[bytes]:
        """Yield the rows with ids from `begin` to before `end`, some thousand at a time."""
        make = self.makers[table]
        for at in range(begin, end, 4_000):
            yield "".join([make(row) for row in range(at, min(at + 4_000, end))]).encode()

    def _time(self, row: int, total: int) -> str:
        # Rows come in over three years, in the order of their ids, with some jitter.
        second = int(row / total * 94_000_000) + int(self.rng.random() * 9_000)
        day, second = divmod(second, 86_400)
        year, day = divmod(day, 365)
        month, day = divmod(day, 31)
        clock = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        return f"{2023 + year}-{month + 1:02d}-{day % 28 + 1:02d} {clock}+00"

    def _other(self, table: str) -> int:
        return int(self.rng.random() * self.counts[table]) + 1

    def _companies(self, row: int) -> str:
        rng, name = self.rng, pick(self.rng, self.names)
        kind = pick(rng, ("GmbH", "AG", "Ltd", "SA", "Inc", "BV", "KG"))
        made = self._time(row, self.counts["companies"])
        return (
            f"{row}\t{name} {pick(rng, self.names)} {kind}\t{pick(rng, INDUSTRIES)}"
            f"\t{pick(rng, self.names)} Street {rng.getrandbits(8)}\t{rng.getrandbits(16):05d}"
            f"\t{pick(rng, self.names)}\t{pick(rng, COUNTRIES)}\thttps://www.{name.lower()}{row}.example"
            f"\t{rng.getrandbits(12)}\t{rng.getrandbits(28)}.00\t{self.prose.sentence(4)}"
            f"\t{made}\t{made}\n"
        )

    def _contacts(self, row: int) -> str:
        rng = self.rng
        first, last = pick(rng, self.names), pick(rng, self.names)
        made = self._time(row, self.counts["contacts"])
        return (
            f"{row}\t{self._other('companies')}\t{first}\t{last}"
            f"\t{first.lower()}.{last.lower()}@{pick(rng, DOMAINS)}\t+49 {rng.getrandbits(30)}"
            f"\t{pick(rng, TITLES)}\t{pick(rng, STATUSES)}\t{self.prose.sentence(6)}"
            f"\t{made}\t{made}\n"
        )

    def _opportunities(self, row: int) -> str:
        rng = self.rng
        made = self._time(row, self.counts["opportunities"])
        return (
            f"{row}\t{self._other('companies')}\t{self._other('contacts')}\t{self.prose.sentence(2)}"
            f"\t{pick(rng, STAGES)}\t{rng.getrandbits(17)}.{rng.getrandbits(6):02d}"
            f"\t{int(rng.random() * 100)}\t2026-0{int(rng.random() * 9) + 1}-1{rng.getrandbits(3)}"
            f"\t{self.prose.sentence(7)}\t{made}\t{made}\n"
        )

    def _activities(self, row: int) -> str:
        rng = self.rng
        picked = rng.choices(self.prose.phrases, k=17)
        at = self._time(row, self.counts["activities"])
        return (
            f"{row}\t{self._other('contacts')}\t{pick(rng, KINDS)}\t{' '.join(picked[:3])}"
            f"\tHello {pick(rng, self.names)},\\n{' '.join(picked[3:10])}."
            f"\\n{' '.join(picked[10:])}.\t{at}\n"
        )

    def _audit(self, row: int) -> str:
        rng = self.rng
        old, new = rng.choices(STATUSES, k=2)
        return (
            f"{row}\t{self._time(row, self.counts['audit'])}\tuser{rng.getrandbits(7)}"
            f"\tupdate\tcontact\t{self._other('contacts')}"
            f'\t{{"status": ["{old}", "{new}"], "owner": {rng.getrandbits(7)}, '
            f'"reason": "{pick(rng, self.prose.phrases)}"}}'
            f"\t10.{rng.getrandbits(4)}.{rng.getrandbits(8)}.{rng.getrandbits(8)}\n"
        )


INDUSTRIES = ("software", "retail", "logistics", "health", "energy", "machinery", "food", "media")
COUNTRIES = ("DE", "AT", "CH", "FR", "NL", "PL", "IT", "ES", "SE", "US", "GB")
DOMAINS = ("example.com", "example.org", "mail.example", "post.example", "example.net")
TITLES = (
    "CEO",
    "CTO",
    "Head of Sales",
    "Buyer",
    "Assistant",
    "Engineer",
    "Accountant",
    "Consultant",
)
STATUSES = ("lead", "contacted", "qualified", "customer", "lost", "inactive")
STAGES = ("new", "qualified", "proposal", "negotiation", "won", "lost")
KINDS = ("call", "email", "email", "email", "meeting", "note")
