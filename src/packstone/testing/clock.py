"""A clock that a test holds: pass it as `clock` wherever Packstone takes one."""

from __future__ import annotations

import threading


class Clock:
    """Tell the time as a test wants it, in nanoseconds since 1970; safe to use from threads."""

    def __init__(self, now_ns: int = 1_700_000_000_000_000_000, *, tick_ns: int = 0) -> None:
        """Start at `now_ns`; each reading moves on by `tick_ns`, so that 0 gives equal times."""
        self._now_ns = now_ns
        self._tick_ns = tick_ns
        self._lock = threading.Lock()

    def __call__(self) -> int:
        """Return the time, in nanoseconds."""
        with self._lock:
            now_ns = self._now_ns
            self._now_ns += self._tick_ns
            return now_ns

    def set(self, now_ns: int) -> None:
        """Let it be another time, earlier or later."""
        with self._lock:
            self._now_ns = now_ns

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        with self._lock:
            self._now_ns += round(seconds * 1e9)

    def jump_back(self, seconds: float) -> None:
        """Turn the clock back, as a time server or a flat battery does."""
        self.advance(-seconds)
