"""Write man pages of all commands, made from the command line itself.

python docs/manual.py build/man && man -l build/man/packstone-restore.1
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
from click_man.core import write_man_pages

from packstone.cli.commands import packstone
from packstone.version import VERSION


def main(target: Path) -> None:
    """Write one page for each command and subcommand into a directory."""
    target.mkdir(parents=True, exist_ok=True)
    context = click.Context(packstone, info_name="packstone")
    # Commands are imported when they are asked for; the pages are made of what is there.
    for name in packstone.list_commands(context):
        found = packstone.get_command(context, name)
        assert found is not None
        packstone.commands[name] = found
    write_man_pages("packstone", packstone, version=VERSION, target_dir=str(target))
    for page in target.glob("*.1"):
        text = page.read_text(encoding="utf-8")
        # What click must not wrap roff must not fill either.
        page.write_text(re.sub(r"\x08\n((?:[^.\n].*\n)+)", r".nf\n\1.fi\n", text), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
