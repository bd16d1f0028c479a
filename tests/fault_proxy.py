"""A proxy before an object store that answers some requests wrongly, late or not at all.

`Faults.rule` is asked about every request before it is passed on and names a fault or None. The
same proxy delays requests for measurements. Nothing here knows what should happen then.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"}


class Request(NamedTuple):
    """What is asked: the number of this request, its verb (`LIST` apart), the object's name."""

    number: int
    verb: str
    name: str
    conditional: bool


Rule = Callable[[Request], str | None]

# fault → what happens; those of _AFTER are carried out by the store before
STATUSES = {
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "429": (429, "TooManyRequests"),
    "409": (409, "ConditionalRequestConflict"),
    "412": (412, "PreconditionFailed"),
    "expired": (400, "ExpiredToken"),
    "403": (403, "AccessDenied"),
}
FAULTS = [
    *("500", "503", "429", "409", "412", "expired"),
    *("done 500", "time-out", "done time-out", "reset", "short", "wrong", "error in 200"),
]


class Faults:
    """What a proxy is to do; `seen` lists the requests in their order."""

    def __init__(self) -> None:
        self.rule: Rule = lambda _request: None
        self.delay = 0.0  # seconds before each answer
        self.strip_conditions = False  # a store that does not know them
        self.patience = 3.0  # seconds that a request without an answer is held
        self.seen: list[Request] = []
        self._lock = threading.Lock()

    def reset(self, rule: Rule = lambda _request: None) -> None:
        """Count from 0 again, by another rule."""
        with self._lock:
            self.rule = rule
            self.seen = []

    def ask(self, verb: str, name: str, conditional: bool) -> str | None:
        """Count a request and return the fault for it."""
        with self._lock:
            request = Request(len(self.seen), verb, name, conditional)
            self.seen.append(request)
        return self.rule(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _serve(self) -> None:
        faults = self.server.faults
        size = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(size)
        parts = urlsplit(self.path)
        verb = self.command
        if verb == "GET" and "list-type" in parts.query:
            verb = "LIST"
        conditional = "if-match" in self.headers or "if-none-match" in self.headers
        fault = faults.ask(verb, parts.path.partition("/")[2].partition("/")[2], conditional)
        if faults.delay:
            time.sleep(faults.delay)
        if fault in STATUSES:
            self._refuse(*STATUSES[fault])
            return
        if fault == "time-out":
            self._vanish()
            return
        status, headers, answer = self._pass_on(body)
        if fault == "done 500":
            self._refuse(500, "InternalError")
        elif fault == "done time-out":
            self._vanish()
        elif fault == "error in 200":
            text = b"<?xml version='1.0'?><Error><Code>InternalError</Code></Error>"
            self._answer(200, [], text)
        elif fault == "reset":
            self._answer(status, headers, answer, cut=max(1, len(answer) // 2))
        elif fault == "short":
            self._answer(status, headers, answer[: len(answer) // 2])
        elif fault == "wrong":
            headers = [(k, '"' + "0" * 32 + '"' if k.lower() == "etag" else v) for k, v in headers]
            flipped = bytearray(answer)
            if flipped and verb == "GET":
                flipped[len(flipped) // 2] ^= 1
            self._answer(status, headers, bytes(flipped))
        elif fault == "cut listing":
            self._answer(status, headers, cut_listing(answer))
        elif fault is not None and fault.startswith("hide ") and verb == "LIST":
            self._answer(status, headers, hide(answer, fault[5:]))
        else:
            self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {key: value for key, value in self.headers.items() if key.lower() not in HOP}
        if self.server.faults.strip_conditions:
            headers = {k: v for k, v in headers.items() if k.lower() not in _CONDITIONS}
        connection = self.server.connection()
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            self.server.drop()
            connection = self.server.connection()
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        return answer.status, answer.getheaders(), data

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, cut: int | None = None
    ) -> None:
        self.send_response_only(status)
        length = len(body)
        for key, value in headers:
            if key.lower() == "content-length" and self.command == "HEAD":
                length = int(value)
            elif key.lower() not in HOP and key.lower() != "content-length":
                self.send_header(key, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if cut is not None:
            self.wfile.write(body[:cut] if body else b"")
            self.wfile.flush()
            self._reset()
        elif self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
        self._answer(status, [("Content-Type", "application/xml")], text)

    def _vanish(self) -> None:
        time.sleep(self.server.faults.patience)
        self._reset()

    def _reset(self) -> None:
        # With linger 0 closing sends RST, as a dying server or a firewall does.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()


_CONDITIONS = {"if-match", "if-none-match"}
_ROW = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)


def cut_listing(answer: bytes) -> bytes:
    """Return a listing that ends half-way and says that it is complete."""
    rows = _ROW.findall(answer)
    for row in rows[len(rows) // 2 :]:
        answer = answer.replace(row, b"")
    return answer.replace(b"<IsTruncated>true", b"<IsTruncated>false")


def hide(answer: bytes, name: str) -> bytes:
    """Return a listing without the names that hold `name`."""
    for row in _ROW.findall(answer):
        if name.encode() in row:
            answer = answer.replace(row, b"")
    return answer


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, endpoint: str, faults: Faults) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._host = urlsplit(endpoint).netloc
        self.faults = faults
        self._local = threading.local()

    def connection(self) -> http.client.HTTPConnection:
        if getattr(self._local, "connection", None) is None:
            self._local.connection = http.client.HTTPConnection(self._host, timeout=60)
        return self._local.connection

    def drop(self) -> None:
        self._local.connection.close()
        self._local.connection = None

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client went away: some faults make it


@contextmanager
def proxy(endpoint: str, faults: Faults) -> Iterator[str]:
    """Run a proxy before an endpoint and yield its own."""
    server = _Proxy(endpoint, faults)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
