"""Write docs/commands.md, the page of all commands, from the command line itself.

python docs/commands.py docs/commands.md
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from packstone.cli.commands import packstone

HEAD = """# Commands

Made by `make docs` from what `packstone COMMAND --help` says; a test compares the two. \
The [tutorial](tutorial.md) shows most of them at work, the [recipes](recipes.md) what \
they do together.
"""


def every(
    command: click.Command, context: click.Context
) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and all below it, in the order in which help lists them."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from every(found, click.Context(found, parent=context, info_name=name))


def shown(command: click.Command, context: click.Context, skip: set[str]) -> str:
    """Return the section of a command; options named in `skip` are told elsewhere."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", f"```\n{usage}\n```"]
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        if paragraph.startswith("\b"):  # what click does not wrap: examples
            examples = textwrap.dedent(paragraph.removeprefix("\b\n"))
            parts.append(f"```sh\n{examples}\n```")
        else:
            parts.append(paragraph.replace("\n", " "))
    parts.append(
        "\n".join(f"- `{names}`: {text}" for names, text in options(command, context, skip))
    )
    return "\n\n".join(part for part in parts if part)


def options(
    command: click.Command, context: click.Context, skip: set[str]
) -> Iterator[tuple[str, str]]:
    """Yield names and help of a command's own options."""
    for parameter in command.params:
        record = parameter.get_help_record(context) if parameter.opts[-1] not in skip else None
        if record is not None and isinstance(parameter, click.Option):
            yield record[0], re.sub(r"\s+", " ", record[1])


def page() -> str:
    """Return the whole page."""
    root = click.Context(packstone, info_name="packstone")
    (group, _), *commands = every(packstone, root)
    everywhere = {parameter.opts[-1] for parameter in group.params}
    parts = [HEAD, shown(group, root, set()).replace("## packstone", "## Global options", 1)]
    parts.append("Each of them may also stand behind the command.")
    parts += [shown(command, context, everywhere) for command, context in commands]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
