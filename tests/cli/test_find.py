"""`packstone find`."""

from __future__ import annotations

import os
import shutil

import pytest


@pytest.fixture
def history(run, store, source):
    """Three snapshots: a file changes, another goes, one comes."""
    run("snapshot", source, "--host", "crm-1", "--time", "2026-11-01T00:00:00Z")
    (source / "dump.sql").write_bytes(b"short")
    shutil.rmtree(source / "directory")
    run("snapshot", source, "--host", "crm-1", "--time", "2026-11-02T00:00:00Z", "--tag", "t")
    (source / "NEW.sql").write_bytes(b"")
    run("snapshot", source, "--host", "crm-1", "--time", "2026-11-03T00:00:00Z")
    return source


def found(run, *words):
    rows = run("find", "--json", *words).json
    return {
        os.path.basename(row["path"]): [version["what"] for version in row["versions"]]
        for row in rows
    }


def test_json(run, history) -> None:
    (row,) = run("find", "dump.sql", "--json").json
    assert row["path"] == str(history / "dump.sql")
    assert row["host"] == "crm-1"
    first, second = row["versions"]
    assert first["what"] == "new" and second["what"] == "content"
    assert first["time"] == "2026-11-01T00:00:00.000000000Z"
    assert (first["type"], first["size"], second["size"]) == ("file", 40 * 20_000, 5)
    assert second.keys() >= {"snapshot", "time", "size", "mtime", "what"}
    ids = [each["id"] for each in run("snapshots", "--json").json]
    assert [first["snapshot"], second["snapshot"]] == ids[:2]
    (small,) = run("find", "small", "--json").json
    assert small["versions"][1] == {
        "snapshot": ids[1], "time": "2026-11-02T00:00:00.000000000Z", "what": "gone",
        "type": None, "size": None, "mtime": None, "mtime_ns": None,
    }  # fmt: skip


def test_filters(run, history) -> None:
    assert found(run, "*.sql") == {"dump.sql": ["new", "content"], "NEW.sql": ["new"]}
    assert found(run, "-i", "*.SQL").keys() == {"dump.sql", "NEW.sql"}
    assert found(run, "*.SQL") == {}
    assert found(run, "--size", "+781KiB") == {
        "dump.sql": ["new", "content"],
        "hard link": ["new", "gone"],
    }
    assert found(run, "*.sql", "--size", "-1") == {"NEW.sql": ["new"]}
    assert found(run, "*.sql", "--size", "=5") == {"dump.sql": ["new", "content"]}
    assert found(run, "*.sql", "--size", "+4", "--size", "-6").keys() == {"dump.sql"}
    assert found(run, "--type", "l") == {"link": ["new"]}
    assert set(found(run, "--type", "d")) >= {"directory", "nested", "bare", history.name}
    assert found(run, "*.sql", "--older", "2000-01-01") == {}
    assert found(run, "*.sql", "--newer", "2000-01-01").keys() == {"dump.sql", "NEW.sql"}
    assert found(run, "*.sql", "--tag", "t") == {"dump.sql": ["new"]}
    assert found(run, "*.sql", "-s", "latest~2") == {"dump.sql": ["new"]}
    assert found(run, "*.sql", "--host", "nobody") == {}
    assert found(run, f"{history}/*.sql").keys() == {"dump.sql", "NEW.sql"}


def test_for_people_and_programs(run, history) -> None:
    text = run("find", "*esc*", "dump.sql").text
    assert "esc\\x1b[31m" in text and "\x1b" not in text
    assert "new" in text and "content" in text and "781.2 KiB" in text
    raw = run("find", "-0", "*esc*").out
    assert raw == os.fsencode(history) + b"/esc\x1b[31m\0"
    run("find", "-0", "--json", "x", code=2)
    run("find", "--size", "much", "x", code=2)
    run("find", "--newer", "soon", "x", code=2)
    assert run("find", "nothing at all").out == b""
    assert run("find", "nothing at all", "--json").json == []
