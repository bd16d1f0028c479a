"""What a tool must be able to do to be compared."""

from __future__ import annotations

import os
import shlex
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

Command = list[str]


class Tool(ABC):
    """One tool with one repository. Commands are run with `environment` by the caller."""

    name: ClassVar[str]
    settings: ClassVar[str]
    ask_version: ClassVar[str] = "--version"
    rows: ClassVar[frozenset[str]] = frozenset(
        ("first", "unchanged", "read all", "changed", "restore", "check")
    )

    def __init__(self, program: Command, scratch: Path, source: Path) -> None:
        self.program = program
        self.home = scratch / self.name  # repository, cache and keys, deleted together
        self.repository = self.home / "repository"
        self.source = source
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TMPDIR": str(scratch),
        }

    def version(self) -> str:
        """Return what the tool says its version is."""
        said = subprocess.run(
            [*self.program, self.ask_version], capture_output=True, text=True,
            env=self.environment | dict(os.environ),
        )  # fmt: skip
        lines = (said.stdout or said.stderr).strip().splitlines()
        return lines[0] if said.returncode == 0 and lines else "version unknown"

    def shell(self, *commands: Sequence[str]) -> Command:
        """Join several commands to one that is measured as a whole."""
        return ["/bin/sh", "-ec", "\n".join(shlex.join(command) for command in commands)]

    @abstractmethod
    def init(self) -> Command: ...
    @abstractmethod
    def snapshot(self, read_all: bool = False) -> Command: ...
    @abstractmethod
    def restore(self, target: Path) -> Command:
        """Restore the newest snapshot into `target`, an empty directory, also the cwd."""

    @abstractmethod
    def check(self) -> Command:
        """Verify every byte of content in the repository."""

    def restored(self, target: Path) -> Path:
        """Return where the source's content stands below `target`."""
        return target / self.source.relative_to("/")
