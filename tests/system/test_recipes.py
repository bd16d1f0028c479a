"""What docs/recipes.md shows beside its `console` blocks: snapshots of a volume, systemd units."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Packstone
from filesystems import mounted_btrfs

PAGE = Path(__file__).parents[2].joinpath("docs", "recipes.md").read_text(encoding="utf-8")


def block(language: str, word: str) -> str:
    """Return the one block of a language that has a word in it."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if word in text]
    return str(found)


@pytest.fixture
def srv() -> Iterator[Path]:
    """A btrfs in a file, mounted at a short path."""
    with tempfile.TemporaryDirectory(prefix="packstone-") as name:
        with mounted_btrfs(Path(name, "image"), Path(name, "srv"), 200 << 20) as place:
            yield place


def test_btrfs(run: Packstone, store: Path, srv: Path, tmp_path: Path) -> None:
    """Twice in a row: nothing is left over, paths are those of the files, the parent is found."""
    crm = srv / "crm"
    subprocess.run(["btrfs", "-q", "subvolume", "create", crm], check=True)
    crm.joinpath("contacts.csv").write_text("Ada\n" * 10_000)
    crm.joinpath("letter.txt").write_text("a letter\n")
    time.sleep(2.1)  # a file that was written just now would be read again
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "packstone"
    program.write_text(
        "#!/bin/sh\n"
        f"touch {crm}/new 2>/dev/null && exit 99  # what is read here stands still\n"
        f'exec "{sys.executable}" -m packstone --json "$@"\n'
    )
    program.chmod(0o755)
    script = block("sh", "btrfs subvolume").replace("/srv", str(srv))
    environment = run.environment | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for text in ("first", "second"):
        crm.joinpath("letter.txt").write_text(f"the {text} letter\n")
        done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert os.listdir(srv) == ["crm"]
    first, second = run("snapshots", "--json").json
    assert first["paths"] == second["paths"] == [str(crm)]
    assert second["parent"] == first["id"]
    crm.joinpath("letter.txt").write_text("a mistake\n")
    run("restore", "latest", "--in-place", "--overwrite", "changed")
    assert crm.joinpath("letter.txt").read_text() == "the second letter\n"
    # Inodes and times are those of the files, so what is unchanged is not read again.
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    assert (result["files_unmodified"], result["files_changed"]) == (1, 1)
    assert result["bytes_read"] < 100


def test_a_failing_snapshot_ends_the_btrfs_recipe_with_its_code(
    run: Packstone, srv: Path, tmp_path: Path
) -> None:
    subprocess.run(["btrfs", "-q", "subvolume", "create", srv / "crm"], check=True)
    program = tmp_path / "packstone"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m packstone "$@"\n')
    program.chmod(0o755)
    environment = run.environment | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "PACKSTONE_REPO": str(tmp_path / "none"),
    }
    script = block("sh", "btrfs subvolume").replace("/srv", str(srv))
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 10, done.stderr
    assert os.listdir(srv) == ["crm"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd")
def test_systemd_units(tmp_path: Path) -> None:
    for kind in ("service", "timer"):
        text = block("ini", f"# packstone.{kind}")
        # systemd asks for a program that is there
        text = re.sub(r"=packstone (snapshot|forget)", r"=true \1", text)
        tmp_path.joinpath(f"packstone.{kind}").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "packstone.timer"],
        capture_output=True,
        text=True,
        env=os.environ | {"SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    problems = [line for line in done.stderr.splitlines() if "packstone" in line]
    assert done.returncode == 0 and problems == [], done.stderr
