"""Every command of docs/tutorial.md works, and the pictures of it show them all."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def shown(picture: Path) -> list[str]:
    """Return the lines of text that a picture of a terminal shows, from its top."""
    rows: dict[float, list[tuple[float, str]]] = {}
    pattern = r'<text [^>]*? x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>'
    for x, y, text in re.findall(pattern, picture.read_text(encoding="utf-8")):
        rows.setdefault(float(y), []).append((float(x), html.unescape(text)))
    lines = ["".join(text for _, text in sorted(rows[y])) for y in sorted(rows)]
    return [line.replace("\xa0", " ").rstrip() for line in lines]


def typed(fuse: bool) -> list[str]:
    """Return the commands of the tutorial."""
    page = DOCS.joinpath("tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^```console{'( fuse)?' if fuse else ''}\n(.*?)^```$", page, re.M | re.S)
    texts = [block[-1] if fuse else block for block in blocks]
    return [line for text in texts for line in text.splitlines() if line.startswith("$ ")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures, made anew: fails if a command does."""
    target = tmp_path_factory.mktemp("pictures")
    subprocess.run([sys.executable, DOCS / "record.py", target], check=True)
    return target


def test_what_is_shown_works(recorded: Path) -> None:
    lines = shown(recorded / "tutorial.svg")
    commands = typed(fuse=False)
    assert len(commands) > 20 and set(commands) <= set(lines)
    for text in (
        "Dear Sir or Madam",
        "R  /home/you/crm/letter.txt -> /home/you/crm/first-letter.txt",
    ):
        assert text in lines
    if "$ packstone mount browse &" in lines:
        assert "first-letter.txt" in lines


def test_a_picture_tells_nothing_of_this_machine(recorded: Path) -> None:
    for name in ("tutorial.svg", "tutorial-part.svg"):
        for picture in (recorded / name, DOCS / name):
            text = picture.read_text(encoding="utf-8")
            assert len(text) < 100_000
            assert "packstone-record" not in text and os.fspath(ROOT) not in text
            hosts = {line.split()[3] for line in shown(picture) if re.match("[0-9a-f]{8}  ", line)}
            assert hosts == {"laptop"}
            # what a page shows must not fetch anything from elsewhere
            assert set(re.findall(r"https?://[^\s\"<]+", text)) <= {
                "http://www.w3.org/2000/svg",
                "https://www.textualize.io",
            }


def test_the_pictures_are_of_this_tutorial() -> None:
    everything = shown(DOCS / "tutorial.svg")
    assert [line for line in everything if line.startswith("$ ")] == typed(fuse=True), (
        "docs/tutorial.md has changed: run `make record` where FUSE is there"
    )
    part = [line for line in shown(DOCS / "tutorial-part.svg") if line.startswith("$ ")]
    assert len(part) > 10 and set(part) <= set(everything)
    readme = ROOT.joinpath("README.md").read_text(encoding="utf-8")
    assert "docs/tutorial-part.svg" in readme and "docs/tutorial.md" in readme
