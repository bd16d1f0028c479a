"""When a job is to run: `every` as a text → moments. Pure: the time is a parameter.

Intervals count from the Unix epoch, not from the last run: 15min is at :00, :15, :30, :45, so
that neither a late start nor a slow one shifts all that follow. Times of day are those of a zone
(None: the system's). One that summer time skips is made up right after the gap, one that comes
twice counts the first time, as in Debian's cron; what runs each hour or each few minutes goes on
through both hours of one name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import pairwise
from math import gcd

from cronsim import CronSim, CronSimError

from packstone.operations.jobs.strategy import Every
from packstone.quantities import parse_duration

SECOND_NS = 1_000_000_000
MINUTE_NS = 60 * SECOND_NS

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# No clock was ever set back or forward by more at once; a zone that skips a day skips a run.
_LARGEST_SHIFT = timedelta(hours=3)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})", re.ASCII)
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EXPECTED = (
    "expected 15min, 1h, 'daily 02:00', 'weekly sun 03:00', 'monthly 1 04:00' "
    "or a cron expression such as '30 2 * * mon-fri'"
)
_TICKS = (15, 5)  # minutes between two looks at what is due; 1 where those are too few
_SAMPLED = 50  # moments that a look ahead takes; a week of anything that has a rhythm


@dataclass(frozen=True, slots=True)
class Interval:
    """At every multiple of a length of time since the Unix epoch, in ns."""

    length_ns: int

    def next_after(self, time_ns: int) -> int:
        """Return the first multiple after a Unix time in ns."""
        return (time_ns // self.length_ns + 1) * self.length_ns


@dataclass(frozen=True, slots=True)
class Calendar:
    """At the times of day of a five-field cron expression, in a zone (None: the system's)."""

    cron: str
    zone: tzinfo | None = None

    def next_after(self, time_ns: int) -> int:
        """Return the first moment after a Unix time, both in ns, that the expression names.

        Raises ValueError where there is none within 50 years or the calendar ends.
        """
        try:
            return self._next_after(time_ns)
        except (OverflowError, OSError) as error:
            raise ValueError(f"no time after {time_ns} ns can be told: {error}") from error

    def _next_after(self, time_ns: int) -> int:
        wall = self._shown_at(time_ns // SECOND_NS)
        # Wall clock and time are in different orders around a change of the clock: everything
        # near is looked at, and the earliest later moment taken.
        found: int | None = None
        last: datetime | None = None
        for named in self._walls(wall - _LARGEST_SHIFT):
            if last is not None and named > last:
                break
            for moment in self._moments(named):
                if moment > time_ns and (found is None or moment < found):
                    found = moment
            if found is not None and last is None:
                last = named + _LARGEST_SHIFT
        if found is None:
            raise ValueError(f"{self.cron!r} names no time in the next 50 years")
        return found

    def _walls(self, after: datetime) -> Iterator[datetime]:
        """Yield what a clock on the wall shows, in that order."""
        yield from CronSim(self.cron, after)

    def _moments(self, wall: datetime) -> set[int]:
        """Return the Unix times at which a clock shows this: one, or two for what runs hourly."""
        minute, hour = self.cron.split()[:2]
        folds = (0, 1) if minute.startswith("*") or hour.startswith("*") else (0,)
        moments = set()
        for fold in folds:
            # A time that the clock skips is taken with the offset from before the gap. Naive
            # astimezone() is not: it subtracts the offset from after it.
            local = wall.replace(fold=fold, tzinfo=self.zone)
            moment = int(local.timestamp())
            # the other fold of a skipped time lies before the gap and is no time of its own
            if fold == 0 or self._shown_at(moment) == wall:
                moments.add(moment * SECOND_NS)
        return moments

    def _shown_at(self, seconds: int) -> datetime:
        """Return what a clock shows at a Unix time."""
        moment = _EPOCH + timedelta(seconds=seconds)
        return moment.astimezone(self.zone).replace(tzinfo=None, fold=0)


def parse_every(text: str, zone: tzinfo | None = None) -> Every:
    """Return when `15min`, `1h`, `daily 02:00`, `weekly sun 03:00` or a cron expression is.

    Days may be several (`weekly mon,thu 03:00`), that of a month 1 to 28 or `last`. Raises
    ValueError with what is allowed.
    """
    words = text.strip().lower().split()
    if words and words[0] in ("daily", "weekly", "monthly"):
        return Calendar(_cron(text, words), zone)
    if len(words) == 5:
        return _checked(Calendar(" ".join(words), zone), text)
    try:
        length_ns = parse_duration(text)
    except ValueError:
        raise ValueError(f"found {text!r}, {_EXPECTED}") from None
    if length_ns < MINUTE_NS:
        raise ValueError(f"found {text!r}, expected 1min or more")
    return Interval(length_ns)


def _checked(calendar: Calendar, text: str) -> Calendar:
    """Return a calendar that names a time at all."""
    try:
        calendar.next_after(0)
    except CronSimError as error:
        raise ValueError(f"found {text!r}: {str(error).lower()} in it; {_EXPECTED}") from None
    except ValueError:
        raise ValueError(f"found {text!r}: there is no such day; {_EXPECTED}") from None
    return calendar


def _cron(text: str, words: list[str]) -> str:
    """Return the cron expression for `daily`, `weekly` and `monthly`."""
    wrong = ValueError(f"found {text!r}, {_EXPECTED}")
    if len(words) != (2 if words[0] == "daily" else 3):
        raise wrong
    clock = _CLOCK.fullmatch(words[-1])
    if not clock or int(clock[1]) > 23 or int(clock[2]) > 59:
        raise ValueError(f"found {text!r}, expected a time from 00:00 to 23:59 at its end")
    at = f"{int(clock[2])} {int(clock[1])}"
    if words[0] == "daily":
        return f"{at} * * *"
    if words[0] == "weekly":
        days = words[1].split(",")
        if not set(days) <= set(_DAYS):
            raise ValueError(f"found {text!r}, expected days of {', '.join(_DAYS)}")
        return f"{at} * * {','.join(days)}"
    if words[1] == "last":
        return f"{at} L * *"
    if not re.fullmatch(r"\d{1,2}", words[1], re.ASCII) or not 1 <= int(words[1]) <= 28:
        # the 31st would pass over five months in silence
        raise ValueError(f"found {text!r}, expected a day from 1 to 28, or last")
    return f"{at} {int(words[1])} * *"


def tick_minutes(timetables: list[Every], now_ns: int) -> int:
    """Return how many minutes apart to look for what is due: 15, 5 or 1.

    15 where every moment is then met to the minute, and 5 for all but what runs more often.
    """
    moments = [_ahead(every, now_ns) for every in timetables]
    gaps = [later - one for row in moments for one, later in pairwise(row)]
    if any(gap < _TICKS[1] * MINUTE_NS for gap in gaps):
        return 1
    fits = gcd(_TICKS[0] * MINUTE_NS, *(moment for row in moments for moment in row))
    often = any(gap < _TICKS[0] * MINUTE_NS for gap in gaps)
    return _TICKS[0] if fits == _TICKS[0] * MINUTE_NS and not often else _TICKS[1]


def _ahead(every: Every, now_ns: int) -> list[int]:
    moments: list[int] = []
    for _ in range(_SAMPLED):
        moments.append(every.next_after(moments[-1] if moments else now_ns))
    return moments
