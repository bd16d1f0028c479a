"""The click group, and the way from an exception to a message and an exit code.

A command's module is imported when the command is named; the API, rich, lmdb and zstandard
are never imported here, so that `packstone --version` starts at once. No command line ends in
a traceback; `-vv` asks for one.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

import click

from packstone.cli import render
from packstone.cli.session import Session, config_option, global_options
from packstone.errors import PackstoneError, UsageError
from packstone.version import VERSION

COMPLETE = "_PACKSTONE_COMPLETE"  # set by the script that a shell completes with

# command → module below packstone.cli that defines it, in the order in which help lists them
COMMANDS = {
    "init": "init",
    "snapshot": "snapshot",
    "restore": "restore",
    "snapshots": "look",
    "ls": "look",
    "cat": "cat",
    "mount": "mount",
    "find": "find",
    "diff": "diff",
    "stats": "stats",
    "tag": "edit",
    "rewrite": "edit",
    "forget": "forget",
    "prune": "prune",
    "copy": "copy",
    "check": "check",
    "repair": "repair",
    "key": "key",
    "run": "run",
    "config": "config",
    "schedule": "schedule",
    "plan": "plan",
    "rehearse": "rehearse",
    "advise": "advise",
    "completion": "completion",
}


class Commands(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"packstone.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, cmd_name)
        if COMPLETE in os.environ:
            _complete_snapshots(command)
        return command


def _complete_snapshots(command: click.Command) -> None:
    """Let a shell complete what the help of a command calls SNAPSHOT or SNAPSHOT:PATH."""
    from packstone.cli.complete import Place, Snapshot

    for parameter in command.params:
        if isinstance(parameter, click.Argument) and "SNAPSHOT" in (parameter.metavar or ""):
            parameter.type = Place() if "PATH" in (parameter.metavar or "") else Snapshot()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="packstone", message="%(prog)s %(version)s")
@config_option
@global_options
def packstone() -> None:
    """Deduplicating snapshots of large data sets.

    Everything that was acknowledged can be restored byte for byte; nothing damaged is ever
    restored as good.
    """


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every error has been told.

    Raises KeyboardInterrupt, and OSError when stdout or stderr cannot be written.
    """
    session = Session()
    try:
        code: Any = packstone.main(
            arguments, prog_name="packstone", obj=session, standalone_mode=False
        )
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        if end.code in (0, None):  # a shell was told what it may complete
            return 0
        raise BrokenPipeError from None  # click's answer to one
    except click.Abort as error:
        # click tells Ctrl-C and an EOFError the same way; only one of them is the user's wish
        if not isinstance(error.__cause__, EOFError):
            raise KeyboardInterrupt from None
        failure: PackstoneError = PackstoneError("the input ended unexpectedly")
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return UsageError.exit_code
    except click.UsageError as error:
        return _usage(error, session, arguments)
    except click.ClickException as error:
        failure = UsageError(error.format_message())
    except PackstoneError as error:
        failure = error
    except BrokenPipeError:
        raise
    except OSError as error:
        failure = PackstoneError(render.os_error(error))
    except MemoryError:
        failure = PackstoneError("out of memory", hint="try again with --threads 1")
    except Exception as error:
        failure = PackstoneError(
            f"unexpected {type(error).__name__}: {error}",
            hint="this is a defect of Packstone; -vv shows where it arose",
        )
        if session.verbose >= 2:
            import traceback

            traceback.print_exc()
    render.failure(failure, session.json)
    return failure.exit_code


def _usage(error: click.UsageError, session: Session, arguments: list[str]) -> int:
    """Tell a usage error, as JSON too when the line asked for that anywhere."""
    if "--" in arguments:
        arguments = arguments[: arguments.index("--")]
    hint = f"try '{error.ctx.command_path} --help'" if error.ctx is not None else ""
    failure = UsageError(error.format_message(), hint=hint)
    render.failure(failure, session.json or "--json" in arguments)
    return failure.exit_code
