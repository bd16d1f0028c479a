"""Who is told of a run: monitors by pings, Prometheus by a file."""

from __future__ import annotations

import http.server
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs_scene import Scene
from prometheus_client.parser import text_string_to_metric_families

import packstone
from packstone.operations.jobs.memory import Memory
from packstone.operations.jobs.metrics import exposition
from packstone.operations.jobs.ping import ping
from packstone.operations.jobs.strategy import PathSource


class Monitor(http.server.ThreadingHTTPServer):
    """A monitor on this machine that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.code = 200
        super().__init__(("127.0.0.1", 0), _Listener)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/ping/1-2-3"

    @property
    def events(self) -> list[str]:
        return [path.removeprefix("/ping/1-2-3") for path, _body in self.told]


class _Listener(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Monitor)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        self.server.told.append((self.path, body))
        self.send_response(self.server.code)
        self.end_headers()

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_start_success_and_fail(scene: Scene, monitor: Monitor) -> None:
    scene.add("good", ping=monitor.url + "/?create=1")
    assert scene.run().exit_code == 0
    assert monitor.events == ["/start?create=1", "?create=1"]
    monitor.told.clear()
    scene.strategy.jobs.clear()
    scene.command("bad", "exit 5", ping=monitor.url)
    assert scene.run().exit_code == 1
    assert monitor.events == ["/start", "/fail"]
    assert "bad.sql" in monitor.told[1][1]
    monitor.told.clear()
    scene.strategy.jobs.clear()
    scene.add("warned", PathSource(paths=[str(scene.source), "/nowhere"]), ping=monitor.url)
    assert scene.run().exit_code == 3
    assert monitor.events == ["/start", ""], "what could be read is safe"


def test_a_job_that_dies_is_told_too(scene: Scene, monitor: Monitor) -> None:
    scene.add("crm", before=["kill -9 $PPID"], ping=monitor.url)
    assert scene.run().exit_code == 1
    assert monitor.events == ["/start", "/fail"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/s3cret",
        "http://127.0.0.1:1/with a/s3cret",
        "http://[broken/s3cret",
        "http://monitor:s3cret@127.0.0.1:1/",
        "http://127.0.0.1:s3cret@/",
        "http://127.0.0.1:s3cret/",
        "http://127.0.0.1:1/\u00fcber/s3cret",
        "s3cret",
    ],
)
def test_what_is_said_of_a_url_is_no_key_to_the_monitor(url: str) -> None:
    with pytest.raises(packstone.PackstoneError) as raised:
        ping(url, "start")
    assert "s3cret" not in raised.value.message + raised.value.hint


def test_a_failing_monitor_fails_no_job(scene: Scene, monitor: Monitor) -> None:
    monitor.code = 500
    secret = "/ping/a-secret"
    scene.add("refused", ping=f"http://127.0.0.1:1{secret}")
    scene.add("answers 500", ping=monitor.url)
    scene.add("no name", ping=f"http://monitor.invalid{secret}")
    scene.add("no web", ping=f"file://{scene.write('secret', 'x')}")
    report = scene.run()
    assert {each.status for each in report.jobs} == {"warnings"} and report.exit_code == 3
    for each in report.jobs:
        assert each.complete and any(text.startswith("ping: ") for text in each.warnings)
        assert secret not in str(each.warnings), "the address is the key to the monitor"
    assert len(scene.snapshots()) == 4


@pytest.mark.parametrize("url", ["file://{path}", "{path}", "ftp://127.0.0.1/x", ""])
def test_a_ping_opens_nothing_but_web_addresses(tmp_path: Path, url: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(packstone.UsageError, match="http"):
        ping(url.format(path=tmp_path / "file"))


def values(text: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[sample.labels["job"]] = sample.value
    return found


def test_metrics_of_all_jobs(scene: Scene) -> None:
    scene.add("good")
    scene.add("never", every=None)
    scene.command("bad", "exit 1")
    report = scene.run("good", "bad")
    path = scene.place / "packstone.prom"
    found = values(path.read_text())
    assert found["packstone_job_success"] == {"good": 1, "bad": 0, "never": 0}
    good = next(each for each in report.jobs if each.job == "good")
    result = good.snapshots[0].result
    assert found["packstone_job_last_success_timestamp_seconds"] == {
        "good": good.began_ns / 1e9,
        "bad": 0,
        "never": 0,
    }
    assert found["packstone_job_duration_seconds"]["good"] == good.seconds
    assert found["packstone_job_bytes_read"]["good"] == result.bytes_read > 0
    assert found["packstone_job_bytes_stored"]["good"] == result.bytes_stored > 0
    assert found["packstone_job_failures"] == {"good": 0, "bad": 1, "never": 0}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644, "the exporter is another user"
    assert not list(scene.place.glob(".packstone-*"))


def test_metrics_that_cannot_be_written(scene: Scene) -> None:
    scene.add("crm")
    os.mkdir(scene.place / "packstone.prom")
    report = scene.run()
    assert [each.status for each in report.jobs] == ["done"]
    assert "packstone.prom" in report.warnings[0] and report.exit_code == 3
    assert not list(scene.place.glob(".packstone-*"))


@given(st.lists(st.text(st.characters(codec="utf-8")), unique=True, max_size=4), st.floats(0, 1e18))
def test_any_name_of_a_job_can_be_read_back(names: list[str], seconds: float) -> None:
    found = values(exposition(Memory(job=name, seconds=seconds) for name in names))
    durations = found.get("packstone_job_duration_seconds", {})
    assert durations == dict.fromkeys(names, seconds)
