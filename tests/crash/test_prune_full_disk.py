"""Prune on a disk that is really full (row E2): that is when it is needed most."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from campaign import Caught, campaign, control, trials
from operations.pruning import History

import packstone
from packstone.repository.reserve import RESERVE, RESERVE_SIZE

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Path]]:
    """Mount a file system of a size in MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    monkeypatch.setenv("PACKSTONE_CACHE_DIR", str(tmp_path / "cache"))
    place = tmp_path / "disk"
    place.mkdir()

    def unmount() -> None:
        subprocess.run(["umount", "--lazy", place], capture_output=True)  # whoever has it open

    def mount(size: float) -> Path:
        unmount()
        words = ["mount", "-t", "tmpfs", "-o", f"size={round(size * 1024)}k", "tmpfs", place]
        if subprocess.run(words, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        return place

    yield mount
    unmount()


def fill_up(place: Path) -> None:
    """Leave no byte on a disk."""
    fd = os.open(place / "ballast", os.O_WRONLY | os.O_CREAT)
    for size in (MIB, 4096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(fd, b"x" * size)
    os.close(fd)
    assert shutil.disk_usage(place).free == 0


def crowd(history: History, *, until_full: bool = False) -> None:
    """Take snapshots that share little; the last ones find the disk full."""
    chance = Random("crowd")
    with history.open() as repository:
        for at in range(20):
            history.contents = {f"own {at}": chance.randbytes(3 * MIB), "shared": b"s" * 5000}
            try:
                history.take(repository)
            except packstone.StorageFull:
                assert until_full
                return
            if at == 3 and not until_full:
                return


@pytest.mark.parametrize("passphrase", [None, "secret"], ids=["plain", "encrypted"])
@pytest.mark.parametrize("until_full", [False, True], ids=["by others", "by snapshots"])
@pytest.mark.parametrize("index", ["current", "behind", "gone"])
def test_a_full_disk(
    disk: Callable[[float], Path], index: str, until_full: bool, passphrase: str | None
) -> None:
    place = disk(32)
    history = History(place, "full", passphrase=passphrase)
    crowd(history, until_full=until_full)
    assert (history.location / RESERVE).stat().st_size == RESERVE_SIZE
    oldest, *_others = history.stored
    history.forget(oldest)
    shutil.rmtree(history.source)
    if passphrase is None and index == "behind":  # packs that it has not seen
        with history.open(index_dir=place.parent / "elsewhere") as repository:
            repository._objects.index.refresh(repository._objects.storage)
        (history.location / "index" / "data.mdb").unlink()
    elif passphrase is None and index == "gone":
        shutil.rmtree(history.location / "index")
    fill_up(place)
    with history.open() as repository, pytest.raises(packstone.StorageFull):
        history.source = place.parent / "source"
        history.source.mkdir(exist_ok=True)
        (history.source / "file").write_bytes(os.urandom(30_000))
        repository.snapshot([history.source])
    assert (history.location / RESERVE).exists(), "nobody else takes the reserve"
    with history.open() as repository:
        result = repository.prune(max_unused=0.5)
        assert result.bytes_freed > 2 * MIB
    (place / "ballast").unlink()
    with history.open() as repository:
        history.place, history.source = place.parent, place / "source"
        history.verify(repository)
        history.source.mkdir()
        assert repository.snapshot([history.source]).errors == []
    if not until_full:
        assert (history.location / RESERVE).exists(), "made again as soon as there is much room"


def test_reading_on_a_full_disk_without_an_index(disk: Callable[[float], Path]) -> None:
    """There is another one in the cache directory meanwhile; nobody takes the reserve for it."""
    place = disk(32)
    history = History(place, "read")
    crowd(history)
    shutil.rmtree(history.source)
    shutil.rmtree(history.location / "index")
    fill_up(place)
    history.place, history.source = place.parent, place / "source"
    with history.open() as repository:
        history.verify(repository)
        repository.prune(dry_run=True)
    assert (history.location / RESERVE).exists()


def halve(history: History) -> None:
    """Leave packs of which half is needed."""
    chance = Random("half")
    with history.open() as repository:
        for number in range(50):
            history.contents[f"{number} kept"] = chance.randbytes(200_000)
            history.contents[f"{number} own"] = chance.randbytes(200_000)
        first = history.take(repository)
        for number in range(50):
            del history.contents[f"{number} own"]
        history.take(repository)
        history.forget(first)


@pytest.mark.parametrize("passphrase", [None, "secret"], ids=["plain", "encrypted"])
@pytest.mark.parametrize("rebase", [False, True], ids=["plain prune", "rebase"])
def test_packs_are_written_anew_though_not_all_fit(
    disk: Callable[[float], Path], passphrase: str | None, rebase: bool
) -> None:
    place = disk(48)
    history = History(place.parent, "groups", passphrase=passphrase, disk=place)
    halve(history)
    with history.open() as repository:
        foretold = repository.prune(max_unused=0.0, dry_run=True)
    assert foretold.packs_rewritten > 10
    assert foretold.bytes_rewritten > 5 * MIB
    with open(place / "ballast", "wb") as file:
        free = shutil.disk_usage(place).free
        os.posix_fallocate(file.fileno(), 0, free - foretold.bytes_rewritten * 3 // 5 - 2 * MIB)
    with history.open() as repository:
        result = repository.prune(max_unused=0.0, rebase=rebase)
        assert result.packs_rewritten >= foretold.packs_rewritten
        assert result.bytes_freed > 0.9 * foretold.bytes_freed
        history.verify(repository)


def test_no_reserve_on_a_small_disk(disk: Callable[[float], Path]) -> None:
    history = History(disk(8), "small")
    with history.open() as repository:
        history.fill(repository, 1)
        repository.prune()
        history.verify(repository)
    assert not (history.location / RESERVE).exists()


def grow(place: Path, seed: int) -> History:
    """Fill a disk with snapshots, the last byte with something else, and forget the oldest one."""
    history = History(place.parent, f"sizes {seed}", disk=place)
    chance = Random(f"sizes {seed}")
    with history.open(threads=1) as repository:
        for at in range(100):
            history.contents = {f"own {at}": chance.randbytes(MIB), "shared": b"s" * 5000}
            try:
                history.take(repository)
            except packstone.StorageFull:
                break
        else:
            raise AssertionError("the disk was never full")
    history.forget(next(iter(history.stored)))
    fill_up(place)
    return history


def relieve(history: History) -> None:
    """Prune on the full disk, then take a snapshot where the room is that this won."""
    with history.open(threads=1) as repository:
        assert repository.prune(max_unused=0.5).bytes_freed >= MIB
        history.verify(repository)
        history.contents = {"shared": b"s" * 5000}
        history.take(repository)
        history.verify(repository)


def test_prune_on_full_disks_of_every_size(disk: Callable[[float], Path]) -> None:
    """Row E2, the second half: the reserve is what makes it work."""
    with campaign("E2", "prune on a full disk, tmpfs of every size") as row:
        count = trials(6, 200)
        for number in range(count):
            size = 20 + 12.5 * number / count  # steps of 64 KiB in the long form
            try:
                relieve(grow(disk(size), number))
            except BaseException as error:
                error.add_note(f"{size} MiB, seed {number}")
                raise
            row.trials += 1


def test_without_a_reserve_it_would_be_noticed(
    disk: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("packstone.repository.repository.keep_reserve", lambda *_given: None)
    with control("E2", "no reserve") as row:
        for number in range(6):
            history = grow(disk(20 + 2 * number), number)
            assert not (history.location / RESERVE).exists()
            try:
                relieve(history)
            except packstone.StorageFull as error:
                raise Caught from error
            row.trials += 1
