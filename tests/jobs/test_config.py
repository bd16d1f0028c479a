"""The strategy file: what it says, and what is told when it says something else."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.errors import StrategyInvalid, UsageError
from packstone.operations.jobs import config_keys
from packstone.operations.jobs.config import load_strategy, parse_strategy
from packstone.operations.jobs.config_lines import Lines
from packstone.operations.jobs.doubts import find_doubts
from packstone.operations.jobs.strategy import (
    CheckBudget,
    CommandSource,
    MariadbSource,
    PathSource,
    PostgresSource,
    Priority,
    SqliteSource,
    Strategy,
)
from packstone.operations.jobs.timetable import Calendar, Interval
from packstone.repository.retention import Retention

PAGE = Path(__file__).parents[2] / "docs" / "strategy.md"
HOUR = 3600 * 10**9
NOW = 1_800_000_000 * 10**9

BASE = '[repositories.main]\nlocation = "/backup"\n'
JOB = BASE + '[jobs.a]\npaths = "/srv"\n'


def parse(text: str, path: str = "/etc/packstone/packstone.toml") -> Strategy:
    return parse_strategy(text.encode(), path)


def mistakes(text: str) -> list[str]:
    """Return what is told about a file, as `LINE: message`."""
    with pytest.raises(StrategyInvalid) as caught:
        parse(text)
    told = caught.value.mistakes or (caught.value.message,)
    assert all(each.startswith("/etc/packstone/packstone.toml:") for each in told)
    return [each.removeprefix("/etc/packstone/packstone.toml:") for each in told]


def example() -> str:
    found = re.search(r"^```toml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_example_says_what_it_is_meant_to() -> None:
    strategy = parse(example(), "/etc/packstone/packstone.toml")
    assert strategy.metrics == "/var/lib/prometheus/node-exporter/packstone.prom"
    main, offsite, cupboard = strategy.repositories.values()
    assert (main.location, main.max_size) == ("/backup/crm", 2 << 40)
    assert offsite.location == "s3://crm-backups/main"
    assert (cupboard.label, cupboard.location) == ("archive-01", "packstone")
    jobs = strategy.jobs
    crm = jobs["crm"]
    assert crm.source == PostgresSource(databases=("crm", "billing"), service="crm")
    assert (crm.every, crm.every_text, crm.priority) == (Interval(HOUR), "1h", Priority.URGENT)
    assert (crm.repository, crm.copy_to) == (main, (offsite, cupboard))
    assert crm.keep == Retention(hourly=24, daily=14, weekly=8, monthly=24, yearly=-1)
    assert (crm.rpo_ns, crm.rto_ns, crm.timeout_ns) == (2 * HOUR, HOUR, 50 * HOUR // 60)
    assert crm.tag == "job:crm"
    assert example().splitlines()[crm.line - 1] == "[jobs.crm]"
    assert jobs["shop"].source == MariadbSource(
        databases=("shop",), defaults_file="/etc/packstone/shop.cnf"
    )
    assert jobs["tickets"].source == SqliteSource(files=("/srv/tickets/tickets.db",))
    assert jobs["directory"].source == CommandSource(
        argv=("slapcat",), name="directory.ldif", load=("slapadd",)
    )
    attachments = jobs["attachments"]
    assert attachments.source == PathSource(
        paths=("/srv/attachments", "/etc"),
        exclude=("*.tmp", "/srv/attachments/cache/"),
        exclude_caches=True,
    )
    assert attachments.every == Calendar("0 3 * * sun")
    assert attachments.keep == Retention(within="1y6m")
    assert attachments.check == CheckBudget(subset="5%", max_seconds=1800.0)
    assert attachments.before == ("mountpoint -q /srv/attachments",)
    assert attachments.prune and attachments.on_error, "from the defaults"
    assert find_doubts(strategy, NOW) == []


def test_every_key_is_on_the_page() -> None:
    """And nothing on the page is unknown."""

    def names(keys: config_keys.Keys) -> set[str]:
        found = set(keys)
        for below in keys.values():
            found |= names(below) if not callable(below) else set()
        return found

    known = names(config_keys.TOP) | names(config_keys.JOB) | names(config_keys.REPOSITORY)
    tables = PAGE.read_text("utf-8").split("\n## Top level")[1]
    rows = [line.split("|")[1:-1] for line in tables.splitlines() if line.startswith("| `")]
    cells = [row[0] + (row[2] if {"`keep`", "`check`"} & {row[0].strip()} else "") for row in rows]
    shown = {key for cell in cells for key in re.findall(r"`([a-z_]+)`", cell)}
    assert shown == known


# --- what is wrong, where, and what is allowed


@pytest.mark.parametrize(
    ("text", "line", "parts"),
    [
        (BASE.replace("location", "locaton"), 2, ["repositories.main.locaton", "location?"]),
        (BASE + "max_size = 1.5\n", 3, ["max_size", "number 1.5", "500GiB"]),
        (BASE + 'max_size = "500GB"\n', 3, ["500GB", "two ways", "GiB"]),
        (BASE + 'passphrase = "x"\n', 3, ["no secrets", "passphrase_file"]),
        (BASE + "[jobs.a]\n", 3, ["jobs.a", "says not what to store", "paths", "postgresql"]),
        (JOB + 'sqlite = { files = "x" }\n', 3, ["found paths and sqlite", "job of its own"]),
        (JOB + 'mysql = { databases = "x" }\n', 3, ["found paths and mysql"]),
        (JOB + 'repository = "mian"\n', 5, ["[repositories.mian]", "did you mean main?"]),
        (JOB + 'copy_to = ["nas"]\n', 5, ["[repositories.nas]", "known: main"]),
        (JOB + 'copy_to = "main"\n', 5, ["'main' is the job's own"]),
        (JOB + 'every = "hourly"\n', 5, ["jobs.a.every", "'hourly'", "15min", "cron"]),
        (JOB + "every = 15\n", 5, ["number 15", "15min"]),
        (JOB + 'priority = "high"\n', 5, ["'high'", "urgent, normal, low"]),
        (JOB + "keep = { daily = -2 }\n", 5, ["jobs.a.keep.daily", "-2", "all"]),
        (JOB + "keep = { dayly = 7 }\n", 5, ["jobs.a.keep.dayly", "daily?"]),
        (JOB + "keep = { daily = 0 }\n", 5, ["keeps nothing"]),
        (JOB + 'keep = { within = "3 days" }\n', 5, ["3 days", "30d"]),
        (JOB + "keep = 0x" + "f" * 5000 + "\n", 5, ["64 bits", "a table"]),
        (JOB + "keep = 7\n", 5, ["number 7", "a table"]),
        (JOB + 'check = { subset = "500%" }\n', 5, ["jobs.a.check.subset", "5%"]),
        (JOB + 'rpo = "5m"\n', 5, ["two ways", "5min"]),
        (JOB + 'timeout = "soon"\n', 5, ["'soon'", "15min"]),
        (JOB + 'ping = "hc.example.com"\n', 5, ["jobs.a.ping", "https://"]),
        (JOB + 'tags = ["job:b"]\n', 5, ["job:b", "job:"]),
        (JOB + "before = [1]\n", 5, ["jobs.a.before", "number 1", "a text"]),
        (JOB + "prune = 1\n", 5, ["true or false"]),
        (JOB + 'exclude = "*.tmp"\nprune = 1\n', 6, ["true or false"]),
        (JOB + 'exclude = ["*.tmp", "[z-a]"]\n', 5, ["jobs.a.exclude", "[z-a]", "no sense"]),
        (JOB + "excludes = []\n", 5, ["excludes", "exclude?"]),
        (BASE + "[jobs.a]\npostgresql = { databases = [] }\n", 4, ["databases", "an empty list"]),
        (BASE + "[jobs.a]\npostgresql = { }\n", 4, ["jobs.a.postgresql.databases", "missing"]),
        (BASE + '[jobs.a]\npostgresql = "crm"\n', 4, ["'crm'", "a table"]),
        (
            BASE + '[jobs.a]\nmariadb = { databases = "x", password = "y" }\n',
            4,
            ["no secrets", "defaults_file"],
        ),
        *[
            (
                BASE + f'[jobs.a]\n{kind} = {{ databases = "x", options = ["-v", "{word}"] }}\n',
                4,
                [f"jobs.a.{kind}.options", "every user can read a password"],
            )
            for kind, word in [
                ("mariadb", "--password=s3cret"),
                ("mysql", "--passw=s3cret"),
                ("mariadb", "-ps3cret"),
                ("postgresql", "--dbname=postgresql://u:s3cret@h/x"),
                ("postgresql", "-dhost=h password = s3cret"),
            ]
        ],
        (
            BASE + '[jobs.a]\nmariadb = { databases = "x", port = 70000 }\n',
            4,
            ["70000", "65535"],
        ),
        (
            BASE + '[jobs.a]\ncommand = { argv = "ls", name = "x" }\n',
            4,
            ["argv", "a list of words"],
        ),
        (BASE + '[jobs.a]\ncommand = { argv = ["ls"], name = "a/b" }\n', 4, ["slash"]),
        (
            BASE + '[jobs.a]\nsqlite = { files = "x" }\nexclude = "*.tmp"\n',
            5,
            ["goes with paths", "sqlite"],
        ),
        (BASE + '[jobs."a/b"]\npaths = "x"\n', 3, ["a/b", "letters, digits"]),
        (BASE + '[repositories."a b"]\nlocation = "x"\n', 3, ["a b", "letters, digits"]),
        (BASE + "[repositories.b]\n", 3, ["repositories.b.location", "missing"]),
        (JOB + "[job.b]\n", 5, ["job", "jobs?"]),
        ("jobs = 1\n", 1, ["number 1", "[jobs.NAME]"]),
        ("[defaults]\npaths = '/srv'\n", 2, ["defaults.paths", "unknown"]),
        ('[jobs.a]\npaths = "/srv"\n', 1, ["jobs.a.repository", "missing", "there is none"]),
        (JOB + "every = \n", 5, ["Invalid value"]),
        (JOB + "[jobs.a]\n", 5, ["twice"]),
        (JOB + 'paths = "/etc"\n', 5, ["overwrite"]),
        (
            BASE.replace('"/backup"', '"../x"') + 'label = "disk"\n',
            2,
            ["repositories.main.location", "on the labelled disk"],
        ),
        (
            BASE + 'passphrase_file = "x"\npassphrase_command = "y"\n',
            4,
            ["passphrase_file already"],
        ),
        ('[repositories.main]\nlocation = "a\\u0000b"\n', 2, ["NUL"]),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_is_allowed(
    text: str, line: int, parts: list[str]
) -> None:
    (told,) = mistakes(text)
    assert told.startswith(f"{line}: "), told
    for part in parts:
        assert part in told


def test_all_mistakes_are_told_at_once_in_the_order_of_the_lines() -> None:
    text = """\
# jobs of the shop
[jobs.shop]
paths = "/srv/shop"
prority = "low"          # 4
exclude = [
    "*.tmp",
    17,                  # in the statement of line 5
]
keep = { daily = "many", weekly = 4 }

[repositories.main]
# nothing here yet
loc = '''
x'''
"""
    told = mistakes(text)
    assert [int(each.partition(":")[0]) for each in told] == [4, 5, 9, 13]
    assert "prority" in told[0] and "exclude" in told[1] and "keep.daily" in told[2]
    assert "loc: unknown key; known: location, label" in told[3]


def test_a_mistake_among_the_defaults_is_told_once() -> None:
    text = BASE + '[defaults]\ncopy_to = "nas"\n'
    text += "".join(f'[jobs.j{number}]\npaths = "/srv/{number}"\n' for number in range(5))
    (told,) = mistakes(text)
    assert told.startswith("4: defaults.copy_to: ")


def test_a_thousand_mistakes_are_not_all_told() -> None:
    text = JOB + "".join(f"key{number} = 1\n" for number in range(1000))
    told = mistakes_raw(text)
    assert len(told) == 21
    assert told[-1] == "and 980 more"


def mistakes_raw(text: str) -> tuple[str, ...]:
    with pytest.raises(StrategyInvalid) as caught:
        parse(text)
    return caught.value.mistakes


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_strategy_or_refused(data: bytes) -> None:
    try:
        parse_strategy(data, "/packstone.toml")
    except UsageError as error:
        assert "/packstone.toml" in error.message


values = st.recursive(
    st.sampled_from(
        ["1", "-1", "0x" + "f" * 5000, "1e999", "nan", "true", "2026-01-01", '""', '"x"', '"1h"',
         '"main"', '"/srv"', '"daily 02:00"', '"5%"', '"all"', '"low"', '"\\u0000"', "'\U0001f4be'"]
    ),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
    | st.dictionaries(
        st.sampled_from(["databases", "files", "argv", "name", "daily", "within", "subset", "x"]),
        inner,
        max_size=3,
    ).map(lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"),
    max_leaves=4,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(sorted(config_keys.JOB)), values, max_size=6),
    st.dictionaries(st.sampled_from(sorted(config_keys.REPOSITORY)), values, max_size=4),
    st.dictionaries(st.sampled_from(sorted(config_keys.DEFAULTS)), values, max_size=4),
    values,
)
def test_any_values_are_a_strategy_or_refused_with_their_line(
    job: dict[str, str], repository: dict[str, str], defaults: dict[str, str], top: str
) -> None:
    lines = [f"metrics = {top}"]
    for header, keys in (
        ("repositories.main", repository), ("defaults", defaults), ("jobs.a", job)
    ):  # fmt: skip
        lines += [f"[{header}]", *(f"{key} = {value}" for key, value in keys.items())]
    try:
        strategy = parse("\n".join(lines))
    except StrategyInvalid as error:
        for told in error.mistakes or (error.message,):
            where = re.match(r"/etc/packstone/packstone.toml:(\d+): ([a-z_.]+): ", told)
            assert where, told
            # the line is that of the key or, where a key is missing, of its table
            line = lines[int(where[1]) - 1]
            key = where[2].split(".")
            assert (
                line.split(" ")[0] in key
                or line == f"[{'.'.join(key[:2])}]"
                or (line == f"[{key[0]}]")
            ), (line, told)
        return
    assert set(strategy.jobs) == {"a"}


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(StrategyInvalid, match="too deep"):
        parse("a = " + "[" * 100_000)


def test_lines_of_a_file_that_is_one_huge_statement_are_found_soon() -> None:
    text = "[jobs.a]\npaths = [\n" + '  "/srv",\n' * 30_000 + "]\nx = 1\n"
    assert Lines(text).find(("jobs", "a")) == 1
    assert Lines(text).find(("jobs", "a", "paths")) == 2
    assert Lines(text).find(("jobs", "a", "x")) == 30_004


def test_a_file_that_looks_like_statements_everywhere_costs_a_bounded_time() -> None:
    text = "[jobs.a]\npaths = [\n" + "[1],\n" * 100_000 + "]\nx = 1\n"
    started = time.process_time()
    assert Lines(text).find(("jobs", "a", "x")) is None
    assert time.process_time() - started < 30


@given(st.data())
def test_the_line_of_a_key_is_the_one_it_was_written_on(data: st.DataObject) -> None:
    lines: list[str] = []
    expected: dict[tuple[str, ...], int] = {}
    for number in range(data.draw(st.integers(1, 6))):
        path = ("jobs", f"j{number}")
        filler = data.draw(st.sampled_from([[], [""], ["# x = 1", ""], ["# [jobs.j1]"]]))
        lines += filler
        expected[path] = len(lines) + 1
        lines.append(f"[jobs.j{number}]")
        for key in data.draw(st.lists(st.sampled_from("abc"), unique=True)):
            expected[(*path, key)] = len(lines) + 1
            lines += data.draw(
                st.sampled_from(
                    [
                        [f"{key} = 1"],
                        [f"{key} = ["] + [" [1],"] * 4 + ["]"],
                        [f"{key} = '''", "b = 1", "[jobs.j0]", "'''"],
                        [f"{key} = {{ x = 1 }}"],
                    ]
                )
            )
            if "{" in lines[-1]:
                expected[(*path, key, "x")] = len(lines)
    found = Lines("\n".join(lines))
    for path, line in expected.items():
        assert found.find(path) == line
    assert found.find(("jobs", "j0", "missing")) == expected["jobs", "j0"]


# --- paths, and where the file is


def test_paths_are_relative_to_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    strategy = parse(
        """
        metrics = "m.prom"
        state_dir = "~/state"
        [repositories.main]
        location = "../backup"
        passphrase_file = "secret"
        [repositories.url]
        location = "file:///backup"
        [repositories.disk]
        label = "archive"
        location = "/crm/../crm"
        [jobs.a]
        repository = "main"
        paths = ["data", "/srv/x/", "~/mail"]
        [jobs.b]
        repository = "main"
        sqlite = { files = "b.db" }
        """,
        "/etc/packstone/packstone.toml",
    )
    main, url, disk = strategy.repositories.values()
    assert (main.location, main.passphrase_file) == ("/etc/backup", "/etc/packstone/secret")
    assert url.location == "file:///backup"
    assert disk.location == "crm", "never absolute: with the disk away it would be ours"
    assert strategy.metrics == "/etc/packstone/m.prom"
    assert strategy.state_dir == "/home/ada/state"
    assert strategy.jobs["a"].source == PathSource(
        paths=("/etc/packstone/data", "/srv/x", "/home/ada/mail")
    )
    assert strategy.jobs["b"].source == SqliteSource(files=("/etc/packstone/b.db",))


def test_where_a_strategy_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(UsageError, match="/etc/packstone"):
        load_strategy()
    mine = tmp_path / "settings" / "packstone" / "packstone.toml"
    mine.parent.mkdir(parents=True)
    mine.write_text(JOB)
    assert load_strategy().path == str(mine)
    here = tmp_path / "work" / "packstone.toml"
    here.write_text(JOB)
    assert load_strategy().path == str(here), "the nearest wins"
    assert load_strategy("../settings/packstone/packstone.toml").path == str(mine)
    monkeypatch.setenv("XDG_CONFIG_HOME", "settings")  # relative: to be ignored
    monkeypatch.setenv("HOME", str(tmp_path))
    here.unlink()
    with pytest.raises(UsageError, match=re.escape(str(tmp_path / ".config" / "packstone"))):
        load_strategy()


def test_a_file_that_everyone_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packstone.toml"
    path.write_text(JOB)
    path.chmod(0o666)
    with pytest.raises(UsageError, match="written by everyone") as caught:
        load_strategy(str(path))
    assert "chmod o-w" in caught.value.hint
    path.chmod(0o664)  # a group of one's own is usual
    assert load_strategy(str(path)).jobs


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "packstone.toml"
    path.write_text(JOB)
    os.chown(path, 12345, 0)
    with pytest.raises(UsageError, match="belongs to user 12345"):
        load_strategy(str(path))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(UsageError):
            load_strategy(str(path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="no file"):
        load_strategy(str(tmp_path / "fifo"))
    large = tmp_path / "large"
    large.write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(UsageError, match="no strategy"):
        load_strategy(str(large))


# --- defaults and doubts


def test_a_job_overrides_the_defaults() -> None:
    strategy = parse(
        BASE
        + """
        [defaults]
        every = "1h"
        exclude = "*.tmp"
        keep = { daily = 7 }
        [jobs.a]
        paths = "/srv"
        keep = { weekly = 4 }
        [jobs.b]
        sqlite = { files = "/b.db" }
        every = "1d"
        """
    )
    one, other = strategy.jobs.values()
    assert one.repository.name == "main", "there is no other"
    assert one.keep == Retention(weekly=4)
    assert isinstance(one.source, PathSource) and one.source.exclude == ("*.tmp",)
    assert (one.every, other.every) == (Interval(HOUR), Interval(24 * HOUR))
    assert other.keep == Retention(daily=7)


def test_what_is_perhaps_not_meant() -> None:
    strategy = parse(
        BASE
        + """
        [repositories.again]
        location = "/backup/"
        [defaults]
        repository = "main"
        [jobs.a]
        paths = ["/srv/crm", "/etc"]
        every = "daily 02:00"
        rpo = "1h"
        [jobs.b]
        paths = "/srv"
        rpo = "1h"
        [jobs.c]
        paths = "/srv/crm2"
        every = "daily 03:00"
        rpo = "25h"
        [jobs.d]
        repository = "again"
        paths = "/etc"
        """
    )
    doubts = find_doubts(strategy, NOW)
    assert [each for each in doubts if "jobs a and b" in each and "/srv/crm" in each]
    assert [each for each in doubts if "jobs b and c" in each]
    assert not [each for each in doubts if "a and c" in each or "and d" in each]
    assert [each for each in doubts if "job a is to lose 1h" in each and "1d" in each]
    assert [each for each in doubts if "job b is to lose 1h" in each and "no every" in each]
    assert not [each for each in doubts if "job c is" in each]
    assert [each for each in doubts if "main and again are one place" in each]
