"""Tell a monitor how a job goes, as healthchecks.io and its kin want to be told.

The URL itself is success, `/start` and `/fail` behind its path the other two. A monitor that
does not answer never hurts a job.
"""

from __future__ import annotations

import http.client
import urllib.error
import urllib.parse
import urllib.request

from packstone.errors import PackstoneError, UsageError

TIMEOUT_S = 10.0
_LONGEST_BODY = 10_000  # bytes


def ping(url: str, event: str = "", text: str = "") -> None:
    """Ask for the URL of an event: "" is success, or "start", "fail"; `text` is sent along.

    Raises UsageError for what is no web address, PackstoneError when it is not answered well.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError("a ping needs a URL, and this is none") from error
    if parts.scheme not in ("http", "https"):  # urllib would open local files too
        raise UsageError("a ping needs a URL that begins with http:// or https://")
    if parts.username is not None:  # urllib takes them for a part of the host's name
        raise UsageError("a ping's URL can hold no user and no password")
    path = parts.path.rstrip("/") + (f"/{event}" if event else "")
    body = text.encode("utf-8", "backslashreplace")[:_LONGEST_BODY] or None
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(path=path)), data=body)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S):
            pass
    except (ValueError, http.client.InvalidURL) as error:  # they quote what they were given
        raise UsageError(f"the URL of a ping to {parts.hostname} is none") from error
    except (OSError, http.client.HTTPException) as error:
        # The URL is a key to the monitor: only where it leads to is said.
        raise PackstoneError(f"{parts.hostname} was not told: {error}") from error
