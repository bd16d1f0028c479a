"""Bytes to bytes: hashing, compression, envelopes. Pure: no files, no clock, no state."""
