"""`packstone run`: carry out the strategy, and report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from packstone.cli import render
from packstone.cli.session import Session, config_option, global_options
from packstone.cli.snapshot import document as snapshot_document

if TYPE_CHECKING:
    import packstone

PROBLEMS_SHOWN = 10  # of the files of one snapshot


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]…")
@click.option("--due", is_flag=True, help="Only what is due by now.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be run, and when.")
@config_option
@global_options
@click.pass_obj
def run(session: Session, jobs: tuple[str, ...], due: bool, dry_run: bool) -> int:
    """Run jobs of the strategy: those that are named, else all that have an `every`.

    \b
    packstone run --due
    packstone run crm
    packstone run --config /srv/packstone.toml --json

    Urgent ones first, then what is overdue longest. A job that fails stops no other. One that is
    still going is not started twice: exit code 11 if it was named without --due.

    Exit code 0: all is well · 3: done, with warnings · that of the one job that failed, 1 if there
    are several · 130: interrupted. The report names the code of each job.
    """
    import packstone

    def began(job: str) -> None:
        if session.verbose:
            render.message(f"{render.printable(job)}: begins")

    report = packstone.run_jobs(
        session.strategy(),
        jobs,
        due=due,
        dry_run=dry_run,
        threads=session.threads,
        lock_timeout=session.lock_timeout,
        waiting=lambda text: render.message(render.visible(text)),
        began=began,
    )
    if session.json:
        session.document(_document(report))
    elif dry_run:
        _plan(report)
    else:
        _tell(session, report)
    return report.exit_code


def _plan(report: packstone.RunReport) -> None:
    if not report.planned:
        render.line("nothing to run")
        return
    rows = []
    for each in report.planned:
        does = "run" if each.runs else f"still going: {each.going}" if each.going else "wait"
        if each.due_ns is None:
            when = "when it is named"
        else:
            when = render.local_time(each.due_ns) if each.due_ns else "never ran well"
        rows.append((render.printable(each.job), when, render.visible(does)))
    render.table(("job", "due", "would"), rows, right=frozenset())


def _tell(session: Session, report: packstone.RunReport) -> None:
    for each in report.jobs:
        if session.quiet and each.status in ("done", "skipped"):
            continue
        _tell_job(each, session.verbose)
    for warning in report.warnings:
        render.line(f"warning: {render.visible(warning)}")
    if session.quiet:
        return
    if not report.jobs:
        render.line("nothing to run")
        return
    words = [f"{n} {called}" for name, called in _CALLED.items() if (n := report.count(name))]
    took = render.duration(report.seconds)
    render.line(f"{render.count(len(report.jobs), 'job')}: {', '.join(words)}, in {took}")


_CALLED = {
    "done": "done",
    "warnings": "with warnings",
    "failed": "failed",
    "interrupted": "interrupted",
    "skipped": "skipped",
}


def _tell_job(job: packstone.JobReport, verbose: int) -> None:
    name = render.printable(job.job)
    if job.status == "skipped":
        render.line(f"{name}: skipped: {render.visible('; '.join(job.notes))}")
        return
    word = "done with warnings" if job.status == "warnings" else job.status
    render.line(f"{name}: {word} in {render.duration(job.seconds)}")
    for part, result in job.snapshots:
        called = f" of {render.printable(part)}" if part else ""
        render.line(
            f"  snapshot {(result.snapshot_id or '')[:8]}{called}: "
            f"{render.iec(result.bytes_total)} in all, {render.iec(result.bytes_read)} read, "
            f"{render.iec(result.bytes_stored)} stored in {render.duration(result.seconds)}"
        )
        shown = result.errors if verbose else result.errors[:PROBLEMS_SHOWN]
        for problem in shown:
            text = render.visible(problem.message)
            render.line(f"  warning: {render.printable(problem.path)}: {text}")
        if len(shown) < len(result.errors):
            render.line(f"  and {len(result.errors) - len(shown):,} more (-v names all)")
    for line in _done(job):
        render.line(f"  {line}")
    for error in job.errors:
        render.line(f"  error: {render.visible(error.message)}")
        if error.hint:
            render.line(f"  hint: {render.visible(error.hint)}")
    for warning in job.warnings:
        render.line(f"  warning: {render.visible(warning)}")
    for note in job.notes:
        render.line(f"  note: {render.visible(note)}")


def _done(job: packstone.JobReport) -> list[str]:
    """Return what was done after the snapshots."""
    lines = []
    if job.forgotten:
        lines.append(f"{render.count(job.forgotten, 'snapshot')} expired")
    if job.freed:
        lines.append(f"{render.iec(job.freed)} freed")
    lines += [
        f"{render.count(copied.snapshots, 'snapshot')} copied to "
        f"{render.printable(copied.repository)}, {render.iec(copied.bytes_stored)} stored"
        for copied in job.copies
    ]
    if job.check is not None:
        found = job.check.errors
        packs = render.count(job.check.packs_checked, "pack")
        errors = render.count(len(found), "error") if found else "no errors"
        lines.append(f"checked {packs}, {render.iec(job.check.bytes_read)} read: {errors}")
    return lines


def _document(report: packstone.RunReport) -> dict[str, Any]:
    document: dict[str, Any] = {
        "jobs": [_job_document(each) for each in report.jobs],
        "warnings": report.warnings,
        "exit_code": report.exit_code,
        "seconds": report.seconds,
    }
    if report.dry_run:
        document["planned"] = [
            {
                "job": each.job,
                "runs": each.runs,
                "due": render.rfc3339(each.due_ns) if each.due_ns else None,
                "never_ran": each.due_ns == 0,
                "going": each.going or None,
            }
            for each in report.planned
        ]
    return document


def _job_document(job: packstone.JobReport) -> dict[str, Any]:
    check = job.check
    return {
        "job": job.job,
        "status": job.status,
        "exit_code": job.exit_code,
        "time": render.rfc3339(job.began_ns),
        "seconds": job.seconds,
        "errors": [each._asdict() for each in job.errors],
        "warnings": job.warnings,
        "notes": job.notes,
        "snapshots": [
            {"name": name, **snapshot_document(result)} for name, result in job.snapshots
        ],
        "complete": job.complete,
        "forgotten": job.forgotten,
        "bytes_freed": job.freed,
        "copies": [each._asdict() for each in job.copies],
        "check": None
        if check is None
        else {
            "errors": len(check.errors),
            "packs_checked": check.packs_checked,
            "bytes_read": check.bytes_read,
        },
    }
