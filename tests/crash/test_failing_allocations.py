"""The C extensions when the n-th allocation fails (row E5).

They are compiled anew beside a copy of the sources, with allocations that fail on demand; the
real command then takes a snapshot, or restores one. Either works, or it is an error and nothing
was committed; the process never dies of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest
from campaign import IS_SOAK, Caught, campaign, control
from compare_trees import describe, differences
from crash.commands import Stage, copies, judge_snapshot
from tables import nights

import packstone

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = {"chunking": "_kernel", "codec": "_delta", "filesystem": "_scan"}
A_DAY = 4  # allocations of each extension that fail, every day


def build(place: Path, change: tuple[str, str, str] | None = None) -> Path:
    """Copy the sources and compile the extensions; return what to put on the path.

    `change` replaces a text in a file by another one.
    """
    made = place / "src"
    shutil.copytree(ROOT / "src", made, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    if change is not None:
        name, old, new = change
        text = (made / name).read_text()
        assert text.count(old) == 1
        (made / name).write_text(text.replace(old, new))
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler")
    for folder, name in EXTENSIONS.items():
        directory = made / "packstone" / folder
        done = subprocess.run(
            [
                compiler, "-O1", "-shared", "-fPIC", "-DPy_LIMITED_API=0x030b0000",
                f'-DEXTENSION="{name}"', f"-I{sysconfig.get_path('include')}",
                "-include", Path(__file__).with_name("failing_allocations.h"),
                directory / f"{name}.c", "-o", directory / f"{name}.abi3.so",
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"cannot compile extensions here: {done.stderr[-300:]}")
    return made


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("build"))


@pytest.fixture
def original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Small files, names, attributes, and a dump that is stored as deltas of the last one."""
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    source = tmp_path / "source"
    first, second = nights("allocations", 3000, 2)
    (source / "below").mkdir(parents=True)
    for number in range(40):
        (source / "below" / f"{number} {'n' * 150}").write_bytes(bytes([number]) * 500)
    stored = {}
    with packstone.init(tmp_path / "repository", chunk_size=32 << 10) as repository:
        (source / "dump").write_bytes(first)
        result = repository.snapshot([source])
        stored[result.snapshot_id or ""] = describe(source, top=False)
    (source / "dump").write_bytes(second)
    (source / "new").write_bytes(b"new" * 1000)
    return Stage(tmp_path / "repository", source, stored=stored)


def run(sources: Path, stage: Stage, words: list[str], **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "packstone", "--threads", "1", "-r", str(stage.location), *words],
        capture_output=True, timeout=120, cwd=stage.location.parent,
        env=os.environ | {"PYTHONPATH": str(sources)} | environment,
    )  # fmt: skip
    return done.returncode, done.stderr.decode("utf-8", "replace")


def allocations(sources: Path, stage: Stage, words: list[str]) -> list[tuple[str, int]]:
    """Return which allocations of which extension are to fail, each once."""
    told = stage.location.with_name("allocations")
    told.unlink(missing_ok=True)
    code, said = run(sources, stage, words, ALLOCATIONS=str(told))
    assert code == 0, said
    found = []
    for line in told.read_text().splitlines():
        name, count = line.split()
        step = 1 if IS_SOAK else max(1, int(count) // A_DAY)
        found += [(name, n) for n in range(1, int(count) + 1, step)]
    return found


def snapshot_failing(sources: Path, stage: Stage, name: str, n: int) -> int:
    """Take a snapshot; judge what it left, and return its exit code."""
    code, said = run(sources, stage, ["snapshot", str(stage.source)], **{f"FAIL_{name}": str(n)})
    assert code in (0, 1, 13), f"exit code {code}: {said[-2000:]}"
    assert "Traceback" not in said, said
    judge_snapshot(stage, done=code == 0)
    return code


def test_a_snapshot(sources: Path, original: Stage) -> None:
    with campaign("E5", "snapshot, the n-th malloc of an extension") as row:
        codes: Counter[int] = Counter()
        with copies(original) as copy:
            stage = copy()
            for name, n in allocations(sources, stage, ["snapshot", str(stage.source)]):
                try:
                    codes[snapshot_failing(sources, copy(), name, n)] += 1
                except BaseException as error:
                    error.add_note(f"allocation {n} of {name}")
                    raise
                row.trials += 1
        assert codes[1] > 0, "nothing ever failed"
        row.note = f", exit codes {dict(sorted(codes.items()))}"


def test_a_restore(sources: Path, original: Stage, tmp_path: Path) -> None:
    with packstone.open(original.location) as repository:
        repository.snapshot([original.source])
    expected = describe(original.source, top=False)
    target = tmp_path / "target"
    words = ["restore", f"latest:{original.source}", "--target", str(target)]
    with campaign("E5", "restore, the n-th malloc of an extension") as row:
        codes: Counter[int] = Counter()
        for name, n in allocations(sources, original, words):
            shutil.rmtree(target, ignore_errors=True)
            code, said = run(sources, original, words, **{f"FAIL_{name}": str(n)})
            assert code in (0, 1, 3, 13), (name, n, code, said[-2000:])
            assert "Traceback" not in said, (name, n, said)
            if code == 0:
                assert differences(expected, describe(target, top=False)) == [], (name, n)
            codes[code] += 1
            row.trials += 1
        row.note = f", exit codes {dict(sorted(codes.items()))}"


def test_an_unchecked_allocation_would_be_noticed(tmp_path: Path, original: Stage) -> None:
    sources = build(
        tmp_path,
        (
            "packstone/filesystem/_listing.h",
            "    if (texts == NULL || stats == NULL || errors == NULL) {\n",
            "    if (texts == NULL) {\n",
        ),
    )
    with control("E5", "unchecked malloc") as row, copies(original) as copy:
        for n in range(1, 30):
            try:
                snapshot_failing(sources, copy(), "_scan", n)
            except AssertionError as error:
                raise Caught from error
            row.trials += 1
