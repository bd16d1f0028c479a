"""Which packs a check reads, and in which order. Pure: never reads any.

Invariant: `n/m` depends on ids alone, so that m runs read every pack once, whoever runs them
and whatever is verified in between.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from packstone.errors import UsageError

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)%", re.ASCII)
_PART = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_PREFIX = re.compile(r"[0-9a-f]{1,64}")


class Candidate(NamedTuple):
    """A pack that may be read: its size in bytes, when it was last verified, where it lies.

    `verified_ns` is 0 where that is not known; `position` orders packs as the medium does.
    """

    id: str
    size: int
    verified_ns: int
    position: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What the caller asks for: all packs, a part, those of some ids, as many as time allows.

    `subset` is bytes, or a text: `5%` of the bytes, or `2/7`, the second of seven parts.
    `max_seconds` bounds the reading.
    """

    subset: str | int | None = None
    max_seconds: float | None = None
    packs: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Raise UsageError for what makes no sense."""
        if self.packs and self.subset is not None:
            raise UsageError("a choice of packs excludes a subset: they are all read")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise UsageError("the time to read for must be more than nothing")
        for prefix in self.packs:
            if not _PREFIX.fullmatch(prefix.lower()):
                raise UsageError(f"{prefix!r} is not the beginning of a pack's id")
        if isinstance(self.subset, int) and self.subset <= 0:
            raise UsageError("a subset of no bytes reads nothing")
        if isinstance(self.subset, str):
            self._part()

    @property
    def is_partial(self) -> bool:
        """Whether some packs may be left out."""
        return bool(self.packs) or self.subset is not None or self.max_seconds is not None

    def _part(self) -> tuple[int, int] | Fraction:
        """Return (n, m), or the share of the bytes."""
        text = str(self.subset).strip()
        if match := _PART.fullmatch(text):
            number, of = int(match[1]), int(match[2])
            if not 1 <= number <= of:
                raise UsageError(f"subset {text}: expected 1/{max(1, of)} to {max(1, of)}/{of}")
            return number, of
        if match := _PERCENT.fullmatch(text):
            share = Fraction(match[1]) / 100
            if 0 < share <= 1:
                return share
        raise UsageError(f"subset {text!r}: expected 5%, a size such as 10GiB, or a part as in 2/7")

    def order(
        self,
        candidates: Sequence[Candidate],
        shuffle: Callable[[list[Candidate]], None] = random.shuffle,
    ) -> list[Candidate]:
        """Return the packs to read, in the order in which to read them; raises UsageError.

        Where only some are read, those last verified longest ago: of equally old ones any.
        """
        if self.packs:
            chosen = [_named(prefix.lower(), candidates) for prefix in self.packs]
            return _as_they_lie(set(chosen))
        wanted = 0
        if isinstance(self.subset, str):
            part = self._part()
            if not isinstance(part, Fraction):
                number, of = part
                # Ids are hashes: any digits of them spread evenly.
                candidates = [
                    each for each in candidates if int(each.id[:16], 16) % of == number - 1
                ]
            else:
                total = sum(each.size for each in candidates)
                wanted = -int(-total * part // 1)  # rounded up
        elif self.subset is not None:
            wanted = self.subset
        if wanted:
            candidates = _oldest(candidates, wanted, shuffle)
        if self.max_seconds is None:
            return _as_they_lie(candidates)
        # What was verified in one run has one date, so this goes along the disk, run by run.
        return sorted(candidates, key=lambda each: (each.verified_ns, each.position, each.id))


def _as_they_lie(candidates: Sequence[Candidate] | set[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=lambda each: (each.position, each.id))


def _oldest(
    candidates: Sequence[Candidate], wanted: int, shuffle: Callable[[list[Candidate]], None]
) -> list[Candidate]:
    """Return packs of `wanted` bytes, or one pack more than that."""
    rest = list(candidates)
    shuffle(rest)
    rest.sort(key=lambda each: each.verified_ns)
    chosen: list[Candidate] = []
    for each in rest:
        if wanted <= 0:
            break
        chosen.append(each)
        wanted -= each.size
    return chosen


def _named(prefix: str, candidates: Sequence[Candidate]) -> Candidate:
    found = [each for each in candidates if each.id.startswith(prefix)]
    if not found:
        raise UsageError(f"no pack {prefix!r}", hint="Ids are the names of the files in packs/")
    if len(found) > 1:
        ids = ", ".join(each.id[:12] for each in found[:4])
        raise UsageError(f"pack {prefix!r} is ambiguous: {ids}", hint="Give more digits")
    return found[0]
