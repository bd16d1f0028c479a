"""Give memory back to the system: what is mapped of a file, what was freed of the heap.

Without it a process seems to hold, and others lack, what it is done with. Both calls do nothing
where the system has none like them.
"""

from __future__ import annotations

import contextlib
import os

_MADV_DONTNEED = 4


def find_mapping(path: str) -> tuple[int, int] | None:
    """Return address and size in bytes of the map of a file, by its real path; Linux only."""
    name = os.fsencode(path)
    with contextlib.suppress(OSError), open("/proc/self/maps", "rb") as maps:
        for line in maps:
            fields = line.rstrip(b"\n").split(None, 5)
            if fields[5:] == [name]:  # all of it: another file's path may end like ours
                begin, _, end = fields[0].partition(b"-")
                return int(begin, 16), int(end, 16) - int(begin, 16)
    return None


def unmap_pages(start: int, size: int) -> None:
    """Unmap the pages of a mapped file, which stay in the page cache.

    The caller sees to it that the map is still there: other memory would be emptied.
    """
    import ctypes

    advise = ctypes.CDLL(None).madvise
    advise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_DONTNEED)


def trim_heap() -> None:
    """Give back what was freed between what is still in use; glibc only.

    Footers and records come and go in pieces of megabytes, and leave holes of that size.
    """
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
