"""What a shell offers after Tab: snapshots, and paths inside them.

Asks for nothing and says nothing: a repository that cannot be opened with what the environment
tells offers nothing. The scripts themselves are click's.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    _Type = click.ParamType[str]
else:
    _Type = click.ParamType  # which is generic since click 8.2 only

_MOST = 200  # paths that are offered


class Snapshot(_Type):
    """A snapshot as an argument: the beginning of an id, `latest`, `latest~2`."""

    name = "snapshot"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer the snapshots of the repository that the line or the environment names."""
        try:
            return self.offer(ctx, incomplete)
        except Exception:  # a shell has no place for a message
            return []

    def offer(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return what fits; may raise anything."""
        with _open(ctx) as repository:
            return _snapshots(repository, incomplete)


class Place(Snapshot):
    """`SNAPSHOT[:PATH]` as an argument."""

    name = "place"

    def offer(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return snapshots that fit, or after a colon the paths in one."""
        snapshot, colon, path = incomplete.partition(":")
        with _open(ctx) as repository:
            if not colon:
                return _snapshots(repository, incomplete)
            folder, _, start = path.rpartition("/")
            found: list[CompletionItem] = []
            for row in repository.ls(snapshot, os.fsencode(folder)):
                name = os.fsdecode(row.entry.name)
                if name.startswith(start):
                    ending = "/" if stat.S_ISDIR(row.entry.mode) else ""
                    found.append(CompletionItem(f"{snapshot}:{folder}/{name}{ending}"))
                if len(found) >= _MOST:
                    break
            return found


def _open(ctx: click.Context) -> Any:
    import packstone
    from packstone.cli import passphrase
    from packstone.cli.session import Session

    session = ctx.find_object(Session)
    location = (session.repository if session else None) or os.environ["PACKSTONE_REPO"]
    return packstone.open(location, passphrase=passphrase.configured())


def _snapshots(repository: Any, incomplete: str) -> list[CompletionItem]:
    from packstone.cli import render

    rows = repository.snapshots()[::-1]
    found = [
        CompletionItem(
            row.id[:8], help=f"{render.local_time(row.snapshot.time_ns)} {row.snapshot.host}"
        )
        for row in rows
        if row.id.startswith(incomplete)
    ]
    if rows and "latest".startswith(incomplete):
        found.insert(0, CompletionItem("latest"))
    return found
