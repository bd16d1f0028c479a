"""Threads that carry finished packs to a storage where that takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class Uploads:
    """Run a bounded number of uploads; whoever starts one too many waits.

    Errors are the caller's to keep: what it starts must not forget its own.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="upload")
        self._room = threading.BoundedSemaphore(count)
        self._running: set[Future[None]] = set()
        self._lock = threading.Lock()

    def start(self, upload: Callable[[], None]) -> None:
        """Begin an upload as soon as there is room for one more."""
        self._room.acquire()
        try:
            future = self._pool.submit(upload)
        except BaseException:
            self._room.release()
            raise
        with self._lock:
            self._running.add(future)
        future.add_done_callback(self._ended)

    def _ended(self, future: Future[None]) -> None:
        with self._lock:
            self._running.discard(future)
        self._room.release()

    def wait(self) -> None:
        """Wait until all that was started has ended, well or not."""
        while True:
            with self._lock:
                running = list(self._running)
            if not running:
                return
            for future in running:
                future.exception()

    def close(self) -> None:
        """Wait for what is running; nothing can be started any more."""
        self._pool.shutdown(wait=True, cancel_futures=False)
