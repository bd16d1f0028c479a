"""Every command that the README shows in a ```console block works as shown, and its Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from packstone.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]


def blocks(markdown: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL)


def commands(markdown: str) -> list[str]:
    """Return the lines after `$ `, with those that `\\` continues and those of a here document."""
    lines: list[str] = []
    for block in blocks(markdown, "console"):
        end = ""
        for line in block.splitlines():
            if end:
                lines[-1] += "\n" + line
                end = "" if line == end else end
            elif line.startswith("$ "):
                lines.append(line[2:])
                found = re.search(r"<<'(\w+)'", line)
                end = found[1] if found else ""
            elif lines and lines[-1].endswith("\\"):
                lines[-1] += "\n" + line
        assert not end, f"{lines[-1]!r} is not ended by {end}"
    return lines


@pytest.mark.parametrize("page", ["README.md", "docs/recipes.md", "docs/planning.md"])
def test_what_is_shown_works(run, tmp_path: Path, page: str) -> None:
    readme = ROOT.joinpath(page).read_text(encoding="utf-8")
    found = commands(readme)
    assert len(found) >= 6
    shims = tmp_path / "bin"
    shims.mkdir()
    shim = shims / "packstone"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m packstone "$@"\n')
    shim.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    environment = run.environment | {
        "PATH": f"{shims}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(work),
    }
    script = "set -e\n" + "\n".join(found)
    done = subprocess.run(
        ["sh", "-c", script], cwd=work, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "here-document" not in done.stderr
    for program in blocks(readme, "python"):
        subprocess.run([sys.executable, "-c", program], cwd=work, env=environment, check=True)


@pytest.mark.parametrize("target", "demo test bench lint soak man docs record".split())
def test_make_targets_exist(target: str) -> None:
    makefile = ROOT.joinpath("Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_manual(run, tmp_path: Path) -> None:
    """A page for every command, with what its help says."""
    pages = tmp_path / "man"
    subprocess.run([sys.executable, ROOT / "docs" / "manual.py", pages], check=True)
    for name in COMMANDS:
        page = (pages / f"packstone-{name}.1").read_text(encoding="utf-8")
        assert ".SH SYNOPSIS" in page and f"packstone {name}" in page
        assert ".SH COMMANDS" in page or re.search(rf"\.nf\n *packstone {name}", page)
        assert "\b" not in page
    assert "packstone restore" in (pages / "packstone.1").read_text() or (
        "packstone-restore" in (pages / "packstone.1").read_text()
    )
