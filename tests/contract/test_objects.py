"""An object store as storage: the contract, against a real server over HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import obstore
import pytest
from contract.storage_suite import StorageSuite
from object_server import KEYS, new_bucket, server, url_of

from packstone.errors import StorageError, StorageUnavailable, UsageError
from packstone.storage.base import Storage, open_storage
from packstone.storage.objects import END, ObjectStorage


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with server() as found:
        yield found


@pytest.fixture(scope="module")
def bucket(endpoint: str) -> str:
    return new_bucket(endpoint)


@pytest.fixture
def storage(endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Storage:
    for key, value in KEYS.items():
        monkeypatch.setenv(key, value)
    storage = open_storage(url_of(endpoint, f"{bucket}/{secrets.token_hex(8)}"))
    storage.make_directories(["packs", "packs/00", "snapshots"])
    return storage


class TestObjects(StorageSuite):
    def test_a_listing_that_cannot_be_had_raises(self, storage: Storage) -> None:
        """There are no folders; what tells a listing that is short is the name behind it."""
        assert isinstance(storage, ObjectStorage)
        storage.put("packs/00/a", b"a")
        assert dict(storage.list("snapshots")) == {}
        storage._retrying._tries = 1
        storage.delete(END)
        for folder in ("packs", "snapshots"):
            with pytest.raises(StorageError):
                list(storage.list(folder))

    def test_a_missing_bucket_is_no_empty_one(self, endpoint: str, storage: Storage) -> None:
        lost = open_storage(url_of(endpoint, "nosuchbucket"))
        with pytest.raises(StorageUnavailable, match="no such bucket"):
            list(lost.list("packs"))
        with pytest.raises(StorageUnavailable, match="no such bucket"):
            lost.get("config", 99)


class TestReplace:
    def test_only_an_unchanged_version_is_replaced(self, storage: Storage) -> None:
        storage.put("state", b"1")
        first = storage.get_version("state", 9)
        assert storage.replace("state", b"2", first.tag)
        assert not storage.replace("state", b"3", first.tag)
        assert storage.get("state", 9) == b"2"

    def test_what_is_gone_is_not_replaced(self, storage: Storage) -> None:
        storage.put("state", b"1")
        first = storage.get_version("state", 9)
        storage.delete("state")
        assert not storage.replace("state", b"2", first.tag)

    def test_conditions_are_found(self, storage: Storage) -> None:
        assert isinstance(storage, ObjectStorage)
        assert storage.has_conditions("probe")
        assert dict(storage.list("probe")) == {}


def test_parts(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack above what one request should carry goes in parts."""
    from packstone.storage import objects

    monkeypatch.setattr(objects, "_PART", 6_000_000)
    data = secrets.token_bytes(7_000_000)
    spool = storage.spool()
    spool.write(data)
    spool.commit("packs/00/large")
    assert storage.get("packs/00/large", 9_000_000) == data


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret-81@bucket/x",
        "s3://bucket/x?secret_access_key=secret-81",
        "s3://bucket/x?endpoint=http://key:secret-81@host",
        "s3://bucket/x?timeout=secret-81",
    ],
)
def test_no_credentials_in_a_url(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_storage(url)
    assert "secret-81" not in caught.value.message + caught.value.hint


def test_nothing_shows_a_credential(storage: Storage) -> None:
    assert isinstance(storage, ObjectStorage)
    shown = repr(storage) + storage.url + str(storage.requests()) + repr(storage.__dict__)
    assert all(secret not in shown for secret in KEYS.values())


def test_requests_are_counted(storage: Storage) -> None:
    before = storage.requests()
    storage.put("a", b"12345")
    storage.get("a", 99)
    list(storage.list("packs"))
    storage.delete("a")
    after = storage.requests()
    assert {key: after[key] - before[key] for key in after} == {
        "put": 1, "get": 1, "list": 1, "delete": 1, "retries": 0,
        "bytes_sent": 5, "bytes_received": 5,
    }  # fmt: skip


def test_the_library_is_the_one_that_was_tested() -> None:
    assert obstore.__version__
