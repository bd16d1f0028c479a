"""Passphrases and keys on the command line: where they come from, where they never appear."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from pathlib import Path

import pytest

import packstone

SECRET = "correct horse battery"
CHEAP = ["--kdf-time", "1", "--kdf-memory", "64KiB", "--kdf-lanes", "1"]


@pytest.fixture
def vault(run) -> Path:
    """An encrypted repository, named by the environment; its passphrase is not."""
    path = run.directory / "vault"
    run("init", *CHEAP, path, env={"PACKSTONE_PASSPHRASE": SECRET})
    run.environment["PACKSTONE_REPO"] = str(path)
    return path


@pytest.fixture
def unlocked(run, vault) -> Path:
    run.environment["PACKSTONE_PASSPHRASE"] = SECRET
    return vault


def sources(run) -> list[dict[str, str]]:
    path = run.directory / "passphrase"
    path.write_text(SECRET + "\n")
    return [
        {"PACKSTONE_PASSPHRASE": SECRET},
        {"PACKSTONE_PASSPHRASE_FILE": str(path)},
        {"PACKSTONE_PASSPHRASE_COMMAND": f"cat {path}"},
    ]


def test_init_encrypts_when_a_passphrase_is_configured(run, source) -> None:
    for number, environment in enumerate(sources(run)):
        name = f"store-{number}"
        assert run("--json", "init", *CHEAP, name, env=environment).json["encrypted"]
        run("-r", name, "snapshot", source, env=environment)
        for each in sources(run):
            assert len(run("-r", name, "snapshots", "--json", env=each).json) == 1


def test_every_command_on_an_encrypted_repository(run, unlocked, source) -> None:
    taken = run("--json", "snapshot", source).json
    assert taken["snapshot_id"]
    run("snapshot", "--stdin", "dump.sql", stdin=b"INSERT\n" * 1000)
    assert run("ls", "-R", f"latest:{source}", "--path", source).text
    run("restore", f"latest:{source}", "--path", source, "--target", "out")
    done = subprocess.run(
        ["diff", "-r", "-x", "fifo", "--no-dereference", source, run.directory / "out"]
    )
    assert done.returncode == 0
    assert run("--json", "check", "--read-data").json["errors"] == []
    assert not (unlocked / "index").exists()


@pytest.mark.parametrize("words", [["snapshots"], ["check"], ["key", "list"], ["ls", "latest"]])
def test_no_and_wrong_passphrases(run, vault, words: list[str]) -> None:
    assert "PACKSTONE_PASSPHRASE_FILE" in run(*words, code=12).messages
    outcome = run(*words, code=12, env={"PACKSTONE_PASSPHRASE": "no " + SECRET})
    assert SECRET not in outcome.messages


def test_a_source_that_gives_nothing_says_so(run, vault) -> None:
    (run.directory / "empty").write_text("\n")
    for name, value in (
        ("FILE", "missing"), ("FILE", "empty"), ("COMMAND", "false"), ("COMMAND", "'unclosed"),
    ):  # fmt: skip
        outcome = run("snapshots", code=12, env={f"PACKSTONE_PASSPHRASE_{name}": value})
        assert f"PACKSTONE_PASSPHRASE_{name}" in outcome.messages


def test_only_the_newline_at_the_end_is_left_out(run) -> None:
    (run.directory / "spaced").write_bytes(b"  two words \r\n")
    run("init", *CHEAP, "store", env={"PACKSTONE_PASSPHRASE_FILE": "spaced"})
    run("-r", "store", "snapshots", env={"PACKSTONE_PASSPHRASE": "  two words "})
    run("-r", "store", "snapshots", code=12, env={"PACKSTONE_PASSPHRASE": "two words"})


def test_a_damaged_slot_is_not_a_wrong_passphrase(run, unlocked) -> None:
    (slot,) = (unlocked / "keys").iterdir()
    data = bytearray(slot.read_bytes())
    data[100] ^= 1
    slot.write_bytes(data)
    assert "damaged" in run("snapshots", code=14).messages


def test_keys(run, unlocked, source) -> None:
    run("snapshot", source)
    before = {path: path.read_bytes() for path in unlocked.glob("packs/*/*")}
    added = run("--json", "key", "add", *CHEAP, "--recovery", "--label", "safe").json
    rows = run("--json", "key", "list").json
    assert {row["role"] for row in rows} == {"passphrase", "recovery"}
    assert [row["current"] for row in rows if row["role"] == "passphrase"] == [True]
    typed = added["recovery_key"].lower().replace("-", " ")
    run("check", "--read-data", env={"PACKSTONE_PASSPHRASE": typed})
    mistyped = added["recovery_key"][:-1] + ("A" if added["recovery_key"][-1] != "A" else "B")
    outcome = run("snapshots", code=12, env={"PACKSTONE_PASSPHRASE": mistyped})
    assert "wrong character" in outcome.messages

    run("key", "passwd", *CHEAP, env={"PACKSTONE_NEW_PASSPHRASE": "another"})
    run("snapshots", code=12)
    run.environment["PACKSTONE_PASSPHRASE"] = "another"
    run("key", "remove", added["id"][:10])
    run("snapshots", code=12, env={"PACKSTONE_PASSPHRASE": typed})
    (last,) = run("--json", "key", "list").json
    assert "last" in run("key", "remove", last["id"], code=2).messages
    assert {path: path.read_bytes() for path in unlocked.glob("packs/*/*")} == before
    run("restore", "latest", "--target", "out")


def test_the_new_passphrase_may_come_from_a_file(run, unlocked) -> None:
    (run.directory / "new").write_text("second\n")
    run("key", "add", *CHEAP, "--new-passphrase-file", "new")
    for each in (SECRET, "second"):
        run("snapshots", env={"PACKSTONE_PASSPHRASE": each})
    assert "PACKSTONE_NEW_PASSPHRASE" in run("key", "add", code=2).messages


def test_an_export_brings_a_lost_slot_back(run, unlocked, source) -> None:
    run("snapshot", source)
    printed = run("key", "export").text
    run("key", "export", "--output", "paper")
    assert (run.directory / "paper").read_text() == printed
    run("key", "export", "--output", "paper", code=2)
    (slot,) = (unlocked / "keys").iterdir()
    data = slot.read_bytes()
    slot.unlink()
    assert "key import" in run("snapshots", code=14).messages
    run("key", "import", "paper")
    assert slot.read_bytes() == data
    slot.unlink()
    run("key", "import", "-", stdin=printed.encode())
    run("restore", "latest", "--target", "out")
    spoilt = printed.replace("\n  3: ", "\n  3: A", 1)
    assert "line 3" in run("key", "import", "-", stdin=spoilt.encode(), code=2).messages


def test_names_only_needs_no_passphrase(run, unlocked, source) -> None:
    run("snapshot", source)
    del run.environment["PACKSTONE_PASSPHRASE"]
    outcome = run("check", "--names-only")
    assert "not opened" in outcome.text
    found = run("--json", "check", "--names-only").json
    assert (found["errors"], found["snapshots_checked"]) == ([], 1)
    run("check", "--names-only", "--read-data", code=2)
    for pattern in ("packs/*/*", "snapshots/*", "keys/*", "state", "config.bak"):
        path = next(unlocked.glob(pattern))
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        errors = run("--json", "check", "--names-only", code=14).json["errors"]
        assert any(path.name[:12] in error["message"] for error in errors), pattern
        path.write_bytes(whole)


def test_like_another(run, unlocked, source) -> None:
    run("snapshot", source)
    environment = {"PACKSTONE_PASSPHRASE": "disk", "PACKSTONE_FROM_PASSPHRASE": SECRET}
    run("init", *CHEAP, "--like", unlocked, "disk", env=environment)
    run("-r", "disk", "snapshot", source, env=environment)
    with (
        packstone.open(run.directory / "disk", passphrase="disk") as disk,
        packstone.open(unlocked, passphrase=SECRET) as own,
    ):
        first, second = (
            {row.path: row.entry.content for row in each.ls("latest", bytes(source))}
            for each in (disk, own)
        )
    assert first == second, "one family gives one name to the same chunk"
    assert "chunk size" in run(
        "init", "--like", unlocked, "--chunk-size", "4KiB", "other", code=2, env=environment
    ).messages  # fmt: skip
    run("init", "--like", unlocked, "--plain", "other", code=2, env=environment)


def test_a_plain_repository_in_place_of_an_encrypted_one_is_refused(run, unlocked, source) -> None:
    run("snapshot", source)
    os.rename(unlocked, run.directory / "away")
    environment = {"PACKSTONE_CACHE_DIR": str(run.directory / "attacker")}
    run("init", "--plain", unlocked, env=environment)
    for words in (["snapshot", source], ["snapshots"]):
        outcome = run(*words, code=1)
        assert "not encrypted" in outcome.messages
        # Without any memory the configured passphrase says what is expected.
        fresh = {"PACKSTONE_CACHE_DIR": str(run.directory / "new machine")}
        assert "not encrypted" in run(*words, code=1, env=fresh).messages
    del run.environment["PACKSTONE_PASSPHRASE"]
    run("snapshot", source, code=1)
    assert not list(unlocked.glob("packs/*/*"))


def converse(run, words: list[str], answers: list[str]) -> tuple[int, str]:
    """Run a command on a terminal of its own, giving an answer to each question."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [os.fsdecode(word) for word in run.argv(words)],
        stdin=child, stdout=child, stderr=child, cwd=run.directory, env=run.environment,
        start_new_session=True,
        # The terminal becomes the session's own, so that /dev/tty is it.
        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(child)
    shown = b""
    asked = 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([parent], [], [], 0.2)
        if ready:
            try:
                data = os.read(parent, 4096)
            except OSError:
                break
            if not data:
                break
            shown += data
            if data.rstrip(b" ").endswith(b":") and asked < len(answers):
                time.sleep(0.05)  # until echo is off
                os.write(parent, answers[asked].encode() + b"\n")
                asked += 1
        elif process.poll() is not None:
            break
    code = process.wait(timeout=60)
    os.close(parent)
    return code, shown.decode(errors="replace")


def test_asked_for_on_a_terminal(run, source) -> None:
    code, shown = converse(run, ["init", *CHEAP, "store"], ["one", "two", SECRET, SECRET])
    assert code == 0, shown
    assert "differ" in shown
    assert SECRET not in shown, "no echo"
    code, shown = converse(run, ["-r", "store", "snapshot", str(source)], [SECRET])
    assert code == 0, shown
    assert SECRET not in shown
    code, shown = converse(run, ["-r", "store", "snapshots"], ["wrong"])
    assert code == 12, shown
    run("-r", "store", "snapshots", env={"PACKSTONE_PASSPHRASE": SECRET})


def test_the_passphrase_appears_nowhere(run, unlocked, source) -> None:
    """Neither in what is printed nor in the arguments of what is started, even when all fails."""
    for words in (
        ["-vv", "snapshot", str(source)], ["-vv", "--json", "key", "list"], ["key", "export"],
        ["-vv", "restore", "nothing", "--target", "out"], ["-vv", "snapshot", "missing"],
    ):  # fmt: skip
        outcome = run(*words, code=None)
        assert SECRET not in outcome.text + outcome.messages
    (unlocked / "state").unlink()
    for words in (["-vv", "snapshot", str(source)], ["-vv", "check"]):
        outcome = run(*words, code=None)
        assert outcome.code
        assert SECRET not in outcome.text + outcome.messages
