"""`packstone init`."""

from __future__ import annotations

import pytest


def test_a_plain_repository(run) -> None:
    outcome = run("init", "--plain", "store")
    assert "store" in outcome.text
    assert run("-r", "store", "snapshots", "--json").json == []
    assert run("-r", "store", "check", "--json").json["errors"] == []


def test_json(run) -> None:
    assert run("--json", "init", "--plain", "store").json == {
        "repository": "store",
        "encrypted": False,
    }


def test_the_place_may_come_from_the_global_option(run) -> None:
    run("-r", "one", "init", "--plain")
    run("init", "--plain", env={"PACKSTONE_REPO": "two"})
    assert {"one", "two"} <= {path.name for path in run.directory.iterdir()}


def test_a_url(run) -> None:
    run("init", "--plain", f"file://{run.directory}/store")
    run("-r", f"file://{run.directory}/store", "snapshots")
    run("-r", "store", "snapshots")


def test_an_index_elsewhere(run, source) -> None:
    run("init", "--plain", "--index-dir", "elsewhere", "store")
    run("-r", "store", "snapshot", source)
    assert not list(run.directory.glob("store/index/*.mdb"))
    assert list(run.directory.glob("elsewhere/**/data.mdb"))
    run("-r", "store", "check")


def test_parameters(run, source) -> None:
    run("init", "--plain", "--chunk-size", "4KiB", "--pack-size", "1MiB", "--level", "1", "store")
    outcome = run("-r", "store", "snapshot", source, "--json").json
    assert outcome["chunks_total"] > 40  # 760 KiB


@pytest.mark.parametrize(
    "option",
    [
        ["--chunk-size", "100KB"],
        ["--chunk-size", "100KiB"],  # not a power of two
        ["--chunk-size", "1KiB"],
        ["--chunk-size", "16MiB"],
        ["--pack-size", "1"],
        ["--pack-size", "1TiB"],
        ["--pack-size", "large"],
        ["--level", "0"],
        ["--level", "20"],
    ],
    ids=" ".join,
)
def test_bad_parameters(run, option: list[str]) -> None:
    run("init", "--plain", *option, "store", code=2)
    assert not run.directory.joinpath("store").exists()


def test_plain_must_be_said_without_a_passphrase(run) -> None:
    for words in (["init", "store"], ["init", "--encrypt", "store"]):
        outcome = run(*words, code=2)
        assert "--plain" in outcome.messages
        assert "PACKSTONE_PASSPHRASE_FILE" in outcome.messages
    assert not run.directory.joinpath("store").exists()


def test_plain_may_be_said_beside_a_passphrase(run, source) -> None:
    environment = {"PACKSTONE_PASSPHRASE": "secret"}
    assert not run("--json", "init", "--plain", "store", env=environment).json["encrypted"]
    run("-r", "store", "snapshot", source, env=environment)
    run("-r", "store", "snapshots")


def test_what_is_there_is_left_alone(run, make_tree, store, source) -> None:
    run("snapshot", source)
    before = run("snapshots", "--json").json
    assert "repository" in run("init", "--plain", store, code=2).messages
    assert run("snapshots", "--json").json == before

    tree = make_tree({"precious": "data"}, "full")
    run("init", "--plain", tree, code=2)
    run("init", "--plain", tree / "precious", code=2)
    assert [path.name for path in tree.iterdir()] == ["precious"]

    run("init", "--plain", make_tree({}, "empty"))
