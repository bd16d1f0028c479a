"""The walk over bases: everything that is needed, once a round, and an end to it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from packstone.repository.marks import Marks
from packstone.repository.places import Place
from packstone.repository.reachable import MOST_STEPS, Reached, with_bases


def name(number: int) -> bytes:
    return number.to_bytes(4, "big") * 8


class View:
    """What the walk asks of an index, in dicts."""

    def __init__(self) -> None:
        self.places: dict[bytes, Place] = {}
        self.below: dict[tuple[str, int], list[bytes]] = {}
        self.asked = 0

    def add(self, number: int, depth: int = 0, bases: Sequence[int] = ()) -> None:
        """File a chunk, in a pack of its own."""
        place = Place(f"{number:064x}", 0, 0, 10, 10, 0, depth, 0, 10, 0)
        self.places[name(number)] = place
        self.below[place.pack_id, 0] = [name(base) for base in bases]

    def find_many(self, ids: Sequence[bytes]) -> list[Place | None]:
        self.asked += len(ids)
        assert len(set(ids)) == len(ids)
        return [self.places.get(each) for each in ids]

    def bases_of(self, records: Sequence[tuple[str, int]]) -> list[list[bytes]]:
        return [self.below[each] for each in records]


def walk(view: View, *numbers: int) -> list[Reached]:
    return list(with_bases(view, [name(number) for number in numbers]))  # type: ignore[arg-type]


def told(reached: list[Reached]) -> dict[int, tuple[bool, set[int]]]:
    """Return number → (whether it is there, who wants it), of what was reached at most once."""
    found = {
        int.from_bytes(each.id[:4], "big"): (each.place is not None, each.wanted_by)
        for each in reached
    }
    assert len(found) == len(reached)
    return found


def test_whole_chunks() -> None:
    view = View()
    view.add(1)
    assert told(walk(view, 1, 2)) == {1: (True, {0}), 2: (False, {1})}
    assert walk(view) == []


def test_what_they_stand_on() -> None:
    view = View()
    view.add(1)
    view.add(2)
    view.add(3, 1, [1, 2])
    view.add(4, 2, [3])
    found = told(walk(view, 4))
    assert found == {number: (True, {0}) for number in (1, 2, 3, 4)}
    assert walk(view, 4)[0].id == name(4), "nearest first"


def test_who_wants_a_shared_base() -> None:
    view = View()
    view.add(1)
    for number in (2, 3, 4):
        view.add(number, 1, [1])
    found = told(walk(view, 2, 3, 4))
    assert found[1] == (True, {0, 1, 2})
    assert [found[number][1] for number in (2, 3, 4)] == [{0}, {1}, {2}]


def test_the_same_chunk_asked_for_twice() -> None:
    view = View()
    view.add(1)
    view.add(2, 1, [1])
    assert told(walk(view, 2, 2)) == {1: (True, {0, 1}), 2: (True, {0, 1})}


def test_a_chunk_that_is_asked_for_and_a_base() -> None:
    """It may come once for each; together all who want it are named."""
    view = View()
    view.add(1)
    view.add(2, 1, [1])
    reached = [each for each in walk(view, 1, 2) if each.id == name(1)]
    assert set.union(*(each.wanted_by for each in reached)) == {0, 1}
    assert all(each.place for each in reached)


def test_a_missing_base_is_named_to_all_above() -> None:
    view = View()
    view.add(2, 1, [1])
    view.add(3, 2, [2])
    view.add(4, 2, [2])
    found = told(walk(view, 3, 4))
    assert found[1] == (False, {0, 1})
    assert found[2] == (True, {0, 1})


def test_a_base_must_be_nearer_to_a_whole_copy() -> None:
    view = View()
    view.add(1, 1, [2])
    view.add(2, 1, [1])
    found = told(walk(view, 1))
    assert found == {1: (True, {0}), 2: (False, {0})}
    view.add(3, 1, [3])
    reached = walk(view, 3)
    assert [each.place is not None for each in reached] == [True, False]


def test_the_least_limit_of_several_counts() -> None:
    """One delta of depth 2 and one of depth 5 on a base of depth 3: for one it is none."""
    view = View()
    view.add(0)
    view.add(1, 3, [0])
    view.add(2, 2, [1])
    view.add(3, 5, [1])
    found = told(walk(view, 2, 3))
    assert found[1] == (False, {0, 1})


def test_the_longest_chain() -> None:
    view = View()
    view.add(0)
    for number in range(1, MOST_STEPS + 1):
        view.add(number, number, [number - 1])
    assert len(walk(view, MOST_STEPS)) == MOST_STEPS + 1
    assert told(walk(view, MOST_STEPS))[0] == (True, {0})


@given(
    chunks=st.lists(
        st.tuples(st.integers(0, 64), st.lists(st.integers(0, 14), max_size=3)), max_size=12
    ),
    numbers=st.lists(st.integers(0, 14), max_size=20),
)
def test_any_view(chunks: list[tuple[int, list[int]]], numbers: list[int]) -> None:
    """Against a walk that follows one path after the other."""
    view = View()
    for number, (depth, bases) in enumerate(chunks):
        view.add(number, depth if bases else 0, bases if depth else ())
    reached = walk(view, *numbers)
    assert view.asked <= 15 * (MOST_STEPS + 1)
    needs: dict[int, set[int]] = {}
    broken: set[int] = set()

    def follow(number: int, limit: int, top: int) -> None:
        needs.setdefault(number, set()).add(top)
        place = view.places.get(name(number))
        if place is None or place.depth >= limit:
            broken.add(top)
            return
        for base in view.below[place.pack_id, 0] if place.depth else []:
            follow(int.from_bytes(base[:4], "big"), place.depth, top)

    for top, number in enumerate(numbers):
        follow(number, MOST_STEPS + 1, top)
    found: dict[int, set[int]] = {}
    for each in reached:
        found.setdefault(int.from_bytes(each.id[:4], "big"), set()).update(each.wanted_by)
    for number, tops in needs.items():
        assert tops - broken <= found.get(number, set())
    missing = {at for each in reached if each.place is None for at in each.wanted_by}
    assert broken <= missing, "what cannot be had is named to all who need it"


def test_many_on_one() -> None:
    """Ten thousand chunks on the same base, as a table of equal pages may be."""
    view = View()
    view.add(0)
    for number in range(1, 10_001):
        view.add(number, 1, [0])
    started = time.process_time()
    reached = walk(view, *range(1, 10_001))
    assert time.process_time() - started < 4
    assert len(reached) == 10_001 and reached[-1].wanted_by == set(range(10_000))


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 300))))
def test_marks(marked: list[tuple[str, int]]) -> None:
    marks = Marks()
    for pack, record in marked:
        marks.mark(Place(pack, record, 0, 0, 0, 0, 0, 0, 0, record))
    for pack in ("a", "b", "c"):
        for record in range(320):
            assert marks.has(pack, record) == ((pack, record) in marked)
