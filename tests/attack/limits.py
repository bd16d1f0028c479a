"""Do one thing with a hostile repository in a child that may use two seconds and 256 MiB.

Imported as `attack.limits`: tests/ is on the path of imports. Beside every attack stand sound
files that must come back.
"""

from __future__ import annotations

import json
import multiprocessing
import signal
from pathlib import Path
from typing import Any

import hostile
import pytest
from hostile import Forger

MIB = 1 << 20
GOOD = b"this must be restored\n" * 100
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["hostile", "packstone.operations.facade"])


def limited(place: Path, verb: str = "restore") -> dict[str, Any]:
    """Run one verb in a child with limits; return what it said."""
    out = place / "said"
    arguments = (verb, str(place / "repository"), str(place / "target"), str(out))
    child = CONTEXT.Process(target=hostile.run_limited, args=arguments)
    child.start()
    child.join(20)
    if child.is_alive():
        child.kill()
        child.join()
        pytest.fail(f"{verb}: killed after 20 seconds")
    assert child.exitcode != -signal.SIGXCPU, f"{verb}: more than two seconds of work"
    assert child.exitcode == 0, f"{verb}: exit code {child.exitcode}"
    said: dict[str, Any] = json.loads(out.read_text())
    out.unlink()
    assert said["family"], f"{verb}: {said['error']}"
    assert said["peak"] < 256 * MIB, f"{verb}: {said['peak'] / MIB:.0f} MiB"
    return said


def sound(forger: Forger) -> list[list[Any]]:
    return [forger.below(b"a good", [forger.file(b"file", GOOD)]), forger.file(b"z good", GOOD)]


def assert_good(place: Path) -> None:
    assert (place / "target" / "a good" / "file").read_bytes() == GOOD
    assert (place / "target" / "z good").read_bytes() == GOOD
