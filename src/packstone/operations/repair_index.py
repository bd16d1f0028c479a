"""Repair the index: compare it with the footers of the packs, make it anew where it is wrong.

Only packs whose footers were verified in this very run are in the new one. The packs are never
touched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from packstone.errors import Damaged, ObjectMissing, StorageUnavailable, UnsupportedFormat
from packstone.repository.agreement import count_objects
from packstone.repository.layout import list_ids
from packstone.repository.packs import read_pack
from packstone.repository.repository import ObjectRepository


@dataclass(slots=True)
class RepairIndexResult:
    """What a repair of the index found: packs it was wrong about, and what was done.

    `damaged` are packs without a footer that can be read, by id with the reason.
    """

    packs_checked: int = 0
    objects: int = 0
    differing: dict[str, int] = field(default_factory=dict)  # pack → objects that differ
    surplus: int = 0  # objects that the index has and no pack
    unusable: str = ""  # why it could not even be opened
    rebuilt: bool = False
    damaged: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def repair_index(repository: ObjectRepository, *, force: bool = False) -> RepairIndexResult:
    """Make the index agree with the packs, from nothing with `force`.

    Raises Damaged where a pack whose footers are gone can be read through the index only: it
    must be saved first. StorageError.
    """
    started = time.monotonic()
    result = RepairIndexResult()
    if force:
        repository.discard_index()
    try:
        repository.index.refresh(repository.storage)
    except StorageUnavailable as error:
        result.unusable = error.message
        repository.discard_index()
        repository.index.refresh(repository.storage)
    _compare(repository, result)
    wrong = bool(result.differing or result.surplus)
    if wrong:
        known = set(repository.index.packs.values()) & result.damaged.keys()
        if known:
            raise Damaged(
                f"the index is wrong, but of pack {min(known)[:12]}… nothing else tells what is "
                "in it: both of its footers are damaged",
                hint="Nothing was changed. Run: packstone repair packs, then this again. "
                "With --force the index is made anew all the same",
            )
        repository.index.reset()
        repository.index.refresh(repository.storage)
    result.rebuilt = force or wrong or bool(result.unusable)
    result.warnings = list(repository.warnings)
    result.seconds = time.monotonic() - started
    return result


def _compare(repository: ObjectRepository, result: RepairIndexResult) -> None:
    """Compare the index with every footer there is."""
    storage, index = repository.storage, repository.index
    verified: set[str] = set()
    for pack_id, size in sorted(list_ids(storage, "packs")):
        try:
            pack = read_pack(storage, pack_id, size, repository.sealer)
        except ObjectMissing:
            continue  # a prune was quicker
        except (Damaged, UnsupportedFormat) as error:
            result.damaged[pack_id] = error.message
            continue
        verified.add(pack_id)
        result.packs_checked += 1
        result.objects += count_objects(pack)
        if differing := index.count_differing(pack):
            result.differing[pack_id] = differing
    result.surplus = max(0, index.count_places(verified) - result.objects)
