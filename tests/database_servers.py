"""Private servers of real databases for tests: started below a directory, reached by a socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any


def postgres_programs() -> Path | None:
    """Return a directory with all of PostgreSQL's programs that are needed, the newest."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    places += [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    needed = ("initdb", "pg_ctl", "pg_dump", "psql")
    return next((p for p in places if all((p / each).exists() for each in needed)), None)


def _version(path: Path) -> float:
    name = path.parent.name
    return float(name) if name.replace(".", "", 1).isdigit() else 0.0


class PostgresServer:
    """A private PostgreSQL server, reached by a socket in its own directory."""

    def __init__(self, place: Path, binaries: Path) -> None:
        self.place = place
        self._binaries = binaries
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            user = next((row for row in pwd.getpwall() if row.pw_name == "postgres"), None)
            user = user or pwd.getpwnam("nobody")
            os.chown(place, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = str(place / "data")
        self._run("initdb", "-D", data, "-U", "crm", "-A", "trust", "-E", "UTF8", "--no-locale",
                  "--no-sync")  # fmt: skip
        options = f"-k {place} -h '' -c fsync=off -c full_page_writes=off -c max_wal_size=4GB"
        self._run("pg_ctl", "-D", data, "-o", options, "-l", str(place / "log"), "-w", "start")

    def _run(self, program: str, *words: str) -> None:
        done = subprocess.run(
            [self._binaries / program, *words],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self.place, timeout=60,
            **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()

    def argv(self, program: str, database: str, *words: str) -> list[str]:
        """Return the command line of a client."""
        place = str(self.place)
        return [str(self._binaries / program), "-h", place, "-U", "crm", "-d", database, *words]

    def sql(self, text: str, database: str = "crm") -> str:
        """Run statements and return what they print."""
        done = subprocess.run(
            self.argv("psql", database, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
            input=text, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.place / "data"), "-m", "immediate", "-w", "stop")


def mariadb_programs() -> dict[str, str] | None:
    """Return where the programs of MariaDB are, None unless all are installed."""
    path = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"
    found = {
        name: shutil.which(name, path=path)
        for name in ("mariadbd", "mariadb-install-db", "mariadb", "mariadb-dump")
    }
    return {name: place for name, place in found.items() if place} if all(found.values()) else None


class MariadbServer:
    """A private MariaDB server, reached by a socket in its own directory, as user `crm`."""

    def __init__(self, place: Path, programs: dict[str, str]) -> None:
        self.place = place
        self._programs = programs
        self.socket = str(place / "socket")
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            user = next((row for row in pwd.getpwall() if row.pw_name == "mysql"), None)
            user = user or pwd.getpwnam("nobody")
            os.chown(place, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = f"--datadir={place}/data"
        done = subprocess.run(
            [programs["mariadb-install-db"], "--no-defaults", data, "--skip-test-db",
             "--auth-root-authentication-method=normal"],
            capture_output=True, cwd=place, timeout=120, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode() + done.stdout.decode()
        with open(place / "log", "wb") as log:
            self._process = subprocess.Popen(
                [programs["mariadbd"], "--no-defaults", data, "--skip-networking",
                 f"--socket={self.socket}", f"--pid-file={place}/pid", "--event-scheduler=OFF",
                 "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=128M",
                 "--max-allowed-packet=64M"],
                stdout=log, stderr=log, cwd=place, **self._as,
            )  # fmt: skip
        self._wait()
        self.sql("CREATE USER crm IDENTIFIED BY ''; GRANT ALL ON *.* TO crm WITH GRANT OPTION", "")

    def _wait(self) -> None:
        for _ in range(600):
            assert self._process.poll() is None, (self.place / "log").read_text()
            words = [self._programs["mariadb"], "--no-defaults", f"--socket={self.socket}"]
            if not subprocess.run(
                [*words, "-uroot", "-e", "SELECT 1"], capture_output=True
            ).returncode:
                return
            time.sleep(0.1)
        raise AssertionError((self.place / "log").read_text())

    def sql(self, text: str, database: str = "crm") -> str:
        """Run statements as root and return what they print."""
        done = subprocess.run(
            [self._programs["mariadb"], "--no-defaults", f"--socket={self.socket}", "-uroot", "-N",
             "--default-character-set=utf8mb4", "--binary-mode", *([database] if database else [])],
            input=text, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """End the server at once."""
        self._process.kill()
        self._process.wait()


@contextmanager
def place_for_server() -> Iterator[Path]:
    """Make a directory with a short path, as sockets need it, and remove it again."""
    place = Path(mkdtemp(prefix="packstone-", dir="/tmp"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
