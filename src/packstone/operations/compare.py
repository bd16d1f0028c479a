"""What makes two entries of one path differ for a user: type, content, attributes.

Pure. Numbers that nobody can restore, ctime and inode, do not count, nor does what is below a
directory: that has rows of its own.
"""

from __future__ import annotations

from packstone.model import Entry
from packstone.repository.trees import is_directory_mode

TYPE = "type"
CONTENT = "content"
ATTRIBUTES = "attributes"

_KIND = 0o170000


def compare_entries(old: Entry, new: Entry) -> str:
    """Return TYPE, CONTENT, ATTRIBUTES, the first of them that differs, or an empty string.

    The content of a symbolic link is its target, that of a device its numbers.
    """
    if (old.mode ^ new.mode) & _KIND:
        return TYPE
    if not is_directory_mode(old.mode) and (old.content != new.content or old.size != new.size):
        return CONTENT
    if (
        old.mtime_ns != new.mtime_ns
        or old.mode != new.mode
        or old.uid != new.uid
        or old.gid != new.gid
        or old.extras != new.extras
    ):
        return ATTRIBUTES
    return ""


def tree_of(entry: Entry | None) -> bytes | None:
    """Return the tree id of a directory's entry, None for anything else."""
    if entry is not None and is_directory_mode(entry.mode) and isinstance(entry.content, bytes):
        return entry.content
    return None
