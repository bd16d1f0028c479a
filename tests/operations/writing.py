"""What the processes of test_writers.py run; importable by them as `operations.writing`."""

from __future__ import annotations

from typing import Any

import packstone


def take_snapshots(location: str, source: str, count: int, barrier: Any) -> None:
    """Take snapshots of one source, beginning together with the other processes."""
    with packstone.open(location) as repository:
        barrier.wait(30)
        for _ in range(count):
            assert repository.snapshot([source]).errors == []
