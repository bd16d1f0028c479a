"""Base search and lineage arithmetic on a view that is a few dicts.

Search: cuts that are known, half known, or not at all. Lineage: version n stands on n − lowbit(n),
restarts come in time and not all at once. A view that lies costs room, never time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.repository.bases import BaseFinder, Candidates, Wanted
from packstone.repository.places import Cut

SIZE = 100


def name(number: int) -> bytes:
    return number.to_bytes(4, "big") * 8


class Known:
    """What a CutReader and its index are to a finder: chunks by cut, by id, and their bases."""

    def __init__(self) -> None:
        self.left: dict[int, Cut] = {}
        self.right: dict[int, Cut] = {}
        self.by_id: dict[bytes, Cut] = {}
        self.below: dict[bytes, list[bytes]] = {}
        self.looks = 0

    def add(self, cut: Cut, below: Sequence[bytes] = ()) -> Cut:
        """Take a chunk up; the newest wins."""
        self.right[cut.start_key] = self.left[cut.end_key] = self.by_id[cut.id] = cut
        self.below[cut.id] = list(below)
        return cut

    def at(self, key: int) -> tuple[Cut | None, Cut | None]:
        self.looks += 1
        return self.left.get(key), self.right.get(key)

    def find(self, chunk_id: bytes) -> Cut | None:
        self.looks += 1
        return self.by_id.get(chunk_id)

    def is_known(self, chunk_id: bytes) -> bool:
        return False  # what is looked for here was never stored

    def bases(self, chunk: Cut) -> list[bytes]:
        self.looks += 1
        return self.below.get(chunk.id, [])

    @contextlib.contextmanager
    def cuts(self) -> Iterator[Known]:
        yield self

    def finder(self, versions: int = 64) -> BaseFinder:
        return BaseFinder(self, versions)  # type: ignore[arg-type]


def whole(number: int, start: int, end: int, size: int = SIZE) -> Cut:
    return Cut(name(number), 1, number, size, 0, 0, start, end)


# -- search ---------------------------------------------------------------------------------


@pytest.fixture
def file() -> Known:
    """A stored file of six chunks, 1 to 6, between the cuts 10, 20, … 70."""
    known = Known()
    for number in range(1, 7):
        known.add(whole(number, 10 * number, 10 * number + 10))
    return known


def wanted(
    start: int, end: int, size: int = SIZE, aligned: int | None = None, follows: bool = True
) -> Wanted:
    chunk_id = name(1000 + 100 * start + end)
    return Wanted(chunk_id, size, start, end, None if aligned is None else name(aligned), follows)


def found(known: Known, *chunks: Wanted) -> list[list[int]]:
    """Return the numbers of the chunks that each may stand on, the likeliest first."""
    result = known.finder().find(chunks)
    assert len(result) == len(chunks)
    for each in result:
        assert [base.depth for base in each.bases] == [0] * len(each.bases)
        assert {base.number for base in each.bases} <= {1}
    return [[int.from_bytes(base.id[:4], "big") for base in each.bases] for each in result]


NEW = 999  # a cut that nobody knows


def test_both_cuts_are_known(file: Known) -> None:
    """An edit inside a chunk: the chunk between the same cuts."""
    assert found(file, wanted(20, 30, SIZE + 5)) == [[2]]


def test_a_cut_is_gone(file: Known) -> None:
    """One chunk where there were two, or three."""
    assert found(file, wanted(20, 40, 2 * SIZE)) == [[2, 3]]
    assert found(file, wanted(20, 50, 3 * SIZE)) == [[2, 3, 4]]


def test_many_cuts_are_gone(file: Known) -> None:
    """At most three: those at the beginning, and the one that leads to the end."""
    assert found(file, wanted(10, 70, 6 * SIZE)) == [[1, 2, 6]]


def test_the_end_is_elsewhere(file: Known) -> None:
    """Begins as one chunk, ends as one far away: rows between were deleted, or moved."""
    assert found(file, wanted(20, 70, 2 * SIZE)) == [[2, 3, 6]]
    assert found(file, wanted(50, 20, 2 * SIZE)) == [[5, 6, 1]]


def test_only_the_start_is_known(file: Known) -> None:
    """As many as it is long."""
    assert found(file, wanted(20, NEW)) == [[2]]
    assert found(file, wanted(20, NEW, SIZE + 1)) == [[2, 3]]
    assert found(file, wanted(20, NEW, 50 * SIZE)) == [[2, 3, 4]]
    assert found(file, wanted(60, NEW, 50 * SIZE)) == [[6]]


def test_only_the_end_is_known(file: Known) -> None:
    """The chunk that ended there first, then what stood before it."""
    assert found(file, wanted(NEW, 50)) == [[4]]
    assert found(file, wanted(NEW, 50, 2 * SIZE)) == [[4, 3]]
    assert found(file, wanted(NEW, 50, 50 * SIZE)) == [[4, 3, 2]]
    assert found(file, wanted(NEW, 20, 50 * SIZE)) == [[1]]


def test_nothing_is_known(file: Known) -> None:
    assert found(file, wanted(NEW, NEW + 1)) == [[]]


def test_what_stood_at_the_same_place(file: Known) -> None:
    """Of the older version of the file; only where no cut tells."""
    assert found(file, wanted(NEW, NEW + 1, aligned=3)) == [[3]]
    assert found(file, wanted(NEW, NEW + 1, 2 * SIZE, aligned=3)) == [[3, 4]]
    assert found(file, wanted(NEW, NEW + 1, aligned=77)) == [[]]
    assert found(file, wanted(20, NEW, aligned=5)) == [[2]]
    assert found(file, wanted(NEW, 30, aligned=5)) == [[2]]


def test_following_along(file: Known) -> None:
    """The chunk before ended at a known cut, or somewhere inside a chunk that is known."""
    assert found(file, wanted(20, 30), wanted(30, NEW), wanted(NEW, NEW + 1)) == [[2], [3], [4]]
    begins_inside = [wanted(20, NEW, 150), wanted(NEW, NEW + 1, 150), wanted(NEW + 1, 60, 100)]
    assert found(file, *begins_inside) == [[2, 3], [3, 4], [5]]


def test_nothing_is_followed_into_another_file(file: Known) -> None:
    assert found(file, wanted(20, 30), wanted(NEW, NEW + 1, follows=False)) == [[2], []]


def test_looking_back(file: Known) -> None:
    """Nothing of a chunk is known, but the one behind it is: what led to that."""
    result = found(file, wanted(NEW, NEW + 1), wanted(NEW + 1, NEW + 2), wanted(NEW + 2, 50))
    assert result == [[3, 2], [4, 3], [4]]
    assert found(file, wanted(NEW, NEW + 1), wanted(NEW + 1, 50, follows=False)) == [[], [4]]


def test_not_on_itself(file: Known) -> None:
    """Another writer has stored the very chunk meanwhile."""
    chunk = Wanted(name(2), SIZE, 20, 30, None, True)
    (result,) = file.finder().find([chunk])
    assert name(2) not in [base.id for base in result.bases]


def test_not_on_itself_among_the_newest(file: Known) -> None:
    file.add(Cut(name(9), 2, 0, SIZE, 1, 1, 20, 30), [name(2)])
    chunk = Wanted(name(9), SIZE, 20, 30, None, True)
    (result,) = file.finder().find([chunk])
    assert name(9) not in [base.id for base in result.near]


def test_of_several_the_newest(file: Known) -> None:
    file.add(whole(50, 20, 30))
    assert found(file, wanted(20, 30)) == [[50]]


def test_runs_of_one_byte(file: Known) -> None:
    """All chunks of zeros have the same keys at both ends."""
    file.add(whole(80, 500, 500))
    assert found(file, wanted(500, 500, 50 * SIZE)) == [[80]]
    assert found(file, wanted(500, NEW, 50 * SIZE), wanted(NEW, NEW + 1)) == [[80], [80]]


# -- lineage --------------------------------------------------------------------------------


def version(known: Known, finder: BaseFinder, number: int) -> tuple[Cut, Candidates]:
    """Store the next version of one chunk as a writer does that takes the likeliest base."""
    chunk = Wanted(name(number), SIZE, 10, 20, None, True)
    (offered,) = finder.find([chunk])
    if offered.bases:
        base = offered.bases[0]
        cut = Cut(name(number), 1, number, SIZE, base.depth + 1, base.number, 10, 20)
        return known.add(cut, [base.id]), offered
    return known.add(Cut(name(number), 1, number, SIZE, 0, 0, 10, 20)), offered


def test_version_n_stands_on_n_without_its_lowest_bit() -> None:
    known = Known()
    finder = known.finder(1024)
    known.add(Cut(name(0), 1, 0, SIZE, 0, 0, 10, 20))
    for number in range(1, 512):
        cut, offered = version(known, finder, number)
        assert cut.lineage == number
        assert known.below[cut.id] == [name(number & (number - 1))]
        assert cut.depth == number.bit_count()
        assert len(offered.bases) == 1


def test_the_newest_version_is_offered_besides() -> None:
    """For where the ancestor gives too little; each step towards it is one more to read."""
    known = Known()
    finder = known.finder()
    known.add(Cut(name(0), 1, 0, SIZE, 0, 0, 10, 20))
    for number in range(1, 20):
        cut, offered = version(known, finder, number)
        newest = name(number - 1)
        if [base.id for base in offered.bases] == [newest]:
            assert offered.near == []
        else:
            assert [base.id for base in offered.near] == [newest]
            assert offered.near[0].number == cut.lineage


@pytest.mark.parametrize("versions", [2, 3, 4, 5, 8, 64, 100, 1024])
def test_lineages_end_in_time(versions: int) -> None:
    known = Known()
    finder = known.finder(versions)
    lengths = [0]
    most = max(1, (versions - 1).bit_length())
    for number in range(3 * versions + 5):
        cut, _ = version(known, finder, number)
        assert cut.depth <= most and cut.lineage < versions
        if cut.lineage:
            lengths[-1] += 1
        else:
            lengths.append(0)
    ended = lengths[1:-1]
    assert ended and all(versions // 2 <= length < versions for length in ended)


def test_lineages_do_not_end_together() -> None:
    """Which one is spread by the first byte of the whole copy's id."""
    ends: list[int] = []
    rng = Random("spread")
    for _ in range(200):
        known = Known()
        finder = known.finder()
        root = rng.randbytes(32)
        known.add(Cut(root, 1, 0, SIZE, 0, 0, 10, 20))
        number = 0
        while True:
            number += 1
            cut, _ = version(known, finder, number)
            if not cut.lineage:
                break
        assert number == min(64, 33 + root[0] % 32)
        ends.append(number)
    assert len(set(ends)) > 25
    assert max(ends.count(end) for end in set(ends)) < 20


def test_a_chunk_of_two_has_both_for_ancestors() -> None:
    """Where a cut has gone, the ancestors of both halves are wanted the night after."""
    known = Known()
    known.add(whole(1, 10, 20))
    known.add(whole(2, 20, 30))
    known.add(Cut(name(3), 2, 0, 2 * SIZE, 1, 1, 10, 30), [name(1), name(2)])
    (offered,) = known.finder().find([wanted(10, 30, 2 * SIZE)])
    assert {base.id for base in offered.bases} == {name(1), name(2)}
    assert [base.id for base in offered.near] == [name(3)]


def test_an_ancestor_that_is_gone() -> None:
    """Its pack was swept: what is left is offered, never what is not there."""
    known = Known()
    finder = known.finder()
    known.add(Cut(name(0), 1, 0, SIZE, 0, 0, 10, 20))
    version(known, finder, 1)
    del known.by_id[name(0)]
    (offered,) = finder.find([Wanted(name(2), SIZE, 10, 20, None, True)])
    assert name(0) not in [base.id for base in [*offered.bases, *offered.near]]


# -- views that lie -------------------------------------------------------------------------

KEYS = st.integers(0, 5)
IDS = st.integers(0, 7)
CUTS = st.builds(
    lambda number, size, depth, lineage, start, end: Cut(
        name(number), 1, number, size, depth, lineage, start, end
    ),
    IDS,
    st.integers(0, 300),
    st.integers(0, 64),
    st.integers(0, 2000),
    KEYS,
    KEYS,
)


@given(
    cuts=st.lists(st.tuples(CUTS, st.lists(IDS, max_size=3)), max_size=12),
    chunks=st.lists(
        st.builds(
            Wanted,
            st.builds(name, IDS),
            st.integers(0, 5000),
            KEYS,
            KEYS,
            st.one_of(st.none(), st.builds(name, IDS)),
            st.booleans(),
        ),
        max_size=6,
    ),
    versions=st.integers(2, 1024),
)
def test_any_view(cuts: list[tuple[Cut, list[int]]], chunks: list[Wanted], versions: int) -> None:
    """Cycles of cuts and of bases, numbers that are none: an answer within bounds, and soon."""
    known = Known()
    for cut, below in cuts:
        known.add(cut, [name(number) for number in below])
    known.looks = 0
    result = known.finder(versions).find(chunks)
    assert len(result) == len(chunks)
    assert known.looks < 3000 * max(1, len(chunks))
    most = max(1, (versions - 1).bit_length())
    for chunk, offered in zip(chunks, result, strict=True):
        for bases, limit in ((offered.bases, 6), (offered.near, 3)):
            assert len(bases) <= limit
            assert len({base.id for base in bases}) == len(bases)
            for base in bases:
                assert base.id in known.by_id
                assert 0 <= base.depth < most and 1 <= base.number < versions
        assert chunk.id not in [base.id for base in offered.bases]


@given(seed=st.integers(0, 1 << 32), length=st.integers(1, 300))
def test_long_circles_end(seed: int, length: int) -> None:
    """A ring of chunks that follow each other, and whose bases go round as well."""
    rng = Random(seed)
    known = Known()
    for number in range(length):
        below = [name((number + step) % length) for step in (1, 2, 3)]
        cut = Cut(
            name(number), 1, number, rng.randrange(3), rng.randrange(1, 65), rng.randrange(1, 64),
            number, (number + 1) % length,
        )  # fmt: skip
        known.add(cut, below)
    known.looks = 0
    chunks = [wanted(rng.randrange(length), NEW, 1 << 20), wanted(NEW, NEW + 1, 1 << 20)]
    known.finder().find(chunks)
    assert known.looks < 5000
