"""`packstone copy`: snapshots in a second repository, such as an archive disk."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from packstone.cli import passphrase, render, values
from packstone.cli.session import Session, global_options
from packstone.errors import Damaged

if TYPE_CHECKING:
    import packstone


@click.command()
@click.argument("snapshots", nargs=-1, metavar="[SNAPSHOT]…")
@click.option("--to", "target", required=True, metavar="REPO", help="The repository to copy to.")
@values.narrowing_options
@click.option("--verify", is_flag=True, help="Read everything back there afterwards.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what it will take.")
@global_options
@click.pass_obj
def copy(
    session: Session,
    snapshots: tuple[str, ...],
    target: str,
    host: str | None,
    path: bytes | None,
    tag: str | None,
    verify: bool,
    dry_run: bool,
) -> int:
    """Copy snapshots, by default all, to another repository.

    \b
    packstone copy --to /media/disk/crm --dry-run
    packstone copy --to /media/disk/crm --verify
    packstone copy --to /media/disk/crm latest latest~1

    What is there already does not travel. Made with `init --like`, or plain as this one is, it
    takes chunks as they are stored; any other cuts them anew. The passphrase of the other one is
    PACKSTONE_TO_PASSPHRASE (or _FILE, _COMMAND), without any of these the same as here.
    """
    import packstone

    secret = passphrase.configured(passphrase.TO)
    if secret is None:
        secret = passphrase.configured()
    asked = (
        passphrase.for_open(f"Passphrase of {render.printable(target)}")
        if secret is None
        else secret
    )
    with (
        session.open() as repository,
        packstone.open(
            target,
            passphrase=asked,
            threads=session.threads,
            lock_timeout=session.lock_timeout,
            waiting=lambda text: render.message(render.visible(text)),
        ) as other,
    ):
        wanted = list(snapshots)
        if not wanted:
            rows = repository.snapshots(
                host=host,
                paths=() if path is None else (path,),
                tags=() if tag is None else (tag,),
            )
            wanted = [row.id for row in rows]
        told = _announce if not (session.json or session.quiet) else lambda _result: None
        result = repository.copy_to(other, wanted, verify=verify, dry_run=dry_run, announce=told)
    session.warn(result.warnings)
    session.count(other.requests())
    if session.json:
        session.document(asdict(result))
    else:
        _tell(session, result, verify)
    return Damaged.exit_code if result.errors else 0


def _announce(before: packstone.CopyResult) -> None:
    free = "" if before.bytes_free is None else f"; {render.iec(before.bytes_free)} are free there"
    how = ", cut anew" if before.recut else ""
    render.line(
        f"{render.count(before.objects_missing, 'object')} to copy, about "
        f"{render.iec(before.bytes_missing)}{how}{free}"
    )


def _tell(session: Session, result: packstone.CopyResult, verify: bool) -> None:
    for finding in result.errors:
        render.line(f"{finding.kind}: {render.visible(finding.message)}")
    if session.quiet:
        return
    if result.dry_run:
        render.line(f"{render.count(len(result.skipped), 'snapshot')} already there")
        return
    render.line(
        f"{render.count(len(result.copied), 'snapshot')} copied, "
        f"{len(result.skipped)} already there: {render.iec(result.bytes_stored)} stored "
        f"in {render.duration(result.seconds)}"
    )
    if verify:
        found = render.count(len(result.errors), "error") if result.errors else "no errors"
        render.line(f"verified {render.count(result.packs_verified, 'pack')}: {found}")
