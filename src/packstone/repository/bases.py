"""Find what a new chunk may be a delta against: base search and skip-delta lineage.

Decides, never writes and never reads packs: all of it is hints, and a wrong one costs room.
Search: the stored chunks between the two cuts of the new one, found by the keys of the cuts;
where these are new too, what lies beside the bases of the chunks before and behind; else what
stood at the same place of the older version of the file. Lineage: version n of a chunk is
stored against version n − lowbit(n), as in Subversion's FSFS (skip-deltas), so that the newest
of n versions is decoded in popcount(n) steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from packstone.codec.delta import MAX_BASES
from packstone.repository.cuts import CutReader
from packstone.repository.index import Index
from packstone.repository.layout import DEFAULT_VERSIONS
from packstone.repository.places import Cut

_STEPS = 64  # of a walk down a lineage: far above what any sound one has
_MOST_CANDIDATES = 6  # that are offered to the coder, which takes what gives it something


class Base(NamedTuple):
    """A chunk to be a delta against; `number` is what the delta would have in that lineage."""

    id: bytes
    depth: int
    number: int


class Candidates(NamedTuple):
    """What a chunk may be a delta against, the likeliest first.

    `near` are the newest versions, to be taken where the ancestors in `bases` give too little:
    each step towards them is one more when the chunk is read.
    """

    bases: list[Base]
    near: list[Base]


NONE = Candidates([], [])


class Wanted(NamedTuple):
    """A new chunk: its id, size, the keys of its cuts, what was at its place if known.

    `follows` says whether the chunk wanted before it stands right before it in the file.
    """

    id: bytes
    size: int
    start_key: int
    end_key: int
    aligned: bytes | None
    follows: bool


class BaseFinder:
    """Find bases for the new chunks of a file; safe to use from several threads."""

    def __init__(self, index: Index, versions: int = DEFAULT_VERSIONS) -> None:
        """`versions` bounds how many versions of a chunk stand on one whole copy."""
        self._index = index
        self._versions = versions
        self._max_depth = max(1, (versions - 1).bit_length())

    def find(self, wanted: Sequence[Wanted]) -> list[Candidates]:
        """Return for each chunk, in the order of the file, what it may be a delta against.

        A chunk whose lineage has come to its end gets nothing: it is to be stored whole.
        """
        with self._index.cuts() as cuts:
            sources = _Search(cuts).run(wanted)
            return [
                self._candidates(cuts, chunk.id, found)
                for chunk, found in zip(wanted, sources, strict=True)
            ]

    def _candidates(self, cuts: CutReader, chunk_id: bytes, sources: list[Cut]) -> Candidates:
        if not sources or self._has_ended(cuts, sources[0]):
            return NONE
        if cuts.is_known(chunk_id):
            return NONE  # it was lost: deltas may stand on it that need it whole
        bases: dict[bytes, Base] = {}
        near: list[Base] = []
        for source in sources:
            number = source.lineage + 1
            if number >= self._versions:
                continue
            for each in self._ancestors(cuts, source):
                bases.setdefault(each.id, Base(each.id, each.depth, number))
            if source.depth < self._max_depth and source.id != chunk_id:
                near.append(Base(source.id, source.depth, number))
        bases.pop(chunk_id, None)
        found = list(bases.values())[:_MOST_CANDIDATES]
        return Candidates(found, [] if near == found else near)

    def _ancestors(self, cuts: CutReader, source: Cut) -> list[Cut]:
        """Return what the next version of a chunk is stored against.

        Its ancestor by number, and what stood beside that: a chunk that was made from two has
        them both for ancestors.
        """
        number = source.lineage + 1
        wanted = number & (number - 1)
        front = [source]
        for _ in range(self._max_depth + 1):  # each step takes a bit from a number of so many
            if front[0].lineage <= wanted:
                break
            front = self._below(cuts, front, 0)
            if not front:
                return []
        front = self._below(cuts, front, max(front[0].depth, 1))
        return [each for each in front if each.depth < self._max_depth]

    def _below(self, cuts: CutReader, front: list[Cut], depth: int) -> list[Cut]:
        """Return chunks with those deeper than `depth` replaced by what they stand on."""
        found: dict[bytes, Cut] = {}
        for each in front:
            if each.depth <= depth:
                found.setdefault(each.id, each)
                continue
            for base_id in cuts.bases(each):
                base = cuts.find(base_id)
                if base is not None:
                    found.setdefault(base.id, base)
        return list(found.values())[:_MOST_CANDIDATES]

    def _has_ended(self, cuts: CutReader, source: Cut) -> bool:
        """Return whether the next version is to be a whole copy.

        Lineages end one after the other, so that not all chunks are stored whole in one night.
        """
        number = source.lineage + 1
        spread = self._versions // 2
        if number >= self._versions:
            return True
        if 2 * number <= self._versions or not spread:
            return False
        root = self._root(cuts, source)
        return root is None or number > self._versions - spread + root[0] % spread

    def _root(self, cuts: CutReader, chunk: Cut) -> bytes | None:
        """Return the id of the whole copy that a chunk's lineage began with."""
        for _ in range(_STEPS):
            if not chunk.lineage:
                return chunk.id
            below = cuts.bases(chunk)
            found = cuts.find(below[0]) if below else None
            if found is None:
                return None
            chunk = found
        return None


class _Search:
    """Stored chunks that new ones in a row probably come from, the likeliest first."""

    def __init__(self, cuts: CutReader) -> None:
        self._cuts = cuts

    def run(self, wanted: Sequence[Wanted]) -> list[list[Cut]]:
        """Return the sources of each chunk: at most three, in no more than one look each way."""
        found: list[list[Cut]] = []
        leftmost: list[Cut | None] = []
        at: Cut | None = None  # the stored chunk in which the next new one probably begins,
        offset = 0  # and where in it
        for chunk in wanted:
            if not chunk.follows:
                at = None
            start = self._cuts.at(chunk.start_key)[1]
            end = self._cuts.at(chunk.end_key)[0]
            if start is None and end is None and at is None and chunk.aligned:
                start = self._cuts.find(chunk.aligned)
            if start is not None:
                at, offset = start, 0
            if at is not None:
                sources = self._covering(at, offset, chunk.size, end)
                leftmost.append(at)
            else:
                sources = self._leading_to(end, chunk.size) if end is not None else []
                leftmost.append(sources[-1] if sources else None)
            found.append(sources)
            if end is not None:
                at, offset = self._after(end), 0
            elif at is not None:
                at, offset = self._forward(at, offset + chunk.size)
        self._look_back(wanted, found, leftmost)
        return found

    def _covering(self, at: Cut, offset: int, size: int, end: Cut | None) -> list[Cut]:
        """Return the chunks from a place on that hold `size` bytes or lead to `end`."""
        sources = [at]
        left = size - (at.size - offset)
        while sources[-1].id != (end.id if end else b"") and len(sources) < MAX_BASES:
            if left <= 0 and end is None:
                break
            following = self._after(sources[-1])
            if following is None or any(following.id == each.id for each in sources):
                break
            sources.append(following)
            left -= following.size
        if end is not None and all(end.id != each.id for each in sources):
            sources = [*sources[: MAX_BASES - 1], end]
        return sources

    def _leading_to(self, end: Cut, size: int) -> list[Cut]:
        """Return the chunks that hold the last `size` bytes before the end of one."""
        sources = [end]
        left = size - end.size
        while left > 0 and len(sources) < MAX_BASES:
            before = self._before(sources[-1])
            if before is None or any(before.id == each.id for each in sources):
                break
            sources.append(before)
            left -= before.size
        return sources

    def _look_back(
        self, wanted: Sequence[Wanted], found: list[list[Cut]], leftmost: list[Cut | None]
    ) -> None:
        """Give chunks without sources what leads to those of the chunk behind them."""
        for number in range(len(wanted) - 2, -1, -1):
            behind = leftmost[number + 1]
            if not found[number] and behind is not None and wanted[number + 1].follows:
                # The chunk behind may begin anywhere in its leftmost source.
                found[number] = self._leading_to(behind, behind.size + wanted[number].size)
                leftmost[number] = found[number][-1]

    def _forward(self, at: Cut, offset: int) -> tuple[Cut | None, int]:
        """Return the stored chunk that covers an offset from the start of another."""
        here: Cut | None = at
        for _ in range(_STEPS):
            if here is None or offset < here.size:
                break
            offset -= here.size
            here = self._after(here)
        return here, offset

    def _after(self, chunk: Cut) -> Cut | None:
        """Return the chunk that followed another."""
        return self._cuts.at(chunk.end_key)[1]

    def _before(self, chunk: Cut) -> Cut | None:
        return self._cuts.at(chunk.start_key)[0]
