"""`packstone schedule`: let systemd or cron run the jobs that are due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from packstone.cli import render
from packstone.cli.session import Session, config_option, global_options

Command = TypeVar("Command", bound=Callable[..., Any])


def kind_options(command: Command) -> Command:
    """Add --systemd, --cron and --user."""
    options = [
        click.option("--systemd", "kind", flag_value="systemd", help="Use a systemd timer."),
        click.option("--cron", "kind", flag_value="cron", help="Use the crontab of this user."),
        click.option(
            "--user/--system",
            default=None,
            help="The systemd of this user, or of the system (default: that of the system for "
            "root).",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def schedule() -> None:
    """Let the system run what is due, by a systemd timer or a line of cron.

    Without --systemd or --cron it is systemd where that runs. The timer calls packstone
    run --due every 15 minutes, or more often where a job needs it.
    """


@schedule.command()
@kind_options
@config_option
@global_options
@click.pass_obj
def install(session: Session, kind: str | None, user: bool | None) -> int:
    """Write the timer, in place of an older one, and start it.

    Needed again only when a job is to run more often than before, or the file moved.

    \b
    packstone schedule install
    packstone schedule install --cron --config ~/crm.toml
    """
    import packstone

    found = packstone.find_schedule(kind or "", user=user)
    strategy = session.strategy()
    changed = found.install(strategy)
    if session.json:
        session.document({"kind": found.kind, "changed": changed, **_written(found, strategy)})
    elif not session.quiet:
        did = "installed" if changed else "was there already"
        render.line(f"{found.kind} schedule {did}: see packstone schedule show --{found.kind}")
        if found.hint:
            render.message(f"hint: {found.hint}")
    return 0


@schedule.command()
@kind_options
@config_option
@global_options
@click.pass_obj
def show(session: Session, kind: str | None, user: bool | None) -> int:
    """Print what install would write, and write nothing.

    \b
    packstone schedule show
    packstone schedule show --cron
    """
    import packstone

    found = packstone.find_schedule(kind or "", user=user)
    strategy = session.strategy()
    if session.json:
        session.document({"kind": found.kind, **_written(found, strategy)})
        return 0
    for place, text in found.written(strategy).items():
        render.line(f"# {render.printable(place)}")
        for line in text.splitlines():
            render.line(render.visible(line))
    return 0


@schedule.command()
@kind_options
@config_option
@global_options
@click.pass_obj
def remove(session: Session, kind: str | None, user: bool | None) -> int:
    """Take the timer away; jobs and what they stored stay.

    \b
    packstone schedule remove
    packstone schedule remove --systemd --user
    """
    import packstone

    found = packstone.find_schedule(kind or "", user=user)
    removed = found.remove()
    if session.json:
        session.document({"kind": found.kind, "removed": removed})
    elif not session.quiet:
        render.line(f"{found.kind} schedule {'removed' if removed else 'was not there'}")
    return 0


def _written(found: Any, strategy: Any) -> dict[str, Any]:
    return {"files": found.written(strategy)}
