"""Exclude rules: gitignore patterns, markers, sizes, file systems."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from walking import FILE, make, walked

from packstone.errors import UsageError
from packstone.filesystem import ignore
from packstone.filesystem.ignore import CACHE_SIGNATURE, CACHE_TAG, Filter, Rules


def kept(paths: list[str], *patterns: str) -> list[str]:
    """Return which paths (directories end with "/") stay, parents decided first."""
    rules = Filter(Rules(patterns=patterns))
    stay = []
    for path in paths:
        names = path.rstrip("/").split("/")
        for depth, name in enumerate(names):
            above = "".join(f"{each}/" for each in names[:depth])
            is_directory = depth < len(names) - 1 or path.endswith("/")
            if rules.excludes(above, os.fsencode(name), is_directory):
                break
        else:
            stay.append(path)
    return stay


TREE = [
    "a/",
    "a/x.tmp",
    "a/keep.tmp",
    "a/b/",
    "a/b/x.txt",
    "a/b/foo",
    "a/foo/",
    "a/foo/y",
    "foo",
    "x.tmp",
    "build/",
    "build/out",
    "src/build/",
    "src/build/out",
    "src/docs/build",
]


@pytest.mark.parametrize(
    ("patterns", "gone"),
    [
        ([], set()),
        (["", "# comment", "/"], set()),
        (["*.tmp"], {"a/x.tmp", "a/keep.tmp", "x.tmp"}),
        (["*.tmp", "!keep.tmp"], {"a/x.tmp", "x.tmp"}),
        (["!keep.tmp", "*.tmp"], {"a/x.tmp", "a/keep.tmp", "x.tmp"}),
        (["foo"], {"a/b/foo", "a/foo/", "a/foo/y", "foo"}),
        (["foo/"], {"a/foo/", "a/foo/y"}),
        (["/foo"], {"foo"}),
        (["/a/foo"], {"a/foo/", "a/foo/y"}),
        (["/build"], {"build/", "build/out"}),
        (["build/"], {"build/", "build/out", "src/build/", "src/build/out"}),
        (["build/", "!/src/build/"], {"build/", "build/out"}),
        (["src/build"], {"src/build/", "src/build/out"}),
        (["b/x.txt"], {"a/b/x.txt"}),  # at every depth, unlike git
        (["!b/x.txt"], set()),
        (["*.txt", "!b/x.txt"], set()),
        (["a/**"], {p for p in TREE if p.startswith("a/") and p != "a/"}),
        (["/a/**/foo"], {"a/b/foo", "a/foo/", "a/foo/y"}),
        (["**/docs/build"], {"src/docs/build"}),
        (["*"], set(TREE)),
        (["**"], set(TREE)),
        (["/*"], set(TREE)),
        (["*/"], {p for p in TREE if "/" in p}),
        (["/*", "!/a/"], {p for p in TREE if not p.startswith("a/")}),
        (["*", "!*/", "!*.txt"], {p for p in TREE if not p.endswith(("/", ".txt"))}),
        (["?oo"], {"a/b/foo", "a/foo/", "a/foo/y", "foo"}),
        (["[e-g]oo"], {"a/b/foo", "a/foo/", "a/foo/y", "foo"}),
        (["[!f]oo"], set()),
        (["\\!x", "\\#y"], set()),
        (["a/b", "!a/b/foo"], {"a/b/", "a/b/x.txt", "a/b/foo"}),  # not below what is left out
    ],
)
def test_patterns(patterns: list[str], gone: set[str]) -> None:
    assert set(TREE) - set(kept(TREE, *patterns)) == gone


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("caf\u00e9", "caf\u00e9".encode()),
        ("caf?", "caf\u00e9".encode()),
        ("[\u00e0-\u00ef]x", "\u00e9x".encode()),
        ("*\udcff*", b"a\xffb"),
        ("*", b"\xff\xfe"),
        ("a?b", b"a\xffb"),
        ("foo*", b"foo\nbar"),
        ("*bar", b"foo\nbar"),
        ("a\\ ", b"a "),
        ("\\#x", b"#x"),
        ("\\!x", b"!x"),
        ("x\\*", b"x*"),
    ],
)
def test_names_of_any_bytes(pattern: str, name: bytes) -> None:
    assert Filter(Rules(patterns=(pattern,))).excludes("", name, False)
    assert Filter(Rules(patterns=(f"/d/{pattern}",))).excludes("d/", name, False)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("foo", b"foo\n"), ("foo", b"\nfoo"), ("foo/", b"foo"), ("*.a", b"x.a\n"), ("?", b"ab")],
)
def test_names_that_only_nearly_match(pattern: str, name: bytes) -> None:
    assert not Filter(Rules(patterns=(pattern,))).excludes("", name, False)
    assert not Filter(Rules(patterns=(f"/d/{pattern}",))).excludes("d/", name, False)


@pytest.mark.parametrize("pattern", ["**/" + "*" * 40 + "/x", "*a" * 20 + "b", "/d/" + "*a" * 20])
def test_many_stars_cost_no_powers(pattern: str) -> None:
    """Whoever may name files in a source must not be able to hold up its snapshot."""
    before = time.process_time()
    Filter(Rules(patterns=(pattern,))).excludes("d/", b"a" * 254 + b"c", False)
    assert time.process_time() - before < 0.5


@given(
    pattern=st.text(alphabet="ab*?[]!-/", min_size=1, max_size=12).filter(str.strip),
    name=st.text(alphabet="ab-", min_size=1, max_size=10),
)
def test_stars_match_what_they_did(pattern: str, name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        try:
            found = Filter(Rules(patterns=(pattern,))).excludes("a/b/", name.encode(), False)
            patch.setattr(ignore, "_without_retries", lambda regex: regex)
            plain = Filter(Rules(patterns=(pattern,))).excludes("a/b/", name.encode(), False)
        except UsageError:
            return
    assert found == plain


def test_a_newline_on_the_way_hides_nothing() -> None:
    assert Filter(Rules(patterns=("b/foo",))).excludes("a\n\n/b/", b"foo", False)
    assert Filter(Rules(patterns=("/a*/foo",))).excludes("a\n/", b"foo", False)


def test_patterns_that_make_no_sense_are_refused() -> None:
    for pattern in ("!", "x\\", "[z-a]", "a/[z-a]"):
        with pytest.raises(UsageError, match="exclude pattern"):
            Filter(Rules(patterns=(pattern,)))


# a bracket over a slash is the one thing that pathspec reads differently
SEGMENT = st.lists(
    st.sampled_from([*"ab*?.!x-", "[ab]", "[!a]", "[a-b]", "[^x]"]), min_size=1, max_size=4
).map("".join)
PATTERN = st.builds(
    lambda mark, head, parts, tail: mark + head + "/".join(parts) + tail,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["/", "**/", ""]),
    st.lists(st.one_of(SEGMENT, st.just("**")), min_size=1, max_size=3),
    st.sampled_from(["", "/", "/**"]),
)
PATHS = [
    "a", "b/", "ab", "a.b", "x", "b/a", "b/ab/", "b/ab/a", "b/ab/b.a", "b/x/", "b/x/a/", "b/x/a/b",
]  # fmt: skip


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git to compare with")
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=15,
)
@given(patterns=st.lists(st.lists(PATTERN, min_size=1, max_size=3), min_size=1, max_size=4))
def test_git_agrees(patterns: list[list[str]], tmp_path: Path) -> None:
    """`git check-ignore` on the same tree; slashes in the middle get the `**/` we imply."""
    top = tmp_path / "git"
    if not top.exists():
        top.mkdir()
        subprocess.run(["git", "init", "-q", "."], cwd=top, check=True)
        for path in PATHS:
            if path.endswith("/"):
                (top / path).mkdir()
            else:
                (top / path).touch()
    for lines in patterns:
        try:
            Filter(Rules(patterns=tuple(lines)))
        except UsageError:
            continue
        implied = []
        for line in lines:
            mark, body = ("!", line[1:]) if line.startswith("!") else ("", line)
            inner = body.rstrip("/")
            if "/" in inner and not inner.startswith(("/", "**/")):
                body = "**/" + body
            implied.append(mark + body)
        (top / ".gitignore").write_text("\n".join(implied) + "\n")
        done = subprocess.run(
            ["git", "-c", "core.excludesFile=", "check-ignore", "-z", "--no-index", "--stdin"],
            cwd=top,
            input="\0".join(path.rstrip("/") for path in PATHS).encode(),
            capture_output=True,
        )
        ignored = set(done.stdout.decode().split("\0")) - {""}
        ours = {path.rstrip("/") for path in set(PATHS) - set(kept(PATHS, *lines))}
        assert ours == ignored, lines


# ---------------------------------------------------------------- in a walk


def below(root: Path, **rules: Any) -> dict[bytes, Any]:
    result = walked(root, Rules(**rules))
    assert not result.failed
    return result.below(root)


def test_absolute_patterns_begin_at_the_root(tmp_path: Path) -> None:
    root = tmp_path / "s"
    make(root, {"a": {"x": ""}, "b": {"a": ""}})
    assert below(root, patterns=(f"{root}/a",)) == {b"b": {b"a": FILE}}
    assert below(root, patterns=("/a",)) == {b"a": {b"x": FILE}, b"b": {b"a": FILE}}


def test_sources_and_their_ancestors_are_not_left_out(tmp_path: Path) -> None:
    """Whoever names a path means it, also below a directory that a pattern matches."""
    root = tmp_path / "s"
    make(root, {"s": {"x": ""}, "y": ""})
    names = [part for part in tmp_path.parts if part != "/"]
    assert below(root, patterns=("s", *names)) == {b"y": FILE}


def test_larger_than_is_about_files(tmp_path: Path) -> None:
    make(tmp_path / "s", {"a": "x" * 100, "b": "x" * 101, "d": {"c": "x" * 102}})
    os.symlink("x" * 150, tmp_path / "s" / "link")
    found = below(tmp_path / "s", larger_than=100)
    assert found == {b"a": FILE, b"d": {}, b"link": "other"}


def test_a_cache_keeps_its_entry_and_its_tag(tmp_path: Path) -> None:
    root = tmp_path / "s"
    tag = os.fsdecode(CACHE_SIGNATURE + b"\n# anything\n")
    make(root, {
        "cache": {os.fsdecode(CACHE_TAG): tag, "big": "", "sub": {"x": ""}},
        "fake": {os.fsdecode(CACHE_TAG): "Signature: no", "x": ""},
        "short": {os.fsdecode(CACHE_TAG): "Sig", "x": ""},
        "linked": {"x": ""},
    })  # fmt: skip
    os.symlink("../cache/CACHEDIR.TAG", root / "linked" / "CACHEDIR.TAG")
    found = below(root, caches=True)
    assert found == {
        b"cache": {CACHE_TAG: FILE},
        b"fake": {CACHE_TAG: FILE, b"x": FILE},
        b"short": {CACHE_TAG: FILE, b"x": FILE},
        b"linked": {CACHE_TAG: "other", b"x": FILE},
    }
    assert b"big" in below(root)[b"cache"]


def test_if_present_keeps_the_entry_and_the_marker(tmp_path: Path) -> None:
    root = tmp_path / "s"
    make(
        root,
        {"a": {".nobackup": "", "x": "", "z": {}}, "b": {"other": "", "m": ""}, "c": {"x": ""}},
    )
    os.mkdir(root / "c" / ".nobackup")
    found = below(root, if_present=(b".nobackup", b"m"))
    assert found == {b"a": {b".nobackup": FILE}, b"b": {b"m": FILE}, b"c": {b".nobackup": {}}}


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A source with another file system mounted inside it."""
    root = tmp_path / "s"
    make(root, {"a": {"x": ""}, "mnt": {"hidden": ""}, "z": {"y": ""}})
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", root / "mnt"], capture_output=True
    )
    if done.returncode != 0:
        pytest.skip("cannot mount here")
    make(root / "mnt", {"foreign": "", "deep": {"w": ""}})
    yield root
    subprocess.run(["umount", root / "mnt"], check=True)


def test_one_file_system_keeps_the_mount_point_only(mounted: Path) -> None:
    found = below(mounted, one_file_system=True)
    assert found == {b"a": {b"x": FILE}, b"mnt": {}, b"z": {b"y": FILE}}
    assert below(mounted)[b"mnt"] == {b"foreign": FILE, b"deep": {b"w": FILE}}


def test_one_file_system_is_that_of_each_source(mounted: Path) -> None:
    result = walked([mounted / "mnt", mounted / "a"], Rules(one_file_system=True))
    assert result.below(mounted) == {
        b"a": {b"x": FILE},
        b"mnt": {b"foreign": FILE, b"deep": {b"w": FILE}},
    }
