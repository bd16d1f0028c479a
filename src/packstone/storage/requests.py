"""Requests to an object store: counted, tried again where that may help, errors translated.

Knows nothing of what is stored. Invariant: every attempt is counted, since each is paid for; no
text of the library reaches a message unless it was cleaned of queries, which may carry a
signature.
"""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from packstone.errors import ObjectMissing, StorageError, StorageFull, StorageUnavailable

T = TypeVar("T")

TRIES = 6
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0  # seconds, before jitter
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,60})</Code>")
_URL = re.compile(r"https?://\S+")
# 400 and 403 are also what expired credentials get; trying again cannot help any of them.
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_PASSING_CODES = {
    "SlowDown",
    "InternalError",
    "RequestTimeout",
    "ServiceUnavailable",
    "OperationAborted",
    "ConditionalRequestConflict",
    "RequestTimeTooSkewed",
    "BadDigest",
}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity"}


class Lost(StorageError):
    """An answer whose bytes are not those that were stored: worth another try."""


class Requests:
    """How many requests were sent, and how many bytes of bodies; safe to share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.put = self.get = self.list = self.delete = 0
        self.bytes_sent = self.bytes_received = 0
        self.retries = 0

    def count(self, verb: str, number: int = 1, *, sent: int = 0, received: int = 0) -> None:
        """Count requests of one verb and the bytes of their bodies."""
        with self._lock:
            setattr(self, verb, getattr(self, verb) + number)
            self.bytes_sent += sent
            self.bytes_received += received

    def as_dict(self) -> dict[str, int]:
        """Return all counts by name."""
        with self._lock:
            return {
                "put": self.put,
                "get": self.get,
                "list": self.list,
                "delete": self.delete,
                "retries": self.retries,
                "bytes_sent": self.bytes_sent,
                "bytes_received": self.bytes_received,
            }


def status_of(error: BaseException) -> int | None:
    """Return the status of the answer that an error of the library stands for."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def code_of(error: BaseException) -> str:
    """Return the store's own code of an error, or an empty text."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def is_missing(error: BaseException) -> bool:
    """Return whether an error says that the object is not there, and the bucket is."""
    return isinstance(error, FileNotFoundError) and code_of(error) != "NoSuchBucket"


def may_pass(error: BaseException) -> bool:
    """Return whether the same request could succeed later."""
    if isinstance(error, Lost):
        return True
    if isinstance(error, StorageError) or is_missing(error):
        return False
    status, code = status_of(error), code_of(error)
    if code in _FULL or code == "NoSuchBucket":
        return False
    if code in _PASSING_CODES:
        return True
    # Without a status no answer came: refused, cut off, too late, or not what HTTP is.
    return status is None or status in _PASSING or status > 504


def fail(error: BaseException, verb: str, name: str, url: str) -> NoReturn:
    """Raise the StorageError that an error of the library means."""
    if isinstance(error, StorageError):
        raise error
    status, code = status_of(error), code_of(error)
    what = f"cannot {verb} {name} in {url}: "
    if is_missing(error):
        raise ObjectMissing(what + "it is not there", hint="Run: packstone check") from None
    if code == "NoSuchBucket":
        raise StorageUnavailable(
            what + "there is no such bucket", hint="Create the bucket, or check the URL"
        ) from None
    if code in _FULL or status == 507:
        raise StorageFull(what + code, hint="Nothing was committed. Make room in the bucket")
    if status in (400, 401, 403) and status is not None:
        raise StorageUnavailable(
            what + f"refused ({status} {code})".replace(" )", ")"),
            hint="Nothing was committed. Check the credentials and what they allow; "
            "they may have expired",
        ) from None
    text = f"{status} {code}".strip() if status else _clean(str(error))
    raise StorageUnavailable(
        what + text, hint="Nothing was committed. Check the network and the store, run again"
    ) from None


def _clean(text: str) -> str:
    """Return the first line of a text without queries, which may hold a signature."""
    lines = text.splitlines() or [""]
    return _URL.sub(lambda found: found[0].partition("?")[0], lines[0])[:300]


class Retrying:
    """Run requests, again after a pause when the failure may pass."""

    def __init__(
        self,
        requests: Requests,
        url: str,
        *,
        tries: int = TRIES,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.requests = requests
        self._url = url
        self._tries = tries
        self._sleep = sleep
        self._jitter = jitter

    def run(self, verb: str, name: str, request: Callable[[int], T]) -> T:
        """Return what `request(attempt)` returns; attempts count from 0.

        Raises the StorageError of the last attempt. Full jitter, as Amazon's builders' library
        describes it: the pause is random below a bound that doubles.
        """
        attempt = 0
        while True:
            try:
                return request(attempt)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:
                attempt += 1
                if attempt >= self._tries or not may_pass(error):
                    fail(error, verb, name, self._url)
                self.requests.count("retries")
                bound = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
                self._sleep(bound * self._jitter())


class Pace:
    """Hold transfers to a rate in bytes per second; None lets everything through at once."""

    def __init__(self, rate: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, size: int) -> None:
        """Wait until `size` more bytes fit into the rate."""
        if not self.rate:
            return
        with self._lock:
            now = self._clock()
            start = max(now, self._free_at)
            self._free_at = start + size / self.rate
        if start > now:
            time.sleep(start - now)


def md5_tag(data: Any) -> str:
    """Return the tag that S3 gives an object of these bytes when it was put in one piece."""
    from hashlib import md5

    return md5(data, usedforsecurity=False).hexdigest()
