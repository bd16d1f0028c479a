from __future__ import annotations

import click
import pytest

from packstone.cli import values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("17B", 17),
        ("128KiB", 128 << 10),
        ("128kib", 128 << 10),
        ("64M", 64 << 20),
        ("1.5 GiB", 3 << 29),
        (" 1GiB ", 1 << 30),
        ("2T", 2 << 40),
        ("9007199254740993", 9007199254740993),
        ("0.1KiB", 102),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert values.size(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1KB", "1 MB", "1iB", "1e3", "1.", ".5M", "1KiBs", "٣K", "1 2", "nan"]
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        values.size(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000001Z", 1_000),
        ("1969-12-31T23:59:59Z", -1_000_000_000),
        ("2026-11-22T14:30:00.123456Z", 1795357800123456000),
    ],
)
def test_times(text: str, expected: int) -> None:
    assert values.time_ns(text) == expected


def test_a_time_without_zone_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert values.time_ns("2026-07-01 02:00") == values.time_ns("2026-07-01T00:00:00Z")
        assert values.time_ns("2026-07-01") == values.time_ns("2026-06-30T22:00:00Z")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01", "2026-02-30", "99999-01-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        values.time_ns(text)


def test_places() -> None:
    assert values.split_place("latest") == ("latest", b"")
    assert values.split_place("latest~2:/srv/a:b") == ("latest~2", b"/srv/a:b")
    assert values.split_place("3f2a:\udcff") == ("3f2a", b"\xff")


def test_an_empty_name_is_refused() -> None:
    assert values.name("a\udce9") == b"a\xe9"
    with pytest.raises(click.BadParameter):
        values.name("")
