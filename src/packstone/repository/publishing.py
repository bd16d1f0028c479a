"""Publish footers in bundles after packs were written or swept; see bundles.py.

Whatever fails here is of no consequence: nothing depends on bundles.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial

from packstone.errors import Damaged, StorageError
from packstone.model import MIB
from packstone.repository import bundles
from packstone.repository.layout import pack_name
from packstone.repository.pack_reading import read_footer_of
from packstone.repository.repository import ObjectRepository


def publish_footers(repository: ObjectRepository, written: Sequence[str]) -> None:
    """Publish the footers of packs that this machine wrote, as soon as there are many of them."""
    if repository.storage.is_far:
        with contextlib.suppress(StorageError):
            _publish(repository, written)


def _publish(repository: ObjectRepository, written: Sequence[str]) -> None:
    from packstone.repository.cached import CachedStorage

    storage = repository.storage
    assert isinstance(storage, CachedStorage)
    waiting = [*storage.unbundled(), *written]
    if not waiting:
        return
    sizes = {pack_id: size for pack_id, size, _kind, _count in repository.index.counts()}
    waiting = [pack_id for pack_id in waiting if pack_id in sizes]
    is_due = len(waiting) > bundles.FEW
    rows: list[bundles.Row] = []
    for pack_id in waiting:
        size = sizes[pack_id]
        # Records may leave the cache before there are enough packs: now a footer costs nothing.
        if is_due or storage.is_quick(pack_name(pack_id), max(0, size - MIB), MIB):
            with contextlib.suppress(Damaged):
                read = partial(read_footer_of, storage, pack_id, size, repository.sealer)
                rows.append(
                    bundles.Row(bytes.fromhex(pack_id), size, storage.footer(pack_id, read))
                )
    storage.note_unbundled(waiting)
    if is_due:
        bundles.write_bundles(storage, repository.sealer, repository.random, rows)
        storage.note_unbundled([])


def renew_footers(repository: ObjectRepository) -> None:
    """Let bundles follow a sweep."""
    storage, sealer = repository.storage, repository.sealer
    if storage.is_far:
        with contextlib.suppress(StorageError):
            bundles.renew_bundles(
                storage,
                sealer,
                repository.random,
                lambda pack_id, size: read_footer_of(storage, pack_id, size, sealer),
            )
