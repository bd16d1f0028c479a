"""What a walk yields: directories that begin and end, names in slices, failures.

Nothing but data here. The order of events is that of walk.py.
"""

from __future__ import annotations

from typing import NamedTuple

from packstone.filesystem.directory import OpenDirectory
from packstone.filesystem.metadata import StatRow


class Enter(NamedTuple):
    """A directory begins; `stat` is of the opened directory. The root "/" has the name b""."""

    directory: OpenDirectory
    name: bytes
    stat: StatRow


class Slice(NamedTuple):
    """At most 1,024 names with what lstat said of each, in the order of model.Stat."""

    directory: OpenDirectory
    names: list[bytes]
    stats: list[StatRow]


class Leave(NamedTuple):
    """A directory ends."""

    directory: OpenDirectory


class Failed(NamedTuple):
    """A name, directory or source that could not be read. `path` is absolute."""

    path: bytes
    error: OSError


Event = Enter | Slice | Leave | Failed
