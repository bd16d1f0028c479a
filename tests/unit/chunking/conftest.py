"""Offers every scan path of this machine."""

from __future__ import annotations

import pytest

from packstone.chunking import _kernel


@pytest.fixture(params=_kernel.paths())
def path(request: pytest.FixtureRequest) -> str:
    """Return the name of a scan path."""
    return str(request.param)
