"""When jobs run: times of day, changes of the clock, missed runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.operations.jobs.due import due_at
from packstone.operations.jobs.memory import Memory
from packstone.operations.jobs.strategy import Every
from packstone.operations.jobs.timetable import Calendar, Interval, parse_every, tick_minutes

S = 1_000_000_000
MINUTE = 60 * S
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    UTC,
    BERLIN,
    ZoneInfo("America/New_York"),
    ZoneInfo("Australia/Lord_Howe"),  # half an hour of summer time
    ZoneInfo("Asia/Kathmandu"),  # 5:45
    ZoneInfo("Antarctica/Troll"),  # two hours
    ZoneInfo("Pacific/Apia"),  # skipped 2011-12-30
]

texts = st.one_of(
    st.sampled_from(["1min", "15min", "1h", "90min", "1d", "1w"]),
    st.builds("daily {:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
    st.builds(
        "weekly {} {:02}:{:02}".format,
        st.sampled_from(["mon", "sun", "tue,fri"]),
        st.integers(0, 23),
        st.integers(0, 59),
    ),
    st.builds("monthly {} 03:{:02}".format, st.integers(1, 28), st.integers(0, 59)),
    st.sampled_from(["monthly last 02:30", "*/20 * * * *", "0 */6 * * *", "15 1,13 * * mon-fri"]),
)
# 2000 to 2040, to the nanosecond
moments = st.integers(946_684_800 * S, 2_208_988_800 * S)
zones = st.sampled_from(ZONES)


def ns(text: str, zone: ZoneInfo = BERLIN) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * S


def utc(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns // S, UTC).strftime("%Y-%m-%d %H:%M")


def runs(text: str, start: str, count: int) -> list[str]:
    every, now, found = parse_every(text, BERLIN), ns(start), []
    for _ in range(count):
        now = every.next_after(now)
        found.append(datetime.fromtimestamp(now // S, BERLIN).strftime("%m-%d %H:%M %Z"))
    return found


@given(texts, zones, moments)
def test_the_next_moment_is_later_and_there_is_none_between(text, zone, now) -> None:
    every = parse_every(text, zone)
    following = every.next_after(now)
    assert following > now
    assert following % MINUTE == 0
    assert every.next_after(following - 1) == following
    # from any time on the way it is the same one
    assert every.next_after((now + following) // 2) in {following, every.next_after(following)}
    assert every.next_after(max(now, following - MINUTE)) == following


@given(st.integers(0, 23), st.integers(0, 59), zones, moments)
def test_a_time_of_day_comes_once_a_day(hour, minute, zone, now) -> None:
    every = parse_every(f"daily {hour:02}:{minute:02}", zone)
    days = []
    for _ in range(400):
        now = every.next_after(now)
        shown = datetime.fromtimestamp(now // S, zone)
        days.append(shown.date())
        if (shown.hour, shown.minute) != (hour, minute):  # the clock skipped it
            asked = shown.replace(hour=hour, minute=minute, fold=0)
            assert asked.astimezone(UTC).astimezone(zone).replace(tzinfo=None) != asked.replace(
                tzinfo=None
            )
            assert shown.replace(tzinfo=None) - asked.replace(tzinfo=None) <= timedelta(hours=24)
    assert len(set(days)) == len(days)
    gaps = {(later - one).days for one, later in pairwise(days)}
    assert gaps <= {1, 2}, "2 where a skipped time falls on the next day"


def test_summer_time_begins() -> None:
    # on 29 March 2026 there is no 02:00 to 02:59
    assert runs("daily 02:30", "2026-03-28T00:00", 3) == [
        "03-28 02:30 CET",
        "03-29 03:30 CEST",
        "03-30 02:30 CEST",
    ]
    assert runs("*/30 * * * *", "2026-03-29T01:00", 3) == [
        "03-29 01:30 CET",
        "03-29 03:00 CEST",
        "03-29 03:30 CEST",
    ]
    # and nothing of the hour that is skipped runs before it
    assert runs("*/30 2 * * *", "2026-03-29T00:00", 3) == [
        "03-29 03:00 CEST",
        "03-29 03:30 CEST",
        "03-30 02:00 CEST",
    ]
    assert runs("0 2,3 * * *", "2026-03-29T01:00", 2) == ["03-29 03:00 CEST", "03-30 02:00 CEST"]


def test_summer_time_ends() -> None:
    # on 25 October 2026 02:00 to 02:59 comes twice
    assert runs("daily 02:30", "2026-10-24T03:00", 2) == ["10-25 02:30 CEST", "10-26 02:30 CET"]
    assert runs("*/30 * * * *", "2026-10-25T01:30", 5) == [
        "10-25 02:00 CEST",
        "10-25 02:30 CEST",
        "10-25 02:00 CET",
        "10-25 02:30 CET",
        "10-25 03:00 CET",
    ]


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("text", ["daily 02:30", "*/20 * * * *", "monthly last 02:15"])
@pytest.mark.parametrize("start", ["2026-03-28T00:00", "2026-10-24T00:00"])
def test_the_zone_of_the_system_is_like_any_other(in_berlin: None, text: str, start: str) -> None:
    ours, named, now = parse_every(text), parse_every(text, BERLIN), ns(start)
    for _ in range(150):
        following = ours.next_after(now)
        assert following == named.next_after(now)
        now = following


def test_intervals_do_not_drift() -> None:
    every = parse_every("15min")
    start = ns("2026-01-01T12:00", ZoneInfo("UTC"))
    # a run that begins late and one that begins early are followed by the same moments
    assert utc(every.next_after(start + 3 * S)) == "2026-01-01 12:15"
    assert utc(every.next_after(start + 14 * MINUTE)) == "2026-01-01 12:15"
    assert utc(every.next_after(start + 15 * MINUTE)) == "2026-01-01 12:30"


def test_the_last_day_of_a_month() -> None:
    assert [day[:5] for day in runs("monthly last 04:00", "2028-01-15T00:00", 3)] == [
        "01-31",
        "02-29",
        "03-31",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "", "often", "15", "15m", "0min", "30s", "daily", "daily 24:00", "daily 2", "daily 02:60",
        "weekly 03:00", "weekly someday 03:00", "weekly sun", "monthly 31 04:00", "monthly 0 04:00",
        "monthly first 04:00", "* * * *", "60 * * * *", "0 0 30 2 *", "* * * * * *", "@daily",
        "0 0 31 feb,apr *", "x x x x x", "daily 02:00 03:00", "9999999999d",
    ],
)  # fmt: skip
def test_what_is_no_timetable_is_refused_with_what_is_one(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_every(text)


@given(st.text(max_size=30))
def test_any_text_is_a_timetable_or_refused(text: str) -> None:
    try:
        every = parse_every(text)
    except ValueError:
        return
    assert every.next_after(0) > 0


# --- what is due


def is_due(every: Every, last_run_ns: int | None, now_ns: int) -> bool:
    due = due_at(every, Memory(good_ns=last_run_ns or 0), now_ns)
    return due is not None and due <= now_ns


@given(texts, zones, moments, st.integers(0, 400 * 86_400 * S))
def test_however_many_were_missed_one_run_makes_up_for_them(text, zone, last, since) -> None:
    every = parse_every(text, zone)
    now = last + since
    if is_due(every, last, now):
        assert every.next_after(last) <= now
        # it ran now: nothing is due until the next moment, however often one asks
        assert not is_due(every, now, now)
        following = every.next_after(now)
        assert not is_due(every, now, following - 1)
        assert is_due(every, now, following)
    else:
        assert every.next_after(last) > now


@given(texts, st.lists(st.integers(-3 * 365 * 86_400, 3 * 365 * 86_400), min_size=1, max_size=8))
def test_a_clock_that_jumps_causes_no_storm(text, jumps) -> None:
    """Asked ten times in each second after any jump: at most one run for it."""
    every, last = parse_every(text, UTC), None
    now = 1_800_000_030 * S
    for jump in jumps:
        now += jump * S
        started = 0
        for _ in range(10):
            if is_due(every, last, now):
                started += 1
                last = now
        assert started <= 1
        assert last is not None and last <= now, "the future is forgotten"


# --- how often to look


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["daily 02:00", "1h"], 15),
        (["15min", "weekly sun 03:45"], 15),
        (["daily 02:05"], 5),
        (["10min"], 5),
        (["daily 02:00", "daily 02:07"], 5),
        (["5min"], 5),
        (["2min", "daily 02:00"], 1),
        (["* * * * *"], 1),
    ],
)
def test_the_timer_looks_as_often_as_is_needed(texts: list[str], expected: int) -> None:
    every = [parse_every(text, UTC) for text in texts]
    assert tick_minutes(every, 1_800_000_030 * S) == expected


def test_what_is_parsed() -> None:
    assert parse_every("90min") == Interval(90 * MINUTE)
    assert parse_every("Weekly SUN 3:05") == Calendar("5 3 * * sun")
    assert parse_every(" 0  2 * * MON-FRI ") == Calendar("0 2 * * mon-fri")
