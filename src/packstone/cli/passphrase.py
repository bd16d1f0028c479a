"""Where passphrases come from: the environment, a file, a command, or a prompt on a terminal.

Never from the command line, which every user of the machine can read. What was read is passed
on and kept nowhere; no message quotes it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from packstone.errors import UsageError, WrongPassphrase

# the repository's own, a new one for it, that of one a new one is made like, that of a copy
OWN, NEW, FROM, TO = "PACKSTONE", "PACKSTONE_NEW", "PACKSTONE_FROM", "PACKSTONE_TO"
_TRIES = 3  # to type the same twice


def configured(whose: str = OWN) -> str | bytes | None:
    """Return the passphrase that the environment leads to, None if it names no source.

    Raises WrongPassphrase when the source gives none.
    """
    import packstone

    return packstone.configured_passphrase(whose)


def from_file(path: str, source: str) -> bytes:
    """Return what a file holds, but for the newline at its end; `source` is for messages."""
    import packstone

    return packstone.passphrase_from_file(path, source)


def can_ask() -> bool:
    """Return whether there is a person at a terminal; standard input may be a dump."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return sys.stderr.isatty()


def ask(prompt: str) -> str:
    """Ask on the terminal, without echo; raises WrongPassphrase at its end."""
    import getpass

    try:
        return getpass.getpass(f"{prompt}: ", sys.stderr)
    except EOFError as error:
        raise WrongPassphrase("no passphrase was typed") from error


def ask_twice(prompt: str) -> str:
    """Ask until the same was typed twice in a row; raises UsageError after three tries."""
    for _ in range(_TRIES):
        first = ask(prompt)
        if not first:
            print("An empty passphrase protects nothing.", file=sys.stderr)
        elif first == ask(f"{prompt}, again"):
            return first
        else:
            print("They differ.", file=sys.stderr)
    raise UsageError("no passphrase was typed twice alike", hint="Nothing was changed")


def for_open(
    prompt: str = "Passphrase", whose: str = OWN
) -> str | bytes | Callable[[], str] | None:
    """Return the configured passphrase, a question for when one is needed, or None."""
    found = configured(whose)
    if found is not None or not can_ask():
        return found
    return lambda: ask(prompt)


def for_new(prompt: str, whose: str = OWN) -> str | bytes | None:
    """Return a passphrase to set: a configured one or one typed twice; None without either."""
    found = configured(whose)
    if found is not None or not can_ask():
        return found
    return ask_twice(prompt)
