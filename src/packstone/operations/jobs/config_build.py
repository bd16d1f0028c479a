"""The tables of a strategy file → a `Strategy`, with every mistake in them. Pure: opens nothing.

What a single value may be is in `config_keys`; here is what must hold between them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from packstone.errors import UsageError
from packstone.operations.jobs import config_keys
from packstone.operations.jobs.config_keys import Mistake, Path, convert
from packstone.operations.jobs.strategy import (
    CheckBudget,
    CommandSource,
    Job,
    MariadbSource,
    PathSource,
    PostgresSource,
    RepositoryTarget,
    Source,
    SqliteSource,
    Strategy,
)
from packstone.repository.retention import Retention

# keys that a job takes over as they were converted
_AS_THEY_ARE = ("prune", "priority", "before", "after", "on_error", "ping", "tags")


class Builder:
    """What is known while one file is looked through; `mistakes` grows."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.mistakes: list[Mistake] = []
        self.repositories: dict[str, RepositoryTarget] = {}
        self.declared: dict[str, Any] = {}  # also those with mistakes in them

    def wrong(self, path: Path, text: str) -> None:
        mistake = Mistake(path, text)
        if mistake not in self.mistakes:  # one among the defaults is met by every job
            self.mistakes.append(mistake)

    def strategy(self, tables: dict[str, Any], lines: Mapping[str, int]) -> Strategy:
        """Return what a whole file says; `lines` are where its jobs begin."""
        top = convert(tables, config_keys.TOP, (), self.mistakes)
        self.declared = self.named(top, "repositories")
        for name, table in self.declared.items():
            if target := self.repository(name, table):
                self.repositories[name] = target
        jobs: dict[str, Job] = {}
        for name, table in self.named(top, "jobs").items():
            if job := self.job(name, table, top.get("defaults", {}), lines.get(name, 0)):
                jobs[name] = job
        return Strategy(
            path=self.path,
            repositories=self.repositories,
            jobs=jobs,
            metrics=self.place(top.get("metrics", "")),
            state_dir=self.place(top.get("state_dir", "")),
        )

    def named(self, tables: dict[str, Any], key: str) -> dict[str, Any]:
        """Return the tables below [key.NAME], those with a name that can be used."""
        found = tables.get(key, {})
        if not isinstance(found, dict):
            self.wrong((key,), f"found {config_keys.shown(found)}, expected [{key}.NAME] tables")
            return {}
        for name in found:
            if not config_keys.NAME.fullmatch(name):
                self.wrong(
                    (key, name),
                    f"found {config_keys.shown(name)}, expected a name of letters, digits and "
                    "._- , at most 64, beginning with a letter or digit",
                )
        return {name: table for name, table in found.items() if config_keys.NAME.fullmatch(name)}

    def repository(self, name: str, table: Any) -> RepositoryTarget | None:
        path = ("repositories", name)
        before = len(self.mistakes)
        found = convert(table, config_keys.REPOSITORY, path, self.mistakes)
        # not of one who misspelt it
        if isinstance(table, dict) and "location" not in table and len(self.mistakes) == before:
            self.wrong((*path, "location"), "missing: a path, a URL, or a path on a labelled disk")
        if {"passphrase_file", "passphrase_command"} <= found.keys():
            self.wrong((*path, "passphrase_command"), "there is passphrase_file already: say one")
        location = str(found.get("location", ""))
        if label := found.get("label"):
            if "/" in label:
                self.wrong((*path, "label"), "a label has no slash: name that of the filesystem")
            location = self.on_disk(location, path)
        elif "://" not in location:
            location = self.place(location)
        if len(self.mistakes) > before:
            return None
        rest = {key: value for key, value in found.items() if key != "location"}
        for key in ("passphrase_file", "index_dir"):
            rest[key] = self.place(rest.get(key, ""))
        return RepositoryTarget(name=name, location=location, **rest)

    def on_disk(self, location: str, path: Path) -> str:
        """Return a location on a labelled disk, relative to the root of its filesystem.

        Never absolute: with the disk away it would name a place on this machine.
        """
        relative = os.path.normpath(location.lstrip("/") or ".")
        if "://" in location or relative == ".." or relative.startswith("../"):
            self.wrong(
                (*path, "location"),
                f"found {config_keys.shown(location)}, expected a path on the labelled disk",
            )
        return relative

    def place(self, path: str) -> str:
        """Return a path of the file as an absolute one; empty stays empty."""
        if not path:
            return ""
        return os.path.normpath(os.path.join(os.path.dirname(self.path), os.path.expanduser(path)))

    def job(self, name: str, table: Any, defaults: dict[str, Any], line: int) -> Job | None:
        path = ("jobs", name)
        before = len(self.mistakes)
        said = convert(table, config_keys.JOB, path, self.mistakes)
        if not isinstance(table, dict):
            return None
        found = defaults | said
        target = self.target(found, path, "repository" in table)
        source = self.source(said, found, table, path)
        copies = [
            each
            for other in found.get("copy_to", ())
            if (each := self.known(other, self.told_in(path, "copy_to", said)))
        ]
        if target and target in copies:
            self.wrong(self.told_in(path, "copy_to", said), f"{target.name!r} is the job's own")
        if len(set(found.get("copy_to", ()))) < len(found.get("copy_to", ())):
            self.wrong(self.told_in(path, "copy_to", said), "a repository stands in it twice")
        keep = self.keep(found, self.told_in(path, "keep", said))
        every, every_text = found.get("every", (None, ""))
        if len(self.mistakes) > before or target is None or source is None:
            return None
        return Job(
            name=name,
            repository=target,
            source=source,
            every=every,
            every_text=every_text,
            keep=keep,
            copy_to=tuple(copies),
            check=_budget(found),
            rpo_ns=found.get("rpo"),
            rto_ns=found.get("rto"),
            timeout_ns=found.get("timeout"),
            line=line,
            **{key: found[key] for key in _AS_THEY_ARE if key in found},
        )

    def told_in(self, path: Path, key: str, said: dict[str, Any]) -> Path:
        """Return where a key of a job stands: with it, or among the defaults."""
        return (*path, key) if key in said else ("defaults", key)

    def target(self, found: dict[str, Any], path: Path, said: bool) -> RepositoryTarget | None:
        """Return the repository of a job; where there is but one, it need not be named."""
        name = found.get("repository")
        if name is None and len(self.declared) == 1 and not said:
            name = next(iter(self.declared))
        if name is None:
            if not said:
                self.wrong((*path, "repository"), f"missing: one of {self.names()}")
            return None
        return self.known(name, (*path, "repository") if said else ("defaults", "repository"))

    def names(self) -> str:
        return ", ".join(self.declared) or "[repositories.NAME], of which there is none"

    def known(self, name: str, path: Path) -> RepositoryTarget | None:
        """Return a repository by its name; None, too, for one that is itself wrong."""
        if name not in self.declared:
            near = config_keys.suggestion(name, self.declared)
            self.wrong(path, f"there is no [repositories.{name}]{near}")
        return self.repositories.get(name)

    def keep(self, found: dict[str, Any], path: Path) -> Retention | None:
        if "keep" not in found:
            return None
        try:
            return Retention(**found["keep"])
        except UsageError as error:
            if not any(each.path[: len(path)] == path for each in self.mistakes):
                self.wrong(path, error.message)
            return None

    def source(
        self,
        said: dict[str, Any],
        found: dict[str, Any],
        table: dict[str, Any],
        path: Path,
    ) -> Source | None:
        """Return what a job stores: exactly one kind must be said."""
        kinds = [key for key in config_keys.SOURCES if key in table]
        if len(kinds) != 1:
            text = f"found {' and '.join(kinds)}: say one" if kinds else "says not what to store"
            hint = "; give each a job of its own" if kinds else ""
            choice = "" if kinds else f": one of {', '.join(config_keys.SOURCES)}"
            self.wrong(path, text + hint + choice)
            return None
        kind = kinds[0]
        for key in config_keys.WITH_PATHS if kind != "paths" else ():
            if key in table:
                self.wrong((*path, key), f"goes with paths, and this job stores {kind}")
        if kind not in said:
            return None  # wrong in itself, and told
        if kind == "paths":
            options = {key: found[key] for key in config_keys.WITH_PATHS if key in found}
            return PathSource(paths=self.places(found["paths"]), **options)
        return self.stream(kind, said[kind], (*path, kind))

    def places(self, paths: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(self.place, paths))

    def stream(self, kind: str, options: dict[str, Any], path: Path) -> Source | None:
        needed = {"sqlite": "files", "command": "argv"}.get(kind, "databases")
        missing = [
            key for key in (needed, "name" if kind == "command" else needed) if key not in options
        ]
        told = [each.path for each in self.mistakes]
        for key in dict.fromkeys(missing):
            if (*path, key) not in told and path not in told:
                self.wrong((*path, key), "missing")
        if missing:
            return None
        if kind == "sqlite":
            return SqliteSource(files=self.places(options["files"]))
        if kind == "command":
            return CommandSource(**options)
        if kind == "postgresql":
            if {"service", "host"} <= options.keys():
                self.wrong((*path, "service"), "a service names its host itself: say one of them")
            return PostgresSource(**options)
        if {"socket", "host"} <= options.keys():
            self.wrong((*path, "socket"), "found host and socket: say one of them")
        for key in ("defaults_file", "socket"):
            if key in options:
                options[key] = self.place(options[key])
        return MariadbSource(**options)


def _budget(found: dict[str, Any]) -> CheckBudget | None:
    if "check" not in found:
        return None
    budget = found["check"]
    return CheckBudget(subset=budget.get("subset", ""), max_seconds=budget.get("max_time"))
