"""Few open descriptors for many nodes: those used least recently are closed.

Never here: opening anything. The invariant: a descriptor that somebody holds stays open; of
the others at most `capacity` do, together with the held ones.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict


class Node:
    """Something that can be opened again; `fd` is -1 while it is closed."""

    __slots__ = ("fd", "holders")

    def __init__(self) -> None:
        self.fd = -1
        self.holders = 0


class Descriptors:
    """The open nodes, in order of use; thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._open: OrderedDict[Node, None] = OrderedDict()

    def acquire(self, node: Node) -> int | None:
        """Hold an open node until `release` and return its descriptor; None if it is closed."""
        with self._lock:
            if node.fd < 0:
                return None
            node.holders += 1
            self._open.move_to_end(node)
            return node.fd

    def adopt(self, node: Node, fd: int) -> int:
        """Take a fresh descriptor of a node and hold it; return the one to use.

        If another thread was faster its descriptor is used and `fd` is closed.
        """
        idle: list[int] = []
        with self._lock:
            if node.fd < 0:
                node.fd = fd
                self._open[node] = None
            else:
                idle.append(fd)
                self._open.move_to_end(node)
            node.holders += 1
            if len(self._open) > self._capacity:
                idle += self._evict()
        for each in idle:
            os.close(each)
        return node.fd

    def _evict(self) -> list[int]:
        victims: list[Node] = []
        for node in self._open:
            if len(self._open) - len(victims) <= self._capacity:
                break
            if node.holders == 0:
                victims.append(node)
        return [self._remove(node) for node in victims]

    def _remove(self, node: Node) -> int:
        del self._open[node]
        fd, node.fd = node.fd, -1
        return fd

    def release(self, node: Node) -> None:
        """Let go of a node; it stays open as long as there is room."""
        with self._lock:
            node.holders -= 1

    def detach(self, node: Node) -> int | None:
        """Take a node's descriptor out, to be closed by the caller; None if it has none."""
        with self._lock:
            return self._remove(node) if node.fd >= 0 else None

    def close(self) -> None:
        """Close all; nobody may hold any more."""
        with self._lock:
            fds = [self._remove(node) for node in list(self._open)]
        for fd in fds:
            os.close(fd)
