"""`packstone tag` and `packstone rewrite`: new versions of snapshots."""

from __future__ import annotations

import click

from packstone.cli import render, values
from packstone.cli.session import Session, global_options


@click.command()
@click.argument("names", nargs=-1, metavar="[SNAPSHOT]...")
@click.option("--add", multiple=True, metavar="T", help="Add this tag; repeatable.")
@click.option("--remove", multiple=True, metavar="T", help="Take this tag off; repeatable.")
@click.option(
    "--set", "replace", multiple=True, metavar="T", help="Have this tag and no other; repeatable."
)
@values.filter_options
@global_options
@click.pass_obj
def tag(
    session: Session,
    names: tuple[str, ...],
    add: tuple[str, ...],
    remove: tuple[str, ...],
    replace: tuple[str, ...],
    host: str | None,
    paths: tuple[bytes, ...],
    tags: tuple[str, ...],
) -> int:
    """Change the tags of SNAPSHOTs, or of all that --host, --path and --tag let through.

    \b
    packstone tag latest --add audited
    packstone tag --host old-server --remove nightly
    packstone tag 3f2a91c4 --set yearly

    A changed snapshot gets a new id; its first one stays known as `original_id`. `--set ''`
    takes all tags off.
    """
    with session.open() as repository:
        result = repository.tag(
            names,
            add=add,
            remove=remove,
            # one empty tag stands for none
            replace=[each for each in replace if each] if replace else None,
            host=host,
            paths=paths,
            tags=tags,
        )
    if session.json:
        session.document(
            {
                "changed": [
                    {"old_id": old.id, "id": new.id, "tags": list(new.snapshot.tags)}
                    for old, new in result.changed
                ],
                "unchanged": result.unchanged,
            }
        )
    elif not session.quiet:
        for old, new in result.changed:
            shown = ",".join(render.printable(each) for each in new.snapshot.tags) or "no tags"
            render.line(f"{old.id[:8]} is now {new.id[:8]}: {shown}")
        render.line(
            f"changed {render.count(len(result.changed), 'snapshot')}, "
            f"{result.unchanged:,} had these tags already"
        )
    return 0


@click.command()
@click.argument("names", nargs=-1, metavar="[SNAPSHOT]...")
@click.option(
    "-e",
    "--exclude",
    multiple=True,
    required=True,
    metavar="PATTERN",
    help="Drop what this matches, as --exclude of snapshot does; repeatable.",
)
@click.option("--forget", is_flag=True, help="Delete the old versions once the new ones are safe.")
@click.option("-n", "--dry-run", is_flag=True, help="Only say what would be dropped.")
@values.filter_options
@global_options
@click.pass_obj
def rewrite(
    session: Session,
    names: tuple[str, ...],
    exclude: tuple[str, ...],
    forget: bool,
    dry_run: bool,
    host: str | None,
    paths: tuple[bytes, ...],
    tags: tuple[str, ...],
) -> int:
    """Drop paths from SNAPSHOTs, or from all that --host, --path and --tag let through.

    \b
    packstone rewrite --exclude secret.key --dry-run
    packstone rewrite --exclude secret.key --forget
    packstone rewrite latest --exclude '*.tmp'

    The bytes stay in the repository until the old versions are forgotten and it is pruned;
    `prune --rebase` leaves nothing of them even inside deltas.
    """
    with session.open() as repository:
        result = repository.rewrite(
            names,
            exclude=exclude,
            forget=forget,
            dry_run=dry_run,
            host=host,
            paths=paths,
            tags=tags,
        )
    for row in result.emptied:
        session.warn([f"nothing would stay of snapshot {row.id[:8]}: left as it is, forget it"])
    if session.json:
        session.document(
            {
                "rewritten": [
                    {
                        "old_id": done.old.id,
                        "id": done.new.id or None,
                        "files_dropped": done.files_dropped,
                        "bytes_dropped": done.bytes_dropped,
                    }
                    for done in result.rewritten
                ],
                "unchanged": [row.id for row in result.unchanged],
                "emptied": [row.id for row in result.emptied],
                "bytes_stored": result.bytes_stored,
                "forgotten": result.forgotten,
                "dry_run": result.dry_run,
            }
        )
        return 0
    if session.quiet:
        return 0
    for done in result.rewritten:
        became = "would lose" if dry_run else f"is now {done.new.id[:8]} without"
        render.line(
            f"{done.old.id[:8]} {became} {render.count(done.files_dropped, 'file')} "
            f"of {render.iec(done.bytes_dropped)}"
        )
    does = "would rewrite" if dry_run else "rewrote"
    render.line(
        f"{does} {render.count(len(result.rewritten), 'snapshot')}, "
        f"{len(result.unchanged):,} hold nothing of it"
    )
    return 0
