from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.cli import render


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("Malmö ☃ 雪".encode(), "Malmö ☃ 雪"),
        (b"two\nlines\ttab\r", "two\\nlines\\ttab\\r"),
        (b"\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        (b"\x00\x7f", "\\x00\\x7f"),
        (b"latin-\xe9", "latin-\\xe9"),
        ("\u009b31m".encode(), "\\u009b31m"),
        ("evil\u202egpj.exe".encode(), "evil\\u202egpj.exe"),
        ("a\u200bb\u2066c\ufeff".encode(), "a\\u200bb\\u2066c\\ufeff"),
        ("\U000e0041".encode(), "\\U000e0041"),
        (b"back\\slash", "back\\\\slash"),
    ],
)
def test_names_for_people(name: bytes, expected: str) -> None:
    assert render.printable(name) == expected


ESCAPES = re.compile(r"\\(?:([\\nrt])|x(..)|u(....)|U(........))")


def unescape(text: str) -> bytes:
    """Read an escaped name back the one way in which it can be read."""

    def original(match: re.Match[str]) -> str:
        short, byte, code, long_code = match.groups()
        if short:
            return {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}[short]
        if byte:
            return bytes.fromhex(byte).decode("utf-8", "surrogateescape")
        return chr(int(code or long_code, 16))

    return ESCAPES.sub(original, text).encode("utf-8", "surrogateescape")


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda t: t.encode("utf-8", "ignore")))
def test_names_for_people_are_harmless_and_unambiguous(name: bytes) -> None:
    text = render.printable(name)
    assert text.isprintable()
    assert unescape(text) == name


@given(st.binary(max_size=40))
def test_names_in_json_keep_every_byte(name: bytes) -> None:
    text = json.loads(json.dumps(render.json_name(name)))
    assert text.encode("utf-8", "surrogateescape") == name


def test_messages_keep_their_backslashes() -> None:
    assert render.visible("a\\x1b") == "a\\x1b"
    assert render.visible("a\x1b\n\udcff") == "a\\x1b\\n\\xff"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (2**30, "1.0 GiB"),
        (2**64, "16.0 EiB"),
        (2**74, "16384.0 EiB"),
    ],
)
def test_sizes(size: int, expected: str) -> None:
    assert render.iec(size) == expected


@pytest.mark.parametrize(
    ("time_ns", "expected"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (1795357800123456789, "2026-11-22T14:30:00.123456789Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (10**21, None),
        (-(10**21), None),
    ],
)
def test_times(time_ns: int, expected: str | None) -> None:
    assert render.rfc3339(time_ns) == expected


def test_times_for_people_never_fail() -> None:
    for time_ns in (0, -1, 10**18, 10**21, -(10**21), 2**200):
        assert render.local_time(time_ns)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.423, "0.42 s"),
        (12.34, "12.3 s"),
        (59.4, "59.4 s"),
        (200, "3:20 min"),
        (7500, "2:05:00 h"),
    ],
)
def test_durations(seconds: float, expected: str) -> None:
    assert render.duration(seconds) == expected
