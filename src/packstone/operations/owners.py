"""Whose a restored file is: by name as this host knows it, else by number."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable

import msgspec

from packstone.model import Entry
from packstone.repository.snapshots import SnapshotRow


class Owners:
    """Owners by name, as this host knows them; by number where it does not.

    Who is not root cannot give files away: that is said once, for all files.
    """

    def __init__(self, row: SnapshotRow, wanted: bool, warnings: list[str]) -> None:
        self._users: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        self._warnings = warnings
        self._own = {os.geteuid()} if wanted and os.geteuid() != 0 else None
        if wanted and os.geteuid() == 0:
            users, groups = row.snapshot.users, row.snapshot.groups
            self._users = _numbers(users, lambda name: pwd.getpwnam(name).pw_uid)
            self._groups = _numbers(groups, lambda name: grp.getgrnam(name).gr_gid)

    def here(self, entry: Entry) -> Entry:
        """Return the entry with the numbers that its owners' names have on this host."""
        if self._own is not None and entry.uid not in self._own:
            self._own = None
            self._warnings.append("owners were not restored: only root can give files away")
        uid = self._users.get(entry.uid, entry.uid)
        gid = self._groups.get(entry.gid, entry.gid)
        if uid == entry.uid and gid == entry.gid:
            return entry
        return msgspec.structs.replace(entry, uid=uid, gid=gid)


def _numbers(names: dict[int, str], look_up: Callable[[str], int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for number, name in names.items():
        try:
            here = look_up(name)
        except (KeyError, ValueError):  # unknown here, or nothing that can be a name
            continue
        if here != number:
            found[number] = here
    return found
