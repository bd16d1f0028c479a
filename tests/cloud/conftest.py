"""A server for all tests here, and for each test a repository URL of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Packstone
from object_server import KEYS, new_bucket, server, url_of


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    with server() as found:
        yield found


@pytest.fixture(scope="session")
def bucket(endpoint: str) -> str:
    return new_bucket(endpoint)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for key, value in KEYS.items():
        monkeypatch.setenv(key, value)
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def url(endpoint: str, bucket: str, tmp_path: Path) -> str:
    return url_of(endpoint, f"{bucket}/{tmp_path.name}")


@pytest.fixture
def remote(run: Packstone, url: str) -> Callable[..., str]:
    """Make a repository at the test's URL and name it to every command."""

    def make(*options: str, **environment: str) -> str:
        run.environment |= KEYS | environment | {"PACKSTONE_REPO": url}
        run("init", *options, url)
        return url

    return make
