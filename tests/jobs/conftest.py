"""Fixtures of tests of jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs_scene import Scene


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A repository, a source and an empty strategy in the test's own directory."""
    return Scene(tmp_path)
