"""`packstone repair`: save what can be saved, put away what is damaged, name what is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from packstone.cli import passphrase, progress, render
from packstone.cli.check import PATHS_SHOWN
from packstone.cli.session import Session, global_options
from packstone.errors import Damaged

if TYPE_CHECKING:
    import packstone


@click.group()
def repair() -> None:
    """Mend an index, packs or snapshots; on a healthy repository each does nothing.

    Nothing is deleted: damaged files are moved to the folder quarantine of the repository, which
    is never read. Each can be stopped at any moment and run again. Exit code 14 means that
    something is lost.
    """


@repair.command("index")
@click.option("--force", is_flag=True, help="Make the index anew without looking at it.")
@global_options
@click.pass_obj
def index(session: Session, force: bool) -> int:
    """Make the index agree with the packs.

    \b
    packstone repair index
    packstone repair index --force

    It is compared with the footers of all packs and made anew from them where it is wrong. The
    packs are never touched.
    """
    with session.open() as repository:
        result = repository.repair_index(force=force)
    session.warn(result.warnings)
    if session.json:
        session.document(asdict(result))
    else:
        _tell_index(session, result)
    return Damaged.exit_code if result.damaged else 0


def _tell_index(session: Session, result: packstone.RepairIndexResult) -> None:
    for pack_id, reason in sorted(result.damaged.items()):
        render.message(f"error: pack {pack_id[:12]}…: {reason}. Run: packstone repair packs")
    if session.quiet:
        return
    if result.unusable:
        render.line(f"the index could not be used: {render.visible(result.unusable)}")
    for pack_id, count in sorted(result.differing.items()):
        render.line(f"wrong about {render.count(count, 'object')} of pack {pack_id[:12]}…")
    if result.surplus:
        render.line(f"{render.count(result.surplus, 'object')} listed that no pack has")
    done = "made anew" if result.rebuilt else "agrees with the packs; nothing was changed"
    render.line(
        f"index {done}: {render.count(result.packs_checked, 'pack')}, "
        f"{render.count(result.objects, 'object')}, in {render.duration(result.seconds)}"
    )


@repair.command("packs")
@click.argument("packs", metavar="[PACK]…", nargs=-1)
@click.option(
    "--from",
    "source",
    metavar="REPO",
    help="Get what is damaged or missing from a copy of this repository, or one made with "
    "init --like. Its passphrase: PACKSTONE_FROM_PASSPHRASE and its kin, else the same.",
)
@global_options
@click.pass_obj
def packs_(session: Session, packs: tuple[str, ...], source: str | None) -> int:
    """Save what can be read of damaged packs.

    \b
    packstone repair packs
    packstone repair packs --from /media/disk/crm
    packstone repair packs 3f2a91

    Reads all packs, or those whose ids begin so. What is whole in a damaged one is written into
    new packs; only then is it moved to quarantine. What is lost is named: the next snapshot of
    the same files stores it again if they still have it.
    """
    with (
        session.open() as repository,
        _opened(session, source) as other,
        progress.shown(session, "check", "packs") as report,
    ):
        result = repository.repair_packs(packs, source=other, progress=report)
        if other is not None:
            session.warn(other.warnings)
    session.warn(result.warnings)
    if session.json:
        session.document(_packs_document(result))
    else:
        _tell_packs(session, result)
    return 0 if result.is_whole else Damaged.exit_code


@contextlib.contextmanager
def _opened(session: Session, location: str | None) -> Iterator[packstone.Repository | None]:
    """Open the repository that things are fetched from."""
    import packstone

    if location is None:
        yield None
        return
    secret = passphrase.configured(passphrase.FROM)
    if secret is None:
        secret = passphrase.configured()
    asked = (
        passphrase.for_open(f"Passphrase of {render.printable(location)}")
        if secret is None
        else secret
    )
    with packstone.open(
        location,
        passphrase=asked,
        threads=session.threads,
        lock_timeout=session.lock_timeout,
        waiting=lambda text: render.message(render.visible(text)),
    ) as other:
        yield other


def _packs_document(result: packstone.RepairPacksResult) -> dict[str, Any]:
    document = asdict(result)
    document["losses"] = [
        {
            "kind": loss.kind,
            "message": loss.message,
            "snapshots": list(loss.snapshots),
            "paths": [render.json_name(path) for path in loss.paths],
        }
        for loss in result.losses
    ]
    return document


def _tell_packs(session: Session, result: packstone.RepairPacksResult) -> None:
    for text in result.transient:
        render.message(f"warning: {text}; read again it was good: test cable and memory")
    for pack in result.damaged:
        render.line(f"pack {pack.pack[:12]}… is damaged")
        for text in pack.problems:
            render.line(f"  {render.visible(text)}")
        if pack.outcome == "put back":
            render.line(f"  a whole copy took its place; it is now {pack.quarantine}")
            continue
        if pack.reason:
            render.line(f"  {pack.outcome}: {render.visible(pack.reason)}")
        elif pack.quarantine:
            render.line(f"  it is now {pack.quarantine}")
        render.line(
            f"  {render.count(pack.saved, 'object')} saved, {pack.fetched:,} fetched, "
            f"{pack.lost:,} lost"
        )
    for loss in result.losses:
        render.line(f"lost: {render.visible(loss.message)}")
        _tell_hit(session, loss.snapshots, loss.paths)
    if session.quiet:
        return
    if not result.damaged and not result.losses and not result.packs_fetched:
        render.line("nothing to repair: nothing was changed")
    if result.packs_fetched or result.objects_fetched:
        render.line(
            f"{render.count(result.packs_fetched, 'whole pack')} and "
            f"{render.count(result.objects_fetched, 'object')} fetched"
        )
    if result.losses:
        render.line("Take a new snapshot of what you still have; it stores what is lost again.")
        render.line("For the old ones: packstone repair snapshots")
    render.line(
        f"{render.count(result.packs_checked, 'pack')} read, {len(result.damaged):,} damaged, "
        f"{render.count(len(result.losses), 'loss', 'losses')}, "
        f"in {render.duration(result.seconds)}"
    )


def _tell_hit(session: Session, snapshots: tuple[str, ...], paths: tuple[bytes, ...]) -> None:
    render.line("  in snapshots " + " ".join(name[:8] for name in snapshots))
    shown = paths if session.verbose else paths[:PATHS_SHOWN]
    for path in shown:
        render.line(f"  {render.printable(path)}")
    if len(shown) < len(paths):
        render.line(f"  and {len(paths) - len(shown):,} more (-v names all)")


@repair.command("snapshots")
@click.argument("snapshots", metavar="[SNAPSHOT]…", nargs=-1)
@click.option("--forget", is_flag=True, help="Move the old ones, and unreadable ones, away.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what is lost.")
@global_options
@click.pass_obj
def snapshots_(session: Session, snapshots: tuple[str, ...], forget: bool, dry_run: bool) -> int:
    """Write snapshots that have lost something again, without it.

    \b
    packstone repair snapshots --dry-run
    packstone repair snapshots --forget

    Files that are lost keep their names in the new snapshot, and a restore of it names them. Run
    `repair packs` first: a chunk in a damaged record that is still there counts as present. The
    old snapshots stay until --forget moves them to quarantine; then prune works again.
    """
    with session.open() as repository:
        result = repository.repair_snapshots(snapshots, forget=forget, dry_run=dry_run)
    session.warn(result.warnings)
    if session.json:
        session.document(_snapshots_document(result))
    else:
        _tell_snapshots(session, result)
    return 0 if result.is_whole else Damaged.exit_code


def _snapshots_document(result: packstone.RepairSnapshotsResult) -> dict[str, Any]:
    document = asdict(result)
    document["repaired"] = [
        {
            "original_id": found.original_id,
            "snapshot_id": found.snapshot_id,
            "time": render.rfc3339(found.time_ns),
            "host": found.host,
            "quarantine": found.quarantine or None,
            "losses": render.problem_rows(found.losses),
        }
        for found in result.repaired
    ]
    return document


def _tell_snapshots(session: Session, result: packstone.RepairSnapshotsResult) -> None:
    for snapshot_id, reason in sorted(result.unreadable.items()):
        render.line(f"snapshot {snapshot_id[:8]} cannot be read: {render.visible(reason)}")
        _tell_moved(result.quarantined.get(snapshot_id, ""), result.dry_run)
    for found in result.repaired:
        render.line(
            f"snapshot {found.original_id[:8]} of {render.local_time(found.time_ns)} has lost "
            f"{render.count(len(found.losses), 'entry', 'entries')}"
        )
        shown = found.losses if session.verbose else found.losses[:PATHS_SHOWN]
        for loss in shown:
            render.line(f"  {render.printable(loss.path)}: {render.visible(loss.message)}")
        if len(shown) < len(found.losses):
            render.line(f"  and {len(found.losses) - len(shown):,} more (-v names all)")
        if found.snapshot_id is not None:
            render.line(f"  what is left of it is snapshot {found.snapshot_id[:8]}")
        elif not result.dry_run:
            render.line("  nothing is left of it")
        _tell_moved(found.quarantine, result.dry_run)
    if not session.quiet:
        hit = len(result.repaired) + len(result.unreadable)
        text = f"{hit:,} of them damaged" if hit else "nothing is lost; nothing was changed"
        render.line(
            f"{render.count(result.snapshots_checked, 'snapshot')}, {text}, "
            f"in {render.duration(result.seconds)}"
        )


def _tell_moved(quarantine: str, dry_run: bool) -> None:
    if quarantine:
        render.line(f"  the old one is now {quarantine}")
    elif not dry_run:
        render.line("  the old one stays; --forget moves it away")
