"""All corpora by name, and where they are kept."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from corpora.base import Corpus
from corpora.big import Big
from corpora.crm import Crm
from corpora.source_tree import SourceTree
from corpora.tiny import Tiny

CORPORA: dict[str, type[Corpus]] = {c.name: c for c in (SourceTree, Tiny, Crm, Big)}
PROJECT = Path(__file__).resolve().parents[2]


def default_work() -> Path:
    """Return the memory file system if it has 16 GiB to spare, else a build directory."""
    if chosen := os.environ.get("PACKSTONE_BENCH_DIR"):
        return Path(chosen)
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free >= 16 << 30:
        return memory / "packstone-bench"
    return PROJECT / "build" / "bench"


def default_big() -> Path:
    """BIG takes 8.6 GB: on disk, read through the page cache, unless told otherwise."""
    return Path(os.environ.get("PACKSTONE_BENCH_BIG_DIR", PROJECT / "build" / "bench"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, default=None, help="where corpora and repositories go")
    parser.add_argument("--big", type=Path, default=None, help="where BIG goes (8.6 GB)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full size")
    parser.add_argument("--only", default="SRC,TINY,CRM,BIG", help="corpora, by comma")


def chosen(arguments: argparse.Namespace) -> list[Corpus]:
    """Return the corpora asked for; another scale has another directory."""
    work = (arguments.work or default_work()).resolve()
    big = (arguments.big or (arguments.work or default_big())).resolve()
    suffix = "" if arguments.scale == 1 else f"scale-{arguments.scale:g}"
    names = [name for name in arguments.only.split(",") if name]
    if unknown := set(names) - CORPORA.keys():
        raise SystemExit(f"no such corpus: {', '.join(sorted(unknown))}")
    return [
        CORPORA[name]((big if CORPORA[name].large else work) / suffix, arguments.scale)
        for name in names
    ]


def main() -> None:
    """Make the corpora and say how large they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    add_arguments(parser)
    for corpus in chosen(parser.parse_args()):
        for version, extent in corpus.prepare().items():
            size = extent.total_size / 1e6
            line = f"{corpus.name} {version}: {extent.file_count} files, {size:.1f} MB"
            print(line, file=sys.stderr, flush=True)
        print(f"  at {corpus.source} ({corpus.notes})", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
