"""`packstone advise`: what the history of jobs suggests."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render
from packstone.cli.session import Session, config_option, global_options

if TYPE_CHECKING:
    import packstone

_SOME_DAY = 20 * 365.25  # days from which on nobody counts them


@click.command()
@click.argument("names", nargs=-1, metavar="[JOB]...")
@config_option
@global_options
@click.pass_obj
def advise(session: Session, names: tuple[str, ...]) -> int:
    """Say how jobs grow, when the disk is full, and what every and keep should be.

    From the snapshots of each job, with the range in which the truth is in nine of ten cases.
    With too little history that is said instead of a number.

    \b
      packstone advise
      packstone advise crm --json
    """
    import packstone

    found = packstone.advise_jobs(session.strategy(), names, **session.opening())
    if session.json:
        session.document({"repositories": [_document(each) for each in found]})
        return 0
    for number, each in enumerate(found):
        if number:
            render.line()
        _show(each)
    return 0


def _show(advice: packstone.RepositoryAdvice) -> None:
    line = f"repository {advice.target.name}: {render.iec(advice.bytes)}"
    if advice.left is not None:
        line += f", room for {render.iec(advice.left)} more ({advice.limit})"
    render.line(line)
    if advice.stored_growth is not None:
        render.line(f"  grows by {_slope(advice.stored_growth)}")
    if advice.full_days is not None:
        early, late = _days(advice.full_earliest), _days(advice.full_latest)
        render.line(f"  full in {_days(advice.full_days)}, between {early} and {late}")
    _lines("  ", advice.notes)
    for each in advice.jobs:
        _show_job(each)


def _show_job(advice: packstone.JobAdvice) -> None:
    job = advice.job
    runs = render.count(advice.runs, "run")
    render.line(f"job {render.printable(job.name)}: {runs} over {advice.days:.1f} days")
    if advice.bytes is not None:
        text = f"  {render.iec(advice.bytes)} of data"
        if advice.size_growth is not None:
            text += f", grows by {_slope(advice.size_growth)}"
        render.line(text)
    if advice.change_stored is not None:
        share = "" if advice.change_share is None else f", {100 * advice.change_share:.2g} % of it"
        took = "" if advice.run_seconds is None else f", in {render.duration(advice.run_seconds)}"
        render.line(f"  a run stores {render.iec(round(advice.change_stored))}{share}{took}")
    if advice.every is not None:
        render.line(f"  {_setting('every', advice.every.every)}{advice.every.reason}")
    if advice.keep is not None:
        keep = "" if advice.keep.keep is None else _rules(advice.keep.keep)
        render.line(f"  {_setting('keep', keep, quoted=False)}{advice.keep.reason}")
    _lines("  ", advice.notes)


def _setting(name: str, value: str, *, quoted: bool = True) -> str:
    if not value:
        return f"{name}: "
    return f'{name} = "{value}": ' if quoted else f"{name} = {value}: "


def _rules(keep: packstone.Retention) -> str:
    rules = {name: value for name, value in asdict(keep).items() if value}
    shown = [
        f'{name} = "{v}"' if isinstance(v, str) else f"{name} = {v}" for name, v in rules.items()
    ]
    return "{ " + ", ".join(shown) + " }"


def _slope(slope: packstone.Slope) -> str:
    low, high = render.iec(round(slope.low)), render.iec(round(slope.high))
    return f"{render.iec(round(slope.per_day))} a day ({low} to {high})"


def _days(days: float | None) -> str:
    if days is None or math.isinf(days):
        return "never"
    return f"{days:,.0f} days" if days < _SOME_DAY else f"more than {_SOME_DAY / 365.25:.0f} years"


def _lines(indent: str, notes: list[str]) -> None:
    for note in notes:
        render.line(f"{indent}note: {render.visible(note)}")


def _document(advice: packstone.RepositoryAdvice) -> dict[str, Any]:
    return {
        "repository": advice.target.name,
        "bytes": advice.bytes,
        "left": advice.left,
        "limit": advice.limit or None,
        "stored_growth": _slope_document(advice.stored_growth),
        "full_days": _finite(advice.full_days),
        "full_earliest_days": _finite(advice.full_earliest),
        "full_latest_days": _finite(advice.full_latest),
        "jobs": [_job_document(each) for each in advice.jobs],
        "notes": advice.notes,
    }


def _finite(days: float | None) -> float | None:
    """Return days for JSON, which has no infinity: null is never, or not known."""
    return None if days is None or math.isinf(days) else days


def _slope_document(slope: packstone.Slope | None) -> dict[str, Any] | None:
    if slope is None:
        return None
    return {
        "bytes_per_day": slope.per_day,
        "low": slope.low,
        "high": slope.high,
        "points": slope.points,
        "days": slope.days,
        "steps": [
            {"time": render.rfc3339(step.time_ns), "bytes": step.size} for step in slope.steps
        ],
    }


def _job_document(advice: packstone.JobAdvice) -> dict[str, Any]:
    every, keep = advice.every, advice.keep
    return {
        "job": advice.job.name,
        "runs": advice.runs,
        "days": advice.days,
        "bytes": advice.bytes,
        "size_growth": _slope_document(advice.size_growth),
        "stored_growth": _slope_document(advice.stored_growth),
        "change_stored": advice.change_stored,
        "change_share": advice.change_share,
        "run_seconds": advice.run_seconds,
        "every": None if every is None else {"every": every.every or None, "reason": every.reason},
        "keep": None
        if keep is None
        else {
            "keep": None
            if keep.keep is None
            else {name: value for name, value in asdict(keep.keep).items() if value},
            "bytes": keep.bytes,
            "reason": keep.reason,
        },
        "notes": advice.notes,
    }
