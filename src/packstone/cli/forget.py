"""`packstone forget`: let snapshots go, by policy or by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from packstone.cli import render, values
from packstone.cli.prune import tell
from packstone.cli.session import Session, global_options
from packstone.errors import Damaged, ObjectMissing, UsageError

if TYPE_CHECKING:
    import packstone
    from packstone.cli.values import Command

_COUNTED = {
    "last": ("-l", "Keep the N newest; N may be all, here and below."),
    "hourly": ("-H", "Keep the newest of each of the N most recent hours that have one."),
    "daily": ("-d", "Keep the newest of each of the N most recent days."),
    "weekly": ("-w", "Likewise for weeks, from Monday."),
    "monthly": ("-m", "Likewise for months."),
    "yearly": ("-y", "Likewise for years."),
}


def keep_options(command: Command) -> Command:
    """Add the options that make up a policy; counts of local time."""
    options = [
        click.option(
            short,
            f"--keep-{rule}",
            rule,
            type=values.count,
            default="0",
            metavar="N",
            help=help_text,
        )
        for rule, (short, help_text) in _COUNTED.items()
    ]
    options += [
        click.option(
            "--keep-within",
            "within",
            default="",
            metavar="D",
            help="Keep what is younger than 30d, 2w, 1y6m or 12h, seen from the newest.",
        ),
        click.option(
            "--keep-tag", "keep_tags", multiple=True, metavar="T", help="Keep all with this tag."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@click.argument("names", nargs=-1, metavar="[SNAPSHOT]...")
@keep_options
@click.option(
    "--group-by",
    "-g",
    default="host,paths",
    show_default=True,
    metavar="KEYS",
    help="Apply the policy apart to what differs in host, paths, tags, name.",
)
@click.option("--allow-empty", is_flag=True, help="Let the policy keep nothing of a group.")
@click.option("--dry-run", "-n", is_flag=True, help="Say what would be forgotten, and why not.")
@click.option("--prune", "then_prune", is_flag=True, help="Give the space back at once.")
@values.filter_options
@global_options
@click.pass_obj
def forget(
    session: Session,
    /,
    names: tuple[str, ...],
    group_by: str,
    allow_empty: bool,
    dry_run: bool,
    then_prune: bool,
    host: str | None,
    paths: tuple[bytes, ...],
    tags: tuple[str, ...],
    **rules: Any,
) -> int:
    """Forget snapshots: those that no --keep option keeps, or those that are named.

    \b
    packstone forget --keep-daily 14 --keep-monthly 24 --dry-run
    packstone forget --keep-within 30d --keep-tag audited --prune
    packstone forget 3f2a91c4

    What one rule keeps no other gives up. A snapshot from the future is kept and takes no
    other's place. Space comes free only when unneeded data is pruned.
    """
    keep = _policy(rules)
    if names and keep is not None:
        raise UsageError("a policy chooses by itself: name snapshots or say --keep, not both")
    with session.open() as repository:
        result = repository.forget(
            names,
            keep=keep,
            group_by=[key.strip() for key in group_by.split(",") if key.strip()],
            allow_empty=allow_empty,
            host=host,
            paths=paths,
            tags=tags,
            dry_run=dry_run,
        )
        session.warn(result.warnings)
        if not session.json and (dry_run or session.verbose):
            _show(result)
        if not session.json and not session.quiet:
            _summarise(result, by_policy=keep is not None)
        without = [row.id for row in result.forgotten] if dry_run else []
        pruned = None
        if then_prune:
            pruned = repository.prune(dry_run=dry_run, without=without)
        elif dry_run and result.forgotten:
            try:
                pruned = repository.prune(dry_run=True, without=without)
            except (Damaged, ObjectMissing) as error:
                session.warn([f"what pruning would free is not known: {error.message}"])
    if session.json:
        document = _document(result)
        if pruned is not None:
            document["prune"] = asdict(pruned)
        session.document(document)
    elif then_prune and pruned is not None:
        tell(session, pruned)
    elif pruned is not None and not session.quiet:
        render.line(f"pruning would then free {render.iec(pruned.bytes_unused)}")
    return Damaged.exit_code if pruned is not None and pruned.damaged else 0


def _policy(rules: dict[str, Any]) -> packstone.Retention | None:
    """Return what the options say to keep, None when none of them was said."""
    import packstone

    source = click.get_current_context().get_parameter_source
    if not any(source(name) is ParameterSource.COMMANDLINE for name in rules):
        return None
    return packstone.Retention(tags=rules.pop("keep_tags"), **rules)


def _document(result: packstone.ForgetResult) -> dict[str, Any]:
    return {
        "groups": [
            {
                **render.group_document(group),
                "keep": [
                    {**_reference(kept.row), "reasons": list(kept.reasons)} for kept in group.keep
                ],
                "forget": [_reference(row) for row in group.forget],
            }
            for group in result.groups
        ],
        "forgotten": [row.id for row in result.forgotten],
        "warnings": list(result.warnings),
        "dry_run": result.dry_run,
    }


def _reference(row: packstone.SnapshotRow) -> dict[str, Any]:
    return {"id": row.id, "time": render.rfc3339(row.snapshot.time_ns)}


def _show(result: packstone.ForgetResult) -> None:
    """Print a table for each group, or one of what was named."""
    for group in result.groups:
        reasons = {kept.row.id: ", ".join(kept.reasons) for kept in group.keep}
        rows = [kept.row for kept in group.keep] + list(group.forget)
        rows.sort(key=lambda row: (row.snapshot.time_ns, row.id))
        render.line(render.group_heading(group))
        _table([(row, reasons.get(row.id)) for row in rows])
        render.line()
    if not result.groups and result.forgotten:
        _table([(row, None) for row in result.forgotten])
        render.line()


def _table(rows: list[tuple[packstone.SnapshotRow, str | None]]) -> None:
    header = ("", "id", "time", "tags", "because")
    cells = [
        (
            "forget" if reasons is None else "keep",
            row.id[:8],
            render.local_time(row.snapshot.time_ns),
            ",".join(render.printable(tag) for tag in row.snapshot.tags),
            render.printable(reasons or ""),
        )
        for row, reasons in rows
    ]
    render.table(header, cells, right=frozenset())


def _summarise(result: packstone.ForgetResult, *, by_policy: bool) -> None:
    kept = sum(len(group.keep) for group in result.groups)
    does = "would forget" if result.dry_run else "forgot"
    text = f"{does} {render.count(len(result.forgotten), 'snapshot')}"
    if by_policy:
        text += f", {'would keep' if result.dry_run else 'kept'} {kept:,}"
    render.line(text)
