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
        IndexWrong,
        ObjectMissing,
        PackstoneError,
        RepositoryLocked,
        RepositoryMissing,
        StorageError,
        StorageFull,
        StorageUnavailable,
        StrategyInvalid,
        UnsupportedFormat,
        UsageError,
        WrongPassphrase,
    )
    from packstone.filesystem.ignore import Rules
    from packstone.model import Entry, Problem, Snapshot
    from packstone.operations.check_names import check_names
    from packstone.operations.copy import CopyResult
    from packstone.operations.diff import Difference, DiffResult
    from packstone.operations.estimate import Estimate
    from packstone.operations.facade import Repository
    from packstone.operations.find import FoundPath, FoundVersion
    from packstone.operations.forget import ForgetResult
    from packstone.operations.jobs.advise import JobAdvice, RepositoryAdvice, advise_jobs
    from packstone.operations.jobs.config import load_strategy
    from packstone.operations.jobs.doubts import find_doubts
    from packstone.operations.jobs.growth import Slope
    from packstone.operations.jobs.load import LoadedPart, restore_job
    from packstone.operations.jobs.plan import JobPlan, plan_jobs
    from packstone.operations.jobs.rehearse import Rehearsal, rehearse_job
    from packstone.operations.jobs.report import JobReport, RunReport
    from packstone.operations.jobs.run import run_jobs
    from packstone.operations.jobs.schedule import Schedule, find_schedule
    from packstone.operations.jobs.strategy import Job, RepositoryTarget, Strategy
    from packstone.operations.keys import ListedKey, import_key
    from packstone.operations.opening import init, open
    from packstone.operations.passphrases import configured_passphrase, passphrase_from_file
    from packstone.operations.prune import PruneResult
    from packstone.operations.repair_index import RepairIndexResult
    from packstone.operations.repair_packs import DamagedPack, RepairPacksResult
    from packstone.operations.repair_snapshots import RepairedSnapshot, RepairSnapshotsResult
    from packstone.operations.results import (
        Change,
        CheckResult,
        Finding,
        ListedEntry,
        Progress,
        RestoreResult,
        SnapshotResult,
    )
    from packstone.operations.rewrite import RewriteResult, Rewritten
    from packstone.operations.stats import Growth, SnapshotStats, Stats
    from packstone.operations.tag import TagResult
    from packstone.operations.unique import ObjectsSize
    from packstone.repository.retention import KeptSnapshot, Retention, RetentionGroup
    from packstone.repository.snapshots import SnapshotRow

__version__ = VERSION

_HOMES = {
    "packstone.codec.keys": ("Argon2",),
    "packstone.errors": (
        "CommandFailed",
        "Damaged",
        "GenerationChanged",
        "IndexWrong",
        "ObjectMissing",
        "PackstoneError",
        "RepositoryLocked",
        "RepositoryMissing",
        "StorageError",
        "StorageFull",
        "StorageUnavailable",
        "StrategyInvalid",
        "UnsupportedFormat",
        "UsageError",
        "WrongPassphrase",
    ),
    "packstone.filesystem.ignore": ("Rules",),
    "packstone.model": ("Entry", "Problem", "Snapshot"),
    "packstone.operations.check_names": ("check_names",),
    "packstone.operations.copy": ("CopyResult",),
    "packstone.operations.diff": ("Difference", "DiffResult"),
    "packstone.operations.estimate": ("Estimate",),
    "packstone.operations.facade": ("Repository",),
    "packstone.operations.find": ("FoundPath", "FoundVersion"),
    "packstone.operations.forget": ("ForgetResult",),
    "packstone.operations.jobs.advise": ("JobAdvice", "RepositoryAdvice", "advise_jobs"),
    "packstone.operations.jobs.growth": ("Slope",),
    "packstone.operations.jobs.load": ("LoadedPart", "restore_job"),
    "packstone.operations.jobs.plan": ("JobPlan", "plan_jobs"),
    "packstone.operations.jobs.rehearse": ("Rehearsal", "rehearse_job"),
    "packstone.operations.jobs.config": ("load_strategy",),
    "packstone.operations.jobs.doubts": ("find_doubts",),
    "packstone.operations.jobs.report": ("JobReport", "RunReport"),
    "packstone.operations.jobs.run": ("run_jobs",),
    "packstone.operations.jobs.schedule": ("Schedule", "find_schedule"),
    "packstone.operations.jobs.strategy": ("Job", "RepositoryTarget", "Strategy"),
    "packstone.operations.keys": ("ListedKey", "import_key"),
    "packstone.operations.opening": ("init", "open"),
    "packstone.operations.passphrases": ("configured_passphrase", "passphrase_from_file"),
    "packstone.operations.prune": ("PruneResult",),
    "packstone.operations.repair_index": ("RepairIndexResult",),
    "packstone.operations.repair_packs": ("DamagedPack", "RepairPacksResult"),
    "packstone.operations.repair_snapshots": ("RepairSnapshotsResult", "RepairedSnapshot"),
    "packstone.operations.results": (
        "Change",
        "CheckResult",
        "Finding",
        "ListedEntry",
        "Progress",
        "RestoreResult",
        "SnapshotResult",
    ),
    "packstone.operations.rewrite": ("RewriteResult", "Rewritten"),
    "packstone.operations.stats": ("Growth", "SnapshotStats", "Stats"),
    "packstone.operations.tag": ("TagResult",),
    "packstone.operations.unique": ("ObjectsSize",),
    "packstone.repository.retention": ("KeptSnapshot", "Retention", "RetentionGroup"),
    "packstone.repository.snapshots": ("SnapshotRow",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Argon2", "Change", "CheckResult", "CommandFailed", "CopyResult", "Damaged", "DamagedPack",
    "DiffResult", "Difference", "Entry", "Estimate", "Finding", "ForgetResult", "FoundPath",
    "FoundVersion", "GenerationChanged", "Growth", "IndexWrong", "Job", "JobAdvice", "JobPlan",
    "JobReport", "KeptSnapshot", "ListedEntry", "ListedKey", "LoadedPart", "ObjectMissing",
    "ObjectsSize", "PackstoneError", "Problem", "Progress", "PruneResult", "Rehearsal",
    "RepairIndexResult", "RepairPacksResult", "RepairSnapshotsResult", "RepairedSnapshot",
    "Repository", "RepositoryAdvice", "RepositoryLocked", "RepositoryMissing", "RepositoryTarget",
    "RestoreResult", "Retention", "RetentionGroup", "RewriteResult", "Rewritten", "Rules",
    "RunReport", "Schedule", "Slope", "Snapshot", "SnapshotResult", "SnapshotRow",
    "SnapshotStats", "Stats", "StorageError", "StorageFull", "StorageUnavailable", "Strategy",
    "StrategyInvalid", "TagResult", "UnsupportedFormat", "UsageError", "WrongPassphrase",
    "__version__", "advise_jobs", "check_names", "configured_passphrase", "find_doubts",
    "find_schedule", "import_key", "init", "load_strategy", "open", "passphrase_from_file",
    "plan_jobs", "rehearse_job", "restore_job", "run_jobs",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'packstone' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
