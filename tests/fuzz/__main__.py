"""Run `python -m fuzz [TARGET…] [--seconds N | --runs N] [--defect NAME]`, in a limited process.

With atheris, libFuzzer looks for inputs that reach new lines of the program; without it, or with
`--plain`, inputs are changed blindly. Each target runs in a process of its own with 512 MiB of
address space above what it starts with. Exit code 1 means a finding, whose input is printed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import os
import re
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from random import Random

HERE = Path(__file__).resolve().parent
MEMORY = 512 << 20
SECONDS = 3.0  # of the processor, for one input
_CORPUS = HERE.parent.parent / "build" / "fuzz"


def limit_memory() -> None:
    """Let this process take no more than so much beside what it has: what asks for more fails."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    if pages:
        size = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def try_one(run: object, data: bytes) -> None:
    """Run a target on an input and fail if it takes too long."""
    before = time.process_time()
    run(data)  # type: ignore[operator]
    took = time.process_time() - before
    assert took < SECONDS, f"{took:.1f} s for {len(data)} bytes"


def run_plain(name: str, runs: int, seconds: float, seed: int) -> int:
    """Run a target on its seeds and on changed ones; return how many inputs were tried."""
    from fuzz.mutate import mutate
    from fuzz.targets import TARGETS

    target = TARGETS[name]
    chance = Random(f"{name} {seed}")
    seeds = target.seeds()
    limit_memory()
    until = time.monotonic() + seconds if seconds else float("inf")
    count = 0
    while (count < runs or not runs) and time.monotonic() < until:
        data = seeds[count] if count < len(seeds) else mutate(chance.choice(seeds), chance, seeds)
        try:
            try_one(target.run, data)
        except BaseException:
            report(name, data)
            raise
        count += 1
    return count


def run_atheris(name: str, seconds: float) -> None:
    """Hand a target over to libFuzzer, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["packstone"]):
        from fuzz.targets import TARGETS
    from fuzz.mutate import mutate

    target = TARGETS[name]
    corpus = _CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = target.seeds()
    for seed in seeds:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)

    def one(data: bytes) -> None:
        try_one(target.run, data)

    def change(data: bytes, most: int, seed: int) -> bytes:
        chance = Random(seed)
        if chance.random() < 0.6:
            return mutate(data, chance, seeds, most)
        changed: bytes = atheris.Mutate(data, most)
        return changed

    options = [
        f"-max_total_time={int(seconds)}", "-max_len=65536", "-timeout=20", "-rss_limit_mb=900",
        "-print_final_stats=1", f"-artifact_prefix={_CORPUS}/{name}-", "-verbosity=1",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=change)
    limit_memory()
    atheris.Fuzz()


def report(name: str, data: bytes) -> None:
    print(f"{name}: finding on {len(data)} bytes: {base64.b64encode(data[:3000]).decode()}")


def is_guided() -> bool:
    try:
        import atheris  # noqa: F401
    except ImportError:
        return False
    return True


def main() -> int:
    from fuzz.defects import DEFECTS

    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=float, default=0, help="for each target")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target, blindly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without libFuzzer")
    parser.add_argument("--defect", choices=sorted(DEFECTS), help="put a known defect in")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    guided = not (given.plain or given.runs or given.defect) and is_guided()
    if given.alone:
        (name,) = given.targets
        if guided:
            run_atheris(name, given.seconds)
        if given.defect:
            DEFECTS[given.defect].put_in()
        try:
            print("inputs", run_plain(name, given.runs, given.seconds, given.seed))
        except BaseException:
            traceback.print_exc()
            return 1
        return 0
    found = 0
    for name in given.targets or names():
        options = [each for each in sys.argv[1:] if each not in given.targets]
        argv = [sys.executable, "-m", "fuzz", "--alone", name, *options]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace")
        said = done.stdout + done.stderr
        counts = re.findall(r"(?:^inputs|number_of_executed_units:) (\d+)", said, re.MULTILINE)
        total = sum(map(int, counts))
        way = "libFuzzer" if guided else "blindly"
        print(f"F1 {name:14} {total:10,} inputs {way:9} {'FINDING' if done.returncode else 'ok'}")
        if done.returncode:
            found += 1
            print(said[-6000:])
        sys.stdout.flush()
    return 1 if found else 0


def names() -> list[str]:
    from fuzz.targets import TARGETS

    return list(TARGETS)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH")))
    )
    sys.path.insert(0, str(HERE.parent))
    sys.exit(main())
