"""`python -m packstone`: the same as the command `packstone`."""

from __future__ import annotations

import sys

from packstone.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
