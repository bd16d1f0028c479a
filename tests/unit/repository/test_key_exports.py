"""What was printed is put back byte for byte, and a slip of the pen is found in its line."""

from __future__ import annotations

import base64
from random import Random

import pytest
from contract.storage_suite import MemoryStorage
from unit.repository.slots import OWNER, SECRETS, add, flip, unlock

from packstone.codec.encryption import Sealer
from packstone.codec.envelope import Kind, seal_envelope
from packstone.errors import Damaged, UsageError
from packstone.repository import keyring


@pytest.mark.parametrize("label", ["", "l", "la", "a label", "é" * 25])
def test_an_export_gives_the_same_bytes_back(label: str) -> None:
    """Whatever the length of its last line."""
    storage = MemoryStorage()
    slot_id = add(storage, "passphrase", label=label)
    text = keyring.export_slot(storage, OWNER, slot_id)
    assert slot_id in text and OWNER.hex() in text and text.isascii()
    assert max(map(len, text.splitlines())) <= 84, "or it does not fit a page"
    for form in (
        text, text.lower(), text.replace("\n", "\r\n"), text.replace(" ", ""), f"\n\n  {text}\n",
        "".join(f"   {line}  \n\n" for line in text.splitlines()), text.upper(),
    ):  # fmt: skip
        other = MemoryStorage()
        assert keyring.import_slot(other, OWNER, form) == slot_id
        assert other.files == storage.files
    assert unlock(other, "passphrase") == (SECRETS, slot_id)
    assert keyring.import_slot(storage, OWNER, text) == slot_id, "once more does no harm"


def exported(label: str = "laptop") -> tuple[bytes, list[str]]:
    storage = MemoryStorage()
    slot_id = add(storage, "passphrase", label=label)
    text = keyring.export_slot(storage, OWNER, slot_id)
    lines = [line for line in text.splitlines() if ":" in line]
    return storage.files[f"keys/{slot_id}"], lines


def named(lines: list[str], number: int) -> bool:
    """Return whether reading the lines blames one of them."""
    try:
        keyring.parse_export("\n".join(lines))
    except UsageError as error:
        return f"line {number} " in error.message
    return False


def test_one_wrong_character_in_a_line_is_named() -> None:
    """Whatever it was taken for: typed from paper, or read by a machine."""
    data, lines = exported()
    assert keyring.parse_export("\n".join(lines)) == data
    rng = Random("typing")
    others = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    missed = []
    for number, line in enumerate(lines, 1):
        for at, old in enumerate(line):
            if old in " :":
                continue
            for new in {*rng.sample(others, 6), *"01869 -.", "é"} - {old, old.upper()}:
                if old not in others and new == " ":
                    continue
                changed = line[:at] + new + line[at + 1 :]
                if not named([*lines[: number - 1], changed, *lines[number:]], number):
                    missed.append((number, at, old, new))
    # The very last character may have bits that no byte needs: then the same bytes are read.
    for number, at, _old, new in missed:
        line = lines[-1]
        assert (number, at) == (len(lines), line.index(" / ") - 1)
        text = "\n".join([*lines[:-1], line[:at] + new + line[at + 1 :]])
        assert keyring.parse_export(text) == data, new


def test_every_wrong_character_of_every_place_has_another_check() -> None:
    """The check is short and linear: what it misses in one line it misses in all of them."""
    zeros = keyring._line_check(1, bytes(25))
    for at in range(0, 200, 5):
        for change in range(1, 32):
            wrong = (change << 195 - at).to_bytes(25, "big")
            assert keyring._line_check(1, wrong) != zeros
            if at < 195:  # two neighbours exchanged
                wrong = (change << 195 - at ^ change << 190 - at).to_bytes(25, "big")
                assert keyring._line_check(1, wrong) != zeros


def test_lines_in_another_order_or_missing_are_named() -> None:
    data, lines = exported()
    count = len(lines)
    for number in range(1, count):
        less = lines[: number - 1] + lines[number:]
        assert named(less, number), "the next one stands where it should be"
        assert named([*lines[: number - 1], lines[number - 1], *lines[number - 1 :]], number + 1)
        swapped = list(lines)
        swapped[number - 1], swapped[number] = swapped[number], swapped[number - 1]
        assert named(swapped, number)
        one, two = (line.partition(":") for line in swapped[number - 1 : number + 1])
        swapped[number - 1 : number + 1] = ["".join(two[:2]) + one[2], "".join(one[:2]) + two[2]]
        assert named(swapped, number), "and the numbers are right"
    assert keyring.parse_export("\n".join(lines)) == data
    for wrong in ("", "packstone key slot\n", "some text"):
        with pytest.raises(UsageError, match="no lines"):
            keyring.parse_export(wrong)


def test_the_last_lines_are_missed() -> None:
    """Nothing says how many there should be, but what is there is no slot."""
    _, lines = exported()
    storage = MemoryStorage()
    for count in range(1, len(lines)):
        with pytest.raises(UsageError, match="no use"):
            keyring.import_slot(storage, OWNER, "\n".join(lines[:count]))
    without_colon = [*lines[:-1], lines[-1].replace(":", ".")]
    with pytest.raises(UsageError):
        keyring.import_slot(storage, OWNER, "\n".join(without_colon))
    assert storage.files == {}


def test_an_export_of_another_repository_is_refused() -> None:
    storage = MemoryStorage()
    text = keyring.export_slot(storage, OWNER, add(storage, "passphrase"))
    other = MemoryStorage()
    with pytest.raises(UsageError, match="repository"):
        keyring.import_slot(other, bytes(16), text)
    assert other.files == {}


def test_what_is_no_slot_is_not_imported() -> None:
    """Another small object, exported by the same lines."""
    storage = MemoryStorage()
    data = seal_envelope(Kind.STATE, Sealer(OWNER), bytes(32), b"payload")
    parts = [data[at : at + 25] for at in range(0, len(data), 25)]
    text = "\n".join(
        f"{number}: {base64.b32encode(part).decode().rstrip('=')} / "
        f"{keyring._line_check(number, part)}"
        for number, part in enumerate(parts, 1)
    )
    assert keyring.parse_export(text) == data
    with pytest.raises(UsageError, match="kind"):
        keyring.import_slot(storage, OWNER, text)
    assert storage.files == {}


def test_a_damaged_slot_is_not_exported() -> None:
    """A print-out that cannot be put back is found out too late."""
    storage = MemoryStorage()
    slot_id = add(storage, "passphrase")
    flip(storage, slot_id)
    with pytest.raises(Damaged):
        keyring.export_slot(storage, OWNER, slot_id)


def test_more_lines_than_a_slot_has_are_refused() -> None:
    """Each of them right: numbers of lines have two bytes."""
    part = bytes(25)
    text = base64.b32encode(part).decode()
    lines = [f"{at}: {text} / {keyring._line_check(at, part)}" for at in range(1, 65536)]
    with pytest.raises(UsageError, match="more lines"):
        keyring.parse_export("\n".join([*lines, f"65536: {text} / 00000"]))
