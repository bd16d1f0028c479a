"""`packstone plan`: what a restore of each job would cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render
from packstone.cli.session import Session, config_option, global_options
from packstone.errors import PackstoneError

if TYPE_CHECKING:
    import packstone


@click.command()
@click.argument("names", nargs=-1, metavar="[JOB]...")
@click.option("--strict", is_flag=True, help="Exit with 1 if a target is missed or unknown.")
@config_option
@global_options
@click.pass_obj
def plan(session: Session, names: tuple[str, ...], strict: bool) -> int:
    """Say what would be lost now, how long a restore takes, and what is back when.

    Jobs come back one after the other: urgent ones first, then as they stand in the strategy
    file. Times are estimated from restores, loads and checks that were measured in the
    repository; rehearse a job to measure it.

    \b
      packstone plan
      packstone plan --strict crm || echo "targets are missed"
    """
    import packstone

    plans = packstone.plan_jobs(session.strategy(), names, **session.opening())
    if session.json:
        session.document({"jobs": [_document(each) for each in plans]})
    else:
        _show(session, plans)
    wrong = any(each.missed or each.unknown for each in plans)
    return PackstoneError.exit_code if strict and wrong else 0


def _show(session: Session, plans: list[packstone.JobPlan]) -> None:
    header = ("job", "priority", "lost now", "size", "restore", "back after", "missed")
    rows = [
        (
            render.printable(each.job.name),
            each.job.priority.name.lower(),
            "everything" if each.loss is None else render.duration(each.loss),
            "" if each.bytes is None else render.iec(each.bytes),
            "not known" if each.estimate is None else render.duration(each.estimate.seconds),
            _back(each),
            ", ".join(each.missed + [f"{name} unknown" for name in each.unknown]),
        )
        for each in plans
    ]
    render.table(header, rows, right=frozenset((2, 3, 4, 5)))
    if session.quiet:
        return
    for each in plans:
        lines = _details(each)
        if lines:
            render.line()
            render.line(render.printable(each.job.name))
        for line in lines:
            render.line(f"  {render.visible(line)}")


def _back(plan: packstone.JobPlan) -> str:
    if plan.back is None:
        return "not known"
    return ("at least " if plan.back_is_least else "") + render.duration(plan.back)


def _details(plan: packstone.JobPlan) -> list[str]:
    lines = []
    job = plan.job
    if plan.good_ns is not None:
        text = f"newest good snapshot {render.local_time(plan.good_ns)}"
        if job.every_text:
            text += f", every {job.every_text}"
        if plan.overdue is not None:
            text += f", due since {render.duration(plan.overdue)}"
        lines.append(text)
    if plan.rpo_missed and job.rpo_ns is not None and plan.loss is not None:
        may = render.duration(job.rpo_ns / 1e9)
        lines.append(f"rpo missed: {render.duration(plan.loss)} would be lost, {may} may be")
    if plan.estimate is not None:
        lines.append(f"restore takes {render.estimate(plan.estimate)}")
    if plan.rto_missed and job.rto_ns is not None and plan.back is not None:
        target = render.duration(job.rto_ns / 1e9)
        lines.append(f"rto missed: back after {render.duration(plan.back)}, {target} is the target")
    if plan.off is not None:
        share = f"{100 * plan.off:.0f} %"
        whose = render.count(plan.judged, "estimate") if plan.judged else "those of other jobs"
        lines.append(f"estimates were off by median {share} ({whose})")
    return lines + plan.notes


def _document(plan: packstone.JobPlan) -> dict[str, Any]:
    job = plan.job
    return {
        "job": job.name,
        "repository": job.repository.name,
        "priority": job.priority.name.lower(),
        "snapshots": [row.id for row in plan.snapshots],
        "newest": _time(plan.newest_ns),
        "newest_good": _time(plan.good_ns),
        "loss_seconds": plan.loss,
        "every": job.every_text or None,
        "overdue_seconds": plan.overdue,
        "rpo_seconds": None if job.rpo_ns is None else job.rpo_ns / 1e9,
        "rto_seconds": None if job.rto_ns is None else job.rto_ns / 1e9,
        "bytes": plan.bytes,
        "files": plan.files,
        "estimate": render.estimate_document(plan.estimate),
        "back_seconds": plan.back,
        "back_low": plan.back_low,
        "back_high": plan.back_high,
        "back_is_least": plan.back_is_least,
        "missed": plan.missed,
        "unknown": plan.unknown,
        "estimates_off": plan.off,
        "estimates_judged": plan.judged,
        "notes": plan.notes,
    }


def _time(time_ns: int | None) -> str | None:
    return None if time_ns is None else render.rfc3339(time_ns)
