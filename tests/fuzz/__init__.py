"""Decoders fed with hostile bytes: `python -m fuzz`, from the folder of the tests (row F1)."""
