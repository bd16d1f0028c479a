"""Which snapshots a policy keeps, and why. Pure: nothing is read, nothing deleted.

Every decision rests on the times and the order of the snapshots alone. The clock serves one
end: a snapshot later than it is kept and not counted. So a clock that goes back can only keep
more, and for any clock what is forgotten would be forgotten without one. Snapshots of one time
are in the order of their ids. What a policy keeps it keeps again when it is applied to that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import NamedTuple

from packstone.errors import UsageError
from packstone.repository.periods import PERIODS, Duration, local
from packstone.repository.snapshots import SnapshotRow

ALL = -1  # a count that never runs out
FUTURE = "from the future"
GROUP_KEYS = ("host", "paths", "tags", "name")
GROUP_BY = ("host", "paths")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What to keep of each group of snapshots; what one rule keeps no other gives up.

    `last` keeps the N newest; `hourly` to `yearly` the newest of each of the N most recent
    hours, days, ISO weeks, months, years that have any. -1 is all, 0 no such rule. `within` (say
    `30d`, `1y6m`, `12h`) keeps what is younger than that, compared with the newest of the group;
    `tags` whatever carries one of them. Raises UsageError for what is no policy.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: str = ""
    tags: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.tags, str):
            raise UsageError(f"tags are a list of texts, not {self.tags!r}")
        counts = {rule: getattr(self, rule) for rule in ("last", *PERIODS)}
        for rule, count in counts.items():
            if count < ALL:
                raise UsageError(f"keep {rule} {count}: expected a count, or -1 for all")
        if not all(self.tags):
            raise UsageError("an empty tag is on no snapshot")
        if self.within:
            Duration.parse(self.within)
        if not (any(counts.values()) or self.within or self.tags):
            raise UsageError(
                "a policy that keeps nothing is none",
                hint="Say what to keep, for example --keep-daily 7 --keep-monthly 12",
            )


class KeptSnapshot(NamedTuple):
    """A snapshot that stays, and every rule that says so."""

    row: SnapshotRow
    reasons: tuple[str, ...]


class RetentionGroup(NamedTuple):
    """Snapshots that a policy was applied to together, oldest first.

    Of `host`, `paths`, `name` and `tags` those are None by which was not grouped.
    """

    host: str | None
    paths: tuple[bytes, ...] | None
    name: bytes | None
    tags: tuple[str, ...] | None
    keep: tuple[KeptSnapshot, ...] = ()
    forget: tuple[SnapshotRow, ...] = ()

    @property
    def is_emptied(self) -> bool:
        """Whether nothing stays of those that the policy could choose among."""
        return bool(self.forget) and all(kept.reasons == (FUTURE,) for kept in self.keep)


def group_snapshots(
    rows: Iterable[SnapshotRow], group_by: Sequence[str] = GROUP_BY
) -> dict[RetentionGroup, list[SnapshotRow]]:
    """Return groups, still undecided, and their snapshots; raises UsageError for a wrong key.

    The order of paths and tags says nothing. A piped snapshot stands under its name where
    others stand under their paths.
    """
    for key in group_by:
        if key not in GROUP_KEYS:
            raise UsageError(f"cannot group by {key!r}", hint=f"Known: {', '.join(GROUP_KEYS)}")
    groups: dict[RetentionGroup, list[SnapshotRow]] = {}
    for row in rows:
        snapshot = row.snapshot
        paths = name = None
        if "paths" in group_by and not snapshot.name:
            paths = tuple(sorted(set(snapshot.paths)))
        if "name" in group_by or ("paths" in group_by and snapshot.name):
            name = snapshot.name
        group = RetentionGroup(
            host=snapshot.host if "host" in group_by else None,
            paths=paths,
            name=name,
            tags=tuple(sorted(set(snapshot.tags))) if "tags" in group_by else None,
        )
        groups.setdefault(group, []).append(row)
    return groups


def apply_retention(
    rows: Iterable[SnapshotRow],
    policy: Retention,
    *,
    now_ns: int,
    group_by: Sequence[str] = GROUP_BY,
    zone: tzinfo | None = None,
) -> list[RetentionGroup]:
    """Decide for each group what stays and what goes; periods are those of `zone`.

    `now_ns` only tells which snapshots are from the future. Raises UsageError.
    """
    decided = []
    for group, members in group_snapshots(rows, group_by).items():
        newest_first = sorted(members, key=lambda row: (row.snapshot.time_ns, row.id), reverse=True)
        counted = [row for row in newest_first if row.snapshot.time_ns <= now_ns]
        reasons: dict[str, list[str]] = {
            row.id: [FUTURE] for row in newest_first[: len(newest_first) - len(counted)]
        }
        for row, reason in _reasons(counted, policy, zone):
            reasons.setdefault(row.id, []).append(reason)
        oldest_first = newest_first[::-1]
        keep = [
            KeptSnapshot(row, tuple(reasons[row.id])) for row in oldest_first if row.id in reasons
        ]
        forget = [row for row in oldest_first if row.id not in reasons]
        decided.append(group._replace(keep=tuple(keep), forget=tuple(forget)))
    return decided


def _reasons(
    newest_first: Sequence[SnapshotRow], policy: Retention, zone: tzinfo | None
) -> Iterator[tuple[SnapshotRow, str]]:
    """Yield every snapshot that a rule keeps, with that reason, one rule after the other."""
    last = len(newest_first) if policy.last == ALL else policy.last
    of = "" if policy.last == ALL else f" of {policy.last}"
    for number, row in enumerate(newest_first[:last], 1):
        yield row, f"last {number}{of}"
    for rule, period_of in PERIODS.items():
        count = getattr(policy, rule)
        seen: set[str] = set()
        for row in newest_first if count else ():
            if len(seen) == count:
                break
            period = period_of(local(row.snapshot.time_ns, zone))
            if period not in seen:
                seen.add(period)
                yield row, f"{rule} {period}"
    if policy.within and newest_first:
        # Asked of each snapshot, not of a limit counted back from the newest: months are not
        # equally long, and a later newest one must never bring the limit back.
        duration = Duration.parse(policy.within)
        newest_ns = newest_first[0].snapshot.time_ns
        for row in newest_first:
            end_ns = duration.after(row.snapshot.time_ns, zone)
            if end_ns is None or end_ns > newest_ns:
                yield row, f"within {policy.within}"
    for tag in dict.fromkeys(policy.tags):
        for row in newest_first:
            if tag in row.snapshot.tags:
                yield row, f"tag {tag}"
