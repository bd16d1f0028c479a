"""Which packs a check reads: parts that cover all, the oldest first, as time allows."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packstone.errors import UsageError
from packstone.operations.check_choice import Candidate, Choice

candidates = st.lists(
    st.builds(
        Candidate,
        st.binary(min_size=32, max_size=32).map(bytes.hex),
        st.integers(1, 1 << 30),
        st.integers(0, 5),
        st.integers(0, 5),
    ),
    max_size=40,
    unique_by=lambda each: each.id,
)


def made(count: int, **fields: int) -> list[Candidate]:
    rng = Random(count)
    return [Candidate(rng.randbytes(32).hex(), 100, 0, 0)._replace(**fields) for _ in range(count)]


@given(packs=candidates, of=st.integers(1, 50))
def test_parts_cover_every_pack_once(packs: list[Candidate], of: int) -> None:
    parts = [Choice(f"{number}/{of}").order(packs) for number in range(1, of + 1)]
    assert sorted(each for part in parts for each in part) == sorted(packs)


@given(packs=candidates, of=st.integers(1, 9), data=st.data())
def test_parts_depend_on_ids_alone(packs: list[Candidate], of: int, data: st.DataObject) -> None:
    """Dates change between the runs, packs come and go: each pack stays in its part."""
    later = [each._replace(verified_ns=9 - each.verified_ns) for each in packs]
    later = data.draw(st.permutations(later))[1:]
    for number in range(1, of + 1):
        choice = Choice(f"{number}/{of}")
        before = {each.id for each in choice.order(packs)}
        after = {each.id for each in choice.order(later)}
        assert after == before & {each.id for each in later}


def test_parts_are_alike_in_size() -> None:
    sizes = [len(Choice(f"{number}/4").order(made(4000))) for number in range(1, 5)]
    assert all(850 < size < 1150 for size in sizes)


@given(packs=candidates, percent=st.integers(1, 100))
def test_a_share_takes_the_oldest(packs: list[Candidate], percent: int) -> None:
    chosen = Choice(f"{percent}%").order(packs)
    assert_oldest(packs, chosen, sum(each.size for each in packs) * percent)


@given(packs=candidates, size=st.integers(1, 1 << 34))
def test_a_size_takes_the_oldest(packs: list[Candidate], size: int) -> None:
    assert_oldest(packs, Choice(size).order(packs), size * 100)


def assert_oldest(packs: list[Candidate], chosen: list[Candidate], hundredths: int) -> None:
    """What was left out was verified no earlier; enough was taken, and no pack too many."""
    taken = sum(each.size for each in chosen) * 100
    assert taken >= hundredths or set(chosen) == set(packs)
    if chosen:
        newest = max(each.verified_ns for each in chosen)
        rest = [each.verified_ns for each in packs if each not in chosen]
        assert not rest or min(rest) >= newest
        largest = max(each.size for each in chosen if each.verified_ns == newest)
        assert taken - 100 * largest < hundredths
    assert chosen == sorted(chosen, key=lambda each: (each.position, each.id)), "along the disk"


def test_of_equally_old_packs_any_is_taken() -> None:
    packs = made(50)
    first = {Choice("2%").order(packs)[0].id for _ in range(200)}
    assert len(first) > 10


@given(packs=candidates)
def test_with_a_time_the_oldest_come_first_and_each_age_along_the_disk(
    packs: list[Candidate],
) -> None:
    order = Choice(max_seconds=1).order(packs)
    assert order == sorted(packs, key=lambda each: (each.verified_ns, each.position, each.id))


def test_packs_by_name() -> None:
    packs = made(30)
    wanted = [packs[3], packs[20]]
    names = [packs[3].id[:10].upper(), packs[20].id, packs[3].id]
    assert set(Choice(packs=names).order(packs)) == set(wanted)
    assert len(Choice(packs=names).order(packs)) == 2
    for wrong in ("f" * 64, "", "xyz", packs[0].id + "0", "../config"):
        with pytest.raises(UsageError):
            Choice(packs=[wrong]).order(packs)
    twins = [packs[0], packs[1]._replace(id=packs[0].id[:8] + packs[1].id[8:])]
    with pytest.raises(UsageError, match="ambiguous"):
        Choice(packs=[packs[0].id[:8]]).order(twins)


@pytest.mark.parametrize(
    "subset", ["", "0%", "101%", "-5%", "5", "0/4", "5/4", "1/0", "1/", "/3", "a/b", "1/2/3", 0, -1]
)
def test_no_subset(subset: str | int) -> None:
    with pytest.raises(UsageError):
        Choice(subset)


def test_contradictions() -> None:
    with pytest.raises(UsageError):
        Choice("5%", packs=["ab"])
    for seconds in (0, -1, float("nan")):
        with pytest.raises(UsageError):
            Choice(max_seconds=seconds)
