"""Time and memory of a prune: a million small files, fifty snapshots, half of them forgotten.

Objects are put through packstone's own writer, no files are read. Each snapshot replaces a part of
the directories; every other one is deleted, so that packs are dropped whole and packs in partial
use are written anew. Prints JSON: wall and processor seconds, peak RSS in MiB, what was freed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

DIRECTORY = 1_000  # files
SIZE = 300  # bytes of a file, about


def fill(location: Path, files: int, snapshots: int) -> list[str]:
    """Make the repository; return the ids of its snapshots."""
    import packstone
    from packstone.model import Entry, ObjectType, Snapshot
    from packstone.repository.packs import DATA
    from packstone.repository.repository import ObjectRepository
    from packstone.repository.trees import DirectoryWriter

    packstone.init(location).close()
    objects = ObjectRepository(str(location))
    rng = random.Random(7)
    directories = files // DIRECTORY
    changed = max(1, directories // (2 * snapshots))  # in each snapshot
    current: dict[int, bytes] = {}
    made = 0
    taken = []

    def directory(writer: object) -> bytes:
        tree = DirectoryWriter(writer.put)  # type: ignore[attr-defined]
        small, entries = [], []
        for at in range(DIRECTORY):
            data = rng.randbytes(SIZE // 2).hex().encode()
            chunk_id = objects.hasher.id(ObjectType.CHUNK, data)
            small.append((chunk_id, ObjectType.CHUNK, data))
            name = b"%06d" % at
            entries.append(Entry(name, 0o100644, 0, 0, len(data), 0, 0, at, chunk_id, None))
        writer.put_small(DATA, small)  # type: ignore[attr-defined]
        tree.extend(entries)
        return tree.finish()

    first = directories - changed * (snapshots - 1)
    for number in range(snapshots):
        writer = objects.writer()
        for _ in range(first if number == 0 else changed):
            place = made if made < first else rng.randrange(first)
            current[place] = directory(writer)
            made += 1
        root = DirectoryWriter(writer.put)
        root.extend(
            Entry(b"%06d" % place, 0o040755, 0, 0, 0, 0, 0, place, tree_id, None)
            for place, tree_id in sorted(current.items())
        )
        snapshot = Snapshot(time_ns=number, host="bench", paths=[b"/"], tree=root.finish())
        taken.append(writer.commit(snapshot))
    objects.close()
    return taken


def main() -> None:
    """Fill, forget, prune in a process of its own, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--snapshots", type=int, default=50)
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--profile", type=Path, default=None, help="write a cProfile there")
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="packstone-prune-", dir=arguments.scratch))
    os.environ["PACKSTONE_CACHE_DIR"] = str(scratch / "cache")
    location = scratch / "repository"
    try:
        child = os.fork()  # so that its memory is not ours
        if child == 0:
            for snapshot_id in fill(location, arguments.files, arguments.snapshots)[:-1:2]:
                (location / "snapshots" / snapshot_id).unlink()
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            raise SystemExit("the repository could not be made")
        import packstone

        profile = None
        if arguments.profile:
            import cProfile

            profile = cProfile.Profile()
            profile.enable()
        begin, used = time.perf_counter(), time.process_time()
        with packstone.open(location) as repository:
            objects = repository._objects.index.objects()
            result = repository.prune(max_unused=0.0)
        wall, processor = time.perf_counter() - begin, time.process_time() - used
        if profile:
            profile.disable()
            profile.dump_stats(arguments.profile)
        rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        found = {
            "objects": objects,
            "packs_before": result.packs_before,
            "packs_deleted": result.packs_deleted,
            "packs_rewritten": result.packs_rewritten,
            "bytes_before": result.bytes_before,
            "bytes_freed": result.bytes_freed,
            "wall_seconds": round(wall, 1),
            "processor_seconds": round(processor, 1),
            "peak_rss_mib": round(rss),
        }
        print(json.dumps(found, indent=2))
    finally:
        shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
