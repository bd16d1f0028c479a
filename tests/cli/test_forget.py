"""`packstone forget`: what it lets go, what it refuses, what it says."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path

import pytest

import packstone

GROUP_KEYS = {"host", "paths", "name", "tags", "keep", "forget"}


@pytest.fixture
def take(store, make_tree):
    """Take a snapshot as of a time and return its id."""
    source = make_tree({"a": "a"})

    def taken(when: str, host: str = "h", tags: tuple[str, ...] = ()) -> str:
        # not by the command line: a process for each would take longer than all tests here
        with packstone.open(store) as repository:
            time_ns = int(datetime.fromisoformat(when).timestamp()) * 10**9
            result = repository.snapshot([source], time_ns=time_ns, host=host, tags=tags)
        assert result.snapshot_id
        return result.snapshot_id

    return taken


@pytest.fixture
def nights(take) -> list[str]:
    """Two snapshots a day for four days, oldest first; the first is tagged."""
    ids = [take("2026-11-20T01:00:00Z", tags=("audit",)), take("2026-11-20T20:00:00Z")]
    for day in (21, 22, 23):
        ids += [take(f"2026-11-{day}T01:00:00Z"), take(f"2026-11-{day}T20:00:00Z")]
    return ids


def there(run) -> list[str]:
    return [row["id"] for row in run("snapshots", "--json").json]


def test_a_policy(run, nights) -> None:
    result = run("forget", "--keep-daily", "2", "--keep-tag", "audit", "--json").json
    assert result.keys() >= {"groups", "forgotten", "dry_run"}
    assert result["dry_run"] is False
    assert result["forgotten"] == nights[1:5] + nights[6:7], "oldest first"
    assert there(run) == [nights[0], nights[5], nights[7]]
    (group,) = result["groups"]
    assert group.keys() == GROUP_KEYS
    assert group["host"] == "h" and group["paths"] == [str(run.directory / "source")]
    assert group["name"] is None and group["tags"] is None
    assert group["keep"] == [
        {"id": nights[0], "time": "2026-11-20T01:00:00.000000000Z", "reasons": ["tag audit"]},
        {
            "id": nights[5],
            "time": "2026-11-22T20:00:00.000000000Z",
            "reasons": ["daily 2026-11-22"],
        },
        {
            "id": nights[7],
            "time": "2026-11-23T20:00:00.000000000Z",
            "reasons": ["daily 2026-11-23"],
        },
    ]
    assert [row["id"] for row in group["forget"]] == result["forgotten"]
    again = run("forget", "--keep-daily", "2", "--keep-tag", "audit", "--json").json
    assert again["forgotten"] == []
    assert run("check", "--read-data").code == 0
    for kept in there(run):
        run("restore", kept, "--target", f"out-{kept[:8]}")


def test_every_rule_has_its_option(run, nights) -> None:
    for words, kept in (
        (["--keep-last", "3"], [5, 6, 7]),
        (["-l", "all"], range(8)),
        (["--keep-last", "-1"], range(8)),
        (["--keep-hourly", "2"], [6, 7]),
        (["-H", "1", "-d", "2"], [5, 7]),
        (["--keep-weekly", "2"], [5, 7]),
        (["-w", "1", "-m", "1", "-y", "1"], [7]),
        (["--keep-within", "1d"], [6, 7]),
        (["--keep-within", "48h", "--keep-tag", "audit"], [0, 4, 5, 6, 7]),
    ):
        result = run("forget", *words, "--dry-run", "--json").json
        stay = [name for name in nights if name not in result["forgotten"]]
        assert stay == [nights[index] for index in kept], words


def test_periods_are_local(run, take) -> None:
    ids = [take("2026-11-22T22:30:00Z"), take("2026-11-22T23:30:00Z")]
    words = ["forget", "--keep-daily", "2", "--dry-run", "--json"]
    assert run(*words).json["forgotten"] == ids[:1]
    if Path("/usr/share/zoneinfo/Europe/Berlin").exists():
        assert run(*words, env={"TZ": "Europe/Berlin"}).json["forgotten"] == []


def test_a_dry_run_deletes_nothing_and_says_why(run, nights, store) -> None:
    before = sorted(path.name for path in (store / "snapshots").iterdir())
    outcome = run("forget", "--keep-daily", "2", "--keep-last", "1", "--dry-run")
    lines = outcome.text.splitlines()
    assert lines[0] == f"host h, paths {run.directory / 'source'}"
    assert lines[1].split() == ["id", "time", "tags", "because"]
    assert [line.split()[:2] for line in lines[2:10]] == [
        ["keep" if number in (5, 7) else "forget", name[:8]] for number, name in enumerate(nights)
    ]
    assert lines[9].endswith("last 1 of 1, daily 2026-11-23")
    assert lines[-2] == "would forget 6 snapshots, would keep 2"
    assert lines[-1].startswith("pruning would then free ")
    result = run("forget", "--keep-daily", "2", "-n", "--json").json
    assert result["dry_run"] is True and len(result["forgotten"]) == 6
    assert run("forget", nights[0], "-n").text.splitlines()[-2] == "would forget 1 snapshot"
    assert sorted(path.name for path in (store / "snapshots").iterdir()) == before


def test_a_run_says_how_many(run, nights) -> None:
    assert run("forget", "--keep-daily", "2").text == "forgot 6 snapshots, kept 2\n"
    assert run("forget", "--keep-daily", "2", "-q").text == ""
    assert "daily 2026-11-23" in run("forget", "--keep-daily", "2", "-v").text


# -- what is refused -------------------------------------------------------------------------


def test_a_misspelt_tag_forgets_nothing(run, nights, take) -> None:
    other = take("2026-11-23T03:00:00Z", "other", ("audit",))
    everything = there(run)
    for extra in ([], ["--dry-run"]):
        outcome = run("forget", "--keep-tag", "adit", *extra, code=2)
        assert "'h'" in outcome.messages and "--allow-empty" in outcome.messages
    assert run("--json", "forget", "--keep-tag", "adit", code=2).json["error"]["kind"] == "usage"
    assert there(run) == everything, "nor in groups that would keep something"
    run("forget", "--keep-tag", "adit", "--host", "h", "--allow-empty")
    assert there(run) == [other]


def test_what_makes_no_sense(run, nights) -> None:
    for words in (
        [],
        ["--allow-empty"],
        ["--host", "h"],
        ["--keep-last", "0"],
        ["--keep-last", "x"],
        ["--keep-last", "-5"],
        ["--keep-within", "30"],
        ["--keep-within", ""],
        ["--keep-tag", ""],
        ["--keep-last", "1", "--group-by", "user"],
        ["--keep-last", "1", "latest"],
        ["nothing"],
        ["latest~99"],
        ["latest", "nothing"],
        [""],
    ):
        run("forget", *words, code=2)
    assert there(run) == nights


def test_nothing_to_choose_among(run, nights) -> None:
    assert run("forget", "--keep-last", "1", "--host", "nobody", "--json").json["groups"] == []
    assert there(run) == nights


# -- by name ---------------------------------------------------------------------------------


def test_by_name(run, nights) -> None:
    result = run("forget", "latest~2", nights[0][:12], "latest", nights[7], "--json").json
    assert result["forgotten"] == [nights[0], nights[5], nights[7]], "each once, oldest first"
    assert result["groups"] == []
    rest = nights[1:5] + nights[6:7]
    assert there(run) == rest
    assert run("forget", *rest).text == "forgot 5 snapshots\n", "the user named them all"
    assert there(run) == []


def test_latest_is_narrowed(run, nights, take) -> None:
    other = take("2026-11-24T01:00:00Z", "other")
    run("forget", "latest", "--host", "h")
    run("forget", "latest", "--tag", "audit")
    assert there(run) == [*nights[1:7], other]


# -- groups ----------------------------------------------------------------------------------


def test_groups_and_filters(run, nights, take, store) -> None:
    other = [take(f"2026-11-{day}T05:00:00Z", "other") for day in (21, 22)]
    piped = [
        run("--json", "snapshot", "--stdin", name, "--host", "h", stdin=b"x").json["snapshot_id"]
        for name in ("a.sql", "a.sql", "b.sql")
    ]
    listed = run("forget", "--keep-last", "1", "-n", "--json").json["groups"]
    assert [(group["host"], group["name"], len(group["keep"])) for group in listed] == [
        ("h", None, 1), ("other", None, 1), ("h", "a.sql", 1), ("h", "b.sql", 1),
    ]  # fmt: skip
    assert listed[2]["paths"] is None
    one = run("forget", "--keep-last", "1", "-n", "--json", "--group-by", "").json["groups"]
    assert [len(group["forget"]) for group in one] == [len(nights + other + piped) - 1]
    assert "all snapshots" in run("forget", "-l", "1", "-n", "--group-by", "").text
    tagged = run("forget", "-l", "1", "-n", "--json", "-g", "host,tags").json["groups"]
    assert [(group["host"], group["tags"]) for group in tagged] == [
        ("h", ["audit"]), ("h", []), ("other", []),
    ]  # fmt: skip
    run("forget", "--keep-last", "1", "--path", "a.sql")
    run("forget", "--keep-last", "1", "--host", "other")
    assert sorted(there(run)) == sorted([*nights, other[1], *piped[1:]])


# -- clocks, damage --------------------------------------------------------------------------


def test_one_from_the_future_stays_and_takes_no_place(run, nights, take) -> None:
    future = take("2500-01-01T00:00:00Z")
    outcome = run("forget", "--keep-last", "1", "-v")
    assert there(run) == [nights[-1], future]
    assert future[:12] in outcome.messages and "clock" in outcome.messages
    assert "from the future" in outcome.text
    # nor does it hide that everything else would go
    run("forget", "--keep-tag", "adit", code=2)
    assert there(run) == [nights[-1], future]
    run("forget", future)
    assert there(run) == [nights[-1]]


def test_a_damaged_snapshot_stays(run, nights, store) -> None:
    path = store / "snapshots" / nights[2]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1])
    outcome = run("forget", "--keep-last", "1")
    assert nights[2][:12] in outcome.messages
    assert there(run) == [nights[7]]
    assert path.exists()
    run("forget", nights[2], code=2)
    assert path.exists()


def test_no_listing_no_decision(run, nights, store) -> None:
    (store / "snapshots").rename(store / "elsewhere")
    (store / "snapshots").write_text("")
    run("forget", "--keep-last", "1", code=13)
    (store / "snapshots").unlink()
    (store / "elsewhere").rename(store / "snapshots")
    assert there(run) == nights


def test_an_encrypted_repository(run, source) -> None:
    run.environment["PACKSTONE_PASSPHRASE"] = "correct horse battery"
    vault = run.directory / "vault"
    cheap = ["--kdf-time", "1", "--kdf-memory", "64KiB", "--kdf-lanes", "1"]
    run("init", *cheap, vault)
    run.environment["PACKSTONE_REPO"] = str(vault)
    ids = [run("--json", "snapshot", source).json["snapshot_id"] for _ in range(3)]
    wrong = {"PACKSTONE_PASSPHRASE": "wrong"}
    run("forget", "--keep-last", "1", code=12, env=wrong)
    assert there(run) == ids
    run("forget", "--keep-last", "1")
    assert there(run) == ids[-1:]
    run("check", "--read-data")


def test_names_do_not_drive_the_terminal(run, store, make_tree) -> None:
    source = make_tree({"a": "a"}, name="esc\x1b[31m")
    for _ in range(2):
        run("snapshot", source, "--host", "h\x1b[2J", "--tag", "t\x1b[1m")
    for words in (["-l", "1", "-n"], ["--keep-tag", "t\x1b[1m", "-n"], ["--keep-tag", "x"]):
        outcome = run("forget", *words, "-g", "host,paths,tags", code=None)
        assert b"\x1b" not in outcome.out + outcome.err


def test_pruning_at_once(run, tmp_path) -> None:
    """The space that a dry run promises is what forgetting and pruning gives back."""
    repository, source = tmp_path / "freed", tmp_path / "freed-source"
    source.mkdir()
    with packstone.init(repository, pack_size=1 << 20) as opened:
        for night in range(3):
            (source / "dump").write_bytes(random.Random(night).randbytes(2_000_000))
            opened.snapshot([source], time_ns=(night + 1) * 10**18 // 2)
    words = ["-r", repository, "--json", "forget", "--keep-last", "1"]
    promised = run(*words, "--dry-run").json["prune"]
    done = run(*words, "--prune").json
    assert len(done["forgotten"]) == 2
    assert done["prune"]["bytes_before"] == promised["bytes_before"]
    assert abs(done["prune"]["bytes_freed"] - promised["bytes_freed"]) < 4_096
    assert promised["bytes_freed"] > 4_000_000
    assert run("-r", repository, "--json", "check", "--read-data").json["errors"] == []
