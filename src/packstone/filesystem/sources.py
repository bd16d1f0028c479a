"""The paths a walk was asked for, as a tree of names from "/" down.

Never here: system calls. The invariant: a path below another chosen one adds nothing to walk,
since the walk of that one meets it anyway, if it is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from packstone.errors import UsageError


class Source:
    """A name on the way to sources, or, if `chosen`, a source itself."""

    __slots__ = ("children", "chosen")

    def __init__(self) -> None:
        self.children: dict[bytes, Source] = {}
        self.chosen = False

    def paths(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the sources at and below this name, which stands at `prefix`."""
        stack = [(prefix, self)]
        while stack:
            path, node = stack.pop()
            if node.chosen:
                yield path
            for name in sorted(node.children, reverse=True):
                stack.append((path.rstrip(b"/") + b"/" + name, node.children[name]))

    def covered(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield (outer, path) for each source that stands below another one, from the root."""
        stack: list[tuple[bytes, Source, bytes]] = [(b"", self, b"")]
        while stack:
            path, node, outer = stack.pop()
            if node.chosen and outer:
                yield outer, path
            elif node.chosen:
                outer = path or b"/"
            for name in sorted(node.children, reverse=True):
                stack.append((path + b"/" + name, node.children[name], outer))


def plant(paths: Sequence[bytes]) -> Source:
    """Return the tree of absolute paths; UsageError if one is relative or climbs with "..".

    Collapsing ".." without asking the file system would be wrong behind symbolic links, so
    that is left to the caller, who knows the working directory.
    """
    root = Source()
    for path in paths:
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        if not path.startswith(b"/") or b".." in names or b"\0" in path:
            raise UsageError(f"source path {path!r} must be absolute, without .. and NUL")
        node = root
        for name in names:
            node = node.children.setdefault(name, Source())
        node.chosen = True
    return root
