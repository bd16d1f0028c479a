"""What every repair of packs must keep, whatever was damaged; shared by tests of repair."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from damage.scene import FAST, Scene, Seen

import packstone

Files = dict[str, bytes]


def repaired(
    scene: Scene, files: Files, index: str | None = None
) -> tuple[Files, packstone.RepairPacksResult]:
    """Return what the files are after a repair of packs, and what it said."""
    after = dict(files)
    with new_memory(), scene.opened(after, index) as repository:
        result = repository.repair_packs()
    return after, result


@contextmanager
def new_memory() -> Iterator[None]:
    """Let this machine know nothing of the repository, such as how new its state was."""
    with tempfile.TemporaryDirectory(dir=FAST) as home, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PACKSTONE_CACHE_DIR", home)
        yield


def named(scene: Scene, result: packstone.RepairPacksResult) -> dict[str, set[bytes]]:
    """Return the stored files that a repair names as lost, by snapshot."""
    paths: dict[str, set[bytes]] = defaultdict(set)
    for loss in result.losses:
        for snapshot_id in loss.snapshots:
            paths[snapshot_id] |= set(loss.paths)
    return {
        snapshot_id: {
            name
            for name in contents
            if any(
                path.rstrip(b"/") == full or full.startswith(path.rstrip(b"/") + b"/")
                for path in paths[snapshot_id]
                for full in (scene.base + b"/" + name,)
            )
        }
        for snapshot_id, contents in scene.stored.items()
    }


def mend(scene: Scene, files: Files, index: str | None = None) -> tuple[Files, Seen]:
    """Repair packs and require what a repair promises; return the files then and what is seen.

    Nothing readable becomes unreadable, what is lost is named, no byte is gone, everything else
    is sound, and a second run changes nothing.
    """
    with new_memory():
        return _mend(scene, files, index)


def _mend(scene: Scene, files: Files, index: str | None) -> tuple[Files, Seen]:
    before = scene.look(files)
    after, result = repaired(scene, files, index)
    seen = scene.look(after)
    assert seen.refused is None
    for snapshot_id, lost in seen.lost.items():
        assert lost <= before.lost.get(snapshot_id, lost), "what could be read is lost"
    assert named(scene, result) == seen.lost
    assert {found.outcome for found in result.damaged} <= {"quarantined"}
    assert result.is_whole == (not any(seen.lost.values()))
    assert set(files.values()) <= set(after.values()) | {files["state"]}, "bytes are gone"
    gone = {found.pack for found in result.damaged}
    assert not gone & {name.rpartition("/")[2] for name in after if name.startswith("packs/")}
    with scene.opened(dict(after)) as repository:
        findings = repository.check(read_data=True).errors
    # A delta that was never damaged may lack its base.
    wrong = [each for each in findings if each.kind not in ("chunk", "tree")]
    assert all(each.kind == "data" and "base" in each.message for each in wrong), wrong
    again, second = repaired(scene, after)
    assert again == after and second.damaged == []
    return after, seen
