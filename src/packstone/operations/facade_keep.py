"""The verbs that keep a repository in order: what stays, where else it is, who can open it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from packstone.errors import UsageError
from packstone.operations.facade_open import AnyPath, OpenRepository
from packstone.operations.options import MAX_UNUSED
from packstone.repository.retention import GROUP_BY, Retention
from packstone.repository.snapshots import resolve

if TYPE_CHECKING:
    from packstone.codec.keys import Argon2
    from packstone.operations import copy, forget, keys, prune
    from packstone.operations.repair_index import RepairIndexResult
    from packstone.operations.repair_packs import RepairPacksResult
    from packstone.operations.repair_snapshots import RepairSnapshotsResult
    from packstone.operations.results import ProgressFunction
    from packstone.operations.rewrite import RewriteResult
    from packstone.operations.tag import TagResult


class KeepingRepository(OpenRepository):
    """An open repository that can be kept in order."""

    def tag(
        self,
        snapshots: Sequence[str] = (),
        *,
        add: Sequence[str] = (),
        remove: Sequence[str] = (),
        replace: Sequence[str] | None = None,
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
    ) -> TagResult:
        """Change the tags of snapshots: those named, or all of a host, with paths, with tags.

        A changed snapshot has a new id and names the first one as `original_id`. Raises
        UsageError, StorageError.
        """
        from packstone.operations import tag

        rows = self._choose(snapshots, host, paths, tags, everything=False)
        return tag.tag_snapshots(self._objects, rows, add=add, remove=remove, replace=replace)

    def rewrite(
        self,
        snapshots: Sequence[str] = (),
        *,
        exclude: Sequence[str],
        forget: bool = False,
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
        dry_run: bool = False,
    ) -> RewriteResult:
        """Store versions of snapshots without what patterns match, chosen as in `tag`.

        With `forget` the old ones are deleted, each after its new version is durable; the bytes
        stay in packs until a prune. Raises UsageError, Damaged, ObjectMissing, StorageError.
        """
        from packstone.operations import rewrite

        rows = self._choose(snapshots, host, paths, tags, everything=False)
        return rewrite.rewrite_snapshots(
            self._objects, rows, exclude=exclude, forget=forget, dry_run=dry_run
        )

    def forget(
        self,
        snapshots: Sequence[str] = (),
        *,
        keep: Retention | None = None,
        group_by: Sequence[str] = GROUP_BY,
        allow_empty: bool = False,
        host: str | None = None,
        paths: Sequence[AnyPath] = (),
        tags: Sequence[str] = (),
        dry_run: bool = False,
    ) -> forget.ForgetResult:
        """Forget the snapshots that are named, or those that the policy `keep` does not keep.

        Only snapshots of `host` holding all `paths` with all `tags` are looked at. A policy is
        applied to each group of equal `group_by` ("host", "paths", "tags", "name"); one that
        would empty a group is refused unless `allow_empty`. What snapshots reached stays stored.
        Raises UsageError: then nothing was forgotten; StorageError says how far it came.
        """
        from packstone.operations import forget

        if isinstance(snapshots, str):  # its letters would be taken for the starts of ids
            snapshots = [snapshots]
        if bool(snapshots) == (keep is not None):
            raise UsageError(
                "either snapshots or a policy say what to forget",
                hint="Say what to keep, for example --keep-daily 7, or name snapshots",
            )
        wanted = forget.Filter(host=host, paths=[os.fsencode(path) for path in paths], tags=tags)
        if keep is None:
            return forget.forget_named(self._objects, snapshots, wanted, dry_run=dry_run)
        return forget.forget_by_policy(
            self._objects,
            keep,
            wanted,
            now_ns=self._clock(),
            group_by=group_by,
            allow_empty=allow_empty,
            dry_run=dry_run,
        )

    def copy_to(
        self,
        target: OpenRepository,
        snapshots: Sequence[str] | None = None,
        *,
        verify: bool = False,
        dry_run: bool = False,
        announce: Callable[[copy.CopyResult], None] = lambda _result: None,
    ) -> copy.CopyResult:
        """Copy snapshots, by default all, to another repository; `verify` reads them back there.

        `announce` is told what it will take, before anything is written.
        What is there already does not travel. Raises StorageFull before anything is written when
        it does not fit, Damaged and ObjectMissing where this one cannot be read, StorageError.
        """
        from packstone.operations import copy

        rows = self.snapshots()
        if snapshots is not None:  # an empty list is what was chosen, not all
            wanted = {resolve(spec, rows).id for spec in snapshots}
            rows = [row for row in rows if row.id in wanted]
        return copy.copy_snapshots(
            self._objects,
            target._objects,
            rows,
            threads=self._threads,
            verify=verify,
            dry_run=dry_run,
            announce=announce,
        )

    def prune(
        self,
        *,
        max_unused: float = MAX_UNUSED,
        rebase: bool = False,
        dry_run: bool = False,
        without: Sequence[str] = (),
    ) -> prune.PruneResult:
        """Delete what no snapshot needs; packs are written anew where more is wasted.

        `max_unused` is the part of a pack, 0 to 1. With `rebase` nothing stays of what no snapshot
        names, not even as the base of a delta. A dry run looks at what would be were the snapshots
        of `without`, ids, forgotten. Raises RepositoryLocked while others work, Damaged and
        ObjectMissing when it is not known what is needed, StorageError.
        """
        from packstone.operations import prune

        return prune.prune_repository(
            self._objects,
            max_unused=max_unused,
            rebase=rebase,
            dry_run=dry_run,
            without=without,
            threads=self._threads,
        )

    def repair_index(self, *, force: bool = False) -> RepairIndexResult:
        """Compare the index with the packs' footers and make it anew where it is wrong.

        With `force` it is made anew in any case, unopened. Raises Damaged where only the index
        tells what is in a pack, StorageError.
        """
        from packstone.operations.repair_index import repair_index

        return repair_index(self._objects, force=force)

    def repair_packs(
        self,
        packs: Sequence[str] = (),
        *,
        source: OpenRepository | None = None,
        progress: ProgressFunction | None = None,
    ) -> RepairPacksResult:
        """Save what can be read of damaged packs, put these away, and say what is lost.

        `packs` are the beginnings of ids, by default all are read. From `source`, a copy of this
        repository or one of its family, comes what is damaged or missing. Nothing is deleted.
        Raises UsageError, RepositoryLocked while others work, StorageError.
        """
        from packstone.operations.repair_packs import repair_packs

        return repair_packs(
            self._objects,
            packs=packs,
            other=None if source is None else source._objects,
            threads=self._threads,
            progress=progress,
        )

    def repair_snapshots(
        self, snapshots: Sequence[str] = (), *, forget: bool = False, dry_run: bool = False
    ) -> RepairSnapshotsResult:
        """Write snapshots that have lost something again, without it and saying so.

        The old ones stay until `forget` moves them to quarantine. Raises UsageError, Damaged,
        RepositoryLocked while others work, StorageError.
        """
        from packstone.operations.repair_snapshots import repair_snapshots

        return repair_snapshots(self._objects, snapshots=snapshots, forget=forget, dry_run=dry_run)

    def keys(self) -> list[keys.ListedKey]:
        """Return the key slots; raises UsageError for a plain repository."""
        from packstone.operations import keys

        return keys.list_keys(self._objects)

    def add_key(
        self, passphrase: str | bytes, *, label: str = "", argon2: Argon2 | None = None
    ) -> str:
        """Let another passphrase open the repository too; return the id of its slot."""
        from packstone.operations import keys

        return keys.add_key(self._objects, passphrase, label=label, cost=argon2, clock=self._clock)

    def add_recovery_key(self, *, label: str = "", argon2: Argon2 | None = None) -> tuple[str, str]:
        """Add a slot for a random printable key; return the slot's id and the key.

        The key opens the repository like a passphrase and is kept nowhere.
        """
        from packstone.operations import keys

        return keys.add_recovery_key(self._objects, label=label, cost=argon2, clock=self._clock)

    def change_passphrase(self, passphrase: str | bytes, *, argon2: Argon2 | None = None) -> str:
        """Replace the passphrase that opened this session; return the new slot's id."""
        from packstone.operations import keys

        return keys.change_passphrase(self._objects, passphrase, cost=argon2, clock=self._clock)

    def remove_key(self, slot: str) -> str:
        """Remove the slot whose id starts so; raises UsageError for the last whole one."""
        from packstone.operations import keys

        return keys.remove_key(self._objects, slot)

    def export_key(self, slot: str = "") -> str:
        """Return a slot as text to print and keep, by default the one that opened."""
        from packstone.operations import keys

        return keys.export_key(self._objects, slot)
