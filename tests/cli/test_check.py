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
