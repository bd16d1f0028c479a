"""Packstone beside restic on one S3 server with a delay before each answer.

    python bench/cloud.py [--delay 0.03] [--scale 0.1] [--only CRM,TINY]
    python bench/cloud.py --only CRM --tools packstone --new-machine [--next=--no-delta]

Runs the server (moto) and a delaying, counting proxy as processes of their own; both tools go
through the same. Per tool and corpus: the first snapshot, an unchanged one, that of the next
night, and a restore by a machine with an empty cache. Prints seconds, requests by verb and bytes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from corpora.catalogue import add_arguments, chosen  # noqa: E402
from fault_proxy import Faults, proxy  # noqa: E402
from object_server import KEYS, new_bucket, server, url_of  # noqa: E402

PASSWORD = "bench"


def serve(delay: float, pipe: Connection, endpoint: str) -> None:
    """Run the proxy; answer each message with the requests since the last one."""
    faults = Faults()
    faults.delay = delay
    with proxy(endpoint, faults) as found:
        pipe.send(found)
        while pipe.recv():
            seen = faults.seen
            faults.reset()
            counts: dict[str, int] = {}
            for request in seen:
                verb = {"HEAD": "GET", "POST": "PUT"}.get(request.verb, request.verb)
                counts[verb] = counts.get(verb, 0) + 1
            pipe.send(counts)


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return seconds that passed, and those of processors."""
    started, before = time.monotonic(), os.times()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system
    return time.monotonic() - started, cpu - before.children_user - before.children_system


def packstone(url: str, cache: Path) -> tuple[dict[str, str], Callable[..., list[str]]]:
    environment = os.environ | KEYS
    environment |= {"PACKSTONE_REPO": url, "PACKSTONE_CACHE_DIR": str(cache)}
    environment |= {"PACKSTONE_PASSPHRASE": PASSWORD}
    return environment, lambda *words: [sys.executable, "-m", "packstone", "-q", *words]


def restic(url: str, cache: Path) -> tuple[dict[str, str], Callable[..., list[str]]]:
    environment = os.environ | KEYS | {"AWS_DEFAULT_REGION": "us-east-1"}
    environment |= {"RESTIC_REPOSITORY": url, "RESTIC_PASSWORD": PASSWORD}
    environment |= {"RESTIC_CACHE_DIR": str(cache)}
    return environment, lambda *words: ["restic", "-q", *words]


def main() -> None:
    """Measure and print one JSON line per row."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--delay", type=float, default=0.03, help="seconds before each answer")
    parser.add_argument("--tools", default="packstone,restic")
    parser.add_argument(
        "--new-machine", action="store_true", help="take the next night without a cache"
    )
    parser.add_argument("--next", default="", metavar="OPTION", help="for packstone's next night")
    parser.set_defaults(only="CRM,TINY", scale=0.1)
    arguments = parser.parse_args()
    with server() as endpoint:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(arguments.delay, theirs, endpoint), daemon=True
        )
        process.start()
        through = ours.recv()
        for corpus in chosen(arguments):
            corpus.prepare()
            versions = list(corpus.versions)
            for tool in arguments.tools.split(","):
                place = new_bucket(endpoint)
                work = corpus.source.parent / f"cloud-{tool}"
                shutil.rmtree(work, ignore_errors=True)
                if tool == "packstone":
                    environment, words = packstone(url_of(through, place), work / "cache")
                    snapshot, init = "snapshot", words("init")
                else:
                    environment, words = restic(f"s3:{through}/{place}", work / "cache")
                    snapshot, init = "backup", words("init")
                run(init, environment)
                corpus.switch(versions[0])
                source = str(corpus.source)

                def measure(row: str, command: list[str]) -> None:
                    ours.send(True)
                    ours.recv()
                    before = stored(endpoint, place)  # noqa: B023
                    seconds, cpu = run(command, environment)  # noqa: B023
                    ours.send(True)
                    counts = ours.recv()
                    line = {
                        "corpus": corpus.name,  # noqa: B023
                        "tool": tool,  # noqa: B023
                        "row": row,
                        "seconds": round(seconds, 2),
                        "cpu": round(cpu, 2),
                        "requests": sum(counts.values()),
                        "stored": stored(endpoint, place) - before,  # noqa: B023
                    } | counts
                    print(json.dumps(line), flush=True)

                measure("first", words(snapshot, source))
                time.sleep(2)
                measure("unchanged", words(snapshot, source))
                corpus.switch(versions[1])
                more = [arguments.next] if arguments.next and tool == "packstone" else []
                if arguments.new_machine:
                    shutil.rmtree(work / "cache")
                measure("next night", words(snapshot, *more, source))
                shutil.rmtree(work / "cache")
                measure("restore", words("restore", "latest", "--target", str(work / "out")))
                shutil.rmtree(work)
        ours.send(False)
        process.join()


def stored(endpoint: str, place: str) -> int:
    """Return the bytes in a bucket, asked of the server itself."""
    import re

    bucket = place.partition("/")[0]
    total, after = 0, ""
    while True:
        query = f"?list-type=2&start-after={after}"
        with urllib.request.urlopen(f"{endpoint}/{bucket}{query}") as answer:
            text = answer.read().decode()
        total += sum(map(int, re.findall(r"<Size>(\d+)</Size>", text)))
        names = re.findall(r"<Key>([^<]*)</Key>", text)
        if "<IsTruncated>true" not in text or not names:
            return total
        after = names[-1]


if __name__ == "__main__":
    main()
