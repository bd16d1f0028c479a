"""What `--help` says: an example for every command, and each of them is a valid command line."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from packstone.cli.commands import packstone
from packstone.cli.session import Session

ROOT = Path(__file__).parents[2]
Found = list[tuple[str, click.Command]]


def every(command: click.Command, context: click.Context) -> Found:
    """Return the path and the command of every one below that is no group."""
    if not isinstance(command, click.Group):
        return [(context.command_path, command)]
    found: Found = []
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        found += every(below, click.Context(below, parent=context, info_name=name))
    return found


COMMANDS = dict(every(packstone, click.Context(packstone, info_name="packstone")))


def examples(command: click.Command) -> list[str]:
    """Return the lines of a help text that click must not wrap."""
    blocks = inspect.cleandoc(command.help or "").split("\n\n")
    return [line for text in blocks if text.startswith("\b") for line in text.splitlines()[1:]]


def words(line: str) -> list[str]:
    """Return what a shell would hand to `packstone` on a line with pipes and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>")
    lexer.whitespace_split = True
    found = list(lexer)
    found = found[found.index("packstone") + 1 :]
    ends = [found.index(mark) for mark in ("|", "<", ">") if mark in found]
    return found[: min(ends)] if ends else found


@pytest.mark.parametrize("path", COMMANDS)
def test_examples(path: str) -> None:
    command = COMMANDS[path]
    lines = examples(command)
    assert lines, f"the help of `{path}` has no example: a paragraph that begins with \\b"
    for line in lines:
        said = words(line)
        name = path.split()[1:]
        assert said[: len(name)] == name, line
        # Raises UsageError for options that are not there, values that are none, too many words.
        command.make_context(path, said[len(name) :], obj=Session())


# format.md is about bytes, commands.md is compared with the commands
PAGES = [ROOT / "README.md"] + [
    page for page in sorted(ROOT.glob("docs/**/*.md")) if page.stem not in ("format", "commands")
]


def told(page: Path) -> list[str]:
    """Return the command lines of a page that no test runs: in `code`, and in blocks of others."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```(console|python).*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    in_blocks = re.findall(r"^[^`\n]*?(packstone (?:-|[a-z]+ )[^`&;\n]*)", text, re.MULTILINE)
    in_text = re.findall(r"`(packstone [a-z-][^`]*)`", text)
    return [line for line in in_blocks + in_text if line.count("'") % 2 == 0 or line.endswith("'")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_pages_say_to_type(page: Path) -> None:
    """Each is a command that there is, with options that it has."""
    for line in told(page):
        said = words(line if line.count("'") % 2 == 0 else line.removesuffix("'"))
        command: click.Command = packstone
        context = click.Context(packstone, info_name="packstone", obj=Session())
        while isinstance(command, click.Group):
            _, said, _ = command.make_parser(context).parse_args(said)
            if not said:
                break
            below = command.get_command(context, said[0])
            assert below is not None, f"there is no such command: {line}"
            context = click.Context(below, parent=context, info_name=said[0])
            command, said = below, said[1:]
        if said:
            command.make_context(context.info_name, said, parent=context.parent)


def test_the_page_of_commands(tmp_path: Path) -> None:
    made = tmp_path / "commands.md"
    subprocess.run([sys.executable, ROOT / "docs" / "commands.py", made], check=True)
    committed = ROOT.joinpath("docs", "commands.md").read_text(encoding="utf-8")
    assert made.read_text(encoding="utf-8") == committed, "it is stale: run `make docs`"
    assert all(f"## {path}\n" in committed for path in COMMANDS)
