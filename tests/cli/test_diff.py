"""`packstone diff`."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def two(run, store, source):
    run("snapshot", source)
    (source / "dump.sql").write_bytes(b"short")
    (source / "empty").unlink()
    (source / "directory" / "small").rename(source / b"to\x1b[0m".decode())
    os.chmod(source / "directory" / "nested", 0o700)
    run("snapshot", source)
    return source


def test_json(run, two) -> None:
    document = run("diff", "latest~1", "latest", "--json").json
    assert document.keys() >= {"added", "removed", "changed", "attributes", "type", "renamed"}
    assert [row["path"] for row in document["removed"]] == [str(two / "empty")]
    changed = {row["path"]: row for row in document["changed"]}
    assert changed[str(two / "dump.sql")]["old"]["size"] == 40 * 20_000
    assert changed[str(two / "dump.sql")]["new"]["size"] == 5
    (renamed,) = document["renamed"]
    assert renamed["old_path"] == str(two / "directory" / "small")
    assert renamed["path"] == str(two / "to\x1b[0m")
    assert str(two / "directory" / "nested") in [row["path"] for row in document["attributes"]]
    assert document["added"] == document["type"] == document["errors"] == []
    same = run("diff", "latest", "latest", "--json").json
    assert not any(same.values())


def test_for_people(run, two) -> None:
    outcome = run("diff", "latest~1", "latest")
    lines = outcome.text.splitlines()
    assert f"M  {two}/dump.sql" in lines
    assert f"-  {two}/empty" in lines
    assert f"R  {two}/directory/small -> {two}/to\\x1b[0m" in lines
    assert "1 renamed" in outcome.messages
    assert run("diff", "latest~1", "latest", "-q").err == b""


def test_a_path_is_that_of_the_other_too(run, two) -> None:
    whole = run("diff", f"latest~1:{two}/directory", f"latest:{two}/directory", "--json").json
    assert run("diff", f"latest~1:{two}/directory", "latest", "--json").json == whole
    assert run("diff", "latest~1", f"latest:{two}/directory", "--json").json == whole
    assert [row["path"] for row in whole["removed"]] == [str(two / "directory" / "small")]
    root = run("diff", "latest~1:/", "latest:/", "--json").json
    assert root == run("diff", "latest~1", "latest", "--json").json


def test_against_the_disk(run, two) -> None:
    def rows(*words):
        document = run("diff", *words, "--json").json
        return {row["path"]: key for key in document if isinstance(document[key], list)
                for row in document[key] if "path" in row}  # fmt: skip

    assert rows("latest", "--against", two) == {}
    (two / "dump.sql").write_bytes(b"longer than before")
    os.remove(two / "link")
    os.utime(two, ns=(0, 0))  # the place itself is not in itself
    expected = {
        str(two / "dump.sql"): "changed",
        str(two / "directory" / "hard link"): "changed",
        str(two / "link"): "removed",
    }
    assert rows("latest", "--against", two) == expected
    assert rows("latest", "--against", two, "--read-data") == expected
    below = rows(f"latest:{two}", "--against", two)
    assert below == expected
    run("restore", "latest", "--target", "back")
    assert rows("latest:/", "--against", "back").keys() <= {str(two / "link")}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_cannot_be_read(run, two) -> None:
    os.chmod(two / "directory" / "nested", 0)
    outcome = run("diff", "latest", "--against", two, "--json", code=3)
    assert outcome.json["errors"]
    os.chmod(two / "directory" / "nested", 0o700)


def test_usage(run, two) -> None:
    run("diff", "latest", code=2)
    run("diff", "latest", "latest", "latest", code=2)
    run("diff", "latest", "latest", "--against", two, code=2)
    run("diff", "latest", "latest", "--read-data", code=2)
    run("diff", "latest:/nowhere", "latest", code=2)
    run("diff", "latest", "--against", "/nowhere", code=2)
