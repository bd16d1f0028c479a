"""Retention: what policies keep, and that no clock and no order of things makes them lose more."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packstone.errors import UsageError
from packstone.model import Snapshot
from packstone.repository.periods import Duration
from packstone.repository.retention import (
    ALL,
    FUTURE,
    Retention,
    RetentionGroup,
    apply_retention,
    group_snapshots,
)
from packstone.repository.snapshots import SnapshotRow

SECOND = 10**9
HOUR = 3600 * SECOND
DAY = 24 * HOUR
END = 1 << 64  # later than any snapshot can be
_numbers = itertools.count()


def at(text: str, zone: tzinfo = UTC) -> int:
    moment = datetime.fromisoformat(text)
    return round(moment.replace(tzinfo=moment.tzinfo or zone).timestamp()) * SECOND


def row(when: str | int, number: int | None = None, **changes: Any) -> SnapshotRow:
    time_ns = at(when) if isinstance(when, str) else when
    fields: dict[str, Any] = {"host": "h", "paths": [b"/a"], "tree": bytes(32)} | changes
    number = next(_numbers) if number is None else number
    return SnapshotRow(f"{number:064x}", Snapshot(time_ns=time_ns, **fields))


def kept(
    rows: Sequence[SnapshotRow], now_ns: int = END, zone: tzinfo | None = UTC, **rules: Any
) -> list[SnapshotRow]:
    """Apply a policy to one group and return what stays, oldest first."""
    (group,) = apply_retention(rows, Retention(**rules), now_ns=now_ns, group_by=(), zone=zone)
    assert sorted([k.row.id for k in group.keep] + [r.id for r in group.forget]) == sorted(
        r.id for r in rows
    ), "each stays or goes"
    return [each.row for each in group.keep]


def times(rows: Sequence[SnapshotRow]) -> list[str]:
    return [
        datetime.fromtimestamp(r.snapshot.time_ns // SECOND, UTC).strftime("%m-%d %H:%M")
        for r in rows
    ]


def zone_of(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError:
        pytest.skip("no time zone data on this machine")


# -- single rules ----------------------------------------------------------------------------

HISTORY = [
    "2024-12-29 23:00", "2024-12-30 01:00", "2025-11-02 12:00", "2026-01-01 00:30",
    "2026-11-01 10:00", "2026-11-22 09:00", "2026-11-22 23:59", "2026-11-23 00:00",
    "2026-11-23 10:10", "2026-11-23 10:50",
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"last": 2}, [8, 9]),
        ({"last": 99}, range(10)),
        ({"last": ALL}, range(10)),
        ({"hourly": 3}, [6, 7, 9]),
        ({"daily": 1}, [9]),
        ({"daily": 3}, [4, 6, 9]),
        ({"daily": ALL}, [0, 1, 2, 3, 4, 6, 9]),
        ({"weekly": 2}, [6, 9]),  # a Sunday, a Monday
        ({"weekly": ALL}, [0, 1, 2, 3, 4, 6, 9]),  # 30 December 2024 is in 2025-W01
        ({"monthly": 3}, [2, 3, 9]),
        ({"yearly": 2}, [2, 9]),
        ({"yearly": 3}, [1, 2, 9]),
        ({"within": "1d"}, [6, 7, 8, 9]),
        ({"within": "12h"}, [6, 7, 8, 9]),
        ({"within": "10h"}, [8, 9]),
        ({"within": "1y"}, [3, 4, 5, 6, 7, 8, 9]),
        ({"within": "1y1m"}, range(2, 10)),
        ({"within": "4w"}, range(4, 10)),
        ({"last": 1, "yearly": 2}, [2, 9]),
    ],
)
def test_rules(rules: dict[str, Any], expected: Sequence[int]) -> None:
    rows = [row(when) for when in HISTORY]
    assert kept(rows, **rules) == [rows[index] for index in expected]


def test_every_rule_says_why() -> None:
    rows = [row("2026-11-22 09:00", tags=["audit"]), row("2026-11-23 10:50"), row("2027-01-01")]
    policy = Retention(
        last=3, hourly=1, daily=ALL, weekly=1, monthly=1, yearly=1, within="12h", tags=["audit"]
    )
    (group,) = apply_retention(rows, policy, now_ns=at("2026-12-01"), zone=UTC)
    assert [each.reasons for each in group.keep] == [
        ("last 2 of 3", "daily 2026-11-22", "tag audit"),
        (
            "last 1 of 3",
            "hourly 2026-11-23 10:00+00:00",
            "daily 2026-11-23",
            "weekly 2026-W48",
            "monthly 2026-11",
            "yearly 2026",
            "within 12h",
        ),
        (FUTURE,),
    ]


def test_weeks_do_not_end_with_the_year() -> None:
    rows = [row(day) for day in ("2024-01-01", "2024-12-30", "2026-12-31", "2027-01-03")]
    assert kept(rows, weekly=ALL) == [rows[0], rows[1], rows[3]], "2024-W01, 2025-W01, 2026-W53"


def test_tags_are_whole() -> None:
    rows = [row(number, tags=tags) for number, tags in enumerate([["ab"], ["a", "b"], [], ["b"]])]
    assert kept(rows, tags=["a"]) == [rows[1]]
    assert kept(rows, tags=["a", "b"]) == [rows[1], rows[3]], "one of them is enough"
    assert kept(rows, tags=["a"], last=1) == [rows[1], rows[3]]


def test_equal_times_go_by_id() -> None:
    rows = [row(DAY, number) for number in range(5)]
    for order in itertools.permutations(rows):
        assert kept(order, last=2) == rows[3:]
        assert kept(order, daily=3) == rows[4:]


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"last": 0, "daily": 0},
        {"last": -2},
        {"within": "30"},
        {"within": "0d"},
        {"within": "1h1d"},
        {"within": "-1d"},
        {"within": "٣d"},
        {"tags": [""]},
        {"tags": "audit"},
    ],
)
def test_what_is_no_policy(rules: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Retention(**rules)


# -- calendars -------------------------------------------------------------------------------


def test_days_are_those_of_the_time_zone() -> None:
    berlin = zone_of("Europe/Berlin")
    rows = [row("2026-11-22 22:30"), row("2026-11-22 23:30"), row("2026-11-23 22:59")]
    assert kept(rows, zone=UTC, daily=2) == [rows[1], rows[2]]
    assert kept(rows, zone=berlin, daily=2) == [rows[0], rows[2]]


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    berlin = zone_of("Europe/Berlin")
    rows = [row(f"2026-10-{day}") for day in ("25 00:30", "25 01:30")]  # both 02:30 there
    assert kept(rows, zone=berlin, hourly=2) == rows
    assert kept(rows, zone=berlin, daily=2) == rows[1:]


@pytest.mark.parametrize("name", ["Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe"])
@pytest.mark.parametrize("year", [2015, 2026])
def test_each_real_day_keeps_one(name: str, year: int) -> None:
    """Whatever clocks are set to meanwhile; hourly snapshots around a whole year."""
    zone = zone_of(name)
    start = at(f"{year}-01-01")
    rows = [row(start + hour * HOUR) for hour in range(366 * 24)]
    days = {datetime.fromtimestamp(r.snapshot.time_ns // SECOND, zone).date() for r in rows}
    assert len(kept(rows, zone=zone, daily=ALL)) == len(days)
    hourly = len(kept(rows, zone=zone, hourly=ALL))
    if name != "Australia/Lord_Howe":  # where half an hour comes twice
        assert hourly == len(rows)


@pytest.mark.parametrize(
    ("start", "duration", "end"),
    [
        ("2026-01-15 10:00", "1m", "2026-02-15 10:00"),
        ("2026-01-31 10:00", "1m", "2026-03-01 00:00"),
        ("2024-01-31 10:00", "1m", "2024-03-01 00:00"),
        ("2024-01-29 10:00", "1m", "2024-02-29 10:00"),
        ("2024-02-29 10:00", "1y", "2025-03-01 00:00"),
        ("2026-12-31 10:00", "2m", "2027-03-01 00:00"),
        ("2026-10-31 10:00", "1m", "2026-12-01 00:00"),
        ("2026-11-30 10:00", "1y1m2d3h", "2028-01-01 13:00"),
        ("2026-11-23 10:00", "2w", "2026-12-07 10:00"),
        ("1969-12-31 23:00", "2h", "1970-01-01 01:00"),
        ("2038-01-19 03:14:07", "1h", "2038-01-19 04:14:07"),
    ],
)
def test_durations(start: str, duration: str, end: str) -> None:
    assert Duration.parse(duration).after(at(start), UTC) == at(end)
    assert Duration.parse(duration).after(at(start) + 7, UTC) == at(end) + 7, "nanoseconds stay"


def test_a_day_is_as_long_as_it_is() -> None:
    berlin = zone_of("Europe/Berlin")
    evening = at("2026-10-24 12:00", berlin)
    assert Duration.parse("1d").after(evening, berlin) == evening + 25 * HOUR
    assert Duration.parse("24h").after(evening, berlin) == evening + 24 * HOUR
    spring = at("2026-03-28 12:00", berlin)
    assert Duration.parse("1d").after(spring, berlin) == spring + 23 * HOUR


def test_the_system_knows_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    berlin = zone_of("Europe/Berlin")
    rows = [row(at("2026-03-20") + 2 * HOUR * number) for number in range(200)]
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        for rules in ({"daily": 9}, {"hourly": 9}, {"within": "9d"}, {"within": "1m"}):
            assert kept(rows, zone=None, **rules) == kept(rows, zone=berlin, **rules)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_what_never_ends_is_kept() -> None:
    rows = [row(-(1 << 63)), row("1970-01-01"), row("2038-01-19 03:14:08"), row((1 << 64) - 1)]
    assert kept(rows, within="9000y") == kept(rows, within="999999y") == rows
    assert kept(rows, yearly=ALL) == kept(rows, hourly=ALL) == rows
    assert kept(rows, zone=None, daily=2) == rows[2:]
    assert kept(rows, within="600y") == rows[1:]


# -- groups ----------------------------------------------------------------------------------

MIXED = [
    row(1, host="a", paths=[b"/x", b"/y"], tags=["t", "u"]),
    row(2, host="a", paths=[b"/y", b"/x"], tags=["u", "t"]),
    row(3, host="a", paths=[b"/x"]),
    row(4, host="b", paths=[b"/x"]),
    row(5, host="b", paths=[b"/dump"], name=b"dump"),
    row(6, host="b", paths=[b"/cwd/dump"], name=b"dump", tags=["t"]),
    row(7, host="b", paths=[b"/dump"]),
]


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        (("host", "paths"), [[1, 2], [3], [4], [5, 6], [7]]),
        (("paths",), [[1, 2], [3, 4], [5, 6], [7]]),
        (("host",), [[1, 2, 3], [4, 5, 6, 7]]),
        (("tags",), [[1, 2], [3, 4, 5, 7], [6]]),
        (("name",), [[1, 2, 3, 4, 7], [5, 6]]),
        ((), [[1, 2, 3, 4, 5, 6, 7]]),
    ],
)
def test_groups(group_by: tuple[str, ...], expected: list[list[int]]) -> None:
    groups = group_snapshots(MIXED, group_by)
    assert [[r.snapshot.time_ns for r in rows] for rows in groups.values()] == expected


def test_groups_say_what_they_have_in_common() -> None:
    groups = list(group_snapshots(MIXED))
    assert groups[0][:4] == ("a", (b"/x", b"/y"), None, None)
    assert groups[3][:4] == ("b", None, b"dump", None)
    assert next(iter(group_snapshots(MIXED, ["tags"])))[:4] == (None, None, None, ("t", "u"))
    with pytest.raises(UsageError, match="user"):
        group_snapshots(MIXED, ["user"])


def test_groups_do_not_touch_each_other() -> None:
    groups = apply_retention(MIXED, Retention(last=1), now_ns=END, zone=UTC)
    assert [r.snapshot.time_ns for group in groups for r in group.forget] == [1, 5]


def test_what_counts_as_emptied() -> None:
    def is_emptied(rows: list[SnapshotRow], now_ns: int = END, **rules: Any) -> bool:
        (group,) = apply_retention(rows, Retention(**rules), now_ns=now_ns, zone=UTC)
        return group.is_emptied

    rows = [row(1, tags=["good"]), row(2), row(9)]
    assert is_emptied(rows, tags=["goood"])
    assert not is_emptied(rows, tags=["good"])
    assert is_emptied(rows, 5, tags=["goood"]), "one from the future is no comfort"
    assert not is_emptied(rows, 0, tags=["goood"]), "nothing is lost"
    assert not RetentionGroup("h", (), None, None).is_emptied


# -- all policies, all histories, all clocks -------------------------------------------------

ZONES = [
    UTC, "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia", None,
]  # fmt: skip
TURNS = [
    at(text)
    for text in (
        "1970-01-01", "2038-01-19 03:14:08", "2026-10-25 01:00", "2026-03-29 01:00",
        "2026-12-31 23:59:59", "2024-02-29 12:00", "2011-12-30 10:00", "2015-10-18 03:00",
    )
]  # fmt: skip


@st.composite
def moments(draw: st.DrawFn) -> int:
    """A Unix time in ns: anywhere, or near where calendars and clocks have their corners."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.integers(-(1 << 63), (1 << 63) - 1))
    turn = draw(st.sampled_from(TURNS))
    unit = draw(st.sampled_from([1, SECOND, HOUR // 2, 7 * HOUR, DAY, 31 * DAY, 365 * DAY]))
    return turn + unit * draw(st.integers(-9, 9))


@st.composite
def histories(draw: st.DrawFn) -> list[SnapshotRow]:
    found = draw(st.lists(st.tuples(moments(), st.sampled_from(["", "t", "u"])), max_size=24))
    # twins at one time are likely, ids are in no relation to time
    twins = draw(st.lists(st.sampled_from(found), max_size=3)) if found else []
    numbers = draw(st.permutations(range(len(found) + len(twins))))
    return [
        row(when, number, tags=[tag] if tag else [])
        for number, (when, tag) in zip(numbers, found + twins, strict=True)
    ]


counts = st.sampled_from([0, 0, 1, 2, 5, ALL])
RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
single_rules = st.one_of(
    st.tuples(st.sampled_from(RULES), st.sampled_from([1, 2, 5, ALL])),
    st.tuples(st.just("within"), st.sampled_from(["1h", "36h", "1d", "1m", "13m", "1y6m2w3d4h"])),
    st.tuples(st.just("tags"), st.sampled_from([("t",), ("t", "u")])),
)
policies = st.lists(single_rules, min_size=1, max_size=4).map(dict)
zones = st.sampled_from(ZONES)


def zone_or_skip(zone: Any) -> Any:
    return zone_of(zone) if isinstance(zone, str) else zone


def ids(rows: Sequence[SnapshotRow], **options: Any) -> set[str]:
    return {each.id for each in kept(rows, **options)} if rows else set()


@settings(max_examples=2000)
@given(data=st.data(), rows=histories(), rules=policies, zone=zones)
def test_laws(data: st.DataObject, rows: list[SnapshotRow], rules: Any, zone: Any) -> None:
    zone = zone_or_skip(zone)
    now_ns = data.draw(moments(), "now")
    options = {"now_ns": now_ns, "zone": zone, **rules}
    everything = {each.id for each in rows}
    future = {each.id for each in rows if each.snapshot.time_ns > now_ns}
    past = [each for each in rows if each.id not in future]
    keeps = ids(rows, **options)
    gone = everything - keeps

    # what is kept is kept again, and a run cut off anywhere ends the same
    stays = [each for each in rows if each.id in keeps]
    assert ids(stays, **options) == keeps
    oldest_first = sorted(rows, key=lambda each: (each.snapshot.time_ns, each.id))
    leaving = [each.id for each in oldest_first if each.id in gone]
    cut = set(leaving[: data.draw(st.integers(0, len(leaving)), "deleted before the crash")])
    assert ids([each for each in rows if each.id not in cut], **options) == keeps

    # no order of a listing matters
    assert ids(data.draw(st.permutations(rows), "order"), **options) == keeps

    # those from the future stay, and change nothing for the others
    assert future <= keeps
    assert ids(past, **options) == keeps - future

    # no clock makes more go than would go without one, and an earlier one never more than a later
    without = everything - ids(rows, **options | {"now_ns": END})
    assert gone <= without
    earlier = min(now_ns, data.draw(moments(), "an earlier clock"))
    assert everything - ids(rows, **options | {"now_ns": earlier}) <= gone

    # the newest of the past stays unless tags alone decide
    if past and rules.keys() - {"tags"}:
        newest = max(past, key=lambda each: (each.snapshot.time_ns, each.id))
        assert newest.id in keeps

    # together rules keep what each keeps, no more and no less
    each_alone = [
        ids(rows, now_ns=now_ns, zone=zone, **{rule: value}) for rule, value in rules.items()
    ]
    assert keeps == set().union(*each_alone)


@settings(max_examples=300)
@given(rows=histories(), rule=st.sampled_from(RULES), count=st.integers(1, 9), zone=zones)
def test_counts(rows: list[SnapshotRow], rule: str, count: int, zone: Any) -> None:
    """N are N, where there are as many; a larger N keeps all that a smaller one does."""
    zone = zone_or_skip(zone)
    most = ids(rows, zone=zone, **{rule: ALL})
    assert len(ids(rows, zone=zone, **{rule: count})) == min(count, len(most))
    assert ids(rows, zone=zone, **{rule: count}) <= ids(rows, zone=zone, **{rule: count + 1})
    assert ids(rows, zone=zone, **{rule: count}) <= most
