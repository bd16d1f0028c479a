"""What a table must say about the machine that it was made on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path


def describe_machine(work: Path) -> dict[str, object]:
    """Return processor, processors available, memory in bytes, kernel, Python, file system."""
    return {
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "file system": _file_system(work),
        "load": os.getloadavg()[0],
    }  # fmt: skip


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _file_system(path: Path) -> str:
    command = ["stat", "-f", "-c", "%T", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
