"""Open the repositories a strategy names: on archive disks too, and without anybody to ask."""

from __future__ import annotations

import os
from collections.abc import Callable

from packstone.errors import RepositoryMissing
from packstone.operations.facade import Repository
from packstone.operations.jobs.disks import mount_point
from packstone.operations.jobs.strategy import RepositoryTarget
from packstone.operations.opening import open as open_repository
from packstone.operations.passphrases import (
    configured_passphrase,
    passphrase_from_command,
    passphrase_from_file,
)


def location_of(target: RepositoryTarget) -> str | None:
    """Return where a repository is; None if the disk with its label is not there."""
    if not target.label:
        return target.location
    point = mount_point(target.label)
    return None if point is None else os.path.join(point, target.location.lstrip("/"))


def is_there(target: RepositoryTarget) -> bool:
    """Return whether the disk of a repository is there; without a label it always is."""
    return location_of(target) is not None


def absent(target: RepositoryTarget) -> str:
    """Return what to say of one whose disk is not there."""
    return f"the disk {target.label!r} of {target.name} is not there"


def passphrase_of(target: RepositoryTarget) -> str | bytes | None:
    """Return the passphrase of a repository: what the strategy says, else the environment.

    Raises WrongPassphrase when the source gives none.
    """
    if target.passphrase_file:
        return passphrase_from_file(
            target.passphrase_file, f"passphrase_file {target.passphrase_file}"
        )
    if target.passphrase_command:
        return passphrase_from_command(
            target.passphrase_command, f"passphrase_command of {target.name}"
        )
    return configured_passphrase()


def open_target(
    target: RepositoryTarget,
    *,
    threads: int | None = None,
    lock_timeout: float = 0.0,
    waiting: Callable[[str], None] | None = None,
) -> Repository:
    """Open a repository of a strategy.

    Raises RepositoryMissing, also when its disk is not there, and whatever opening one raises.
    """
    location = location_of(target)
    if location is None:
        raise RepositoryMissing(absent(target), hint="Plug it in and mount it")
    return open_repository(
        location,
        passphrase=lambda: passphrase_of(target),
        index_dir=target.index_dir or None,
        threads=threads,
        lock_timeout=lock_timeout,
        waiting=waiting,
    )
