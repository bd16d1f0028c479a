"""`packstone snapshot`: files, pipes, commands."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

KEYS = {
    "snapshot_id",
    "parent_id",
    "time",
    "files_new",
    "files_changed",
    "files_unmodified",
    "dirs",
    "errors",
    "bytes_total",
    "bytes_read",
    "bytes_added",
    "bytes_stored",
    "chunks_total",
    "chunks_new",
    "chunks_delta",
    "seconds",
}


def names(run, place: str = "latest") -> list[str]:
    """Return the last part of every path in a snapshot."""
    paths = run("ls", "-R", "-0", place).out.split(b"\0")[:-1]
    return sorted(os.fsdecode(os.path.basename(path)) for path in paths)


def test_for_people(run, store, source) -> None:
    text = run("snapshot", source).text
    assert text.startswith("snapshot ")
    assert "new" in text
    assert "parent" in run("snapshot", "-v", source).text
    assert run("-q", "snapshot", source).out == b""


def test_json_keys(run, store, source) -> None:
    first = run("snapshot", source, "--json").json
    assert first.keys() >= KEYS
    assert len(first["snapshot_id"]) == 64
    assert first["parent_id"] is None
    assert first["time"].endswith("Z")
    assert first["errors"] == []
    assert first["files_new"] > 0
    assert first["files_changed"] == first["files_unmodified"] == first["chunks_delta"] == 0
    assert first["bytes_total"] >= 40 * 20_000
    # what is new holds the directories too
    assert 0 < first["bytes_stored"] < first["bytes_added"] < first["bytes_read"] + 20_000
    assert 0 < first["chunks_new"] <= first["chunks_total"]

    second = run("snapshot", source, "--json", "--read-all").json
    assert second["parent_id"] == first["snapshot_id"]
    assert second["files_new"] == second["files_changed"] == 0
    assert second["files_unmodified"] == first["files_new"]
    assert second["chunks_new"] == 0
    assert second["bytes_read"] >= 40 * 20_000
    assert second["bytes_total"] == first["bytes_total"]


def test_unchanged_files_are_not_read(run, store, source) -> None:
    for path in (source, *source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            os.utime(path, ns=(10**18, 10**18))
    # a change time within two seconds of the snapshot's start is never trusted
    run("snapshot", source, prefix=["sh", "-c", 'sleep 2.1; exec "$@"', "sh"])
    second = run("snapshot", source, "--json").json
    assert second["bytes_read"] == 0
    assert second["files_changed"] == 0

    source.joinpath("dump.sql").write_text("changed")
    third = run("snapshot", source, "--json").json
    assert third["files_changed"] in (1, 2)  # the file has two names
    assert third["bytes_read"] == len("changed")


def test_labels(run, store, source) -> None:
    options = ["--tag", "nightly", "--tag", "ä b", "--host", "crm-1"]
    run("snapshot", source, *options, "--time", "2026-11-22T14:30:00Z")
    (row,) = run("snapshots", "--json").json
    assert row["tags"] == ["nightly", "ä b"]
    assert row["host"] == "crm-1"
    assert row["time"] == "2026-11-22T14:30:00.000000000Z"
    assert row["paths"] == [str(source)]


def test_excludes(run, store, make_tree) -> None:
    cache = {"CACHEDIR.TAG": "Signature: 8a477f597d28d172789f06886806bc55\n", "cached": "x"}
    root = make_tree(
        {
            "keep.txt": "x",
            "drop.log": "x",
            "logs": {"keep.log": "x"},
            "cache": cache,
            "skipped": {".nobackup": "", "content": "x"},
            "large": "x" * 3000,
            "from file": "x",
        }
    )
    run.directory.joinpath("patterns").write_text("# comment\n\nfrom file\n")
    run(
        "snapshot",
        root,
        *("--exclude", "*.log", "--exclude", "!keep.log", "--exclude-from", "patterns"),
        *("--exclude-caches", "--exclude-if-present", ".nobackup"),
        *("--exclude-larger-than", "2KiB", "--one-file-system"),
    )
    found = names(run, f"latest:{root}")
    assert found == sorted(
        ["keep.txt", "logs", "keep.log", "cache", "CACHEDIR.TAG", "skipped", ".nobackup"]
    )


def test_a_missing_file_of_patterns(run, store, source) -> None:
    assert "nope" in run("snapshot", source, "--exclude-from", "nope", code=2).messages
    assert run("snapshots", "--json").json == []


def test_dry_run_stores_nothing(run, store, source) -> None:
    before = sorted(path for path in store.rglob("*") if "index" not in path.parts)
    outcome = run("snapshot", "--dry-run", source, "--json").json
    assert outcome["snapshot_id"] is None
    assert outcome["files_new"] > 0
    assert "nothing stored" in run("snapshot", "-n", source).text
    assert sorted(path for path in store.rglob("*") if "index" not in path.parts) == before
    assert run("snapshots", "--json").json == []


def test_skip_if_unchanged(run, store, source) -> None:
    def taken() -> dict:
        return run("snapshot", source, "--skip-if-unchanged", "--json").json

    # The directories above the source belong to the snapshot, and somebody may write to /tmp.
    outcomes = [taken()]
    while outcomes[-1]["snapshot_id"] and len(outcomes) < 8:
        outcomes.append(taken())
    *stored, skipped = outcomes
    assert skipped["snapshot_id"] is None
    assert skipped["parent_id"] == stored[-1]["snapshot_id"]
    assert skipped["files_unmodified"] > 0
    source.joinpath("new").touch()
    assert taken()["snapshot_id"]
    assert len(run("snapshots", "--json").json) == len(stored) + 1


def test_a_parent_by_name(run, store, source) -> None:
    first = run("snapshot", source, "--json").json["snapshot_id"]
    run("snapshot", source)
    chosen = run("snapshot", source, "--json", "--parent", first[:12]).json
    assert chosen["parent_id"] == first


def test_a_pipe(run, store) -> None:
    data = os.urandom(300_000) + b"\0" * 100_000
    outcome = run("snapshot", "--stdin", "crm.sql", "--tag", "t", "--json", stdin=data).json
    assert outcome["bytes_total"] == len(data)
    (row,) = run("snapshots", "--json").json
    assert row["name"] == "crm.sql"
    run("restore", "latest", "--target", "out")
    (file,) = [path for path in run.directory.joinpath("out").rglob("*") if path.is_file()]
    assert (file.name, file.read_bytes()) == ("crm.sql", data)

    again = run("snapshot", "--stdin", "crm.sql", "--json", stdin=data).json
    assert again["parent_id"] == outcome["snapshot_id"]
    assert again["chunks_new"] == 0


def test_an_empty_pipe(run, store) -> None:
    run("snapshot", "--stdin", b"caf\xe9")
    assert run("ls", "-0", "-R", "latest").out == b"/caf\xe9\0"


def test_a_command(run, store) -> None:
    words = ["snapshot", "--json", "--from-command", "out.txt", "--", "sh", "-c", "echo -n $0 $1"]
    run(*words, "--json", b"\xff")
    run("restore", "latest", "--target", "all")
    (file,) = [path for path in run.directory.joinpath("all").rglob("*") if path.is_file()]
    assert file.read_bytes() == b"--json \xff"


@pytest.mark.parametrize(
    "command",
    [
        ["sh", "-c", "echo some output; exit 3"],
        ["sh", "-c", "echo x; kill -9 $$"],
        ["no-such-command"],
    ],
    ids=["exit 3", "killed", "missing"],
)
def test_a_command_that_fails_means_no_snapshot(run, store, command: list[str]) -> None:
    error = run("snapshot", "--json", "--from-command", "n", "--", *command, code=1).json
    assert error["error"]["kind"] == "command"
    assert run("snapshots", "--json").json == []
    run("check")


def test_what_excludes_each_other(run, store, source) -> None:
    run("snapshot", "--stdin", "n", source, code=2)
    run("snapshot", "--stdin", "n", "--from-command", "n", "--", "true", code=2)
    run("snapshot", "--from-command", "n", code=2)
    run("snapshot", "--stdin", "n", "--read-all", code=2)
    run("snapshot", "--stdin", "", code=2)
    run("snapshot", "", code=2)
    assert run("snapshots", "--json").json == []


def test_a_pipe_takes_what_files_take(run, store) -> None:
    options = ["--stdin", "n", "--level", "9", "--json"]
    assert run("snapshot", *options, "--dry-run", stdin=b"x").json["snapshot_id"] is None
    first = run("snapshot", *options, stdin=b"x").json["snapshot_id"]
    run("snapshot", *options, "--host", "other", stdin=b"x")
    again = run("snapshot", *options, "--parent", first, stdin=b"x").json
    assert again["parent_id"] == first
    assert again["files_unmodified"] == 1


def test_a_pipe_that_pauses_has_not_ended(run, store) -> None:
    """Non-blocking mode belongs to the open pipe, so whoever wrote to it may have set it."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    process = subprocess.Popen(
        run.argv(["snapshot", "--stdin", "n", "--json"]),
        stdin=read_end,
        stdout=subprocess.PIPE,
        env=run.environment,
        cwd=run.directory,
    )
    os.close(read_end)
    with open(write_end, "wb", buffering=0) as pipe:
        pipe.write(b"first ")
        time.sleep(1)
        pipe.write(b"second")
    out, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert json.loads(out)["bytes_total"] == len(b"first second")


@pytest.mark.parametrize("name", ["a/b", ".", "..", "/", "n" * 256])
def test_a_piped_name_must_be_one(run, store, name: str) -> None:
    assert run("snapshot", "--stdin", name, stdin=b"x", code=2).err
    assert run("snapshots", "--json").json == []


def test_json_progress_goes_to_stderr(run, store, make_tree) -> None:
    root = make_tree({f"{i}": os.urandom(200_000) for i in range(50)})
    outcome = run("snapshot", root, "--json")
    assert outcome.json["files_new"] == 50
    for line in outcome.messages.splitlines():
        assert json.loads(line)["type"] == "progress"
    assert run("snapshot", root, "--json", "-q").err == b""
    assert run("snapshot", root).err == b""


def test_threads(run, store, source) -> None:
    ids = set()
    for threads in ("1", "7"):
        run("--threads", threads, "snapshot", source, "--read-all")
        # The source alone: somebody always writes beside it, which changes the root's id.
        rows = run("ls", "-R", f"latest:{source}", "--json").json
        ids.add(str([sorted(row.items(), key=str) for row in rows]))
    assert len(ids) == 1
