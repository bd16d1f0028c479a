"""`packstone tag`, `packstone rewrite`, and what `stats` says of single snapshots."""

from __future__ import annotations

import pytest


@pytest.fixture
def saved(run, store, source):
    run("snapshot", source, "--host", "crm-1", "--tag", "nightly")
    return source


def only(run):
    (row,) = run("snapshots", "--json").json
    return row


def test_tag(run, saved) -> None:
    first = only(run)
    document = run("tag", "latest", "--add", "audit", "--remove", "nightly", "--json").json
    (changed,) = document["changed"]
    assert changed == {"old_id": first["id"], "id": only(run)["id"], "tags": ["audit"]}
    assert only(run)["original_id"] == first["id"]
    assert only(run)["time"] == first["time"]
    assert "audit" in run("tag", "--host", "crm-1", "--set", "audit", "--set", "q4").text
    assert only(run)["tags"] == ["audit", "q4"]
    run("tag", "latest", "--set", "")
    assert only(run)["tags"] == []
    assert run("tag", "latest", "--remove", "x", "--json").json == {"changed": [], "unchanged": 1}
    for words in (["latest"], ["--add", "x"], ["latest", "--add", "x", "--set", "y"],
                  ["nothing", "--add", "x"]):  # fmt: skip
        run("tag", *words, code=2)


def test_rewrite(run, saved) -> None:
    first = only(run)
    dry = run("rewrite", "latest", "--exclude", "*.sql", "--dry-run", "--json").json
    assert dry["rewritten"] == [
        {"old_id": first["id"], "id": None, "files_dropped": 1, "bytes_dropped": 40 * 20_000}
    ]
    assert only(run) == first
    done = run(
        "rewrite", "latest", "--exclude", "*.sql", "--exclude", "hard link", "--forget", "--json"
    ).json
    assert done["forgotten"] and done["rewritten"][0]["id"] == only(run)["id"]
    assert only(run)["original_id"] == first["id"]
    assert only(run)["files"] == first["files"] - 2
    names = run("find", "*.sql", "hard link", "--json").json
    assert names == []
    assert "1 hold nothing" in run("rewrite", "latest", "--exclude", "*.sql").text
    outcome = run("rewrite", "latest", "--exclude", saved.name, "--forget")
    assert "nothing would stay" in outcome.messages
    assert only(run)["id"] == done["rewritten"][0]["id"]
    run("rewrite", "latest", code=2)
    run("rewrite", "--exclude", "x", code=2)


def test_stats_of_snapshots(run, saved) -> None:
    (saved / "more").write_bytes(b"\1\2" * 40_000)
    run("snapshot", saved, "--host", "crm-1")
    whole = run("stats", "--json").json
    assert whole["snapshots"] == 2 and "per_snapshot" not in whole
    rows = run("stats", "latest~1", "latest", "--json").json["per_snapshot"]
    assert rows[0]["bytes_new"] > rows[1]["bytes_new"] >= 80_000
    assert rows[1]["bytes_unique"] >= 80_000 > rows[0]["bytes_unique"]
    assert all(row["bytes_freed"] > 0 for row in rows)
    assert "frees" in run("stats", "latest").text
    growth = run("stats", "--growth", "--json").json
    assert [row["id"] for row in growth] == [row["id"] for row in run("snapshots", "--json").json]
    assert growth[0]["bytes_stored"] < growth[1]["bytes_stored"] <= whole["bytes_packs"]
    assert "###" in run("stats", "--growth").text
    run("stats", "latest", "--growth", code=2)
    run("stats", "nothing", code=2)


def test_growth_as_a_picture(run, saved) -> None:
    pytest.importorskip("matplotlib")
    run("stats", "--growth", "--png", "growth.png")
    assert (run.directory / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_snapshots_in_groups(run, saved) -> None:
    run("snapshot", saved, "--host", "crm-1")
    run("snapshot", saved / "directory", "--host", "crm-1")
    run("snapshot", saved, "--host", "crm-2", "--tag", "nightly")
    newest = run("snapshots", "--latest", "1", "--json").json
    everything = run("snapshots", "--json").json
    assert newest == everything[1:]
    groups = run("snapshots", "--group-by", "host", "--json").json
    assert [(each["host"], each["paths"], len(each["snapshots"])) for each in groups] == [
        ("crm-1", None, 3),
        ("crm-2", None, 1),
    ]
    (group,) = run("snapshots", "-g", "host", "--latest", "2", "--host", "crm-1", "--json").json
    assert group["snapshots"] == everything[1:3]
    text = run("snapshots", "--group-by", "host,paths").text
    assert f"host crm-2, paths {saved}" in text
    run("snapshots", "--group-by", "colour", code=2)
    run("snapshots", "--latest", "0", code=2)
