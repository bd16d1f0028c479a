"""Which names of the source are left out: patterns, markers, sizes, file systems.

Never here: system calls on anything but the marker files of a directory that is open already.
The invariant: rules see one entry at a time, below directories that were kept, so a pattern
decides about the entry it matches and everything below follows from not going there.

Patterns are those of gitignore(5), the last one that matches decides, with two readings
that follow from there being no directory of a `.gitignore`: a pattern that starts with "/" is
an absolute path, and any other matches at every depth, also one with a slash in the middle.
Names that are not UTF-8 are matched with surrogates for the odd bytes, as os.fsdecode does.
"""

from __future__ import annotations

import re
import stat
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from packstone.errors import UsageError
from packstone.filesystem import _scan
from packstone.filesystem.metadata import DEVICE, INODE, MODE, SIZE, StatRow

CACHE_TAG = b"CACHEDIR.TAG"
CACHE_SIGNATURE = b"Signature: 8a477f597d28d172789f06886806bc55"  # bford.info/cachedir


@dataclass(frozen=True)
class Rules:
    """What a walk leaves out; the default is nothing. `larger_than` is in bytes.

    `exclude_paths` are directories by (device, inode), whatever leads to them. With
    `ignore_case` patterns match names however they are capitalised.
    """

    patterns: tuple[str, ...] = ()
    caches: bool = False
    if_present: tuple[bytes, ...] = ()
    one_file_system: bool = False
    larger_than: int | None = None
    exclude_paths: tuple[tuple[int, int], ...] = ()
    ignore_case: bool = False


@dataclass(frozen=True, slots=True)
class _Pattern:
    excludes: bool
    directories_only: bool
    by_name: bool  # the name alone decides, the path need not be known
    regex: str  # matches the whole name, or the whole path without leading slash


@dataclass
class Filter:
    """Rules made ready for many names; stateless once built."""

    rules: Rules
    needs_path: bool = False
    _patterns: list[tuple[_Pattern, re.Pattern[str]]] = field(default_factory=list)
    _names: re.Pattern[str] | None = None  # names that some excluding pattern may match
    _paths: re.Pattern[str] | None = None
    _excluded: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        patterns = [found for line in self.rules.patterns if (found := _translate(line))]
        # last first: the first that matches decides
        flags = re.DOTALL | (re.IGNORECASE if self.rules.ignore_case else 0)
        self._patterns = [(p, re.compile(p.regex, flags)) for p in reversed(patterns)]
        self._names = _any_of([p.regex for p in patterns if p.excludes and p.by_name], flags)
        self._paths = _any_of([p.regex for p in patterns if p.excludes and not p.by_name], flags)
        self.needs_path = any(not p.by_name for p in patterns)
        self._excluded = frozenset(self.rules.exclude_paths)

    @property
    def looks_at_entries(self) -> bool:
        """Whether `keep` can leave out anything at all."""
        return bool(self._patterns or self._excluded) or self.rules.larger_than is not None

    @property
    def looks_at_names(self) -> bool:
        """Whether `narrow` can leave out anything at all."""
        return self.rules.caches or bool(self.rules.if_present)

    def keep(
        self, directory: str, names: Sequence[bytes], rows: Sequence[StatRow | int]
    ) -> list[int]:
        """Return the positions to keep. `directory` is "" or ends with "/", has no leading one.

        Rows that are errnos are judged by their name, as if they were no directories.
        """
        limit = self.rules.larger_than
        kept = []
        for position, row in enumerate(rows):
            is_directory = False
            if not isinstance(row, int):
                mode = row[MODE]
                is_directory = stat.S_ISDIR(mode)
                if is_directory:
                    if (row[DEVICE], row[INODE]) in self._excluded:
                        continue
                elif limit is not None and row[SIZE] > limit and stat.S_ISREG(mode):
                    continue
            if self._patterns and self.excludes(directory, names[position], is_directory):
                continue
            kept.append(position)
        return kept

    def keep_named(self, rows: Sequence[StatRow | int]) -> list[int]:
        """Return the positions to keep of what was asked for by name: all but the repository."""
        return [
            position
            for position, row in enumerate(rows)
            if isinstance(row, int) or (row[DEVICE], row[INODE]) not in self._excluded
        ]

    def excludes(self, directory: str, name: bytes, is_directory: bool) -> bool:
        """Say whether the patterns leave out this entry of a kept directory."""
        text = name.decode("utf-8", "surrogateescape")
        path = directory + text if self.needs_path else text
        # most names match nothing: one look spares the walk through all patterns
        if not (
            (self._names is not None and self._names.fullmatch(text))
            or (self._paths is not None and self._paths.fullmatch(path))
        ):
            return False
        for pattern, regex in self._patterns:
            if pattern.directories_only and not is_directory:
                continue
            if regex.fullmatch(text if pattern.by_name else path):
                return pattern.excludes
        return False

    def narrow(self, fd: int, names: list[bytes]) -> list[bytes]:
        """Return what to look at of the listed names: all, or only the marker that says no.

        A directory marked as a cache or by `if_present` keeps its entry and the marker.
        """
        marks = [name for name in self.rules.if_present if _contains(names, name)]
        if self.rules.caches and _contains(names, CACHE_TAG) and _is_cache(fd):
            marks.append(CACHE_TAG)
        return sorted(set(marks)) if marks else names


def _contains(names: list[bytes], name: bytes) -> bool:
    place = bisect_left(names, name)
    return place < len(names) and names[place] == name


def _is_cache(fd: int) -> bool:
    size = len(CACHE_SIGNATURE)
    read = _scan.read_files([(fd, CACHE_TAG, size)], size)[0]
    return not isinstance(read, int) and read[1] == CACHE_SIGNATURE


def _any_of(expressions: list[str], flags: int) -> re.Pattern[str] | None:
    if not expressions:
        return None
    return re.compile("|".join(f"(?:{each})" for each in expressions), flags)


# pathspec's regular expressions match an entry and everything below it. Here each entry is
# asked about by itself, so what they end in is taken off and remembered.
_ANYWHERE = "^(?:.+/)?"
_ENTRY_OR_BELOW = "(?:(?P<ps_d>/)|$)"
_DIRECTORY_OR_BELOW = "(?P<ps_d>/)"
_WHOLE = {".": ".+", "/": ".+/.+"}  # what it searches for: anything, anything below the top


def _translate(line: str) -> _Pattern | None:
    anchored = line.lstrip("!").startswith(("/", "**/"))
    if not anchored and "/" in line.rstrip().rstrip("/") and not line.startswith("#"):
        mark = "!" if line.startswith("!") else ""
        line = f"{mark}**/{line[len(mark) :]}"
    if line.rstrip().endswith("/**/"):  # directories below; pathspec takes it for the one above
        line = line.rstrip() + "*/"
    try:
        regex, excludes = GitIgnoreSpecPattern.pattern_to_regex(line)
    except GitIgnorePatternError as error:
        raise UsageError(f"exclude pattern {line!r} makes no sense: {error}") from error
    if regex is None or excludes is None:  # blank, a comment, or what git ignores too
        return None
    directories_only = False
    if regex.endswith(_ENTRY_OR_BELOW):
        regex = regex[: -len(_ENTRY_OR_BELOW)]
    elif regex.endswith(_DIRECTORY_OR_BELOW):
        directories_only = True
        regex = regex[: -len(_DIRECTORY_OR_BELOW)] or ".+"
    elif regex in _WHOLE:
        regex = _WHOLE[regex]
    elif regex.endswith("/"):
        regex += ".+"
    else:  # better no snapshot than one that leaves out the wrong files
        raise UsageError(f"exclude pattern {line!r} gives an unknown expression: {regex}")
    regex = _without_retries(regex)
    by_name = False
    if regex.startswith(_ANYWHERE) and "/" not in regex[len(_ANYWHERE) :].replace("[^/]", ""):
        by_name = True
        regex = regex[len(_ANYWHERE) :]
    else:  # pathspec lets "[!a]" match a slash; git does not
        regex = re.sub(r"\[\^(?!/\])", "(?!/)[^", regex)
    try:
        re.compile(regex)
    except re.error as error:  # a range that runs backwards
        raise UsageError(f"exclude pattern {line!r} makes no sense: {error}") from error
    return _Pattern(excludes, directories_only, by_name, regex)


_STAR = "[^/]*"


def _without_retries(regex: str) -> str:
    """Return an expression that matches the same and never tries an earlier star again.

    Of what stands between two stars of one name the first occurrence will do: the second star
    takes all that is left. With backtracking, k stars cost the k-th power of the name's length.
    """
    first, *parts = regex.split(_STAR)
    made = [first]
    for number, part in enumerate(parts, 1):
        is_between = number < len(parts)
        if is_between and not part:
            continue  # two stars in a row are one
        if is_between and "(" not in part and "/" not in part.replace("[^/]", ""):
            made.append(f"(?>{_STAR}?{part})")
        else:
            made.append(_STAR + part)
    return "".join(made)
