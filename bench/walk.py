"""A bare walk of a tree: scandir and one lstat for each name, nothing else. Prints the count.

The least that any tool written in Python can do to see that nothing has changed.
"""

from __future__ import annotations

import os
import sys


def walk(path: str) -> int:
    """Return the number of names below `path`."""
    count = 0
    with os.scandir(path) as names:
        for entry in names:
            entry.stat(follow_symlinks=False)
            count += 1
            if entry.is_dir(follow_symlinks=False):
                count += walk(entry.path)
    return count


if __name__ == "__main__":
    print(walk(sys.argv[1]))
