"""Fixtures that several kinds of test share: the command, a plain repository, a source tree."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Shared processors make single examples slow now and then; that is no failure.
settings.register_profile("default", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command line ended with."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode("utf-8", "surrogateescape")

    @property
    def messages(self) -> str:
        return self.err.decode("utf-8", "surrogateescape")

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Packstone:
    """Runs the real command in a process of its own; no run may ever end in a traceback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PACKSTONE_")
        }
        self.environment |= {"PACKSTONE_CACHE_DIR": str(directory / "cache"), "TZ": "UTC"}

    def argv(self, words: Sequence[str | bytes | Path]) -> list[str | bytes | Path]:
        return [sys.executable, "-m", "packstone", *words]

    def __call__(
        self,
        *words: str | bytes | Path,
        code: int | None = 0,
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Outcome:
        """Run `packstone WORDS…` and require the exit code, unless `code` is None."""
        done = subprocess.run(
            [*prefix, *self.argv(words)],
            input=stdin,
            capture_output=True,
            env=self.environment | (env or {}),
            cwd=self.directory,
            timeout=120,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr)
        assert b"Traceback" not in outcome.err, outcome.messages
        if code is not None:
            assert outcome.code == code, f"exit code {outcome.code}: {outcome.messages}"
        return outcome

    def start(self, *words: str | bytes | Path, **options: Any) -> subprocess.Popen[bytes]:
        """Start `packstone WORDS…` with all three streams as pipes."""
        return subprocess.Popen(
            self.argv(words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.directory,
            **options,
        )


@pytest.fixture
def run(tmp_path: Path) -> Packstone:
    """The command, run in the test's own directory."""
    return Packstone(tmp_path)


@pytest.fixture
def store(run: Packstone) -> Path:
    """A new plain repository, named to every command by the environment."""
    path = run.directory / "store"
    run("init", "--plain", path)
    run.environment["PACKSTONE_REPO"] = str(path)
    return path


Tree = dict[str | bytes, Any]


def write_tree(root: Path | bytes, tree: Tree) -> None:
    """Make a directory: str and bytes are files, dicts directories, Paths symbolic links."""
    top = os.fsencode(root)
    os.makedirs(top, exist_ok=True)
    for name, content in tree.items():
        path = os.path.join(top, os.fsencode(name))
        if isinstance(content, dict):
            write_tree(path, content)
        elif isinstance(content, Path):
            os.symlink(content, path)
        else:
            with open(path, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Path]:
    """Make a source tree in the test's directory: `make_tree({"a": "x"}, name="source")`."""

    def make(tree: Tree, name: str = "source") -> Path:
        root = tmp_path / name
        write_tree(root, tree)
        return root

    return make


@pytest.fixture
def source(make_tree: Callable[..., Path]) -> Path:
    """A small tree with a bit of everything that any file system can hold."""
    root = make_tree(
        {
            "dump.sql": "INSERT INTO contacts VALUES (1, 'Ada');\n" * 20_000,
            "empty": "",
            "directory": {"small": "small\n", "nested": {"deep": "deep\n"}, "bare": {}},
            "link": Path("directory/small"),
            b"new\nline": "x",
            b"latin-\xe9": "y",
            b"esc\x1b[31m": "z",
            "bidi-\u202e-override": "w",
        }
    )
    os.link(root / "dump.sql", root / "directory" / "hard link")
    os.mkfifo(root / "fifo")
    return root


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the campaigns of docs/durability.md have counted."""
    from campaign import LINES

    if LINES:
        terminalreporter.section("reliability rows")
    for row, command, trials, outcome in LINES:
        terminalreporter.write_line(f"{row:6} {command:58} {trials:8,} trials  {outcome}")
