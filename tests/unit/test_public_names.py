"""The names that users of the Python API may rely on."""

from __future__ import annotations

import inspect
import subprocess
import sys

import packstone
from packstone import errors, testing

NAMES = {
    "init",
    "open",
    "Repository",
    "Rules",
    "SnapshotResult",
    "SnapshotRow",
    "Stats",
    "RestoreResult",
    "ListedEntry",
    "Change",
    "CheckResult",
    "CopyResult",
    "Finding",
    "ForgetResult",
    "KeptSnapshot",
    "Retention",
    "RetentionGroup",
    "Problem",
    "Progress",
    "PruneResult",
    "Difference",
    "DiffResult",
    "FoundPath",
    "FoundVersion",
    "Growth",
    "ObjectsSize",
    "RewriteResult",
    "Rewritten",
    "SnapshotStats",
    "TagResult",
    "RepairIndexResult",
    "RepairPacksResult",
    "DamagedPack",
    "RepairSnapshotsResult",
    "RepairedSnapshot",
    "Entry",
    "Snapshot",
    "Argon2",
    "ListedKey",
    "Estimate",
    "JobAdvice",
    "JobPlan",
    "Rehearsal",
    "Slope",
    "RepositoryAdvice",
    "advise_jobs",
    "plan_jobs",
    "rehearse_job",
    "restore_job",
    "LoadedPart",
    "check_names",
    "import_key",
    "configured_passphrase",
    "JobReport",
    "RunReport",
    "run_jobs",
    "passphrase_from_file",
    "Job",
    "RepositoryTarget",
    "Schedule",
    "Strategy",
    "find_doubts",
    "find_schedule",
    "load_strategy",
}

ERRORS = {
    "PackstoneError",
    "UsageError",
    "CommandFailed",
    "RepositoryMissing",
    "RepositoryLocked",
    "WrongPassphrase",
    "StorageError",
    "ObjectMissing",
    "StorageFull",
    "StorageUnavailable",
    "StrategyInvalid",
    "GenerationChanged",
    "IndexWrong",
    "Damaged",
    "UnsupportedFormat",
}

TESTING = {
    "Action",
    "Clock",
    "CrashState",
    "CrashStorage",
    "EXIT_CODE",
    "FaultyCalls",
    "FaultyStorage",
    "Interleaving",
    "ObservedStorage",
    "Observer",
    "Plan",
    "RecordingStorage",
    "ShortCalls",
    "UnsyncedCalls",
    "WRITES",
    "WriteList",
    "crash_states",
    "full",
    "interrupt",
    "leave",
    "system_error",
    "unavailable",
}

METHODS = {
    "snapshot",
    "snapshot_stream",
    "snapshot_command",
    "restore",
    "estimate_restore",
    "forget",
    "snapshots",
    "snapshot_groups",
    "find_snapshot",
    "ls",
    "open_file",
    "check",
    "find",
    "diff",
    "diff_disk",
    "tag",
    "rewrite",
    "stats",
    "snapshot_stats",
    "growth",
    "freed_by",
    "repair_index",
    "repair_packs",
    "repair_snapshots",
    "keys",
    "add_key",
    "add_recovery_key",
    "change_passphrase",
    "remove_key",
    "export_key",
    "close",
}


def test_names_are_these() -> None:
    assert set(packstone.__all__) - {"__version__"} == NAMES | ERRORS


def test_every_name_is_there_and_documented() -> None:
    for name in packstone.__all__:
        value = getattr(packstone, name)
        if name != "__version__":
            assert inspect.getdoc(value), f"packstone.{name} has no docstring"


def test_repository_has_these_methods() -> None:
    public = {name for name in dir(packstone.Repository) if not name.startswith("_")}
    assert public >= METHODS
    for name in public:
        assert inspect.getdoc(getattr(packstone.Repository, name)), f"{name} has no docstring"


def test_every_error_that_is_raised_is_public() -> None:
    """Those of single files are not: they become problems of a result."""
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.PackstoneError)
    }
    assert defined - {"SourceError", "TargetError"} == ERRORS


def test_fault_tools_are_these() -> None:
    """packstone.testing, for those who write storages and tests."""
    assert set(testing.__all__) == TESTING
    for name in TESTING - {"EXIT_CODE", "WRITES", "Action"}:
        value = getattr(testing, name)
        assert inspect.getdoc(value), f"packstone.testing.{name} has no docstring"
        for member, method in vars(value).items() if isinstance(value, type) else ():
            if inspect.isfunction(method) and not member.startswith("_"):
                assert inspect.getdoc(method), f"{name}.{member} has no docstring"


def test_importing_is_light() -> None:
    """Start-up must not pay for what a command may not use."""
    heavy = {"rich", "lmdb", "zstandard", "blake3", "msgspec", "pathspec", "cryptography"}
    program = "import sys, packstone.cli.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not heavy & set(done.stdout.split())
