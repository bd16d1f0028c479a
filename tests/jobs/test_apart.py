"""Work in a process of its own: what comes back, how it dies, who may end it."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from packstone.operations.jobs import apart
from packstone.operations.jobs.apart import Wishes, run_apart


def linger(marker: str = "") -> str:
    """Work for a minute; say so when interrupted, after putting things away for a moment."""
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(0.5)
        return "put away"
    return "done"


def later(seconds: float, *numbers: int) -> None:
    def send() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    threading.Timer(seconds, send).start()


def test_what_it_returns_comes_back() -> None:
    large = os.urandom(3_000_000)  # more than a pipe holds
    with Wishes() as wishes:
        assert run_apart(lambda: {"large": large}, wishes).value == {"large": large}
        nothing = run_apart(lambda: None, wishes)
        assert nothing.value is None and not nothing.died


@pytest.mark.parametrize(
    "script,said",
    [
        ("os._exit(7)", "ended with 7"),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("1 / 0", "ended with 1"),
        ("sys.exit(0)", "ended with 1"),
    ],
)
def test_how_it_died_is_said(script: str, said: str) -> None:
    with Wishes() as wishes:
        died = run_apart(lambda: exec(f"import os, sys; {script}"), wishes)
    assert died.value is None and said in died.died


def test_what_does_not_end_is_killed() -> None:
    begin = time.monotonic()
    with Wishes() as wishes:
        died = run_apart(linger, wishes, 0.3)
    assert "killed" in died.died and time.monotonic() - begin < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wish_is_passed_on_and_leaves_time(number: int) -> None:
    with Wishes() as wishes:
        later(0.5, number)
        ended = run_apart(linger, wishes)
        assert ended.value == "put away" and ended.interrupted
        # what is done afterwards is not interrupted by the same wish
        assert run_apart(lambda: "told", wishes).value == "told"
        assert wishes.count == 1


def test_a_second_wish_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def stubborn() -> None:
        while True:
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass

    monkeypatch.setattr(apart, "_ONE_WISH_S", 0.0)
    begin = time.monotonic()
    with Wishes() as wishes:
        later(0.5, signal.SIGINT)
        later(1.5, signal.SIGINT)
        died = run_apart(stubborn, wishes)
    assert "killed" in died.died and time.monotonic() - begin < apart.GRACE_S


def test_a_key_that_is_held_is_one_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_ONE_WISH_S", 3600.0)
    with Wishes() as wishes:
        later(0.5, signal.SIGINT, signal.SIGINT, signal.SIGTERM)
        assert run_apart(linger, wishes).value == "put away"
        assert wishes.count == 1


def test_the_other_signal_is_no_other_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C from the terminal, and late from us as SIGTERM: once in the child."""

    def child() -> int:
        caught = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                os.kill(os.getpid(), number)
                time.sleep(0.1)
            except KeyboardInterrupt:
                caught += 1
        return caught

    monkeypatch.setattr(apart, "_ONE_WISH_S", 0.0)
    with Wishes() as wishes:
        assert run_apart(child, wishes).value == 1


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Wishes():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
