"""Run docs/tutorial.md and draw the terminal: all of it, and for the README a part.

python docs/record.py docs

Commands are run as they stand, one after the other in one shell, in a new directory. What is put
in for another word is what would tell of this machine: that directory, and the name of the host.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 116
HOME, HOST = "/home/you", "laptop"
MARK = "\x1e"  # before what the next command prints
HERE = Path(__file__).parent
# file → headings of the tutorial that it shows, all if there are none
PICTURES = {"tutorial.svg": (), "tutorial-part.svg": ("Two snapshots", "Look", "Bring back")}
# Runs packstone of this interpreter, on a host of another name.
SHIM = f"""#!{sys.executable}
import socket, sys
socket.gethostname = lambda: {HOST!r}
from packstone.cli.main import main
sys.exit(main())
"""


def commands(markdown: str, fuse: bool) -> list[tuple[str, list[str]]]:
    """Return headings and the commands below each; those that need FUSE only with `fuse`."""
    found: list[tuple[str, list[str]]] = []
    language = None
    for line in markdown.splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language is None and line.startswith("## "):
            found.append((line[3:], []))
        elif line.startswith("$ ") and (language == "console" or (fuse and language)):
            found[-1][1].append(line[2:])
    return [section for section in found if section[1]]


def can_mount() -> bool:
    """Return whether a FUSE file system can be mounted here."""
    there = shutil.which("fusermount3") and importlib.util.find_spec("mfusepy")
    return there is not None and os.access("/dev/fuse", os.R_OK | os.W_OK)


def run(lines: list[str]) -> list[str]:
    """Return what each command printed; raises SubprocessError when one fails."""
    with (
        tempfile.TemporaryDirectory(prefix="packstone-record-") as work,
        tempfile.TemporaryDirectory(prefix="packstone-record-") as place,
    ):
        program = Path(place, "packstone")
        program.write_text(SHIM, encoding="utf-8")
        program.chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PACKSTONE")}
        script = "".join(f"printf '\\036'\n{line}\n" for line in lines)
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd=work,
            env=kept
            | {
                "PATH": f"{place}{os.pathsep}{os.environ['PATH']}",
                "HOME": work,
                "PACKSTONE_CACHE_DIR": f"{place}/cache",
                "COLUMNS": str(COLUMNS),
                "LC_ALL": "C.UTF-8",
                "TZ": "UTC",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,  # a mount that never comes is waited for no longer
        )
        if done.returncode:
            sys.stderr.write(done.stdout)
            done.check_returncode()
    return done.stdout.replace(work, HOME).split(MARK)[1:]


def draw(sections: list[tuple[str, list[tuple[str, str]]]], target: Path) -> None:
    """Write the picture of a terminal in which commands were typed, with what they printed."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for heading, typed in sections:
        console.print(Text(f"# {heading}", style="bright_black"))
        for line, said in typed:
            console.print(Text.assemble(("$ ", "green"), (line, "bold")))
            if said:
                console.print(Text(said.rstrip("\n")))
    # Pages that show a picture load nothing from elsewhere for it: any fixed font will do.
    svg = console.export_svg(title="packstone", unique_id="tutorial")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    target.write_text(svg, encoding="utf-8")


def main(target: Path) -> None:
    """Run the tutorial and write its pictures into a directory."""
    page = HERE.joinpath("tutorial.md").read_text(encoding="utf-8")
    sections = commands(page, can_mount())
    said = iter(run([line for _, lines in sections for line in lines]))
    typed = [(heading, [(line, next(said)) for line in lines]) for heading, lines in sections]
    for name, headings in PICTURES.items():
        shown = [section for section in typed if not headings or section[0] in headings]
        draw(shown, target / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
