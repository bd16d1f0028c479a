"""Every test here leaves as many descriptors open as it found; some run as an ordinary user."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from walking import FDS

NOBODY = 65534


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    """Fail a test after which more descriptors are open than before it."""
    before = len(os.listdir(FDS))
    yield
    assert len(os.listdir(FDS)) <= before, "descriptors leaked"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Callable[[Path], int]]:
    """Open directories for the length of a test: `held(path)` gives a descriptor."""
    fds: list[int] = []

    def hold(path: Path) -> int:
        fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
        return fds[-1]

    yield hold
    for fd in fds:
        os.close(fd)


@pytest.fixture
def here(tmp_path: Path, held: Callable[[Path], int]) -> int:
    """A descriptor of the test's own directory."""
    return held(tmp_path)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A new directory that every user may write to, off the test's private one."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o777)
    yield path
    shutil.rmtree(path)


def as_ordinary_user(work: Callable[[], None], groups: tuple[int, ...] = ()) -> None:
    """Run `work` without privileges: in a child as nobody if we are root, else as we are."""
    if os.geteuid() != 0:
        work()
        return
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read_end)
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            code = 0
        except BaseException:
            os.write(write_end, traceback.format_exc().encode()[-60000:])
        finally:
            os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        text = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert status == 0, text


@pytest.fixture
def ordinary() -> Callable[..., None]:
    """`ordinary(work)` runs a function as an ordinary user."""
    return as_ordinary_user
