"""The same policies on the same histories keep the same snapshots here and in restic.

Where months are not equally long the two count `within` apart: restic takes the duration from
the newest snapshot (31 March less a month is 3 March there), here it is added to each one's own
time. Days of 23 and 25 hours are counted apart likewise, and the hour that comes twice in
autumn is one for restic. Where they differ, more is kept here, never less. All times are past:
restic does not count `within` from a snapshot of the future either, but keeps others for it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from packstone.model import Snapshot
from packstone.repository.retention import ALL, Retention, apply_retention
from packstone.repository.snapshots import SnapshotRow

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("restic") is None, reason="restic is not installed"),
]
HISTORIES = 50
POOL = 70
POLICIES = 2  # for each history
TURNS = ["2020-02-29", "2019-12-30", "2021-01-01", "2021-03-28", "2021-03-31", "2021-10-31"]
COUNTED = ["last", "hourly", "daily", "weekly", "monthly", "yearly"]
WITHIN = ["1h", "36h", "7d", "30d", "1m", "2m3d", "1y", "1y6m", "2y1m7d12h"]


class Restic:
    """Runs restic on a repository in a directory, in a time zone."""

    def __init__(self, directory: Path, zone: str) -> None:
        self.source = directory / "file"
        self.source.write_text("one\n")
        self.environment = os.environ | {
            "RESTIC_REPOSITORY": str(directory / "repository"),
            "RESTIC_PASSWORD": "x",
            "RESTIC_CACHE_DIR": str(directory / "cache"),
            "TZ": zone,
        }
        self("init")

    def __call__(self, *words: str) -> str:
        done = subprocess.run(
            ["restic", *words], env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout


def a_pool(rng: Random) -> list[datetime]:
    """Return wall-clock times, dense around where calendars have their corners."""
    found: set[datetime] = set()
    while len(found) < POOL:
        unit = rng.choice([1800, 5 * 3600, 86400, 86400 * 9, 86400 * 30])
        moment = datetime.fromisoformat(rng.choice(TURNS)) + timedelta(
            seconds=unit * rng.randint(-9, 9)
        )
        found.add(moment)
    return sorted(found)


def a_policy(rng: Random) -> tuple[Retention, list[str]]:
    """Return a policy and how restic calls it."""
    rules: dict[str, Any] = {}
    words: list[str] = []
    for rule in rng.sample(COUNTED, rng.randint(1, 3)):
        rules[rule] = rng.choice([1, 2, 3, 7, 12, ALL])
        # restic 0.14 takes -1 for no rule at all, later ones for all
        words += [f"--keep-{rule}", str(9999 if rules[rule] == ALL else rules[rule])]
    if rng.random() < 0.4:
        if rng.random() < 0.5:
            rules, words = {}, []
        rules["within"] = rng.choice(WITHIN)
        words += ["--keep-within", rules["within"]]
    if rng.random() < 0.3:
        rules["tags"] = ["audit"]
        words += ["--keep-tag", "audit"]
    return Retention(**rules), words


def row(listed: dict[str, Any]) -> SnapshotRow:
    moment = datetime.fromisoformat(listed["time"]).astimezone(UTC)
    snapshot = Snapshot(
        time_ns=round(moment.timestamp()) * 10**9,
        host=listed["hostname"],
        paths=[os.fsencode(path) for path in listed["paths"]],
        tree=bytes(32),
        tags=listed.get("tags") or [],
    )
    return SnapshotRow(listed["id"], snapshot)


def kept_here(rows: list[SnapshotRow], policy: Retention, zone: tzinfo) -> dict[str, list[str]]:
    """Return the reasons for each snapshot that stays."""
    groups = apply_retention(rows, policy, now_ns=1 << 64, group_by=(), zone=zone)
    return {kept.row.id: list(kept.reasons) for group in groups for kept in group.keep}


def may_differ(reasons: list[str], zone: str) -> bool:
    """Return whether calendars explain that only one of the two keeps a snapshot."""
    unequal = "my" if zone == "UTC" else "mywd"
    return all(
        (reason.startswith("within") and any(unit in reason.split()[1] for unit in unequal))
        or (reason.startswith("hourly") and zone != "UTC")
        for reason in reasons
    )


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_like_restic(tmp_path: Path, zone: str) -> None:
    rng = Random(zone)
    restic = Restic(tmp_path, zone)
    histories = [f"history-{number}" for number in range(HISTORIES)]
    for moment in a_pool(rng):
        # a snapshot is in several histories: one for each of its tags
        tags = rng.sample(histories, HISTORIES // 5) + (["audit"] if rng.random() < 0.2 else [])
        restic(
            "backup", str(restic.source), "--time", f"{moment:%Y-%m-%d %H:%M:%S}",
            *(word for tag in tags for word in ("--tag", tag)),
        )  # fmt: skip
    everything = [row(listed) for listed in json.loads(restic("snapshots", "--json"))]
    assert len(everything) == POOL
    compared = same = 0
    for history in histories:
        rows = [each for each in everything if history in each.snapshot.tags]
        for _ in range(POLICIES):
            policy, words = a_policy(rng)
            answer = restic(
                "forget", "--dry-run", "--json", "--group-by", "", "--tag", history, *words
            )
            (group,) = json.loads(answer)
            theirs = {each["id"] for each in group["keep"] or []}
            assert len(theirs) + len(group["remove"] or []) == len(rows)
            ours = kept_here(rows, policy, ZoneInfo(zone))
            compared += 1
            same += ours.keys() == theirs
            assert theirs <= ours.keys(), f"{words}: restic keeps more"
            for name in ours.keys() - theirs:
                assert may_differ(ours[name], zone), f"{words}: {ours[name]}"
    print(f"{zone}: {compared} compared, {same} the same, in the others more is kept here")
    assert same >= compared * 0.9
