"""Hours, days, ISO weeks, months, years and durations, as retention counts them. Pure.

Calendar periods are those of a time zone (None: the system's), so that what was taken at 23:30
belongs to the day on which people remember it. Nothing here asks what time it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple

from packstone.errors import UsageError

SECOND_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DURATION = re.compile(
    r"(?:(\d{1,6})y)?(?:(\d{1,6})m)?(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?", re.ASCII
)


def local(time_ns: int, zone: tzinfo | None) -> datetime:
    """Return a Unix time as a date and time of a zone, to the second."""
    return (_EPOCH + timedelta(seconds=time_ns // SECOND_NS)).astimezone(zone)


def _hour(moment: datetime) -> str:
    # With its offset from UTC: the two hours of one name, when summer time ends, are two.
    return moment.replace(minute=0, second=0).isoformat(" ", "minutes")


def _week(moment: datetime) -> str:
    year, week, _day = moment.isocalendar()
    return f"{year}-W{week:02d}"


# rule → what it calls the period of a moment; equal names are the same period
PERIODS: dict[str, Callable[[datetime], str]] = {
    "hourly": _hour,
    "daily": lambda moment: moment.date().isoformat(),
    "weekly": _week,
    "monthly": lambda moment: moment.date().isoformat()[:-3],
    "yearly": lambda moment: moment.date().isoformat()[:-6],
}


class Duration(NamedTuple):
    """A length of time in calendar units; hours are hours, a day is as long as that day is."""

    months: int
    days: int
    hours: int

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Return what `1y6m`, `30d`, `2w` or `12h` says; raises UsageError.

        The units are those of restic, whose `m` are months, and `w`; in this order.
        """
        match = _DURATION.fullmatch(text.strip())
        parts = match.groups(default="0") if match else ("0",) * 5
        years, months, weeks, days, hours = map(int, parts)
        found = cls(years * 12 + months, weeks * 7 + days, hours)
        if not any(found):
            raise UsageError(
                f"{text!r} is not a duration such as 30d, 2w, 1y6m or 12h",
                hint="y years, m months, w weeks, d days, h hours, in this order",
            )
        return found

    def after(self, time_ns: int, zone: tzinfo | None) -> int | None:
        """Return the Unix time in ns at which this has passed since `time_ns`.

        A day that its month lacks becomes the first of the next: 31 January and a month is
        1 March. None where the calendar ends.
        """
        try:
            moment = local(time_ns, zone)
            if self.months or self.days:
                # the same time of day; the offset from UTC may be another by then
                wall = _add_months(moment.replace(tzinfo=None, fold=0), self.months)
                wall += timedelta(days=self.days)
                moment = wall.replace(tzinfo=zone) if zone else wall.astimezone()
            passed = moment.astimezone(UTC) + timedelta(hours=self.hours) - _EPOCH
        except (OverflowError, ValueError, OSError):
            return None
        return (passed.days * 86_400 + passed.seconds) * SECOND_NS + time_ns % SECOND_NS


def _add_months(wall: datetime, count: int) -> datetime:
    year, month = divmod(wall.year * 12 + wall.month - 1 + count, 12)
    try:
        return wall.replace(year=year, month=month + 1)
    except ValueError:
        if wall.day <= 28:  # it is the year that there is not
            raise
        year, month = divmod(year * 12 + month + 1, 12)
        return datetime(year, month + 1, 1)
