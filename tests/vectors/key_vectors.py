"""Vectors of passphrases, key slots and exports (docs/format.md §11), and their envelopes."""

from __future__ import annotations

import base64
import struct
import unicodedata
import zlib
from collections.abc import Iterator
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, AESGCMSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from vector_line import OTHER, OURS, SALT, Vector, checksum, derive, encode, flipped, vector

FAMILY, SEALING = bytes(range(7, 39)), bytes(range(200, 232))
ANOTHER = bytes(range(50, 82))  # sealing secret, or salt
ZERO = bytes(12)


def padme(size: int) -> int:
    """Return the Padmé size with the logarithms that stand in the page, done in integers."""
    exponent = len(bin(size)) - 3
    bits = len(bin(exponent)) - 3 + 1
    unit = 2 ** (exponent - bits)
    return (size + unit - 1) // unit * unit


def padded(data: bytes) -> bytes:
    whole = struct.pack("<I", len(data)) + data
    return whole.ljust(padme(len(whole)), b"\0")


def envelope(
    kind: int,
    mode: int,
    payload: bytes,
    *,
    owner: bytes = OURS,
    sealing: bytes = SEALING,
    salt: bytes = SALT,
    pad: Any = padded,
    about: bytes | None = None,
    field: bytes | None = None,
    size: int | None = None,
    version: int = 1,
) -> bytes:
    """Build a small object; `field` takes the place of what mode 1 or 2 makes of the payload."""
    made = {0: len(payload), 1: len(pad(payload)) + 16, 2: len(payload) + 32}.get(mode, 0)
    stated = (made if field is None else len(field)) if size is None else size
    head = struct.pack("<8sHBBI16s32s", b"PKSTNOBJ", version, kind, mode, stated, owner, salt)
    if field is None and mode == 1:
        key = derive("packstone v1 object key", sealing + salt)
        field = AESGCM(key).encrypt(ZERO, pad(payload), head if about is None else about)
    elif field is None and mode == 2:
        key = derive("packstone v1 object authentication", sealing)
        field = payload + blake3(head + payload, key=key).digest()
    data = head + (payload if field is None else field)
    return data + checksum(data)


# -- passphrases and key slots --------------------------------------------------------------


def recovery(random: bytes) -> str:
    digits = base64.b32encode(random).decode()
    digits += base64.b32encode(checksum(digits.encode())).decode()[:4]
    return "-".join(digits[at : at + 4] for at in range(0, 36, 4))


RECOVERY = recovery(bytes(range(1, 21)))


def passphrases() -> Iterator[Vector]:
    def line(name: str, given: str | bytes, value: str | bytes) -> Vector:
        raw = [each.encode() if isinstance(each, str) else each for each in (given, value)]
        return vector("passphrase", name, "ok", given=raw[0], value=raw[1])

    yield line("ASCII", "correct horse battery staple", "correct horse battery staple")
    yield line("blanks stay", "  a  b\t\n", "  a  b\t\n")
    yield line("one byte", "x", "x")
    yield vector("passphrase", "64 KiB", "ok", given=b"x", times=65_536)
    yield line("zeros", b"\0\0", b"\0\0")
    for name, text in {
        "o with dieresis, decomposed": "Ko\u0308ln",
        "Angstrom sign": "\u212b",
        "Hangul": "\u1112\u1161\u11ab",
        "two marks in the other order": "q\u0307\u0323",
        "ligature, which NFC keeps": "\ufb01",
        "beyond the first plane": "\U0001d15e\U0001f600",
    }.items():
        yield line(name, text, unicodedata.normalize("NFC", text))
    yield line("o with dieresis, composed", "K\u00f6ln", b"K\xc3\xb6ln")
    yield line("no UTF-8", b"\xff\xfe", b"\xff\xfe")
    yield line("no UTF-8, but for a part to compose", b"Ko\xcc\x88ln\xff", b"Ko\xcc\x88ln\xff")
    yield line("surrogates in UTF-8", b"\xed\xa0\x80", b"\xed\xa0\x80")
    digits = RECOVERY.replace("-", "")
    yield line("recovery key", RECOVERY, digits)
    yield line("recovery key, as digits", digits, digits)
    yield line("recovery key, lower case", RECOVERY.lower(), digits)
    yield line("recovery key, blanks", f" {RECOVERY.replace('-', ' ')} ", digits)
    spaced = RECOVERY.replace("-", "\t", 4).replace("-", "\u00a0\n")
    yield line("recovery key, white space of all kinds", spaced, digits)
    wrong = digits.replace("O", "0").replace("I", "1").replace("B", "8")
    assert wrong != digits
    yield line("recovery key, misread", wrong, digits)
    off = RECOVERY[:-1] + ("A" if RECOVERY[-1] != "A" else "C")
    yield line("recovery key, check digits do not fit", off, off)
    yield line("recovery key, a digit short", digits[:-1], digits[:-1])
    yield line("recovery key, a digit more", digits + "A", digits + "A")
    yield line("recovery key within a text", f"key {digits}", f"key {digits}")
    yield line("32 digits alone", digits[:32], digits[:32])
    yield vector("passphrase", "empty", "usage", given=b"")
    yield vector("passphrase", "64 KiB and one byte", "usage", given=b"x", times=65_537)
    for random in (bytes(20), bytes(range(1, 21)), b"\xff" * 20):
        yield vector("recovery key", f"of {random[:2].hex()}…", "ok",
            random=random, text=recovery(random))  # fmt: skip


TINY = {"time": 1, "memory": 8, "lanes": 1}
DEFAULT = {"time": 3, "memory": 65_536, "lanes": 4}
MADE = 1_700_000_000_123_456_789


def slot(
    passphrase: bytes,
    cost: dict[str, int] = TINY,
    *,
    owner: bytes = OURS,
    bound_owner: bytes | None = None,
    role: str = "passphrase",
    label: str = "",
    change: dict[str, Any] | None = None,
    compute: bool = True,
    without: str = "",
) -> bytes:
    """Return the file of a key slot; `change` spoils its payload after it was made."""
    derived = bytes(64)
    if compute:
        derived = Argon2id(
            salt=ANOTHER, length=64, iterations=cost["time"], lanes=cost["lanes"],
            memory_cost=cost["memory"],
        ).derive(passphrase)  # fmt: skip
    about = b"packstone v1 key slot" + (bound_owner or owner) + encode([MADE, role, label])
    wrapped = AESGCMSIV(derived[:32]).encrypt(ZERO, FAMILY + SEALING, about)
    payload = {"kdf": "argon2id", **cost, "salt": ANOTHER, "check": derived[32:]}
    payload |= {"wrapped": wrapped, "created_ns": MADE, "role": role, "label": label}
    payload |= change or {}
    payload.pop(without, None)
    return envelope(6, 0, encode(payload), owner=owner)


def slots() -> Iterator[Vector]:
    word = b"correct horse"

    def line(name: str, expect: str, data: bytes, given: bytes = word, **more: Any) -> Vector:
        fields: dict[str, Any] = {"name_of_file": checksum(data), "passphrase": given}
        fields |= {"family": FAMILY, "sealing": SEALING}
        return vector("key slot", name, expect, repository_id=OURS, **fields | more,
            data=data)  # fmt: skip

    good = slot(word, label="laptop")
    yield line("least cost", "ok", good)
    yield line("default cost", "ok", slot(word, DEFAULT))
    yield line("two passes, two lanes", "ok", slot(word, {"time": 2, "memory": 40, "lanes": 2}))
    digits = RECOVERY.replace("-", "").encode()
    made = slot(digits, role="recovery", label="on paper")
    yield line("recovery key", "ok", made, RECOVERY.encode())
    yield line("recovery key, lower case", "ok", made, RECOVERY.lower().encode())
    composed = slot("Köln".encode())
    yield line("decomposed text", "ok", composed, b"Ko\xcc\x88ln")
    yield line("no UTF-8", "ok", slot(b"\xff\x80"), b"\xff\x80")
    yield line("label of two alphabets", "ok", slot(word, label="Ключ ключница"))
    yield line("another passphrase", "wrong passphrase", good, b"correct horsf")
    yield line("passphrase and a newline", "wrong passphrase", good, word + b"\n")
    yield line("default cost, another passphrase", "wrong passphrase", slot(word, DEFAULT), b"x")
    for at in (0, 16, 40, 64, 90, len(good) // 2, len(good) - 33, len(good) - 1):
        spoiled = flipped(good, at)
        yield line(f"byte {at} flipped", "damaged", spoiled, name_of_file=checksum(good))
        yield line(f"byte {at} flipped, renamed", "damaged", spoiled)
    yield line("under another name", "damaged", good, name_of_file=bytes(32))
    yield line("cut off", "damaged", good[:-1])
    yield line("another repository's", "damaged", slot(word, owner=OTHER))
    yield line("wrapped for another repository", "damaged", slot(word, bound_owner=OTHER))
    for name, change in {
        "time made up": {"created_ns": MADE + 1},
        "role made up": {"role": "recovery"},
        "label made up": {"label": "mine"},
        "wrapped flipped": {"wrapped": bytes(80)},
        "wrapped of 79 bytes": {"wrapped": bytes(79)},
        "wrapped of 96 bytes": {"wrapped": bytes(96)},
        "check of 31 bytes": {"check": bytes(31)},
        "salt of 16 bytes": {"salt": bytes(16)},
        "salt a text": {"salt": "x" * 32},
        "label bytes": {"label": b"laptop"},
        "negative memory": {"memory": -8},
        "time a text": {"time": "1"},
    }.items():
        yield line(name, "damaged", slot(word, change=change))
    yield line("check made up", "wrong passphrase", slot(word, change={"check": bytes(32)}))
    for key in ("kdf", "time", "memory", "lanes", "salt", "check", "wrapped", "created_ns"):
        yield line(f"without {key}", "damaged", slot(word, without=key))
    for name, cost in {
        "no passes": {"time": 0},
        "33 passes": {"time": 33},
        "4 billion passes": {"time": (1 << 32) - 1},
        "1 GiB and 1 KiB": {"memory": (1 << 20) + 1},
        "16 GiB": {"memory": 16 << 20},
        "4 TiB": {"memory": (1 << 32) - 1},
        "memory of 7 blocks": {"memory": 7},
        "memory for one lane of two": {"memory": 8, "lanes": 2},
        "no lanes": {"lanes": 0},
        "65 lanes": {"lanes": 65, "memory": 65 * 8},
    }.items():
        yield line(name, "unsupported", slot(word, change=TINY | cost, compute=False))
    for kdf in ("argon2i", "scrypt", ""):
        other = slot(word, change={"kdf": kdf}, compute=False)
        yield line(f"key derivation {kdf!r}", "unsupported", other)


def export_text(data: bytes) -> str:
    lines = [f"packstone key slot {checksum(data).hex()}", f"of repository {data[16:32].hex()}"]
    for number, at in enumerate(range(0, len(data), 25), 1):
        part = data[at : at + 25]
        digits = base64.b32encode(part).decode().rstrip("=")
        groups = " ".join(digits[start : start + 5] for start in range(0, len(digits), 5))
        check = zlib.crc32(number.to_bytes(2, "little") + part) & 0xFFFFF
        lines.append(f"{number:3}: {groups} / {check:05x}")
    return "\n".join(lines) + "\n"


def exports() -> Iterator[Vector]:
    data = slot(b"correct horse", label="laptop")
    text = export_text(data)

    def line(name: str, expect: str, typed: str) -> Vector:
        more = {"text": text, "data": data} if expect == "ok" else {}
        return vector("export", name, expect, repository_id=OURS, typed=typed, **more)

    lines = text.splitlines()
    yield line("as printed", "ok", text)
    yield line("carriage returns", "ok", text.replace("\n", "\r\n"))
    yield line("lower case", "ok", "\n".join([*lines[:2], *(each.lower() for each in lines[2:])]))
    yield line("no blanks", "ok", text.replace(" ", "").replace("/", " / "))
    yield line("lines alone", "ok", "\n".join(lines[2:]))
    yield line("a line missing", "usage", "\n".join([*lines[:4], *lines[5:]]))
    yield line("two lines exchanged", "usage", "\n".join([*lines[:3], lines[4], lines[3]]))
    yield line("the last line missing", "usage", "\n".join(lines[:-1]))
    digit = "A" if lines[3][5] != "A" else "B"
    lines[3] = lines[3][:5] + digit + lines[3][6:]
    yield line("a digit wrong", "usage", "\n".join(lines))
    yield line("empty", "usage", "")
