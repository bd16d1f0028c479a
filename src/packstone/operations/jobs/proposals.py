"""What `every` and `keep` should be, each with its reason. Pure arithmetic on measurements."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC

from packstone.repository.periods import Duration
from packstone.repository.retention import Retention

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
# seconds → as it is written in a strategy
_EVERY = {
    5 * _MINUTE: "5min",
    10 * _MINUTE: "10min",
    15 * _MINUTE: "15min",
    30 * _MINUTE: "30min",
    _HOUR: "1h",
    2 * _HOUR: "2h",
    3 * _HOUR: "3h",
    4 * _HOUR: "4h",
    6 * _HOUR: "6h",
    8 * _HOUR: "8h",
    12 * _HOUR: "12h",
    _DAY: "1d",
    2 * _DAY: "2d",
    7 * _DAY: "7d",
}
_BUSY = 0.5  # of the time a job may be running
_AHEAD_DAYS = 365  # for which a proposal is to hold
_USED = 0.9  # of the room
# from what most people wish for down to the least; the span in days that each reaches back
_LADDER = (
    (Retention(daily=7, weekly=5, monthly=12, yearly=3), 3 * 366),
    (Retention(daily=7, weekly=5, monthly=12), 12 * 31),
    (Retention(daily=7, weekly=5, monthly=6), 6 * 31),
    (Retention(daily=7, weekly=5, monthly=3), 3 * 31),
    (Retention(daily=7, weekly=4), 4 * 7),
    (Retention(daily=7), 7),
    (Retention(daily=3), 3),
)


@dataclass(frozen=True, slots=True)
class EveryProposal:
    """How often to run, as it is written in a strategy, empty if no interval does; and why."""

    every: str
    reason: str


@dataclass(frozen=True, slots=True)
class KeepProposal:
    """What to keep, None if nothing fits; the bytes that it takes at most; and why."""

    keep: Retention | None
    bytes: int
    reason: str


def propose_every(rpo_seconds: float, run_seconds: float | None) -> EveryProposal:
    """Return the longest interval that holds the rpo.

    A snapshot holds what was there when it began and counts when it is done: just before the
    next is done, the interval and a run are lost. `run_seconds` is what a run takes, None if it
    was never measured.
    """
    took = 0.0 if run_seconds is None else run_seconds
    longest = rpo_seconds - took
    fits = [length for length in _EVERY if length <= longest and took <= _BUSY * length]
    basis = (
        "how long a run takes was not measured"
        if run_seconds is None
        else f"a run takes {_words(took)}"
    )
    if not fits:
        hint = "that is less than makes sense"
        least = next((length for length in _EVERY if took <= _BUSY * length), None)
        if took and least is not None:
            hint = f"one may run half of the time, which holds an rpo of {_words(least + took)}"
        text = f"no interval holds an rpo of {_words(rpo_seconds)}: {basis}, and {hint}"
        return EveryProposal("", text)
    every = max(fits)
    return EveryProposal(
        _EVERY[every],
        f"at most {_EVERY[every]} and a run are lost, which is within the rpo of "
        f"{_words(rpo_seconds)}; {basis}",
    )


def propose_keep(
    room: float, changed_per_day: float, growth_per_day: float, every_seconds: float | None
) -> KeepProposal:
    """Return the policy that reaches back farthest and fits for a year; sizes in bytes.

    `room` is what the job's old versions and its growth may take, `changed_per_day` what runs
    store a day and `growth_per_day` that part of it which stays for good, both at the upper end
    of what was measured. Between two kept snapshots no more is held than was stored in between,
    so a policy takes at most what is stored in the days that it reaches back.
    """
    grown = max(growth_per_day, 0.0) * _AHEAD_DAYS
    left = room * _USED - grown
    changed = max(changed_per_day, 0.0)
    for policy, span in _LADDER:
        if changed * span > left:
            continue
        size = round(changed * span + grown)
        reason = (
            f"reaches back {span} days and takes {_size(size)} in a year at most "
            f"({_size(changed)} a day are stored); there is room for {_size(room)}"
        )
        if every_seconds is not None and every_seconds < _DAY:
            extra = f"; all of the last two days stay, at {_size(2 * changed)} at most"
            within = Retention(
                within="2d",
                daily=policy.daily,
                weekly=policy.weekly,
                monthly=policy.monthly,
                yearly=policy.yearly,
            )
            return KeepProposal(within, size, reason + extra)
        return KeepProposal(policy, size, reason)
    return KeepProposal(
        None,
        0,
        f"nothing fits for a year: there is room for {_size(room)}, the data grows by "
        f"{_size(grown)} and {_size(changed)} a day are stored. A larger disk is needed",
    )


def reach_days(keep: Retention) -> float | None:
    """Return how many days a policy reaches back, None if that has no end or is not known."""
    counts = (keep.last, keep.hourly, keep.daily, keep.weekly, keep.monthly, keep.yearly)
    if keep.tags or keep.last or min(counts) < 0:
        return None
    within_ns = Duration.parse(keep.within).after(0, UTC) if keep.within else 0
    if within_ns is None:  # longer than time is counted
        return None
    spans = [
        within_ns / (_DAY * 1e9),
        keep.hourly / 24,
        keep.daily * 1.0,
        keep.weekly * 7.0,
        keep.monthly * 31.0,
        keep.yearly * 366.0,
    ]
    return max(spans)


def _words(seconds: float) -> str:
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit or (seconds >= unit and seconds % unit == 0):
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.3g} s"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
