"""The published vectors hold for the kernel, and for the reference they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reference_chunker import Reference
from vectors.make_chunking import input_bytes, secret

from packstone.chunking.chunker import Chunker, ChunkerParams

VECTORS = Path(__file__).resolve().parents[2] / "vectors" / "chunking.json"
CASES: list[dict[str, Any]] = json.loads(VECTORS.read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_kernel(case: dict[str, Any], path: str) -> None:
    run = input_bytes(case["input"])
    chunker = Chunker(ChunkerParams(case["average"], bytes.fromhex(case["secret"])), path)
    ends = chunker.cut(run, 0, len(run), True)
    assert ends == case["ends"]
    keys = chunker.keys(run, [0, *ends], 0, len(run))
    assert [f"{key:016x}" for key in keys] == case["keys"]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case["input"]["size"] <= 150_000], ids=lambda c: c["name"]
)
def test_reference(case: dict[str, Any]) -> None:
    run = input_bytes(case["input"])
    assert case["secret"] == secret(case["family"]).hex()
    reference = Reference(case["average"], bytes.fromhex(case["secret"]))
    assert reference.ends(run) == case["ends"]
    keys = [reference.key(run, position) for position in [0, *case["ends"]]]
    assert [f"{key:016x}" for key in keys] == case["keys"]
