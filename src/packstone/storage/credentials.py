"""Clients of object stores, with credentials from where each vendor's own tools look.

Only the library that signs requests ever sees them; nothing here keeps, prints or returns one.
"""

from __future__ import annotations

import configparser
import os
from datetime import timedelta
from typing import Any

from packstone.errors import UsageError
from packstone.storage.urls import ObjectPlace

_AWS_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}


def connect(place: ObjectPlace, timeout: int) -> Any:
    """Return a client for a place whose requests take at most `timeout` seconds.

    Never tries again by itself: who counts requests decides. Raises UsageError where the library
    is missing or refuses what it was told.
    """
    try:
        from obstore.store import AzureStore, GCSStore, S3Store
    except ImportError as error:
        raise UsageError(
            f"{place.scheme}:// needs the library obstore, which is not installed",
            hint="Install it: pip install 'packstone[cloud]'",
        ) from error
    common: dict[str, Any] = {
        "client_options": {
            "timeout": timedelta(seconds=timeout),
            "connect_timeout": timedelta(seconds=min(timeout, 10)),
            "allow_http": (place.endpoint or "").startswith("http://"),
        },
        "retry_config": {"max_retries": 0},
    }
    try:
        if place.scheme == "s3":
            return S3Store(place.bucket, **_aws(place), **common)
        if place.scheme == "gs":
            common["client_options"]["allow_http"] = False
            return GCSStore(place.bucket, **common)
        options: dict[str, Any] = (
            {"account_name": place.options["account"]} if "account" in place.options else {}
        )
        if place.options.get("endpoint"):
            options["endpoint"] = place.options["endpoint"]
        return AzureStore(place.bucket, **options, **common)
    except UsageError:
        raise
    except Exception as error:
        # What the library says could repeat what it was given.
        raise UsageError(
            f"{place.url} cannot be used: {type(error).__name__}",
            hint="Check endpoint, region and account, and the credentials of the environment",
        ) from None


def _aws(place: ObjectPlace) -> dict[str, Any]:
    """Return how to reach a bucket, and credentials that the library would not find itself.

    It looks at the environment, web identities, containers and machines; Amazon's tools also at
    files of profiles.
    """
    # The server compares what it received with this sum before it stores it.
    options: dict[str, Any] = {"checksum_algorithm": "sha256"}
    profile = _profile()
    region = place.region or profile.pop("region", None) or "us-east-1"
    profile.pop("region", None)
    options["region"] = region
    if place.endpoint:
        options["endpoint"] = place.endpoint
    options["virtual_hosted_style_request"] = not place.path_style
    if "AWS_ACCESS_KEY_ID" in os.environ and "AWS_PROFILE" not in os.environ:
        return options
    if "secret_access_key" in profile:
        return options | profile
    if profile:  # single sign-on, an assumed role, a process: what only Amazon's library knows
        try:
            from obstore.auth.boto3 import Boto3CredentialProvider
        except ImportError:
            return options
        return options | {"credential_provider": Boto3CredentialProvider()}
    return options


def _profile() -> dict[str, str]:
    """Return keys and region of the profile that Amazon's tools would use; empty without one."""
    name = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    home = os.path.expanduser("~/.aws")
    keys = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", os.path.join(home, "credentials"))
    config = os.environ.get("AWS_CONFIG_FILE", os.path.join(home, "config"))
    found: dict[str, str] = {}
    for path, section in (
        (config, name if name == "default" else f"profile {name}"),
        (keys, name),
    ):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(path, encoding="utf-8")
            items = dict(parser.items(section)) if parser.has_section(section) else {}
        except (configparser.Error, OSError, UnicodeDecodeError):
            continue
        found |= {_AWS_KEYS.get(key, key): value for key, value in items.items()}
    wanted = {"region", *_AWS_KEYS.values()}
    if "secret_access_key" in found:
        return {key: value for key, value in found.items() if key in wanted}
    indirect = ("sso_session", "sso_start_url", "role_arn", "credential_process")
    kept = ("region", *indirect)
    return {key: found[key] for key in kept if key in found} if found else {}
