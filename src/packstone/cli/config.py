"""`packstone config`: what the strategy file says, as Packstone understands it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render
from packstone.cli.session import Session, config_option, global_options

if TYPE_CHECKING:
    import packstone

_NS = 1_000_000_000


@click.group()
def config() -> None:
    """Look at the strategy file, packstone.toml."""


@config.command()
@config_option
@global_options
@click.pass_obj
def check(session: Session) -> int:
    """Read the strategy file and print its jobs: what, when, next run, where, how long.

    \b
    packstone config check
    packstone config check --config /srv/packstone.toml

    Opens no repository and runs nothing. Exit code 2 when there are mistakes in it; each is
    named with its line and with what is allowed there.

    \b
    packstone config check
    packstone config check --config /etc/packstone/packstone.toml --json
    """
    import packstone

    strategy = session.strategy()
    now_ns = time.time_ns()
    doubts = packstone.find_doubts(strategy, now_ns)
    if session.json:
        session.document(_document(strategy, doubts, now_ns))
        return 0
    session.warn(map(render.visible, doubts))
    if session.quiet:
        return 0
    render.line(f"{render.printable(strategy.path)}: nothing is wrong with it")
    for repository in strategy.repositories.values():
        render.line(f"repository {repository.name}  {_place(repository)}")
    for job in strategy.jobs.values():
        _show(job, now_ns)
    return 0


def _place(repository: packstone.RepositoryTarget) -> str:
    place = render.printable(repository.location)
    if repository.label:
        place += f" on the disk labelled {render.printable(repository.label)}"
    if repository.max_size is not None:
        place += f", at most {render.iec(repository.max_size)}"
    return place


def _show(job: packstone.Job, now_ns: int) -> None:
    """Print one job, a line for each thing that it says."""
    render.line()
    render.line(f"job {job.name}  ({job.priority.name.lower()})")
    rows = {"what": _what(job)}
    if job.every is not None:
        upcoming = render.local_time(job.every.next_after(now_ns))
        rows["when"] = f"{job.every_text}, next {upcoming}"
    else:
        rows["when"] = "when it is named: it has no every"
    rows["where"] = ", then ".join([job.repository.name, *(each.name for each in job.copy_to)])
    kept = [f"{rule} {'all' if n == -1 else n}" for rule, n in _keep(job).items()]
    rows["keep"] = (", ".join(kept) or "everything") + ("; prunes" if job.prune else "")
    for name in ("before", "after", "on_error"):
        if commands := getattr(job, name):
            rows[name] = "; ".join(commands)
    if job.check is not None:
        rows["check"] = ", ".join(_budget(job))
    for name, value in (("rpo", job.rpo_ns), ("rto", job.rto_ns), ("timeout", job.timeout_ns)):
        if value is not None:
            rows[name] = render.duration(value / _NS)
    if job.tags:
        rows["tags"] = ", ".join(job.tags)
    if job.ping:
        rows["ping"] = job.ping
    for name, text in rows.items():
        render.line(f"  {name:<9} {render.printable(text)}")


def _what(job: packstone.Job) -> str:
    source = {key: value for key, value in asdict(job.source).items() if value}
    first = next(iter(source))  # the paths, databases, files or words of a command
    rest = {key: value for key, value in source.items() if key != first and value is not True}
    # a file or a database goes by its name, the rest by what it is called in the file
    text = " ".join([job.source.kind, *source[first]])
    for key, value in rest.items():
        text += f", {key} {' '.join(value) if isinstance(value, (list, tuple)) else value}"
    flags = [key for key, value in source.items() if value is True]
    return ", ".join([text, *flags])


def _keep(job: packstone.Job) -> dict[str, Any]:
    rules = asdict(job.keep) if job.keep is not None else {}
    return {key: _listed(value) for key, value in rules.items() if value}


def _budget(job: packstone.Job) -> list[str]:
    assert job.check is not None
    parts = []
    if isinstance(job.check.subset, int):
        parts.append(render.iec(job.check.subset))
    elif job.check.subset:
        parts.append(job.check.subset)
    if job.check.max_seconds is not None:
        parts.append(f"for {render.duration(job.check.max_seconds)}")
    return parts or ["everything"]


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _document(strategy: packstone.Strategy, doubts: list[str], now_ns: int) -> dict[str, Any]:
    return {
        "path": strategy.path,
        "metrics": strategy.metrics,
        "state_dir": strategy.state_dir,
        "repositories": [asdict(each) for each in strategy.repositories.values()],
        "jobs": [_job_document(job, now_ns) for job in strategy.jobs.values()],
        "warnings": doubts,
    }


def _job_document(job: packstone.Job, now_ns: int) -> dict[str, Any]:
    source = {key: _listed(value) for key, value in asdict(job.source).items()}
    upcoming = job.every.next_after(now_ns) if job.every is not None else None
    return {
        "name": job.name,
        "line": job.line,
        "source": {"kind": job.source.kind} | source,
        "every": job.every_text or None,
        "next_run": render.rfc3339(upcoming) if upcoming is not None else None,
        "repository": job.repository.name,
        "copy_to": [each.name for each in job.copy_to],
        "keep": _keep(job) if job.keep is not None else None,
        "prune": job.prune,
        "priority": job.priority.name.lower(),
        "before": list(job.before),
        "after": list(job.after),
        "on_error": list(job.on_error),
        "check": asdict(job.check) if job.check is not None else None,
        "rpo_seconds": _seconds(job.rpo_ns),
        "rto_seconds": _seconds(job.rto_ns),
        "timeout_seconds": _seconds(job.timeout_ns),
        "ping": job.ping or None,
        "tags": list(job.tags),
    }


def _seconds(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else duration_ns / _NS
