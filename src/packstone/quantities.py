"""What people write → sizes in bytes, lengths of time in ns. Pure, the same everywhere.

Raises ValueError with a whole sentence for what can be read in no way or in two.
"""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+)(?:\.(\d+))?\s*([KMGTP]?)(i?B?)", re.IGNORECASE | re.ASCII)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}

_SECOND_NS = 1_000_000_000
_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PIECE = re.compile(r"(\d{1,9})\s*([a-z]+)\s*", re.ASCII)


def parse_size(text: str) -> int:
    """Return bytes for `128KiB`, `64M`, `1.5 GiB` or `4096`; raises ValueError.

    A lone letter counts in powers of 1,024, as restic's does. `KB` and the like are refused:
    half of the users would mean 1,000.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size such as 128KiB, 64MiB or 1GiB.")
    whole, fraction, letter, suffix = match.groups()
    if letter and suffix.upper() == "B":
        raise ValueError(f"{text!r} can be read in two ways, say {letter.upper()}iB.")
    if not letter and suffix.upper() == "IB":
        raise ValueError(f"{text!r} is not a size such as 128KiB, 64MiB or 1GiB.")
    unit: int = 1024 ** _POWERS[letter.upper()]
    # integers all the way: a float loses bytes from 8 PiB on
    return int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)


def parse_duration(text: str) -> int:
    """Return ns for `90s`, `15min`, `1h`, `2d`, `1w` or `1h 30min`; raises ValueError.

    A lone `m` is refused: minutes to some, months in what retention calls a duration.
    """
    wrong = f"{text!r} is not a length of time such as 15min, 1h, 2d, 1w or 1h30min."
    total = position = 0
    stripped = text.strip().lower()
    smallest = None
    while position < len(stripped):
        match = _PIECE.match(stripped, position)
        if match and match[2] == "m":
            raise ValueError(f"{text!r} can be read in two ways, say {match[1]}min for minutes.")
        unit = _UNITS.get(match[2]) if match else None
        # from the largest unit to the smallest, so that no unit is said twice
        if match is None or unit is None or (smallest is not None and unit >= smallest):
            raise ValueError(wrong)
        total += int(match[1]) * unit
        smallest = unit
        position = match.end()
    if not total:
        raise ValueError(wrong)
    if total * _SECOND_NS >= 1 << 63:
        raise ValueError(f"{text!r} is longer than times are kept: about 290 years.")
    return total * _SECOND_NS


def duration_text(duration_ns: int) -> str:
    """Return a length of time as `parse_duration` reads it, whole seconds at least 1: `1h30min`."""
    seconds = max(1, duration_ns // _SECOND_NS)
    text = ""
    for unit in ("w", "d", "h", "min", "s"):
        count, seconds = divmod(seconds, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text
