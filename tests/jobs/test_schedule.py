"""The timer that wakes the jobs: real systemctl and systemd-analyze, a real crontab."""

from __future__ import annotations

import configparser
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packstone.errors import PackstoneError, UsageError
from packstone.operations.jobs.config import parse_strategy
from packstone.operations.jobs.schedule import BOOTED, find_schedule
from packstone.operations.jobs.schedule_systemd import MARK
from packstone.operations.jobs.strategy import Strategy

OTHER = b"# mine, in Latin-1: \xe9\nMAILTO=ada\n\n17 3 * * * /usr/bin/true  # %\n"

needs_crontab = pytest.mark.skipif(
    shutil.which("crontab") is None, reason="there is no crontab program"
)
needs_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze"
)
# Without a running systemd, systemctl makes and removes the links of units and no more; with
# one, these tests would start a timer of the user who runs them.
offline = pytest.mark.skipif(
    shutil.which("systemctl") is None or os.path.isdir(BOOTED),
    reason="systemctl is missing, or systemd runs here",
)


def strategy(*every: str, path: str = "/etc/packstone/packstone.toml") -> Strategy:
    text = '[repositories.main]\nlocation = "/backup"\n'
    for number, each in enumerate(every):
        text += f'[jobs.j{number}]\npaths = "/srv/{number}"\n'
        text += f'every = "{each}"\n' if each else ""
    return parse_strategy(text.encode(), path)


# --- cron


@pytest.fixture
def crontab() -> Iterator[None]:
    """The crontab of the user who runs the tests, put back afterwards whatever happens."""
    before = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    subprocess.run(["crontab", "-r"], capture_output=True, check=False)
    yield
    if before.returncode == 0:
        subprocess.run(["crontab", "-"], input=before.stdout, check=True)
    else:
        subprocess.run(["crontab", "-r"], capture_output=True, check=False)


def lines() -> bytes | None:
    done = subprocess.run(["crontab", "-l"], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def write(data: bytes) -> None:
    subprocess.run(["crontab", "-"], input=data, check=True)


@needs_crontab
def test_cron_leaves_other_lines_alone(crontab: None) -> None:
    write(OTHER)
    schedule = find_schedule("cron")
    assert schedule.install(strategy("1h"))
    block = schedule.written(strategy("1h"))["crontab"].encode()
    assert lines() == OTHER + block
    assert not schedule.install(strategy("1h")), "it is there already"
    assert lines() == OTHER + block
    # lines that came after it stay behind it when it changes
    write(OTHER + block + b"0 0 * * * /usr/bin/false\n")
    assert schedule.install(strategy("1min"))
    changed = schedule.written(strategy("1min"))["crontab"].encode()
    assert lines() == OTHER + changed + b"0 0 * * * /usr/bin/false\n"
    assert schedule.remove()
    assert lines() == OTHER + b"0 0 * * * /usr/bin/false\n"
    assert not schedule.remove()


@needs_crontab
def test_without_other_lines_there_is_no_crontab_afterwards(crontab: None) -> None:
    schedule = find_schedule("cron")
    assert not schedule.remove()
    schedule.install(strategy("1h"))
    assert lines() == schedule.written(strategy("1h"))["crontab"].encode()
    assert schedule.remove()
    assert lines() is None


@needs_crontab
@pytest.mark.parametrize("kept", [[0], [2], [2, 0], [0, 0, 2], [0, 2, 2], [0, 2, 0, 2]])
def test_markers_that_do_not_match_are_left_as_they_are(crontab: None, kept: list[int]) -> None:
    schedule = find_schedule("cron")
    block = schedule.written(strategy("1h"))["crontab"].splitlines()
    broken = b"".join(block[each].encode() + b"\n1 2 * * * /usr/bin/true\n" for each in kept)
    write(broken)
    for act in (schedule.remove, lambda: schedule.install(strategy("1h"))):
        with pytest.raises(UsageError, match="marker"):
            act()
    assert lines() == broken


@needs_crontab
def test_a_crontab_that_cannot_be_read_is_not_taken_for_an_empty_one(
    crontab: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(OTHER)
    real = shutil.which("crontab")
    failing = tmp_path / "crontab"
    failing.write_text(
        f'#!/bin/sh\n[ "$1" = -l ] && {{ echo "disk on fire" >&2; exit 1; }}\nexec {real} "$@"\n'
    )
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(PackstoneError, match="disk on fire"):
        find_schedule("cron").install(strategy("1h"))
    assert lines() is None, "the failing one"
    monkeypatch.undo()
    assert lines() == OTHER


@pytest.mark.parametrize("name", ["pack stone", "100%", "it's $HOME", "`id`", '"', "\\"])
def test_the_line_of_cron_calls_what_is_meant(tmp_path: Path, name: str) -> None:
    """Undo what cron does with a line, and let a shell split the rest."""
    path = str(tmp_path / name / "packstone.toml")
    text = find_schedule("cron").written(strategy("1h", path=path))["crontab"]
    line = text.splitlines()[1]
    assert "%" not in line.replace("\\%", "")
    minute, *rest = line.replace("\\%", "%").split(" ", 5)
    assert (minute, rest[:4]) == ("*/15", ["*"] * 4)
    command = rest[4].split(" ", 1)[1]
    words = shlex.split(command)
    assert words[1:] == ["-q", "--config", path, "run", "--due"]
    assert words[0] == str(Path(sys.executable).parent / "packstone")
    shown = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == words


def test_cron_cannot_name_a_path_with_a_newline() -> None:
    with pytest.raises(UsageError):
        find_schedule("cron").written(strategy("1h", path="/a\nb.toml"))


# --- systemd


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "settings" / "systemd" / "user"


def verified(directory: Path, units: dict[str, str], user: bool) -> tuple[int, str]:
    """Return what systemd says of units; also of a program that it does not find."""
    paths = []
    for place, text in units.items():
        paths.append(directory / os.path.basename(place))
        paths[-1].write_text(text)
    words = ["systemd-analyze", *(["--user"] if user else []), "--man=no", "verify", *paths]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"XDG_RUNTIME_DIR": str(directory)},
    )
    return done.returncode, done.stderr


@needs_analyze
@pytest.mark.parametrize("user", [False, True])
def test_systemd_understands_its_units(tmp_path: Path, user: bool) -> None:
    units = find_schedule("systemd", user=user).written(strategy("1h"))
    assert verified(tmp_path, units, user) == (0, "")
    # what would be told, were a word of them misspelt
    wrong = {place: text.replace("Persistent", "Persistant") for place, text in units.items()}
    assert "Persistant" in verified(tmp_path, wrong, user)[1]


@needs_analyze
@pytest.mark.parametrize("name", ["pack stone", "100%n", "$HOME", "ö;&"])
def test_systemd_finds_a_program_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    place = tmp_path / name
    place.mkdir()
    shutil.copy("/bin/true", place / "packstone")
    monkeypatch.setattr(sys, "executable", str(place / "python"))
    path = str(place / "packstone.toml")
    units = find_schedule("systemd", user=False).written(strategy("1h", path=path))
    assert verified(tmp_path, units, False) == (0, "")
    os.unlink(place / "packstone")
    assert "not executable" in verified(tmp_path, units, False)[1]


@needs_analyze
@pytest.mark.parametrize("name", ['say "x"', "it's", "a\\b", "new\nline"])
def test_what_systemd_cannot_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A program it refuses is refused here; an argument may be anything."""
    schedule = find_schedule("systemd", user=False)
    units = schedule.written(strategy("1h", path=str(tmp_path / name / "packstone.toml")))
    assert verified(tmp_path, units, False) == (0, "")
    (tmp_path / name).mkdir()
    shutil.copy("/bin/true", tmp_path / name / "packstone")
    monkeypatch.setattr(sys, "executable", str(tmp_path / name / "python"))
    with pytest.raises(UsageError, match="no program"):
        schedule.written(strategy("1h"))


@needs_analyze
@pytest.mark.parametrize(("every", "minutes"), [("1h", 15), ("daily 02:05", 5), ("1min", 1)])
def test_the_timer_of_systemd_looks_as_often_as_is_needed(every: str, minutes: int) -> None:
    text = find_schedule("systemd", user=True).written(strategy(every, "1d"))
    timer = next(text for place, text in text.items() if place.endswith(".timer"))
    units = configparser.ConfigParser(interpolation=None, strict=False)
    units.read_string(timer)
    assert units["Timer"]["Persistent"] == "true"
    done = subprocess.run(
        ["systemd-analyze", "calendar", "--iterations=3", "--base-time=2026-03-01 00:00:30 UTC",
         units["Timer"]["OnCalendar"]],
        capture_output=True, text=True, check=True, env=os.environ | {"TZ": "UTC"},
    )  # fmt: skip
    for number in (1, 2, 3):
        assert f"00:{number * minutes:02}:00 UTC" in done.stdout


@offline
def test_units_are_installed_once_and_removed(home: Path) -> None:
    schedule = find_schedule("systemd", user=True)
    assert not schedule.remove()
    assert schedule.install(strategy("1h"))
    link = home / "timers.target.wants" / "packstone.timer"
    assert link.resolve() == home / "packstone.timer"
    before = {path: path.read_bytes() for path in home.glob("packstone.*")}
    assert {path.name for path in before} == {"packstone.service", "packstone.timer"}
    assert {str(path): data.decode() for path, data in before.items()} == schedule.written(
        strategy("1h")
    )
    assert not schedule.install(strategy("1h"))
    assert {path: path.read_bytes() for path in home.glob("packstone.*")} == before
    assert schedule.install(strategy("1min")), "it must look more often now"
    home.joinpath("other.timer").write_text("[Timer]\n")
    assert schedule.remove()
    assert [path.name for path in home.rglob("*") if not path.is_dir()] == ["other.timer"]
    assert not link.is_symlink()


@offline
@pytest.mark.parametrize("name", ["packstone.timer", "packstone.service"])
def test_units_of_somebody_else_are_left_alone(home: Path, name: str) -> None:
    home.mkdir(parents=True)
    home.joinpath(name).write_text("[Unit]\nDescription=mine\n")
    schedule = find_schedule("systemd", user=True)
    for act in (schedule.remove, lambda: schedule.install(strategy("1h"))):
        with pytest.raises(UsageError, match="left as it is"):
            act()
    assert home.joinpath(name).read_text() == "[Unit]\nDescription=mine\n"
    assert [path.name for path in home.iterdir()] == [name], "nor is the other one written"


def test_the_units_bear_the_mark_by_which_they_are_known() -> None:
    for text in find_schedule("systemd", user=False).written(strategy("1h")).values():
        assert text.startswith(MARK + "\n")


# --- either


@pytest.mark.parametrize("kind", ["systemd", "cron"])
def test_jobs_that_do_not_say_when_are_not_scheduled(kind: str) -> None:
    with pytest.raises(UsageError, match="says when"):
        find_schedule(kind, user=True).written(strategy(""))


def test_what_this_machine_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="systemd, cron"):
        find_schedule("launchd")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="neither systemd"):
        find_schedule()
    with pytest.raises(PackstoneError, match="crontab"):
        find_schedule("cron").install(strategy("1h"))
