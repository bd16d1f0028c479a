"""Packstone: deduplicating snapshots of large data sets.

    import packstone

    with packstone.init("/backup/crm") as repository:
        repository.snapshot(["/srv/crm"])

The public API and nothing else. It is loaded at the first use of a name, so that importing
the package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from packstone.version import VERSION

if TYPE_CHECKING:
    from packstone.codec.keys import Argon2
    from packstone.errors import (
        CommandFailed,
        Damaged,
        GenerationChanged,
        ObjectMissing,
        PackstoneError,
        RepositoryLocked,
        RepositoryMissing,
        StorageError,
        StorageFull,
        StorageUnavailable,
        UnsupportedFormat,
        UsageError,
        WrongPassphrase,
    )
    from packstone.filesystem.ignore import Rules
    from packstone.model import Entry, Problem, Snapshot
    from packstone.operations.check_names import check_names
    from packstone.operations.copy import CopyResult
    from packstone.operations.facade import Repository, init, open
    from packstone.operations.forget import ForgetResult
    from packstone.operations.keys import ListedKey, import_key
    from packstone.operations.prune import PruneResult
    from packstone.operations.repair_index import RepairIndexResult
    from packstone.operations.repair_packs import DamagedPack, RepairPacksResult
    from packstone.operations.repair_snapshots import RepairedSnapshot, RepairSnapshotsResult
    from packstone.operations.results import (
        CheckResult,
        Finding,
        ListedEntry,
        Progress,
        RestoreResult,
        SnapshotResult,
    )
    from packstone.operations.stats import Stats
    from packstone.repository.retention import KeptSnapshot, Retention, RetentionGroup
    from packstone.repository.snapshots import SnapshotRow

__version__ = VERSION

_HOMES = {
    "packstone.codec.keys": ("Argon2",),
    "packstone.errors": (
        "CommandFailed",
        "Damaged",
        "GenerationChanged",
        "ObjectMissing",
        "PackstoneError",
        "RepositoryLocked",
        "RepositoryMissing",
        "StorageError",
        "StorageFull",
        "StorageUnavailable",
        "UnsupportedFormat",
        "UsageError",
        "WrongPassphrase",
    ),
    "packstone.filesystem.ignore": ("Rules",),
    "packstone.model": ("Entry", "Problem", "Snapshot"),
    "packstone.operations.check_names": ("check_names",),
    "packstone.operations.copy": ("CopyResult",),
    "packstone.operations.facade": ("Repository", "init", "open"),
    "packstone.operations.forget": ("ForgetResult",),
    "packstone.operations.keys": ("ListedKey", "import_key"),
    "packstone.operations.prune": ("PruneResult",),
    "packstone.operations.repair_index": ("RepairIndexResult",),
    "packstone.operations.repair_packs": ("DamagedPack", "RepairPacksResult"),
    "packstone.operations.repair_snapshots": ("RepairSnapshotsResult", "RepairedSnapshot"),
    "packstone.operations.results": (
        "CheckResult",
        "Finding",
        "ListedEntry",
        "Progress",
        "RestoreResult",
        "SnapshotResult",
    ),
    "packstone.operations.stats": ("Stats",),
    "packstone.repository.retention": ("KeptSnapshot", "Retention", "RetentionGroup"),
    "packstone.repository.snapshots": ("SnapshotRow",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Argon2", "CheckResult", "CommandFailed", "CopyResult", "Damaged", "DamagedPack", "Entry",
    "Finding", "ForgetResult", "GenerationChanged", "KeptSnapshot", "ListedEntry", "ListedKey",
    "ObjectMissing", "PackstoneError", "Problem", "Progress", "PruneResult", "RepairIndexResult",
    "RepairPacksResult", "RepairSnapshotsResult", "RepairedSnapshot", "Repository",
    "RepositoryLocked", "RepositoryMissing", "RestoreResult", "Retention", "RetentionGroup",
    "Rules", "Snapshot", "SnapshotResult", "SnapshotRow", "Stats", "StorageError", "StorageFull",
    "StorageUnavailable", "UnsupportedFormat", "UsageError", "WrongPassphrase", "__version__",
    "check_names", "import_key", "init", "open",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'packstone' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
