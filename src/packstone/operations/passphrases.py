"""Passphrases that nobody has to type: from the environment, a file, or a command's output.

Never from a command line, which every user of the machine can read. What was read is passed on
and kept nowhere; no message quotes it.
"""

from __future__ import annotations

import os

from packstone.errors import WrongPassphrase

_MOST = 1 << 20  # bytes of a file: a passphrase is none of them


def configured_passphrase(whose: str = "PACKSTONE") -> str | bytes | None:
    """Return the passphrase that the environment leads to, None if it names no source.

    The variables are `whose` with _PASSPHRASE, _PASSPHRASE_FILE or _PASSPHRASE_COMMAND behind
    it; of several the first of these wins. Raises WrongPassphrase when the source gives none.
    """
    if value := os.environ.get(f"{whose}_PASSPHRASE"):
        return value
    name = f"{whose}_PASSPHRASE_FILE"
    if path := os.environ.get(name):
        return passphrase_from_file(path, name)
    name = f"{whose}_PASSPHRASE_COMMAND"
    if command := os.environ.get(name):
        return passphrase_from_command(command, name)
    return None


def passphrase_from_file(path: str, source: str) -> bytes:
    """Return what a file holds, but for the newline at its end; `source` is for messages.

    Raises WrongPassphrase when there is none.
    """
    try:
        with open(path, "rb") as file:
            return _line(file.read(_MOST), source)
    except OSError as error:
        raise WrongPassphrase(f"{source}: cannot read the file: {error.strerror}") from error


def passphrase_from_command(command: str, source: str) -> bytes:
    """Return what a command prints, but for the newline at its end; `source` is for messages.

    Raises WrongPassphrase when it does not exit with 0 or prints nothing.
    """
    import shlex
    import subprocess

    try:
        # Its errors go to the terminal; a prompt of its own may be what it is for.
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, check=False)
    except (OSError, ValueError) as error:
        raise WrongPassphrase(f"{source}: cannot run the command: {error}") from error
    if done.returncode:
        raise WrongPassphrase(f"{source}: the command ended with {done.returncode}")
    return _line(done.stdout, source)


def _line(data: bytes, source: str) -> bytes:
    """Return data without the newline that editors and commands put at the end."""
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if not line:
        raise WrongPassphrase(f"{source}: there is no passphrase in it")
    return line
