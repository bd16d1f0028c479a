"""`packstone snapshots` and `packstone ls`."""

from __future__ import annotations

import os

import pytest

SNAPSHOT_KEYS = {
    "id",
    "time",
    "host",
    "user",
    "paths",
    "name",
    "tags",
    "tree",
    "files",
    "bytes_total",
    "original_id",
}
ENTRY_KEYS = {"path", "type", "mode", "uid", "gid", "user", "group", "size", "mtime", "target"}


@pytest.fixture
def saved(run, store, source):
    run("snapshot", source, "--host", "crm-1", "--tag", "nightly")
    return source


def test_snapshots(run, saved) -> None:
    (row,) = run("snapshots", "--json").json
    assert row.keys() >= SNAPSHOT_KEYS
    assert row["paths"] == [str(saved)]
    assert row["original_id"] is None
    assert row["files"] > 5
    assert row["bytes_total"] > 40 * 20_000
    header, line = run("snapshots").text.splitlines()
    assert header.split()[:3] == ["id", "time", "host"]
    assert line.split()[0] == row["id"][:8]
    assert "nightly" in line
    assert str(saved) in line


def test_no_snapshots(run, store) -> None:
    assert run("snapshots").out == b""
    assert run("snapshots", "--json").json == []


def test_narrowing(run, saved) -> None:
    run("snapshot", saved / "directory", "--host", "crm-2")

    def count(*words) -> int:
        return len(run("snapshots", "--json", *words).json)

    assert count() == 2
    assert count("--host", "crm-1") == count("--tag", "nightly") == count("--path", saved) == 1
    assert count("--host", "nobody") == count("--host", "crm-2", "--tag", "nightly") == 0

    def listed(*words) -> set[str]:
        return {row["path"] for row in run("ls", "-R", "--json", *words).json}

    assert str(saved / "dump.sql") not in listed("latest")
    assert str(saved / "dump.sql") in listed("latest", "--host", "crm-1")
    assert str(saved / "dump.sql") in listed("latest", "--path", saved)
    assert str(saved / "dump.sql") in listed("latest", "--tag", "nightly")
    assert str(saved / "dump.sql") in listed("latest~1")
    run("ls", "latest~2", code=2)
    run("ls", "latest", "--host", "nobody", code=2)


def test_a_snapshot_by_prefix(run, saved) -> None:
    (row,) = run("snapshots", "--json").json
    for digits in (8, 63, 64):
        assert run("ls", row["id"][:digits]).out
    assert "no snapshot" in run("ls", "zz", code=2).messages


def test_ls_json(run, saved) -> None:
    rows = run("ls", "-R", "--json", f"latest:{saved}").json
    by_name = {os.path.basename(row["path"]): row for row in rows}
    assert all(row.keys() >= ENTRY_KEYS for row in rows)
    dump = by_name["dump.sql"]
    stat = os.lstat(saved / "dump.sql")
    assert dump["path"] == str(saved / "dump.sql")
    assert (dump["type"], dump["size"], dump["mode"]) == (
        "file",
        stat.st_size,
        stat.st_mode & 0o7777,
    )
    assert (dump["uid"], dump["gid"], dump["mtime_ns"]) == (
        stat.st_uid,
        stat.st_gid,
        stat.st_mtime_ns,
    )
    assert dump["link"] == by_name["hard link"]["link"] is not None
    assert by_name["link"]["type"] == "symlink"
    assert by_name["link"]["target"] == "directory/small"
    assert by_name["directory"]["type"] == "dir"
    assert by_name["fifo"]["type"] == "fifo"
    assert by_name["latin-\udce9"]["size"] == 1
    assert by_name["empty"]["size"] == 0


def test_ls_is_not_recursive_by_itself(run, saved) -> None:
    direct = {row["path"] for row in run("ls", "--json", f"latest:{saved}").json}
    assert direct == {os.fsdecode(os.fsencode(path)) for path in saved.iterdir()}


def test_ls_of_one_file(run, saved) -> None:
    (row,) = run("ls", "--json", f"latest:{saved}/dump.sql").json
    assert row["type"] == "file"


def test_names_are_escaped_for_people(run, saved) -> None:
    for words in (["ls", "-R", "latest"], ["ls", "-lR", "latest"]):
        text = run(*words).text
        assert "new\\nline" in text
        assert "latin-\\xe9" in text
        assert "esc\\x1b[31m" in text
        assert "bidi-\\u202e-override" in text
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert " -> directory/small" in run("ls", "-lR", "latest").text


def test_names_are_raw_for_programs(run, saved) -> None:
    found = run("ls", "-0", f"latest:{saved}").out.split(b"\0")[:-1]
    assert sorted(found) == sorted(os.fsencode(path) for path in saved.iterdir())
    run("ls", "-0", "-l", "latest", code=2)
    run("ls", "-0", "--json", "latest", code=2)


def test_a_path_that_is_not_there(run, saved) -> None:
    outcome = run("ls", "latest:/no\x1bwhere", "--json", code=2)
    assert outcome.json["error"]["exit_code"] == 2
    assert "\x1b" not in outcome.messages
