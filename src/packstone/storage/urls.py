"""Locations of object stores: `s3://bucket/prefix?endpoint=…&region=…&path_style=true`.

Credentials never stand in a URL: they are taken from where the vendor's own tools look. What a
URL may say is listed here, so that a secret that somebody put there is refused and not repeated.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from packstone.errors import UsageError

SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "azure": "az"}
_OPTIONS = {"endpoint", "region", "path_style", "account", "timeout"}


def is_remote(location: str) -> bool:
    """Return whether a location names an object store."""
    scheme, separator, _rest = location.partition("://")
    return bool(separator) and scheme.lower() in SCHEMES


@dataclass(frozen=True, slots=True)
class ObjectPlace:
    """Where in which store a repository is; `prefix` is empty or ends with a slash."""

    scheme: str
    bucket: str
    prefix: str
    options: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return the location as it may be shown: nothing in it is secret."""
        query = "&".join(f"{key}={quote(self.options[key], ':/')}" for key in sorted(self.options))
        path = quote(self.prefix.rstrip("/"))
        return f"{self.scheme}://{self.bucket}/{path}".rstrip("/") + (f"?{query}" if query else "")

    @property
    def timeout(self) -> int:
        """Return how many seconds a small request may take."""
        return int(self.options.get("timeout", "60"))

    @property
    def endpoint(self) -> str | None:
        """Return the endpoint from the URL, else from where Amazon's tools take it."""
        return (
            self.options.get("endpoint")
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
        )

    @property
    def region(self) -> str | None:
        """Return the region from the URL, else from the environment."""
        return (
            self.options.get("region")
            or os.environ.get("AWS_REGION")
            or os.environ.get("AWS_DEFAULT_REGION")
        )

    @property
    def path_style(self) -> bool:
        """Return whether the bucket stands in the path of requests.

        So it is unless said otherwise for any endpoint that is not Amazon's own: most such
        servers have no name for each bucket.
        """
        said = self.options.get("path_style") or os.environ.get("PACKSTONE_S3_PATH_STYLE")
        if said:
            return said.lower() in ("1", "true", "yes")
        return self.endpoint is not None and "amazonaws.com" not in self.endpoint


def parse_place(location: str) -> ObjectPlace:
    """Return what a URL names; raises UsageError, which repeats no value of the query."""
    parts = urlsplit(location)
    scheme = SCHEMES.get(parts.scheme.lower())
    if scheme is None:
        raise UsageError(f"no storage for {parts.scheme}:// in this version")
    if "@" in parts.netloc:
        raise UsageError(
            "a URL of a repository holds no credentials",
            hint="They are taken from where the vendor's tools look: the environment, its files",
        )
    if not parts.netloc:
        raise UsageError(f"{scheme}:// names no bucket", hint=f"Say {scheme}://BUCKET/PREFIX")
    options: dict[str, str] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in _OPTIONS:
            raise UsageError(
                f"the URL of a repository has no option {key!r}",
                hint=f"It takes {', '.join(sorted(_OPTIONS))}; credentials never stand in it",
            )
        options[key] = value
    if not options.get("timeout", "1").isdecimal():
        raise UsageError("timeout in a URL is a number of seconds")
    if "@" in options.get("endpoint", "") or "?" in options.get("endpoint", ""):
        raise UsageError("an endpoint holds no credentials")
    pieces = [piece for piece in unquote(parts.path).split("/") if piece]
    if any(piece in (".", "..") for piece in pieces):
        raise UsageError("the path in a URL of a repository has no . or ..")
    prefix = "/".join(pieces) + "/" if pieces else ""
    return ObjectPlace(scheme, parts.netloc, prefix, options)
