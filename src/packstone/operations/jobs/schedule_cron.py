"""A block of lines in the user's crontab, between two markers; all others stay as they are.

Read and written through the `crontab` program alone, as bytes: other lines are somebody else's.
"""

from __future__ import annotations

import shlex

from packstone.errors import PackstoneError, UsageError
from packstone.operations.jobs.schedule import call, due_command, look_minutes
from packstone.operations.jobs.strategy import Strategy

BEGIN = b"# BEGIN packstone schedule (packstone schedule remove --cron takes this away)"
END = b"# END packstone schedule"
# cron's own lacks what an administrator installed; this is what systemd gives a service
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CronSchedule:
    """The crontab of the user who runs this."""

    kind = "cron"
    hint = ""

    def written(self, strategy: Strategy) -> dict[str, str]:
        """Return the block, as the text of a place called crontab; raises UsageError."""
        return {"crontab": _block(strategy).decode("utf-8", "surrogateescape")}

    def install(self, strategy: Strategy) -> bool:
        """Put the block into the crontab; return whether it changed. Raises PackstoneError."""
        block = _block(strategy)
        before = _read()
        rest, at = _without_block(before)
        after = rest[:at] + (b"\n" if at and not rest[:at].endswith(b"\n") else b"") + block
        return _replace(before, after + rest[at:])

    def remove(self) -> bool:
        """Take the block out of the crontab; return whether it was there."""
        before = _read()
        return _replace(before, _without_block(before)[0])


def _block(strategy: Strategy) -> bytes:
    words = due_command(strategy, ["-q"])  # cron mails what is said
    line = " ".join(map(shlex.quote, words))
    if any(character in line for character in "\n\r"):
        raise UsageError(f"cron cannot name {strategy.path!r}: a line has one line")
    # an unescaped percent sign ends the command: crontab(5)
    line = f"*/{look_minutes(strategy)} * * * * PATH={_PATH} {line}".replace("%", "\\%")
    return BEGIN + b"\n" + line.encode("utf-8", "surrogateescape") + b"\n" + END + b"\n"


def _read() -> bytes:
    """Return the crontab; empty without one. An error is never taken for an empty crontab."""
    code, out, messages = call(["crontab", "-l"], hint="install cron, or use --systemd")
    if code == 0:
        return out
    if "no crontab for" in messages:
        return b""
    raise PackstoneError(f"cannot read the crontab: {messages or f'exit code {code}'}")


def _without_block(crontab: bytes) -> tuple[bytes, int]:
    """Return other lines, and where among their bytes the block was or belongs: at the end."""
    lines = crontab.splitlines(keepends=True)
    begins = [number for number, line in enumerate(lines) if line.strip() == BEGIN]
    ends = [number for number, line in enumerate(lines) if line.strip() == END]
    if not begins and not ends:
        return crontab, len(crontab)
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise UsageError(
            "the crontab has not the two markers of one packstone block: left as it is",
            hint="mend it with: crontab -e",
        )
    before = b"".join(lines[: begins[0]])
    return before + b"".join(lines[ends[0] + 1 :]), len(before)


def _replace(before: bytes, after: bytes) -> bool:
    if after == before:
        return False
    words = ["crontab", "-"] if after.strip() else ["crontab", "-r"]
    code, _, messages = call(words, stdin=after)
    if code != 0:
        raise PackstoneError(f"the crontab was not changed: {messages or f'exit code {code}'}")
    if after.strip() and _read() != after:
        raise PackstoneError(
            "the crontab is not what was written: somebody else changes it",
            hint="see: crontab -l",
        )
    return True
