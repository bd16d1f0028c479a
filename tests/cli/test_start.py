"""The command itself: version, help, usage errors, what start-up imports, odd streams."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from packstone.version import VERSION

COMMANDS = ["init", "snapshot", "restore", "snapshots", "ls", "check"]


def test_version(run) -> None:
    assert run("--version").text == f"packstone {VERSION}\n"


def test_the_build_takes_the_version_from_the_program() -> None:
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        project = tomllib.load(file)
    assert project["project"]["dynamic"] == ["version"]
    attribute = project["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "packstone.version.VERSION"


def test_start_up_imports_nothing_heavy() -> None:
    heavy = {"rich", "lmdb", "zstandard", "blake3", "msgspec", "pathspec", "asyncio", "json"}
    program = (
        "import sys; from packstone.cli.main import main; main(['--version']); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert heavy & set(done.stdout.split()) == set()


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda c: "".join(c))
def test_help(run, command: list[str]) -> None:
    text = run(*command, "--help").text
    assert text.startswith("Usage: packstone")
    assert run(*command, "-h").text == text
    for option in ("--repo", "--json", "--quiet", "--verbose", "--threads"):
        assert option in text


def test_help_lists_the_commands_in_order(run) -> None:
    text = run("--help").text
    places = [text.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frobnicate"],
        ["--frobnicate"],
        ["snapshots", "--frobnicate"],
        ["snapshots", "extra"],
        ["--threads", "0", "snapshots"],
        ["--threads", "many", "snapshots"],
        ["snapshots"],  # no repository named
        ["ls"],
        ["restore", "latest"],
        ["snapshot"],
        ["init", "--plain", "--level", "99", "x"],
    ],
    ids=" ".join,
)
def test_usage_errors(run, words: list[str]) -> None:
    outcome = run(*words, code=2)
    assert outcome.out == b""
    assert outcome.err
    if words:
        assert run("--json", *words, code=2).json["error"]["exit_code"] == 2


def test_an_error_in_json(run) -> None:
    outcome = run("frobnicate", "--json", code=2)
    error = outcome.json["error"]
    assert error.keys() == {"kind", "message", "hint", "exit_code"}
    assert error["kind"] == "usage"
    assert "frobnicate" in error["message"]
    assert "frobnicate" in outcome.messages


def test_global_options_before_and_after_the_command(run, store) -> None:
    environment = {"PACKSTONE_REPO": "/nowhere"}
    for words in (["-r", store, "--json", "snapshots"], ["snapshots", "-r", store, "--json"]):
        assert run(*words, env=environment).json == []
    assert run("-r", "/nowhere", "snapshots", "-r", store, "--json").json == []


def test_a_reader_that_leaves_ends_it_quietly(run, store, make_tree) -> None:
    run("snapshot", make_tree({f"{i:04d}{'n' * 200}": "" for i in range(1500)}))
    process = run.start("ls", "-R", "latest")
    process.stdout.read(10)
    process.stdout.close()
    messages = process.stderr.read()
    assert process.wait(60) == 1
    assert messages == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_output_is_an_error(run, store, source) -> None:
    run("snapshot", source)
    for extra in ([], ["--json"], ["--null"]):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                run.argv(["ls", "-R", "latest", *extra]),
                stdout=full,
                stderr=subprocess.PIPE,
                env=run.environment,
            )
        assert done.returncode == 1
        assert b"No space left" in done.stderr
        assert b"Traceback" not in done.stderr
        assert b"Exception" not in done.stderr


def test_closed_streams_do_no_harm(run, store, source) -> None:
    """Descriptors 0 to 2 must not be given to files of the repository."""
    run("snapshot", source, prefix=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    run("check", "--read-data")
    assert len(run("snapshots", "--json").json) == 1


def test_any_locale_will_do(run, store, source) -> None:
    run("snapshot", source)
    plain = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    assert b"dump.sql" in run("ls", "-R", "latest", env=plain).out
