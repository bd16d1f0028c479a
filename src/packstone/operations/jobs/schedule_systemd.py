"""A service that runs what is due, and the timer that starts it.

Only files that bear our first line are ever replaced or deleted.
"""

from __future__ import annotations

import contextlib
import os
import tempfile

from packstone.errors import PackstoneError, UsageError
from packstone.operations.jobs.schedule import BOOTED, call, due_command, look_minutes
from packstone.operations.jobs.strategy import Strategy

SERVICE, TIMER = "packstone.service", "packstone.timer"
_USER_SOCKET = "systemd/private"  # below XDG_RUNTIME_DIR: what systemctl --user talks to
MARK = "# Written by packstone schedule install; packstone schedule remove takes it away."

# A backup reads everything, writes where it is told, mounts disks and runs the user's commands:
# what would hide files from it or give its mounts to nobody else (ProtectSystem, PrivateTmp …)
# is not for it. In the user's own systemd these would imply NoNewPrivileges, and no sudo.
_HARDENING = """
UMask=0077
LockPersonality=yes
RestrictRealtime=yes
SystemCallArchitectures=native
KeyringMode=private
Environment=HOME=%h"""


class SystemdSchedule:
    """Units of the system, or of the user's own systemd."""

    kind = "systemd"

    def __init__(self, *, user: bool) -> None:
        self._user = user
        self.hint = "it runs while you are logged in; always: loginctl enable-linger" * user
        if user:
            settings = os.environ.get("XDG_CONFIG_HOME", "")
            if not os.path.isabs(settings):
                settings = os.path.expanduser("~/.config")
            self.directory = os.path.join(settings, "systemd", "user")
        else:
            self.directory = "/etc/systemd/system"

    def written(self, strategy: Strategy) -> dict[str, str]:
        """Return the units by their paths; raises UsageError."""
        program, *arguments = due_command(strategy)
        if not program.isprintable() or set(program) & set("\"'\\"):  # string_is_safe() there
            raise UsageError(
                f"systemd runs no program of the name {program!r}",
                hint="install Packstone at a path without quotes, or use --cron",
            )
        # of the arguments alone variables are expanded: systemd.service(5)
        words = " ".join([_quoted(program), *(_quoted(each, "$") for each in arguments)])
        after = "" if self._user else "Wants=network-online.target\nAfter=network-online.target\n"
        service = f"""{MARK}
[Unit]
Description=Run the Packstone jobs that are due
Documentation=man:packstone-run(1)
{after}
[Service]
Type=oneshot
ExecStart={words}
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
# time to give locks back and to put temporary files away
TimeoutStopSec=5min{"" if self._user else _HARDENING}
"""
        timer = f"""{MARK}
[Unit]
Description=Look which Packstone jobs are due

[Timer]
OnCalendar=*:0/{look_minutes(strategy)}
AccuracySec=20s
# what was missed while the machine was off is made up once
Persistent=true

[Install]
WantedBy=timers.target
"""
        return {self._path(SERVICE): service, self._path(TIMER): timer}

    def install(self, strategy: Strategy) -> bool:
        """Write the units, enable and start the timer; return whether anything changed.

        Where it does not run, for a user who is not logged in or in an image that is being
        built, the timer starts with it.
        """
        changed = False
        units = self.written(strategy)
        for path in units:
            self._refuse_foreign(path)
        for path, text in units.items():
            changed |= _write(path, text)
        self._systemctl("daemon-reload")
        self._systemctl("enable", TIMER)
        if self._is_running():
            # `start` leaves a running timer with its old times
            self._systemctl("restart" if changed else "start", TIMER)
        return changed

    def remove(self) -> bool:
        """Stop and disable the timer and delete the units; return whether there were any."""
        paths = [self._path(name) for name in (TIMER, SERVICE)]
        there = [path for path in paths if os.path.lexists(path)]
        for path in there:
            self._refuse_foreign(path)
        if self._path(TIMER) in there:
            self._systemctl("disable", *(["--now"] if self._is_running() else []), TIMER)
        for path in there:
            os.unlink(path)
        if there:
            self._systemctl("daemon-reload")
        return bool(there)

    def _path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    def _is_running(self) -> bool:
        """Return whether there is a systemd to talk to; that of a user is there while logged in."""
        if not self._user:
            return os.path.isdir(BOOTED)
        return os.path.exists(os.path.join(os.environ.get("XDG_RUNTIME_DIR", ""), _USER_SOCKET))

    def _systemctl(self, *words: str) -> None:
        running = self._is_running()
        if not running and words[0] == "daemon-reload":
            return
        argv = ["systemctl", *(["--user"] if self._user else []), *words]
        # without a running systemd only the links are made
        code, _, messages = call(
            argv, environment={} if running else {"SYSTEMD_OFFLINE": "1"}, hint="or use --cron"
        )
        if code != 0:
            raise PackstoneError(
                f"{' '.join(argv)} failed: {messages or f'exit code {code}'}",
                hint=f"the units are in {self.directory}; run the same command again",
            )

    def _refuse_foreign(self, path: str) -> None:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                first = file.readline().rstrip("\n")
        except FileNotFoundError:
            return
        if first != MARK:
            raise UsageError(
                f"{path} was not written by packstone schedule: left as it is",
                hint="remove it, or schedule with --cron",
            )


def _quoted(word: str, doubled: str = "") -> str:
    """Return a word of ExecStart as systemd.service(5) reads it back."""
    word = word.replace("\\", "\\\\").replace('"', '\\"')
    word = word.replace("\n", "\\n").replace("\r", "\\r")
    for character in "%" + doubled:
        word = word.replace(character, character * 2)
    return f'"{word}"'


def _write(path: str, text: str) -> bool:
    """Write a whole file or none; return whether it said something else before."""
    data = text.encode("utf-8", "surrogateescape")
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        if file.read() == data:
            return False
    os.makedirs(os.path.dirname(path), exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".packstone-")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o644)
            file.flush()
            os.fsync(file.fileno())  # an empty unit after a power cut would run nothing, in silence
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True
