"""`packstone repair`: nothing to do, something saved, something lost, and words for each."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for at in places or (len(data) // 2,):
        data[at] ^= 0x40
    path.write_bytes(data)


def largest(store: Path) -> Path:
    return max(store.glob("packs/*/*"), key=lambda path: path.stat().st_size)


@pytest.fixture
def saved(run, store, make_tree) -> Path:
    """Two snapshots; the data pack is the largest file."""
    make_tree({f"file {at}": os.urandom(60_000) for at in range(6)} | {"small": "x"}, "source")
    run("snapshot", "source")
    run("snapshot", "source", "--tag", "second")
    return store


def listing(store: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in store.rglob("*")
        if path.is_file() and path.name != "lock.mdb"
    }


def test_healthy(run, saved) -> None:
    before = listing(saved)
    for words in (["index"], ["packs"], ["snapshots"], ["snapshots", "--forget"]):
        outcome = run("repair", *words)
        assert "nothing" in outcome.text and outcome.messages == ""
        assert run("repair", *words, "-q").out == b""
        assert run("repair", *words, "--json").json["warnings"] == []
    assert listing(saved) == before


def test_index(run, saved) -> None:
    document = run("repair", "index", "--json").json
    assert document["packs_checked"] == len(list(saved.glob("packs/*/*")))
    assert document["objects"] > 6 and not document["rebuilt"]
    assert run("repair", "index", "--force", "--json").json["rebuilt"]
    assert "made anew" in run("repair", "index", "--force").text
    data = largest(saved).read_bytes()
    flip(
        largest(saved),
        70 + int.from_bytes(data[64:72], "little"),
        70 + int.from_bytes(data[-56:-48], "little"),
    )
    outcome = run("repair", "index", "--force", code=14)
    assert largest(saved).name[:12] in outcome.messages
    assert "packstone repair packs" in outcome.messages


def test_packs_and_snapshots(run, saved) -> None:
    """The way back after damage, as check and prune tell it."""
    pack = largest(saved)
    flip(pack)
    checked = run("check", "--read-data", code=14)
    assert "packstone repair packs" in checked.messages
    text = run("repair", "packs", code=14).text
    assert f"quarantine/packs/{pack.name}" in text and "1 lost" in text
    assert (saved / "quarantine" / "packs" / pack.name).exists() and not pack.exists()
    (path,) = {line.strip() for line in text.splitlines() if line.strip().startswith("/")}
    name = Path(path).name
    assert name.startswith("file ")
    document = run("repair", "packs", "--json", code=14).json
    assert document["damaged"] == []
    ids = {row["id"] for row in run("snapshots", "--json").json}
    assert {each for loss in document["losses"] for each in loss["snapshots"]} == ids
    assert {each for loss in document["losses"] for each in loss["paths"]} == {path}

    text = run("repair", "snapshots", "--dry-run", code=14).text
    assert path in text
    assert len(run("snapshots", "--json").json) == 2
    text = run("repair", "snapshots", code=14).text
    assert "--forget moves it away" in text and path in text
    assert len(run("snapshots", "--json").json) == 4
    run("prune", code=13)
    document = run("repair", "snapshots", "--forget", "--json", code=14).json
    assert {row["original_id"] for row in document["repaired"]} == ids
    for row in document["repaired"]:
        assert row["losses"][0]["path"] == path
        assert row["quarantine"] == f"quarantine/snapshots/{row['original_id']}"
    rows = run("snapshots", "--json").json
    assert {row["original_id"] for row in rows} == ids
    run("repair", "snapshots")
    run("prune")
    assert "no errors" in run("check", "--read-data").text
    outcome = run("restore", "latest", "--target", "out", code=3)
    assert f"{path}: its content was lost in the repository" in outcome.messages
    run("snapshot", "source")
    run("restore", "latest", "--target", "again")
    source = Path(path).parent
    again = Path(f"{run.directory}/again{source}")
    assert (again / name).read_bytes() == (source / name).read_bytes()


def test_everything_saved(run, saved) -> None:
    """Damage where no file is: exit code 0, and what was done is said."""
    pack = largest(saved)
    flip(pack, 5)
    document = run("repair", "packs", "--json").json
    (found,) = document["damaged"]
    assert (found["pack"], found["outcome"], found["lost"]) == (pack.name, "quarantined", 0)
    assert found["saved"] == found["objects"] == document["objects_saved"] > 6
    assert document["losses"] == []
    run("check", "--read-data")


def test_from_a_copy(run, saved) -> None:
    shutil.copytree(saved, run.directory / "copy")
    before = {path: path.read_bytes() for path in saved.glob("packs/*/*")}
    flip(largest(saved))
    text = run("repair", "packs", "--from", "copy", largest(saved).name[:6]).text
    assert "a whole copy took its place" in text and "1 whole pack" in text
    assert {path: path.read_bytes() for path in saved.glob("packs/*/*")} == before
    run("check", "--read-data")
    run("repair", "packs", "--from", "nowhere", code=10)
    run("repair", "packs", "--from", saved, code=2)
    run("repair", "packs", "no-such-pack", code=2)


def test_encrypted(run, make_tree) -> None:
    """The other one's passphrase comes from PACKSTONE_FROM_PASSPHRASE, else it is the same."""
    make_tree({"file": os.urandom(90_000)}, "source")
    environment = {"PACKSTONE_PASSPHRASE": "one of some words"}
    store = run.directory / "sealed"
    run("init", store, "--kdf-memory", "8MiB", "--kdf-time", "1", env=environment)
    run("-r", store, "snapshot", "source", env=environment)
    shutil.copytree(store, run.directory / "copy")
    for extra in ({}, {"PACKSTONE_FROM_PASSPHRASE": "one of some words"}):
        flip(largest(store))
        words = ("-r", store, "repair", "packs", "--from", "copy", "--json")
        (found,) = run(*words, env=environment | extra).json["damaged"]
        assert found["outcome"] == "put back"
    wrong = {"PACKSTONE_FROM_PASSPHRASE": "another one"}
    run("-r", store, "repair", "packs", "--from", "copy", env=environment | wrong, code=12)


def test_hostile_names_are_escaped(run, store, make_tree) -> None:
    make_tree({b"esc\x1b[31m\nline": os.urandom(60_000)}, "source")
    run("snapshot", "source")
    flip(largest(store))
    for words in (["packs"], ["snapshots"]):
        text = run("repair", *words, code=14).text
        assert "\x1b" not in text and "esc\\x1b[31m\\nline" in text
    path = run("repair", "snapshots", "--json", code=14).json["repaired"][0]["losses"][0]["path"]
    assert path.endswith("/esc\x1b[31m\nline")


def test_help(run) -> None:
    for words in ([], ["index"], ["packs"], ["snapshots"]):
        assert "repair" in run("repair", *words, "--help").text
