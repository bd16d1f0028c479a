"""`packstone restore`."""

from __future__ import annotations

import os
from pathlib import Path

import compare
import pytest

KEYS = {"files_restored", "files_skipped", "bytes_written", "errors", "seconds"}


@pytest.fixture
def saved(run, store, source) -> Path:
    run("snapshot", source)
    return source


def test_everything_below_the_target(run, saved) -> None:
    outcome = run("restore", "latest", "--target", "out", "--json").json
    assert outcome.keys() >= KEYS
    assert outcome["errors"] == []
    assert outcome["files_restored"] > 0
    assert outcome["bytes_written"] >= 40 * 20_000
    restored = run.directory / "out" / saved.relative_to("/")
    assert compare.differences(saved, restored) == []


def test_a_path_directly_into_the_target(run, saved) -> None:
    text = run("restore", f"latest:{saved}", "--target", "out").text
    assert "restored to out" in text
    assert compare.differences(saved, run.directory / "out", top=False) == []
    run("restore", f"latest:{saved}/directory/nested", "-t", "deep")
    assert [path.name for path in (run.directory / "deep").iterdir()] == ["deep"]


def test_one_file(run, saved) -> None:
    run("restore", f"latest:{saved}/dump.sql", "--target", "out")
    (file,) = run.directory.joinpath("out").iterdir()
    assert file.read_bytes() == saved.joinpath("dump.sql").read_bytes()


def test_options_that_change_nothing_here(run, saved) -> None:
    for number, option in enumerate(["--sparse", "--no-sparse", "--no-owner"]):
        target = run.directory / str(number)
        run("restore", f"latest:{saved}", "--target", target, option)
        assert compare.differences(saved, target, top=False) == []


def test_include_and_exclude(run, saved) -> None:
    place = f"latest:{saved}"
    run("restore", place, "--target", "in", "--include", "*.sql", "--include", "deep")
    files = {path.name for path in run.directory.joinpath("in").rglob("*") if path.is_file()}
    assert files == {"dump.sql", "deep"}
    run("restore", place, "--target", "ex", "--exclude", "directory", "--exclude", "*\n*")
    found = {os.fsencode(path.name) for path in run.directory.joinpath("ex").rglob("*")}
    assert b"small" not in found
    assert b"new\nline" not in found
    assert {b"dump.sql", b"latin-\xe9"} <= found


def test_dry_run_writes_nothing(run, saved) -> None:
    outcome = run("restore", "latest", "--target", "out", "--dry-run", "--json").json
    assert outcome["files_restored"] > 0
    assert not any(run.directory.glob("out/*"))


def test_a_target_that_is_not_empty(run, saved, make_tree) -> None:
    target = make_tree({"mine": "precious"}, "out")
    outcome = run("restore", f"latest:{saved}", "--target", target, code=2)
    assert "--overwrite" in outcome.messages
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_overwrite(run, saved, make_tree) -> None:
    place = f"latest:{saved}"
    target = make_tree({"mine": "precious", "empty": "not", "link": "file"}, "out")
    never = run("restore", place, "-t", target, "--overwrite", "never", "--json").json
    assert never["files_skipped"] == 2
    assert target.joinpath("empty").read_text() == "not"

    changed = run("restore", place, "-t", target, "--overwrite", "changed", "--json").json
    assert changed["files_skipped"] > 0
    assert target.joinpath("mine").read_text() == "precious"
    target.joinpath("mine").unlink()
    assert compare.differences(saved, target, top=False) == []

    target.joinpath("dump.sql").write_text("scribble")
    always = run("restore", place, "-t", target, "--overwrite", "always", "--json").json
    assert always["files_skipped"] == 0
    assert compare.differences(saved, target, top=False) == []
    run("restore", place, "-t", target, "--overwrite", "perhaps", code=2)


def test_a_target_that_cannot_be_written(run, saved, make_tree) -> None:
    make_tree({"file": "x"}, "place")
    outcome = run("restore", "latest", "--target", "place/file", code=None)
    assert outcome.code in (1, 3)
    outcome = run("restore", "latest", "--target", "place/file/below", code=None)
    assert outcome.code in (1, 3)
    assert run.directory.joinpath("place", "file").read_text() == "x"
    if Path("/proc/self").exists():
        assert run("restore", "latest", "--target", "/proc/x", code=None).code in (1, 3)


def test_a_path_that_is_not_in_the_snapshot(run, saved) -> None:
    outcome = run("restore", "latest:/nowhere", "--target", "out", code=2)
    assert "nowhere" in outcome.messages


def test_restore_to_where_or_in_place(run, saved) -> None:
    run("restore", "latest", code=2)
    run("restore", "latest", "--in-place", "--target", "out", code=2)
    run("restore", "latest", "--target", "out", "--read-data", code=2)
    run("restore", "latest", "--target", "out", "--delete", code=2)


def test_in_place(run, saved) -> None:
    saved.joinpath("dump.sql").write_text("scribble")
    saved.joinpath("empty").unlink()
    outcome = run("restore", "latest", "--in-place", code=3)
    assert "dump.sql" in outcome.messages and "exists" in outcome.messages
    assert saved.joinpath("empty").exists()
    saved.joinpath("extra").write_text("x")
    text = run("restore", "latest", "--in-place", "--overwrite", "changed", "--delete").text
    assert "restored in place" in text and "1 deleted" in text
    assert saved.joinpath("dump.sql").stat().st_size == 40 * 20_000
    assert not saved.joinpath("extra").exists()


def test_a_dry_run_lists_what_would_be_done(run, saved, make_tree) -> None:
    target = make_tree({"ex\ntra": "123", "empty": "not", "directory": {"small": "small\n"}}, "out")
    words = ("restore", f"latest:{saved}", "-t", target, "--overwrite", "changed", "--delete", "-n")
    lines = run(*words).text.splitlines()
    assert any(line.split() == ["delete", "3", "B", f"{target}/ex\\ntra"] for line in lines)
    assert any(line.split() == ["change", f"{target}/empty"] for line in lines)
    assert any(line.split()[0] == "create" and line.endswith("/dump.sql") for line in lines)
    assert lines[-1].startswith("dry run:")
    rows = run(*words, "--json").json["changes"]
    assert {"action": "delete", "path": f"{target}/ex\ntra", "bytes": 3} in rows
    assert {row["action"] for row in rows} == {"create", "change", "delete", "attributes"}
    run(*[word for word in words if word != "-n"])
    assert compare.differences(saved, target, top=False) == []
    rows = run(*words, "-v", "--json").json
    assert {row["action"] for row in rows["changes"]} == {"keep"}
    assert rows["files_restored"] == rows["files_deleted"] == rows["bytes_written"] == 0


def test_verify(run, saved) -> None:
    outcome = run("restore", f"latest:{saved}", "-t", "out", "--verify", "--json").json
    assert outcome["files_verified"] > 5
    assert "read back" in run("restore", f"latest:{saved}", "-t", "out2", "--verify").text
