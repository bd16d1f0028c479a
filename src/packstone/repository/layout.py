"""Names of what is stored, and the small objects that say how to read the rest.

Implements docs/format.md §1, §3 and §8. Never touches packs. Invariant: nothing is read
from a repository whose version, mode or features this program does not know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import msgspec

from packstone.codec.encryption import PLAIN, Sealer
from packstone.codec.envelope import (
    MAX_PAYLOAD,
    Kind,
    check_envelope,
    open_envelope,
    seal_envelope,
)
from packstone.errors import Damaged, ObjectMissing, RepositoryMissing, UnsupportedFormat
from packstone.model import GIB, KIB, MIB, Size
from packstone.storage.base import Storage

CONFIG, CONFIG_COPY, STATE = "config", "config.bak", "state"
DIRECTORIES = ["tmp", "snapshots", "features", "keys", "history", "packs"] + [
    f"packs/{first:02x}" for first in range(256)
]
CHUNKER = "filter-sip-1"
MAX_ENVELOPE = MAX_PAYLOAD + 128
DEFAULT_VERSIONS = 64  # of a chunk that stand on one whole copy, at most
MOST_VERSIONS = 1024
DELTA_FEATURE = "delta"
KNOWN_FEATURES = frozenset({DELTA_FEATURE})

T = TypeVar("T")
_ID_NAME = re.compile(r"[0-9a-f]{64}")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What `init` fixed for the life of a repository; sizes in bytes."""

    created_ns: int
    family: bytes
    chunker: str = CHUNKER
    average: int = 256 * KIB
    pack_size: int = 64 * MIB
    level: int = 3
    delta_versions: int = DEFAULT_VERSIONS


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The generation, changed by every sweep, and the marker of a sweep under way.

    `serial` counts the writes of this object: one that goes back is an old one put in place.
    """

    generation: bytes
    sweep: bytes | None = None
    serial: Size = 0


class Feature(msgspec.Struct, frozen=True):
    """What a program must know to read or write a repository that uses a feature."""

    need: str


def pack_name(pack_id: str) -> str:
    """Return the stored name of a pack, given its id in hexadecimal."""
    return f"packs/{pack_id[:2]}/{pack_id}"


def key_name(slot_id: str) -> str:
    """Return the stored name of a key slot, given its id in hexadecimal."""
    return f"keys/{slot_id}"


def snapshot_name(snapshot_id: str) -> str:
    """Return the stored name of a snapshot, given its id in hexadecimal."""
    return f"snapshots/{snapshot_id}"


def history_name(object_id: str) -> str:
    """Return the stored name of an object of the history, given its id in hexadecimal."""
    return f"history/{object_id}"


def list_ids(storage: Storage, prefix: str) -> Iterator[tuple[str, int]]:
    """Yield (hexadecimal id, size) of the packs, snapshots and so on that are there."""
    for name, size in storage.list(prefix):
        last = name.rpartition("/")[2]
        # What lies in another folder is not found under its name, so it is not there.
        if _ID_NAME.fullmatch(last) and name in (
            pack_name(last),
            snapshot_name(last),
            key_name(last),
            history_name(last),
        ):
            yield last, size


def check_parameters(
    average: int, pack_size: int, level: int, versions: int = DEFAULT_VERSIONS
) -> str:
    """Return what is wrong with parameters of a repository, or an empty text."""
    if not 4 * KIB <= average <= 8 * MIB or average & (average - 1):
        return f"chunk size {average}: expected a power of two from 4 KiB to 8 MiB"
    if not MIB <= pack_size <= GIB:
        return f"pack size {pack_size}: expected 1 MiB to 1 GiB"
    if not 1 <= level <= 19:
        return f"level {level}: expected 1 to 19"
    if not 2 <= versions <= MOST_VERSIONS:
        return f"delta versions {versions}: expected 2 to {MOST_VERSIONS}"
    return ""


def encode_config(config: Config, sealer: Sealer, salt: bytes) -> bytes:
    """Return the bytes of `config` and `config.bak`."""
    payload = msgspec.to_builtins(config, builtin_types=(bytes,))
    if config.delta_versions == DEFAULT_VERSIONS:
        del payload["delta_versions"]
    return seal_envelope(Kind.CONFIG, sealer, salt, msgspec.msgpack.encode(payload))


class ReadConfig(NamedTuple):
    """What a config says, and whether its repository is encrypted."""

    repository_id: bytes
    encrypted: bool
    config: Config


def read_config(
    storage: Storage, warn: Callable[[str], None], sealer: Sealer | None = None
) -> ReadConfig:
    """Return what the config says, from the copy when the first is damaged or missing.

    Without `sealer` nothing is authenticated: read it again when there is one. Raises
    RepositoryMissing, Damaged when both copies are, UnsupportedFormat.
    """
    failures: list[Damaged | ObjectMissing] = []
    for name in (CONFIG, CONFIG_COPY):
        try:
            envelope = open_envelope(storage.get(name, MAX_ENVELOPE), Kind.CONFIG, name, sealer)
            config = decode_payload(envelope.payload, Config, name)
        except (Damaged, ObjectMissing) as error:
            failures.append(error)
            continue
        if failures:
            warn(
                f"{failures[0].message}; {CONFIG_COPY} is whole and was used. "
                f"Copy {CONFIG_COPY} over {CONFIG}"
            )
        wrong = check_parameters(
            config.average, config.pack_size, config.level, config.delta_versions
        )
        if wrong:
            raise Damaged(f"{name}: {wrong}", name=name)
        if config.chunker != CHUNKER:
            raise UnsupportedFormat(f"{name}: chunker {config.chunker!r} is not known")
        return ReadConfig(envelope.repository_id, envelope.mode != PLAIN, config)
    if all(isinstance(failure, ObjectMissing) for failure in failures):
        raise RepositoryMissing(
            f"there is no repository at {storage.url}",
            hint=f"Create one with: packstone init {storage.url}",
        )
    raise Damaged(
        f"config and config.bak are both unusable: {failures[0].message}; {failures[1].message}",
        name=CONFIG,
        hint="The packs are unaffected. Put back a copy of config",
    )


def check_small_objects(storage: Storage, sealer: Sealer) -> Iterator[str]:
    """Yield what is wrong with both copies of config, state and features; StorageError."""
    copies: list[bytes] = []
    for name in (CONFIG, CONFIG_COPY):
        try:
            data = storage.get(name, MAX_ENVELOPE)
            open_envelope(data, Kind.CONFIG, name, sealer)
            copies.append(data)
        except Damaged as error:
            yield f"{error.message}; copy the other one over it"
        except ObjectMissing as error:
            # An init that was cut off leaves the copy alone; whoever opens it is told.
            if name == CONFIG_COPY:
                yield f"{error.message}; copy the other one over it"
    if len(set(copies)) > 1:
        yield f"{CONFIG} and {CONFIG_COPY} differ"
    try:
        read_state(storage, sealer)
    except (Damaged, ObjectMissing) as error:
        yield error.message
    for name, _size in storage.list("features"):
        try:
            open_envelope(storage.get(name, MAX_ENVELOPE), Kind.FEATURE, name, sealer)
        except (Damaged, ObjectMissing) as error:
            yield error.message


def check_sum(storage: Storage, name: str, kind: Kind, repository_id: bytes) -> None:
    """Verify a small object as far as it goes without a passphrase; raises Damaged."""
    data = storage.get(name, MAX_ENVELOPE)
    check_envelope(data, kind, name, repository_id)


def decode_payload(payload: bytes, kind: type[T], name: str) -> T:
    """Decode an envelope's MessagePack payload; raises Damaged."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Damaged(f"{name} does not decode: {error}", name=name) from error


def encode_state(state: State, sealer: Sealer, salt: bytes) -> bytes:
    """Return the bytes of `state`."""
    payload = msgspec.to_builtins(state, builtin_types=(bytes,))
    if not state.serial:
        del payload["serial"]
    return seal_envelope(Kind.STATE, sealer, salt, msgspec.msgpack.encode(payload))


def read_state(storage: Storage, sealer: Sealer) -> State:
    """Return the generation and sweep marker; raises ObjectMissing, Damaged."""
    return decode_state(storage.get(STATE, MAX_ENVELOPE), sealer)


def decode_state(data: bytes, sealer: Sealer) -> State:
    """Return what the bytes of `state` say; raises Damaged."""
    envelope = open_envelope(data, Kind.STATE, STATE, sealer)
    return decode_payload(envelope.payload, State, STATE)


def write_feature(storage: Storage, sealer: Sealer, name: str, need: str, salt: bytes) -> None:
    """Make it durable that a repository uses a feature; it may say so already."""
    payload = msgspec.msgpack.encode(Feature(need))
    storage.put_if_absent(f"features/{name}", seal_envelope(Kind.FEATURE, sealer, salt, payload))


def check_features(storage: Storage, sealer: Sealer, *, writing: bool) -> None:
    """Refuse a repository that uses what this program does not know."""
    for name, _size in storage.list("features"):
        feature_name = name.rpartition("/")[2]
        if feature_name in KNOWN_FEATURES:
            continue
        data = storage.get(name, MAX_ENVELOPE)
        envelope = open_envelope(data, Kind.FEATURE, name, sealer)
        need = decode_payload(envelope.payload, Feature, name).need
        if need == "ignore" or (need == "write" and not writing):
            continue
        raise UnsupportedFormat(
            f"the repository uses the feature {feature_name!r}, which this version does not know",
            hint="Install a newer packstone",
        )
