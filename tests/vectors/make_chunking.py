"""Writes chunking.json: inputs by rule, and the chunk ends and cut-point keys the scheme gives.

Run: python tests/vectors/make_chunking.py [--check]. Everything comes from the reference in
tests/reference_chunker.py, nothing from the kernel.

An input is `size` bytes, made from its rule:
- `blake3`: the extended output of BLAKE3 of the UTF-8 bytes of `seed`
- `letters`: those bytes again, each byte b replaced by alphabet[b mod length of alphabet]
- `repeat`: the bytes `hex`, over and over
- `records`: zeros, but for the first `varying` of each `record` bytes, which are those of BLAKE3
Secrets are the 64-byte derived key of BLAKE3 with context "packstone v1 cutting" and the material
given, in hexadecimal.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from blake3 import blake3

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reference_chunker import Reference

KIB = 1024
CONTEXT = "packstone v1 cutting"
PLAIN_FAMILY = blake3(b"", derive_key_context="packstone v1 plain family").digest()
TARGET = Path(__file__).with_name("chunking.json")

Rule = dict[str, Any]


def input_bytes(rule: Rule) -> bytes:
    """Return the bytes that a rule describes."""
    size = rule["size"]
    if rule["kind"] == "repeat":
        text = bytes.fromhex(rule["hex"])
        return (text * (size // len(text) + 1))[:size]
    stream = blake3(rule["seed"].encode()).digest(length=size)
    if rule["kind"] == "blake3":
        return stream
    if rule["kind"] == "records":
        record, varying = rule["record"], rule["varying"]
        return bytes(b if at % record < varying else 0 for at, b in enumerate(stream))
    assert rule["kind"] == "letters"
    alphabet = rule["alphabet"].encode()
    return stream.translate(bytes(alphabet[b % len(alphabet)] for b in range(256)))


def secret(material_hex: str) -> bytes:
    """Return the cutting secret of a family secret."""
    material = bytes.fromhex(material_hex)
    return blake3(material, derive_key_context=CONTEXT).digest(length=64)


def case(name: str, average: int, rule: Rule, family: bytes = PLAIN_FAMILY) -> dict[str, Any]:
    """Return one case with its expected results."""
    key = secret(family.hex())
    run = input_bytes(rule)
    reference = Reference(average, key)
    ends = reference.ends(run)
    keys = [reference.key(run, position) for position in [0, *ends]]
    return {
        "name": name,
        "average": average,
        "family": family.hex(),
        "secret": key.hex(),
        "input": rule,
        "ends": ends,
        "keys": [f"{key:016x}" for key in keys],
    }


def blake3_rule(seed: str, size: int) -> Rule:
    return {"kind": "blake3", "seed": seed, "size": size}


def letters(seed: str, alphabet: str, size: int) -> Rule:
    return {"kind": "letters", "seed": seed, "alphabet": alphabet, "size": size}


def records(seed: str, record: int, varying: int, size: int) -> Rule:
    return {"kind": "records", "seed": seed, "record": record, "varying": varying, "size": size}


def repeat(text: bytes, size: int) -> Rule:
    return {"kind": "repeat", "hex": text.hex(), "size": size}


def cases() -> list[dict[str, Any]]:
    """Return all cases."""
    other = bytes(range(32))
    phrase = b"The quick brown fox jumps over the lazy dog. "
    return [
        case("empty", 4 * KIB, blake3_rule("a", 0)),
        case("one byte", 4 * KIB, blake3_rule("a", 1)),
        case("shorter than a key's window", 4 * KIB, blake3_rule("a", 50)),
        case("one less than the minimum", 4 * KIB, blake3_rule("a", 2 * KIB - 1)),
        case("random, 4 KiB", 4 * KIB, blake3_rule("b", 150_000)),
        case("random, 4 KiB, another secret", 4 * KIB, blake3_rule("b", 150_000), other),
        case("random, 16 KiB", 16 * KIB, blake3_rule("c", 300_000)),
        case("random, 32 KiB", 32 * KIB, blake3_rule("c", 600_000)),
        case("random, 128 KiB", 128 * KIB, blake3_rule("d", 1_500_000)),
        case("random, 8 MiB", 8192 * KIB, blake3_rule("e", 100_000)),
        case("decimal lines, 4 KiB", 4 * KIB, letters("f", "0123456789\n", 150_000)),
        case("two letters, 32 KiB", 32 * KIB, letters("g", "01", 500_000), other),
        case("records, second look", 4 * KIB, records("h", 16, 8, 150_000)),
        case("records of 64, second look", 32 * KIB, records("i", 64, 24, 600_000), other),
        case("zeros", 4 * KIB, repeat(b"\0", 50_000)),
        case("a phrase", 4 * KIB, repeat(phrase, 50_000)),
        case("a phrase, another secret", 32 * KIB, repeat(phrase, 300_000), other),
    ]


def main(arguments: list[str]) -> None:
    """Write the file, or with --check fail if it would change."""
    text = json.dumps({"scheme": "filter-sip-1", "cases": cases()}, indent=1) + "\n"
    if "--check" in arguments:
        if TARGET.read_text() != text:
            sys.exit(f"{TARGET.name} is not what the reference gives")
    else:
        TARGET.write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
