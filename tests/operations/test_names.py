"""Names are bytes: whatever a file system takes comes back (row N1)."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from compare_trees import assert_equal_trees
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations.samples import make_deep, make_many

import packstone

RoundTrip = Callable[..., packstone.SnapshotResult]

HOSTILE = [
    b"new\nline",
    b"esc\x1b[31m",
    b"bell\x07 back\x08 delete\x7f",
    b"latin-\xe9",
    b"\xff\xfe\x80",
    b"\xc3",  # the first half of a character
    b"\xed\xa0\x80",  # a surrogate
    "bidi-\u202e-override".encode(),
    "zero\u200bwidth".encode(),
    unicodedata.normalize("NFC", "Ångström").encode(),
    unicodedata.normalize("NFD", "Ångström").encode(),
    "ﬁ Ⅷ 🗃".encode(),
    b"-rf",
    b"--",
    b"...",
    b".hidden",
    b" leading and trailing ",
    b"tab\t",
    b"$HOME `id` *?[a-z]",
    b"back\\slash",
    b"\"quotes'",
    b"aux.txt",
    b"C:",
    b"~",
    b"x" * 255,
    b"\xff" * 255,
    "é".encode() * 127,
]


def make(directory: Path, name: bytes, content: bytes) -> None:
    with open(os.fsencode(directory) + b"/" + name, "wb") as file:
        file.write(content)


def usable(directory: Path, name: bytes) -> bool:
    """Say whether this file system takes the name as it is."""
    try:
        make(directory, name, b"")
        found = name in os.listdir(os.fsencode(directory))
        os.unlink(os.fsencode(directory) + b"/" + name)
    except OSError:
        return False
    return found


def test_every_name_of_one_byte(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    names = [bytes((value,)) for value in range(1, 256) if value not in b"./"]
    for name in names:
        if usable(source, name):
            make(source, name, b"content of " + name)
    assert len(os.listdir(source)) >= 200
    round_trip(repository, source)


def test_hostile_names_of_every_kind(
    repository: packstone.Repository, source: Path, round_trip: RoundTrip
) -> None:
    for kind in ("files", "directories", "links"):
        (source / kind).mkdir()
    made = [name for name in HOSTILE if usable(source / "files", name)]
    for name in made:
        make(source / "files", name, name)
        below = os.fsencode(source / "directories") + b"/" + name
        os.mkdir(below)
        with open(below + b"/" + name, "wb") as file:
            file.write(b"inside")
        os.symlink(name, os.fsencode(source / "links") + b"/" + name)
    assert len(made) > 20
    round_trip(repository, source)
    inside = os.fsencode(source) + b"/directories/"
    for name in made:
        with repository.open_file("latest", inside + name + b"/" + name) as stored:
            assert stored.read() == b"inside"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(
        st.binary(min_size=1, max_size=255).filter(
            lambda name: name not in (b".", b"..") and b"/" not in name and b"\0" not in name
        ),
        max_size=20,
    )
)
def test_any_names(repository: packstone.Repository, tmp_path: Path, names: set[bytes]) -> None:
    source, target = tmp_path / "any", tmp_path / "any-target"
    source.mkdir()
    try:
        for name in names:
            try:
                make(source, name, name[::-1])
            except OSError:
                continue  # a file system with rules of its own
        assert repository.snapshot([source]).errors == []
        assert repository.restore("latest", target, path=os.fsencode(source)).errors == []
        assert_equal_trees(source, target, top=False)
    finally:
        shutil.rmtree(source)
        shutil.rmtree(target, ignore_errors=True)


def test_three_thousand_levels(settled: packstone.Repository, big_place: Path) -> None:
    """Far deeper than a path can be long."""
    source, target = big_place / "source", big_place / "target"
    make_deep(source, levels=3_000, name=b"level")
    result = settled.snapshot([source])
    assert result.errors == []
    assert result.dirs >= 3_000
    assert result.files_new == 3_000 // 100
    assert settled.restore("latest", target, path=os.fsencode(source)).errors == []
    assert_equal_trees(source, target, top=False)
    again = settled.snapshot([source])
    assert (again.files_new, again.files_changed) == (0, 0)
    listed = sum(1 for _ in settled.ls("latest", os.fsencode(source), recursive=True))
    assert listed == 3_000 + 3_000 // 100
    assert settled.check(read_data=True).errors == []


def test_a_hundred_thousand_names(settled: packstone.Repository, big_place: Path) -> None:
    """A large directory is stored in pages; a change rewrites one of them, not the list."""
    source, target = big_place / "source", big_place / "target"
    make_many(source, 100_000)
    assert settled.snapshot([source]).files_new == 100_000
    os.unlink(source / "name 50000")
    (source / "name 50000").write_bytes(b"another")
    (source / "name 77777 and one more").write_bytes(b"new")
    result = settled.snapshot([source])
    assert result.errors == []
    assert (result.files_new, result.files_changed) == (1, 1)
    assert result.bytes_added < 500_000, "only the pages that changed may be written"
    restored = settled.restore(
        "latest", target, path=os.fsencode(source), include=["name 5*", "name 77777*"]
    )
    assert restored.errors == []
    wanted = [name for name in os.listdir(source) if name.startswith(("name 5", "name 77777"))]
    assert sorted(os.listdir(target)) == sorted(wanted)
    for name in ("name 5", "name 50000", "name 59999", "name 77777 and one more"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
        assert (target / name).stat().st_mtime_ns == (source / name).stat().st_mtime_ns
    listed = [row.entry.name for row in settled.ls("latest", os.fsencode(source))]
    assert listed == sorted(os.listdir(os.fsencode(source)))


def test_a_listing_is_in_the_order_of_bytes(repository: packstone.Repository, source: Path) -> None:
    for name in [b"a", b"a-", b"a.b", b"a/", b"a0", b"B", b"\xff", b"aa"]:
        if name.endswith(b"/"):
            os.mkdir(os.fsencode(source) + b"/dir")
        else:
            make(source, name, b"")
    repository.snapshot([source])
    names = [row.entry.name for row in repository.ls("latest", os.fsencode(source))]
    assert names == sorted(os.listdir(os.fsencode(source)))


@pytest.mark.parametrize("path", [b"/", b"", b"//", b"/.", b"."])
def test_the_root_is_listed_by_many_names(
    repository: packstone.Repository, source: Path, path: bytes
) -> None:
    make(source, b"file", b"1")
    repository.snapshot([source])
    names = [row.path for row in repository.ls("latest", path)]
    assert names == [b"/" + os.fsencode(source).split(b"/")[1]]
