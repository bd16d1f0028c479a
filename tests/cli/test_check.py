"""`packstone check`: a healthy repository, and every kind of file damaged or missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture
def saved(run, store, source) -> Path:
    run("snapshot", source)
    return store


def flip(path: Path, offset: int = -1) -> None:
    """Change one byte of a file, the middle one unless told."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset < 0 else offset] ^= 0x40
    path.chmod(0o600)
    path.write_bytes(data)


def packs(store: Path) -> list[Path]:
    return sorted(store.glob("packs/*/*"))


def test_healthy(run, saved) -> None:
    quick = run("check", "--json").json
    assert quick["errors"] == []
    assert quick["packs_checked"] == len(packs(saved)) == 2
    full = run("check", "--read-data", "--json").json
    assert full["errors"] == []
    assert full["bytes_read"] >= sum(path.stat().st_size for path in packs(saved))
    assert "no errors" in run("check").text
    assert run("check", "-q").out == b""


@pytest.mark.parametrize("words", [[], ["--read-data"]], ids=["check", "check --read-data"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_pack(run, saved, number: int, words: list[str]) -> None:
    pack = packs(saved)[number]
    flip(pack)
    outcome = run("check", "--json", *words, code=14).json
    assert outcome["errors"]
    for error in outcome["errors"]:
        assert error.keys() >= {"kind", "message", "pack", "snapshots", "paths"}
    assert pack.name in {error["pack"] for error in outcome["errors"]}
    assert pack.name[:8] in run("check", *words, code=14).text


@pytest.mark.parametrize("number", [0, 1])
def test_a_missing_pack(run, saved, number: int) -> None:
    packs(saved)[number].unlink()
    assert run("check", "--json", code=14).json["errors"]
    # restoring names what is missing; what can be restored is
    outcome = run("restore", "latest", "--target", "out", "--json", code=None)
    assert outcome.code in (3, 13, 14)


def test_damage_names_what_it_hits(run, store, make_tree) -> None:
    hit = make_tree({"hit": os.urandom(300_000), "whole": "x"}, "hit") / "hit"
    for root in (hit.parent, make_tree({"other": "y"}, "other")):
        run("snapshot", root)
    first, _ = [row["id"] for row in run("snapshots", "--json").json]
    flip(max(packs(store), key=lambda path: path.stat().st_size))
    errors = run("check", "--read-data", "--json", code=14).json["errors"]
    assert {name for error in errors for name in error["snapshots"]} == {first}
    assert {path for error in errors for path in error["paths"]} == {str(hit)}
    assert all(isinstance(error["record"], int) for error in errors if error["paths"])
    assert not any(error["transient"] for error in errors)
    text = run("check", "--read-data", code=14).text
    assert str(hit) in text
    assert first[:8] in text


def test_a_damaged_snapshot(run, saved) -> None:
    (file,) = saved.glob("snapshots/*")
    flip(file)
    assert run("check", "--json", code=14).json["errors"]


def test_a_truncated_pack(run, saved) -> None:
    pack = packs(saved)[0]
    os.truncate(pack, pack.stat().st_size - 1)
    assert run("check", "--json", code=14).json["errors"]
    os.truncate(pack, 0)
    assert run("check", "--json", code=14).json["errors"]


def test_parts_of_the_data(run, saved) -> None:
    """Every pack is read by one of the parts; the JSON says how much is verified."""
    total = sum(path.stat().st_size for path in packs(saved))
    parts = [run("check", "--subset", f"{n}/2", "--json").json for n in (1, 2)]
    assert sum(part["packs_checked"] for part in parts) == 2
    assert sum(part["bytes_read"] for part in parts) == total
    verified = parts[1]["verified"]
    assert (verified["packs"], verified["bytes"]) == (2, total)
    assert verified["oldest"].endswith("Z") or "+" in verified["oldest"]
    assert run("check", "--json").json["verified"] is None


@pytest.mark.parametrize(
    "words",
    [["--subset", "5%"], ["--subset", "1KiB"], ["--subset", "1/1"], ["--max-time", "2h"]],
    ids=" ".join,
)
def test_choices_read_data(run, saved, words: list[str]) -> None:
    outcome = run("check", *words)
    assert "no errors" in outcome.text
    assert "verified so far" in outcome.text and "%" in outcome.text
    assert len(list(saved.glob("history/*"))) == 1


def test_one_pack(run, saved) -> None:
    good, bad = packs(saved)
    flip(bad)
    assert run("check", "--pack", good.name[:10], "--json").json["packs_checked"] == 1
    errors = run("check", "--pack", good.name, "--pack", bad.name[:10], "--json", code=14).json[
        "errors"
    ]
    assert {error["pack"] for error in errors if error["pack"]} == {bad.name}
    assert all(error["transient"] is False for error in errors)


@pytest.mark.parametrize(
    "words",
    [
        ["--subset", "0%"],
        ["--subset", "3/2"],
        ["--subset", "x"],
        ["--subset", "0"],
        ["--max-time", "soon"],
        ["--max-time", "0"],
        ["--pack", "nothing"],
        ["--pack", "ffff" * 16],
        ["--pack", "ab", "--subset", "5%"],
        ["--names-only", "--subset", "5%"],
        ["--names-only", "--max-time", "1h"],
        ["--names-only", "--pack", "ab"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense(run, saved, words: list[str]) -> None:
    run("check", *words, code=2)


def test_orphans_are_no_errors(run, saved) -> None:
    assert run("check", "--json").json["orphans"] == 0
    (snapshot,) = saved.glob("snapshots/*")
    snapshot.unlink()
    outcome = run("check", "--json").json
    assert (outcome["orphans"], outcome["errors"]) == (2, [])
    assert "note: " in run("check", "-v").text
    assert "note: " not in run("check").text
