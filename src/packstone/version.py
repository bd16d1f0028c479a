"""The version of the program, where start-up, snapshots and the build can all read it.

A constant, because asking the installed metadata takes longer than everything else that
`packstone --version` does.
"""

from __future__ import annotations

VERSION = "0.1.0"
