"""Peak memory with an index of 10 million chunks.

Writes packs whose footers list random chunks of 128 KiB, through packstone's own pack writer; the
records themselves are 16 bytes of nothing, as only footers are read here. Then the same commands
run on this repository and on an empty one: building the view from the footers, the first snapshot
of SRC and TINY, an unchanged one, one that reads everything. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import sys
from pathlib import Path

from measure import Sample, run, tree_size
from peers import Packstone
from tool import Command

CHUNK = 128 << 10
PACK_CHUNKS = 1_500  # what fills 64 MiB of compressed text
MB = 1e6


class Named(Packstone):
    """A packstone repository of a name of its own."""

    def __init__(self, program: Command, scratch: Path, source: Path, name: str) -> None:
        super().__init__(program, scratch, source)
        self.home = scratch / name
        self.repository = self.home / "repository"
        self.environment["PACKSTONE_CACHE_DIR"] = str(self.home / "cache")


def fill(repository: Path, chunks: int) -> None:
    """Add packs that list `chunks` random chunks."""
    from packstone.repository.packs import DATA, OBJECT, PackWriter
    from packstone.repository.repository import ObjectRepository

    rng = random.Random(81)
    opened = ObjectRepository(str(repository))
    try:
        for begin in range(0, chunks, PACK_CHUNKS):
            writer = PackWriter(opened.storage, DATA, opened.sealer, rng.randbytes(32))
            cut = rng.randbytes(8)
            for _ in range(min(PACK_CHUNKS, chunks - begin)):
                row = OBJECT.pack(rng.randbytes(32), CHUNK, 1)
                start, cut = cut, rng.randbytes(8)  # one chunk ends where the next one starts
                writer.add(bytes(16), CHUNK, 1, row, start + cut)
            writer.finish()
    finally:
        opened.close()


def measure(tool: Named, sources: list[Path], scratch: Path, label: str) -> list[dict[str, object]]:
    """Run the commands; the first one has almost nothing to store, so it shows the view alone."""
    lines: list[dict[str, object]] = []

    def note(what: str, sample: Sample) -> None:
        lines.append({"what": f"{what}, {label}", **sample.as_dict()})
        print(f"{what}, {label}: {sample}", file=sys.stderr, flush=True)

    def go(command: Command) -> Sample:
        return run(
            command, env=tool.environment, cwd=scratch, log=scratch / "log", sample_anonymous=True
        )

    little = scratch / "little"
    little.mkdir(exist_ok=True)
    (little / "file").write_bytes(b"almost nothing")
    tool.source = little
    note("view made from footers, snapshot of one file", go(tool.snapshot()))
    for source in sources:
        tool.source, name = source, source.parent.name
        note(f"first snapshot of {name}", go(tool.snapshot()))
        note(f"unchanged {name}", go(tool.snapshot()))
        note(f"{name} read again", go(tool.snapshot(read_all=True)))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True, help="takes about 4 GB")
    parser.add_argument(
        "--source", type=Path, required=True, action="append", help="trees to snapshot"
    )
    parser.add_argument("--chunks", type=int, default=10_000_000)
    parser.add_argument("--packstone", default=f"{sys.executable} -m packstone")
    arguments = parser.parse_args()
    program = shlex.split(arguments.packstone)
    scratch: Path = arguments.scratch
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    lines: list[dict[str, object]] = []
    sizes: dict[str, int] = {}
    try:
        for label, chunks in (("empty", 0), ("filled", arguments.chunks)):
            tool = Named(program, scratch, scratch, label)
            tool.home.mkdir()
            run(tool.init(), env=tool.environment, cwd=scratch, log=scratch / "log")
            if chunks:
                # Its memory must not become the floor of what is measured below.
                fill_apart(tool.repository, chunks)
            lines += measure(tool, arguments.source, scratch, f"{chunks:,} chunks before")
            sizes[label] = tree_size(tool.repository / "index")
    finally:
        shutil.rmtree(scratch)
    print(json.dumps({"chunks": arguments.chunks, "lines": lines, "index_sizes": sizes}))


def fill_apart(repository: Path, chunks: int) -> None:
    """Run `fill` in a process of its own."""
    here = str(Path(__file__).resolve().parent)
    code = f"import sys; sys.path.insert(0, {here!r}); import big_index, pathlib"
    code += f"; big_index.fill(pathlib.Path(sys.argv[1]), {chunks})"
    command = [sys.executable, "-c", code, str(repository)]
    run(command, env=os.environ, cwd=Path(here), log=repository.parent / "fill.log")


if __name__ == "__main__":
    main()
