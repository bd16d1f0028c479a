"""What prune writes anew on a disk without room for all of it: what fits, and pays."""

from __future__ import annotations

import pytest

from packstone.codec.encryption import Sealer
from packstone.model import MIB
from packstone.operations.prune_plan import PackUse, take_fitting
from packstone.repository.packs import DATA, METADATA

PLAIN = Sealer(bytes(16))


def use(name: str, unused: int, kind: int = DATA) -> PackUse:
    """Return a pack of 8 MiB, some MiB of which nobody needs."""
    return PackUse(name, kind, 8 * MIB, 100, 50, unused * MIB, (8 - unused) * MIB, 4000)


def taken(uses: list[PackUse], room: int | None) -> list[str]:
    found = take_fitting(uses, room, sealer=PLAIN, pack_size=32 * MIB)
    return [each.pack_id for each in found]


@pytest.mark.parametrize("room", [None, 100 * MIB])
def test_all_where_there_is_room_or_nobody_knows(room: int | None) -> None:
    assert taken([use("a", 1), use("b", 0), use("c", 7)], room) == ["a", "b", "c"]


def test_what_gives_back_most_comes_first() -> None:
    uses = [use("a", 1), use("b", 5), use("c", 7)]
    assert taken(uses, 6 * MIB) == ["c", "b"]
    assert taken(uses, 0) == ["c"]  # one in any case: what nobody needs of it may be enough


def test_nothing_is_written_anew_that_gives_nothing_back() -> None:
    """A small pack without waste is only worth merging; alone it would come again for ever."""
    assert taken([use("a", 0), use("b", 0)], 9 * MIB) == []
    assert taken([use("a", 0), use("b", 0)], 0) == []
    assert taken([use("a", 0), use("d", 0), use("b", 7, METADATA)], 12 * MIB) == ["b"]
    assert taken([use("a", 0), use("b", 0), use("c", 0)], 18 * MIB) == ["a", "b"]
