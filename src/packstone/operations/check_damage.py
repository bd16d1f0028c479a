"""What a check found wrong, and which files of which snapshots it hits.

Memory grows with what is wrong, never with what is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from packstone.operations.check_packs import PackReport, Problem
from packstone.operations.results import Finding
from packstone.repository.places import Place

ONCE = "; read again it was good: test cable, controller and memory"


def transient(message: str, pack: str | None = None, record: int | None = None) -> Finding:
    """Return the finding that something was wrong at one of two reads."""
    return Finding("transient", message + ONCE, pack, record=record, transient=True)


class Damage:
    """Collect problems of packs, then what of them snapshots meet."""

    def __init__(self) -> None:
        self.changes = 0  # grows with everything that is found
        self._problems: dict[tuple[str, int | None], list[Problem]] = {}
        # Snapshots with the paths that one problem hits in each.
        self._hits: dict[tuple[str, int | None], dict[str, set[bytes]]] = {}
        self._unopened: set[str] = set()
        self._others: list[Finding] = []
        self._seen: set[tuple[str, str | None]] = set()  # transient ones, by text and pack

    def __bool__(self) -> bool:
        return self.changes > 0

    def add(self, finding: Finding) -> None:
        """Take up what is told as it is."""
        if finding.transient:
            if (finding.message, finding.pack) in self._seen:
                return
            self._seen.add((finding.message, finding.pack))
        else:
            self.changes += 1
        self._others.append(finding)

    def add_report(self, report: PackReport) -> None:
        """Take up what is wrong with a pack."""
        for problem in report.problems:
            self.add_problem(report.pack_id, problem)
        for problem in report.transient:
            self.add(transient(problem.message, report.pack_id, problem.record))
        if not report.opened:
            self._unopened.add(report.pack_id)

    def add_problem(self, pack_id: str, problem: Problem) -> None:
        """Take up what is wrong with a pack or one of its records."""
        self.changes += 1
        self._problems.setdefault((pack_id, problem.record), []).append(problem)

    def key_of(self, pack_id: str, record: int | None) -> tuple[str, int | None] | None:
        """Return what to hand to `hit` for a place that is bad, None for one that is not."""
        if (pack_id, record) in self._problems and record is not None:
            return pack_id, record
        return (pack_id, None) if pack_id in self._unopened else None

    def is_unopened(self, place: Place) -> bool:
        """Return whether a place is in a pack whose footers cannot be read."""
        return place.pack_id in self._unopened

    def hit(self, key: tuple[str, int | None], snapshot_id: str, paths: Iterable[bytes]) -> None:
        """Note that a problem hits paths of a snapshot."""
        self.changes += 1
        self._hits.setdefault(key, {}).setdefault(snapshot_id, set()).update(paths)

    def findings(self) -> Iterator[Finding]:
        """Yield everything; a problem that hits other paths in other snapshots more than once."""
        for (pack_id, record), problems in self._problems.items():
            alike: dict[frozenset[bytes], list[str]] = {}
            for snapshot_id, hit in self._hits.get((pack_id, record), {}).items():
                alike.setdefault(frozenset(hit), []).append(snapshot_id)
            first, *others = problems
            for paths, snapshots in alike.items() or [(frozenset(), [])]:
                yield Finding(
                    first.kind,
                    first.message,
                    pack_id,
                    tuple(snapshots),
                    tuple(sorted(paths)),
                    record,
                )
            for each in others:
                yield Finding(each.kind, each.message, pack_id, record=record)
        yield from self._others
