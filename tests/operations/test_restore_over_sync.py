"""What replaces a file is on the disk before it has the name; new files need not wait."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import packstone

RESTORE = """
import sys, packstone
with packstone.open(sys.argv[1], threads=1) as repository:
    result = repository.restore("latest", sys.argv[2], path=sys.argv[3], overwrite=sys.argv[4])
assert not result.errors
"""


@pytest.mark.parametrize(("overwrite", "synced"), [("changed", 2), ("always", 0)])
def test_replaced_files_are_synced_first(
    repository: packstone.Repository, source: Path, tmp_path: Path, overwrite: str, synced: int
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    target = tmp_path / "target"
    target.mkdir()
    for name, size in (("small", 1000), ("long", 100_000)):
        (source / name).write_bytes(os.urandom(size))
        (source / f"{name} new").write_bytes(os.urandom(size))
        (target / name).write_bytes(b"old")
    repository.snapshot([source])
    repository.close()
    calls = tmp_path / "calls"
    names = "fsync,fdatasync,rename,renameat,renameat2,linkat"
    argv = ["strace", "-f", "-y", "-o", calls, "-e", f"trace={names}", sys.executable, "-c",
            RESTORE, repository.location.removeprefix("file://"), target, source,
            overwrite]  # fmt: skip
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if "ptrace" in done.stderr:
        pytest.skip("tracing is not allowed here")
    assert done.returncode == 0, done.stderr
    lines = [line for line in calls.read_text().splitlines() if os.fspath(target) in line]
    syncs = [at for at, line in enumerate(lines) if re.search(r"f(data)?sync\(", line)]
    assert len(syncs) == synced
    for name in ("small", "long"):
        (renamed,) = [
            at for at, line in enumerate(lines) if "rename" in line and f'"{name}"' in line
        ]
        assert (renamed > min(syncs)) if synced else True
