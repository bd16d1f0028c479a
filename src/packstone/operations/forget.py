"""Forget snapshots: by policy, or those that are named.

Only snapshot objects are deleted; what they reached stays in the packs until a sweep, so the
shared lock of the open repository is enough. Everything is decided, and refused, before the
first is deleted; the oldest go first, so that a run cut off anywhere ends the same when it is
run again. A snapshot that cannot be read is in no listing, is warned of and never deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from packstone.errors import StorageError, UsageError
from packstone.model import Snapshot
from packstone.repository.layout import check_features, snapshot_name
from packstone.repository.repository import ObjectRepository
from packstone.repository.retention import (
    FUTURE,
    GROUP_BY,
    Retention,
    RetentionGroup,
    apply_retention,
)
from packstone.repository.snapshots import SnapshotRow, resolve, select

_GROUPS_NAMED = 3  # in an error


@dataclass(slots=True)
class ForgetResult:
    """What was decided for each group, and what was forgotten, oldest first.

    There are no groups where snapshots were named. After a dry run `forgotten` is what would
    have been.
    """

    groups: list[RetentionGroup] = field(default_factory=list)
    forgotten: list[SnapshotRow] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which snapshots are looked at: those of a host, with all of the paths and tags."""

    host: str | None = None
    paths: Sequence[bytes] = ()
    tags: Sequence[str] = ()


def forget_by_policy(
    repository: ObjectRepository,
    policy: Retention,
    wanted: Filter,
    *,
    now_ns: int,
    group_by: Sequence[str] = GROUP_BY,
    allow_empty: bool = False,
    dry_run: bool = False,
    zone: tzinfo | None = None,
) -> ForgetResult:
    """Forget what a policy does not keep.

    Raises UsageError, with nothing deleted, when a group would be left empty and
    `allow_empty` does not say that this is meant; StorageError.
    """
    rows = _listed(repository, wanted)
    groups = apply_retention(rows, policy, now_ns=now_ns, group_by=group_by, zone=zone)
    emptied = [group for group in groups if group.is_emptied]
    if emptied and not allow_empty:
        raise _refusal(emptied)
    going = {row.id for group in groups for row in group.forget}
    result = ForgetResult(groups, [row for row in rows if row.id in going], dry_run=dry_run)
    future = [kept.row for group in groups for kept in group.keep if kept.reasons == (FUTURE,)]
    result.warnings.extend(
        f"snapshot {row.id[:12]}… is later than this machine's clock: kept, and not counted"
        for row in future
    )
    if not dry_run:
        _delete(repository, result.forgotten)
    return result


def forget_named(
    repository: ObjectRepository, specs: Sequence[str], wanted: Filter, *, dry_run: bool = False
) -> ForgetResult:
    """Forget the snapshots that id prefixes, `latest` and `latest~N` name.

    Raises UsageError, with nothing deleted, when one of them names none or several;
    StorageError.
    """
    rows = _listed(repository, wanted)
    going = {resolve(spec, rows).id for spec in specs}
    result = ForgetResult(
        forgotten=[row for row in rows if row.id in going],
        dry_run=dry_run,
    )
    if not dry_run:
        _delete(repository, result.forgotten)
    return result


def _listed(repository: ObjectRepository, wanted: Filter) -> list[SnapshotRow]:
    check_features(repository.storage, repository.sealer, writing=True)
    return select(repository.snapshots(), host=wanted.host, paths=wanted.paths, tags=wanted.tags)


def _delete(repository: ObjectRepository, rows: Sequence[SnapshotRow]) -> None:
    """Delete snapshot objects in order; an error says how far it came."""
    for number, row in enumerate(rows):
        try:
            repository.storage.delete(snapshot_name(row.id))
        except StorageError as error:
            done = ", ".join(gone.id[:12] for gone in rows[:number])
            raise type(error)(
                f"{error.message}: forgot {number} of {len(rows)} snapshots"
                f"{f' ({done})' if done else ''}; {row.id[:12]} may be gone or not, "
                "the others are there",
                hint="Run the same command again",
            ) from error


def _refusal(emptied: Sequence[RetentionGroup]) -> UsageError:
    named = "; ".join(
        f"all {len(group.forget)} of {_what(group.forget[-1].snapshot)}"
        for group in emptied[:_GROUPS_NAMED]
    )
    more = f" and {len(emptied) - _GROUPS_NAMED} more" if len(emptied) > _GROUPS_NAMED else ""
    return UsageError(
        f"this policy would leave nothing of {len(emptied)} "
        f"{'group' if len(emptied) == 1 else 'groups'}: {named}{more}. Nothing was forgotten",
        hint="Is a tag of --keep-tag misspelt? --allow-empty if it is meant",
    )


def _what(snapshot: Snapshot) -> str:
    """Return whose snapshot this is; a terminal is protected where messages are printed."""
    what = [snapshot.name] if snapshot.name else snapshot.paths
    names = " ".join(name.decode("utf-8", "backslashreplace") for name in what)
    return f"{names!r} of {snapshot.host!r}"
