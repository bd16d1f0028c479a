"""Repositories whose deltas lie: cycles, endless chains, bases that are none, sizes that are wrong.

Each verb must end within two seconds and 256 MiB and name what it refused; sound files beside it
are restored, and nothing wrong ever is.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile
import pytest
import zstandard
from attack.limits import MIB, assert_good, limited, sound
from compare_trees import remove_tree
from hostile import Delta, Forger, body, counted, encode, number, row, step

import packstone
from packstone.errors import Damaged, ObjectMissing
from packstone.model import ObjectType
from packstone.repository.reachable import with_bases
from packstone.repository.repository import ObjectRepository

CHUNK = ObjectType.CHUNK
SIZE = 20_000
A, B, C = (counted(SIZE, count) for count in (1, 2, 3))


@pytest.fixture
def place() -> Iterator[Path]:
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="packstone-", dir=shared))
    yield path
    remove_tree(path)


def ids(forger: Forger, *contents: bytes) -> list[bytes]:
    return [forger.id_of(CHUNK, data) for data in contents]


def commit(forger: Forger, *contents: bytes, names: str = "evil %d") -> list[bytes]:
    """Commit a snapshot of sound files and of one file for each content; return their ids."""
    rows = sound(forger)
    found = ids(forger, *contents)
    for at, (data, chunk_id) in enumerate(zip(contents, found, strict=True)):
        name = (names % at if "%" in names else names).encode()
        rows.append(row(name, content=chunk_id, size=len(data)))
    forger.commit(sorted(rows, key=lambda each: each[0]))
    return found


def assert_refused(place: Path, contents: list[bytes], *, plain: bool | None = None) -> None:
    """Require that no verb gives any of the files, and that all verbs end.

    `plain` says whether a check that reads no data must find it, if that is known.
    """
    said = limited(place, "restore")
    evil = {f"evil {at}" for at in range(len(contents))}
    assert {os.path.basename(path) for path in said["errors"]} == evil
    assert_good(place)
    assert not [path for path in (place / "target").iterdir() if path.name in evil]
    assert limited(place, "check")["errors"], "check must find it"
    said = limited(place, "quick check")
    assert plain is None or bool(said["errors"]) == plain
    limited(place, "ls")
    walk(place)


def walk(place: Path) -> None:
    """Require that reading and the walk over bases end in this process, with the right error."""
    objects = ObjectRepository(str(place / "repository"))
    try:
        wanted = sorted(_chunks(objects))
        started = time.monotonic()
        for reached in with_bases(objects.index, wanted):
            assert reached.place is None or reached.place.depth <= 64
        for chunk_id in wanted:
            try:
                data = objects.reader.get(CHUNK, chunk_id)
                assert objects.hasher.id(CHUNK, data) == chunk_id
            except (Damaged, ObjectMissing, packstone.UnsupportedFormat):
                pass
        assert time.monotonic() - started < 2
    finally:
        objects.close()


def _chunks(objects: ObjectRepository) -> set[bytes]:
    from packstone.repository.layout import list_ids
    from packstone.repository.packs import read_pack

    found = set()
    for pack_id, size in list_ids(objects.storage, "packs"):
        try:
            pack = read_pack(objects.storage, pack_id, size, objects.sealer)
        except Damaged:
            continue
        found |= {each[0] for made in pack.rows for each in made.object_rows() if each[2] == 1}
    return found


# -- cycles ---------------------------------------------------------------------------------

CYCLES: dict[str, Callable[[Forger], list[Delta]]] = {
    "on itself": lambda f: [Delta(A, step(SIZE, 1), ids(f, A))],
    "on itself, deep": lambda f: [Delta(A, step(SIZE, 1), ids(f, A), depth=64)],
    "two": lambda f: [
        Delta(A, step(SIZE, 1), ids(f, B)),
        Delta(B, step(SIZE, 2), ids(f, A)),
    ],
    "two, one deeper": lambda f: [
        Delta(A, step(SIZE, 1), ids(f, B), depth=2),
        Delta(B, step(SIZE, 2), ids(f, A), depth=1),
    ],
    "two, both as deep as can be": lambda f: [
        Delta(A, step(SIZE, 1), ids(f, B), depth=64),
        Delta(B, step(SIZE, 2), ids(f, A), depth=64),
    ],
    "two, each twice with another depth": lambda f: [
        Delta(A, step(SIZE, 1), ids(f, B), depth=64),
        Delta(B, step(SIZE, 2), ids(f, A), depth=63),
        Delta(A, step(SIZE, 1), ids(f, B), depth=62),
        Delta(B, step(SIZE, 2), ids(f, A), depth=61),
    ],
    "three": lambda f: [
        Delta(A, step(SIZE, 1), ids(f, B), depth=3),
        Delta(B, step(SIZE, 2), ids(f, C), depth=2),
        Delta(C, step(SIZE, 3), ids(f, A), depth=1),
    ],
    "three, all on all": lambda f: [
        Delta(data, step(SIZE, count), ids(f, *({A, B, C} - {data})), depth=count)
        for count, data in enumerate((A, B, C), 1)
    ],
    "each at every depth": lambda f: [
        Delta(data, step(SIZE, count), ids(f, *({A, B, C} - {data})), depth=depth)
        for count, data in enumerate((A, B, C), 1)
        for depth in range(1, 65)
    ],
}


@pytest.mark.parametrize("deltas", CYCLES.values(), ids=CYCLES.keys())
@pytest.mark.parametrize("packs", ["one pack", "a pack each"])
def test_cycles(place: Path, deltas: Callable[[Forger], list[Delta]], packs: str) -> None:
    forger = Forger(hostile.new_repository(place / "repository"))
    made = deltas(forger)
    for part in [made] if packs == "one pack" else [[each] for each in made]:
        forger.write_deltas(*part)
    contents = sorted({each.data for each in made})
    commit(forger, *contents)
    assert_refused(place, contents, plain=True)


@pytest.mark.parametrize("whole", [A, B])
def test_a_cycle_with_a_whole_one_in_it_is_none(place: Path, whole: bytes) -> None:
    """Both are restored; that the second place of the whole one leads nowhere hits nobody."""
    forger = Forger(hostile.new_repository(place / "repository"))
    forger.write_deltas(
        Delta(A, step(SIZE, 1), ids(forger, B)), Delta(B, step(SIZE, 2), ids(forger, A))
    )
    forger.stored_record(CHUNK, whole)
    commit(forger, A, B)
    assert limited(place, "restore")["errors"] == []
    assert (place / "target" / "evil 0").read_bytes() == A
    assert (place / "target" / "evil 1").read_bytes() == B
    limited(place, "check")
    assert limited(place, "quick check")["errors"] == []
    walk(place)


# -- chains ---------------------------------------------------------------------------------


def chain(forger: Forger, length: int, depths: Callable[[int], int]) -> list[Delta]:
    """Return deltas, each on the one before, the first on a whole chunk."""
    base = counted(SIZE, 0)
    forger.stored_record(CHUNK, base)
    made = []
    for count in range(1, length + 1):
        data = counted(SIZE, count)
        made.append(Delta(data, step(SIZE, count), ids(forger, base), depths(count), 2, count))
        base = data
    return made


def test_a_chain_as_long_as_may_be(place: Path) -> None:
    """64 steps are read, in one pack and in one pack each; no recursion is too deep."""
    forger = Forger(hostile.new_repository(place / "repository"))
    made = chain(forger, 64, lambda count: count)
    for each in made[:40]:
        forger.write_deltas(each)
    forger.write_deltas(*made[40:])
    last = made[-1].data
    commit(forger, last, names="evil")
    assert limited(place, "restore")["errors"] == []
    assert (place / "target" / "evil").read_bytes() == last
    assert limited(place, "check")["errors"] == []
    assert limited(place, "quick check")["errors"] == []
    assert limited(place, "open")["error"] == ""
    walk(place)


CHAINS: dict[str, tuple[int, Callable[[int], int]]] = {
    "65 steps, the last as deep as the one before": (65, lambda count: min(count, 64)),
    "150 steps, all of the greatest depth": (150, lambda count: 64),
    "150 steps, all of depth one": (150, lambda count: 1),
    "150 steps, by turns": (150, lambda count: count % 2 + 1),
    "150 steps, downwards": (150, lambda count: max(64 - count, 1)),
    "two steps, the second says one": (2, lambda count: 1),
}


@pytest.mark.parametrize(("length", "depths"), CHAINS.values(), ids=CHAINS.keys())
def test_chains_that_are_longer_than_they_say(
    place: Path, length: int, depths: Callable[[int], int]
) -> None:
    forger = Forger(hostile.new_repository(place / "repository"))
    made = chain(forger, length, depths)
    forger.write_deltas(*made)
    commit(forger, made[-1].data)
    assert_refused(place, [made[-1].data], plain=True)


def test_a_check_of_very_many_lies_ends_soon(place: Path) -> None:
    forger = Forger(hostile.new_repository(place / "repository"))
    forger.write_deltas(*chain(forger, 2_000, lambda count: 1))
    commit(forger)
    assert limited(place, "check")["errors"]


def test_a_depth_of_65_spoils_the_pack(place: Path) -> None:
    forger = Forger(hostile.new_repository(place / "repository"))
    made = chain(forger, 65, lambda count: count)
    forger.write_deltas(*made)
    commit(forger, made[-1].data)
    assert_refused(place, [made[-1].data], plain=True)


def test_a_depth_that_is_too_large_does_no_harm(place: Path) -> None:
    """A bound is kept by more than is there: what comes out is hashed as ever."""
    forger = Forger(hostile.new_repository(place / "repository"))
    (made,) = chain(forger, 1, lambda count: 64)
    forger.write_deltas(made)
    commit(forger, made.data, names="evil")
    assert limited(place, "restore")["errors"] == []
    assert (place / "target" / "evil").read_bytes() == made.data
    walk(place)


def layers(forger: Forger, size: int, width: int, height: int) -> bytes:
    """Write layers of chunks that stand on all chunks of the layer below; return the last one."""
    below = [counted(size, count) for count in range(width)]
    forger.write_pack(
        [(frame(data), size, 1, [(forger.id_of(CHUNK, data), size, 1)]) for data in below]
    )
    base_ids = ids(forger, *below)
    deltas: list[Delta] = []
    last = b""
    for layer in range(1, height + 1):
        made = []
        for at in range(width):
            last = counted(size, layer * width + at)
            made.append(forger.id_of(CHUNK, last))
            deltas.append(Delta(last[:0], step(size, layer * width + at), base_ids, layer, 2, 1))
            deltas[-1] = deltas[-1]._replace(data=made[-1], raw_size=size)
        base_ids = made
    _write_by_id(forger, deltas)
    return last


def _write_by_id(forger: Forger, deltas: list[Delta]) -> None:
    """Write deltas whose `data` is the id already: contents of many MiB are not kept."""

    def lie(rows: list[Any]) -> None:
        for found, said in zip(rows, deltas, strict=True):
            found.bases, found.depth, found.lineage = said.bases, said.depth, said.lineage

    records = [
        (each.body, each.raw_size or 0, each.codec, [(each.data, each.raw_size or 0, 1)])
        for each in deltas
    ]
    forger.write_pack(records, change=lie)


@pytest.mark.parametrize(
    ("size", "height"),
    [(SIZE, 64), (MIB, 64), (16 * MIB, 12)],
    ids=["of 20 KB", "of 1 MiB", "of 16 MiB"],
)
def test_all_chunks_of_a_layer_stand_on_all_below(place: Path, size: int, height: int) -> None:
    """3^64 ways lead down; each chunk is decoded a few times at most."""
    forger = Forger(hostile.new_repository(place / "repository"))
    last = layers(forger, size, 3, height)
    commit(forger, last, names="evil")
    said = limited(place, "restore")
    assert_good(place)
    assert said["errors"] or (place / "target" / "evil").read_bytes() == last
    limited(place, "quick check")


def test_the_walk_over_very_many_bases_ends_soon(place: Path) -> None:
    """Ten thousand chunks on the same three, and these on three each, 20 steps down."""
    location = hostile.new_repository(place / "repository")
    forger = Forger(location)
    width, size = 3, SIZE
    base_ids = []
    for count in range(width):
        data = counted(size, count)
        forger.stored_record(CHUNK, data)
        base_ids += ids(forger, data)
    deltas: list[Delta] = []
    for layer in range(1, 21):
        made = [os.urandom(32) for _ in range(width)]
        deltas += [Delta(each, step(size, 1), base_ids, layer, raw_size=size) for each in made]
        base_ids = made
    top = [os.urandom(32) for _ in range(10_000)]
    deltas += [Delta(each, step(size, 1), base_ids, 21, raw_size=size) for each in top]
    _write_by_id(forger, deltas)
    forger.close()
    objects = ObjectRepository(str(location))
    try:
        assert objects.index.present(top[:5]) == [True] * 5
        started = time.process_time()
        reached = list(with_bases(objects.index, top))
        taken = time.process_time() - started
    finally:
        objects.close()
    assert len(reached) == 10_000 + 21 * width
    assert all(each.place is not None for each in reached)
    assert len(reached[-1].wanted_by) == 10_000
    assert taken < 2


# -- bases that are none --------------------------------------------------------------------


def page_of(forger: Forger) -> tuple[bytes, bytes]:
    """Store a long tree page; return its id and its bytes."""
    data = encode([0, [row(b"%05d" % at) for at in range(400)]])
    assert len(data) > SIZE // 2
    return forger.put(ObjectType.TREE, data), data


def on_a_page(forger: Forger) -> Delta:
    page_id, data = page_of(forger)
    return Delta(data, body(0, len(data), 0), [page_id])


def on_a_list(forger: Forger) -> Delta:
    data = encode([0, b"", [-7] * 20_000])
    list_id = forger.put(ObjectType.CHUNK_LIST, data)
    return Delta(data, body(0, len(data), 0), [list_id])


def beside(forger: Forger, data: bytes) -> list[bytes]:
    """Store a whole chunk and return its id, in a list."""
    forger.stored_record(CHUNK, data)
    return ids(forger, data)


BASES: dict[str, Callable[[Forger], Delta]] = {
    "a tree page": on_a_page,
    "a chunk list": on_a_list,
    "nothing that is there": lambda f: Delta(A, step(SIZE, 1), [bytes(32)]),
    "one that is there and one that is not": lambda f: Delta(
        A, step(SIZE, 1), [*beside(f, B), bytes(32)]
    ),
    "another chunk of the same size": lambda f: Delta(
        A, body(0, SIZE, 0), beside(f, counted(SIZE, 99))
    ),
    "a shorter chunk": lambda f: Delta(A, step(SIZE, 1), beside(f, bytes(SIZE - 1))),
    "a snapshot's id": lambda f: Delta(A, step(SIZE, 1), [os.urandom(32)]),
}


@pytest.mark.parametrize("delta", BASES.values(), ids=BASES.keys())
def test_bases_that_are_none(place: Path, delta: Callable[[Forger], Delta]) -> None:
    forger = Forger(hostile.new_repository(place / "repository"))
    made = delta(forger)
    forger.write_deltas(made)
    commit(forger, made.data)
    assert_refused(place, [made.data])


# -- bodies that lie ------------------------------------------------------------------------

ON_B = body(0, SIZE, 0)


def frame(data: bytes, **parameters: Any) -> bytes:
    return zstandard.ZstdCompressor(**parameters).compress(data)


def unstated(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


BODIES: dict[str, dict[str, Any]] = {
    "nothing": {"body": b""},
    "an endless number": {"body": b"\xff" * 50},
    "a number of five full bytes": {"body": b"\xff\xff\xff\xff\x7f"},
    "no instructions": {"body": b"\0"},
    "instructions beyond the end": {"body": number(1000) + b"\0"},
    "too little": {"body": body(0, SIZE - 1, 0)},
    "too much": {"body": body(0, SIZE + 1, 0)},
    "a copy of four gigabytes": {"body": body(0, 0xFFFFFFFF, 0)},
    "four gigabytes of literals": {"body": body(0xFFFFFFFF)},
    "a copy of nothing": {"body": body(0, 0, 0, 0, SIZE, 0)},
    "a copy before the beginning": {"body": body(0, SIZE, 1)},
    "a copy behind the end": {"body": body(0, SIZE, 2)},
    "a start of two gigabytes": {"body": body(0, 1, 0xFFFFFFFE, 0, SIZE - 1, 0)},
    "instructions left over": {"body": body(0, SIZE, 0, 0)},
    "literals left over": {"body": body(0, SIZE, 0, literals=b"x")},
    "literals that are not there": {"body": body(5, SIZE - 5, 10)},
    "a body longer than the chunk": {"body": body(*[1, 1, 0] * SIZE, literals=bytes(SIZE))},
    "raw size one too small": {"body": ON_B, "raw_size": SIZE - 1},
    "raw size one too large": {"body": ON_B, "raw_size": SIZE + 1},
    "raw size of 64 MiB": {"body": body(0, 64 * MIB, 0), "raw_size": 64 * MIB},
    "raw size of nothing": {"body": b"\0", "raw_size": 0},
    "a frame where there is none": {"body": ON_B, "codec": 3},
    "no frame where there is one": {"body": frame(ON_B), "codec": 2},
    "a frame that does not state its size": {"body": unstated(ON_B), "codec": 3},
    "a frame larger than the chunk": {"body": frame(bytes(SIZE + 1)), "codec": 3},
    "a frame of a gigabyte": {"body": frame(bytes(256 * MIB)), "codec": 3},
    "two frames": {"body": frame(ON_B) + frame(ON_B), "codec": 3},
    "bytes behind the frame": {"body": frame(ON_B) + b"\0", "codec": 3},
    "codec 0 with bases": {"body": B, "codec": 0},
    "codec 1 with bases": {"body": frame(B), "codec": 1},
    "codec 2 without bases": {"body": ON_B, "bases": [], "depth": 0, "lineage": 0},
    "codec 3 without bases": {
        "body": frame(ON_B),
        "codec": 3,
        "bases": [],
        "depth": 0,
        "lineage": 0,
    },
    "bases and no depth": {"body": ON_B, "depth": 0},
    "four bases": {"body": ON_B, "bases": [bytes(32)] * 4},
    "a thousand bases": {"body": ON_B, "bases": [bytes(32)] * 1000},
    "a base of 31 bytes": {"body": ON_B, "bases": [bytes(31)]},
    "a base of nothing": {"body": ON_B, "bases": [b""]},
    "a base of 64 bytes": {"body": ON_B, "bases": [bytes(64)]},
}


@pytest.mark.parametrize("said", BODIES.values(), ids=BODIES.keys())
def test_records_that_lie(place: Path, said: dict[str, Any]) -> None:
    forger = Forger(hostile.new_repository(place / "repository"))
    made = Delta(A, **({"bases": beside(forger, B)} | said))
    forger.write_deltas(made)
    commit(forger, A)
    assert_refused(place, [A])


@pytest.mark.parametrize("codec", [4, 15])
def test_codecs_of_later_versions_with_bases(place: Path, codec: int) -> None:
    """The record is refused or the whole repository is; nothing is guessed."""
    forger = Forger(hostile.new_repository(place / "repository"))
    forger.write_deltas(Delta(A, step(SIZE, 1), beside(forger, B), codec=codec))
    commit(forger, A)
    for verb in ("restore", "check"):
        said = limited(place, verb)
        assert said["error"].startswith("UnsupportedFormat") or said["errors"]
    assert not (place / "target" / "evil 0").exists()


def test_the_attacks_are_about_their_lies_alone(place: Path) -> None:
    """The same records without a lie are sound."""
    forger = Forger(hostile.new_repository(place / "repository"))
    base = beside(forger, B)
    forger.write_deltas(Delta(A, step(SIZE, 1), base), Delta(C, frame(step(SIZE, 3)), base, 1, 3))
    twice = A + C
    forger.write_deltas(Delta(twice, body(0, 2 * SIZE, 0), ids(forger, A, C), depth=2))
    commit(forger, A, C, twice)
    assert limited(place, "restore")["errors"] == []
    assert (place / "target" / "evil 2").read_bytes() == twice
    assert limited(place, "check")["errors"] == []


def test_a_delta_among_pages(place: Path) -> None:
    """Pages are never deltas: such a pack is refused, and so is what only it holds."""
    forger = Forger(hostile.new_repository(place / "repository"))
    page_id = page_of(forger)[0]
    other = encode([0, [row(b"x")]])

    def lie(rows: list[Any]) -> None:
        rows[0].bases, rows[0].depth = [page_id], 1

    other_id = forger.id_of(ObjectType.TREE, other)
    made = body(len(other), literals=other)
    forger.write_pack([(made, len(other), 2, [(other_id, len(other), 2)])], kind=2, change=lie)
    rows = [*sound(forger), row(b"evil 0", hostile.DIRECTORY, other_id)]
    forger.commit(sorted(rows, key=lambda each: each[0]))
    said = limited(place, "restore")
    assert [os.path.basename(path) for path in said["errors"]] == ["evil 0"]
    assert_good(place)
    assert limited(place, "check")["errors"]


def test_two_chunks_in_a_delta(place: Path) -> None:
    forger = Forger(hostile.new_repository(place / "repository"))
    bases = beside(forger, B)
    (first, second) = ids(forger, B[: SIZE // 2], B[SIZE // 2 :])

    def lie(rows: list[Any]) -> None:
        rows[0].bases, rows[0].depth = bases, 1

    half = SIZE // 2
    forger.write_pack([(ON_B, SIZE, 2, [(first, half, 1), (second, half, 1)])], change=lie)
    rows = [*sound(forger), row(b"evil", content=first, size=half)]
    forger.commit(sorted(rows, key=lambda each: each[0]))
    assert [os.path.basename(path) for path in limited(place, "restore")["errors"]] == ["evil"]
    assert limited(place, "check")["errors"]


# -- a snapshot into a hostile repository ---------------------------------------------------


@pytest.mark.parametrize(
    "attack", ["each at every depth", "on itself", "chain"], ids=lambda name: name
)
def test_search_meets_lies(place: Path, attack: str) -> None:
    """Keys of cuts lead to chunks that lie: what is stored is right all the same."""
    location = hostile.new_repository(place / "repository")
    forger = Forger(location)
    data = os.urandom(100_000)
    honest = beside(forger, data)
    if attack == "chain":
        made = chain(forger, 64, lambda count: 64)
    else:
        made = CYCLES[attack](forger)
    lying = [each._replace(bases=[*each.bases[:2], *honest]) for each in made]
    forger.write_deltas(*lying)
    commit(forger, A)
    (place / "source").mkdir()
    for at, content in enumerate([A, B, C, data]):
        (place / "source" / f"{at}").write_bytes(content[:-5] + b"other")
    with packstone.open(location) as repository:
        taken = repository.snapshot([place / "source"], read_all=True)
        assert taken.snapshot_id is not None
        for path in (place / "source").iterdir():
            with repository.open_file(taken.snapshot_id, bytes(path)) as file:
                assert file.read() == path.read_bytes()
