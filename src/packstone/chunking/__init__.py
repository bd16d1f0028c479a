"""Cutting the content of files into chunks where the content says so (docs/format.md §5).

What lives here: the scheme's kernel in C and the classes around it. Never here: reading files,
hashing, repositories. Invariant: the same bytes and parameters give the same chunks, whatever
the machine and however the bytes arrive.
"""
