"""A real S3 server for tests: moto as a process of its own, a bucket for each test.

`PACKSTONE_TEST_S3` names another endpoint to run the same tests against, with credentials and
bucket (`PACKSTONE_TEST_BUCKET`) as its tools take them.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

KEYS = {"AWS_ACCESS_KEY_ID": "test-key", "AWS_SECRET_ACCESS_KEY": "test-secret-7d1f"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until somebody listens."""
    for _ in range(600):
        if process is not None and process.poll() is not None:
            raise RuntimeError("the server has ended")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server does not listen")


@contextmanager
def server() -> Iterator[str]:
    """Run a server and yield its endpoint; ends it with the block."""
    given = os.environ.get("PACKSTONE_TEST_S3")
    if given:
        yield given
        return
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    port = free_port()
    code = "from moto.server import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def new_bucket(endpoint: str) -> str:
    """Make a bucket, or a prefix of the one that was given, and return `BUCKET/PREFIX`."""
    given = os.environ.get("PACKSTONE_TEST_BUCKET")
    name = f"t{secrets.token_hex(8)}"
    if given:
        return f"{given}/{name}"
    request = urllib.request.Request(f"{endpoint}/{name}", method="PUT")
    urllib.request.urlopen(request).close()
    return f"{name}/a/prefix"


def url_of(endpoint: str, place: str, **options: str) -> str:
    """Return the URL of a repository at an endpoint."""
    query = "&".join(f"{key}={value}" for key, value in options.items())
    return f"s3://{place}?endpoint={endpoint}" + (f"&{query}" if query else "")
