"""The command line: words of the user → one call of the Python API → words for the user.

Nothing is decided here that the API does not decide for everybody; nothing here reads or
writes a repository. `main` is the entry point, `commands` the group and the way from exceptions
to exit codes, and one file per family of commands stands beside them. `session` holds the
global options of one run, `values` parses what users type, and `render` prints: no other module
writes a file name to a terminal.
"""
