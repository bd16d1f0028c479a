"""What a shell offers after Tab, asked as the shells' own scripts ask."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Packstone


def offered(run: Packstone, *words: str, env: dict[str, str] | None = None) -> list[str]:
    """Return what bash would be told for a line whose last word is being typed."""
    line = {"COMP_WORDS": "\n".join(["packstone", *words]), "COMP_CWORD": str(len(words))}
    outcome = run(env={"_PACKSTONE_COMPLETE": "bash_complete"} | line | (env or {}))
    assert outcome.err == b""
    return [line.partition(",")[2] for line in outcome.text.splitlines() if line]


@pytest.fixture
def taken(run: Packstone, store: Path, source: Path) -> str:
    identity: str = run("snapshot", source, "--json").json["snapshot_id"]
    return identity


def test_commands_and_options(run: Packstone, tmp_path: Path) -> None:
    assert "snapshots" in offered(run, "snap")
    assert "--target" in offered(run, "restore", "--tar")


def test_snapshots(run: Packstone, taken: str) -> None:
    assert offered(run, "restore", "") == ["latest", taken[:8]]
    assert offered(run, "ls", taken[:3]) == [taken[:8]]
    assert offered(run, "forget", "late") == ["latest"]


def test_paths_inside(run: Packstone, taken: str, source: Path) -> None:
    assert offered(run, "ls", f"latest:{source}/du") == [f"latest:{source}/dump.sql"]
    assert offered(run, "restore", f"latest:{source}/direc") == [f"latest:{source}/directory/"]
    assert offered(run, "cat", f"{taken[:8]}:{source}/directory/n") == [
        f"{taken[:8]}:{source}/directory/nested/"
    ]


def test_nothing_is_asked_or_said(run: Packstone, tmp_path: Path) -> None:
    """No repository, a wrong one, an encrypted one without a passphrase: nothing is offered."""
    assert offered(run, "ls", "la") == []
    assert offered(run, "-r", str(tmp_path / "none"), "ls", "la") == []
    run("init", "sealed", "--kdf-memory", "8MiB", env={"PACKSTONE_PASSPHRASE": "secret"})
    assert offered(run, "-r", "sealed", "ls", "la") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(run: Packstone, shell: str) -> None:
    script = run("completion", shell).text
    assert "_PACKSTONE_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_itself(run: Packstone, taken: str, source: Path, tmp_path: Path) -> None:
    """A colon in a word must not part it."""
    shim = tmp_path / "packstone"
    shim.write_text(f'#!/bin/sh\nexec {" ".join(map(str, run.argv([])))} "$@"\n')
    shim.chmod(0o755)
    script = (
        run("completion", "bash").text
        + f"""
        COMP_LINE="packstone ls latest:{source}/du"
        COMP_WORDS=(packstone ls "latest:{source}/du"); COMP_CWORD=2
        _packstone_completion {shim}; printf '%s\\n' "${{COMPREPLY[@]}}"
        case "$COMP_WORDBREAKS" in *:*) echo parted;; esac
    """
    )
    done = subprocess.run(
        ["bash"], input=script, text=True, capture_output=True, env=run.environment, check=True
    )
    assert done.stdout.splitlines() == [f"latest:{source}/dump.sql"]
