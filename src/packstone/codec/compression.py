"""Record payloads: compress, and decompress within stated bounds.

Implements the codecs of docs/format.md §4. Never trusts a frame's word before checking it:
`max_output_size` of the binding is no limit, so the frame header is read first.
Invariant: what `decode` returns has exactly the stated raw size, or it raises Damaged.
"""

from __future__ import annotations

import threading

import zstandard

from packstone.errors import Damaged, UnsupportedFormat
from packstone.model import MIB, Buffer

STORED = 0
ZSTD = 1

MAX_RAW_SIZE = 64 * MIB
MAX_WINDOW = 64 * MIB

# A frame that saves less than one part in 32 is not worth decoding on every read.
_MIN_SAVING = 32


class Compressor:
    """Encode and decode records at one zstd level; one context per thread."""

    def __init__(self, level: int) -> None:
        self.level = level
        self._local = threading.local()

    def encode(self, raw: Buffer) -> tuple[int, bytes]:
        """Return (codec, payload): zstd, or a copy of the bytes when that does not pay.

        zstd recognises incompressible data itself at several GB/s, so nothing is sampled
        beforehand (measured in bench/steps.py).
        """
        try:
            compressor = self._local.compressor
        except AttributeError:
            compressor = self._local.compressor = zstandard.ZstdCompressor(
                level=self.level, write_content_size=True, write_checksum=False
            )
        payload: bytes = compressor.compress(raw)
        if len(payload) > len(raw) - len(raw) // _MIN_SAVING:
            # A copy: packs hold records back, callers use their buffers again.
            return STORED, bytes(raw)
        return ZSTD, payload

    def decode(self, codec: int, payload: Buffer, raw_size: int) -> Buffer:
        """Return the raw bytes of a record.

        Raises Damaged for anything but exactly `raw_size` bytes in one plain frame, and
        UnsupportedFormat for a codec this version does not know.
        """
        if codec == STORED:
            if len(payload) != raw_size:
                raise Damaged(f"stored record has {len(payload)} bytes, expected {raw_size}")
            return payload
        if codec != ZSTD:
            raise UnsupportedFormat(f"record codec {codec} is not known to this version")
        check_frame(payload, raw_size)
        try:
            decompressor = self._local.decompressor
        except AttributeError:
            decompressor = self._local.decompressor = zstandard.ZstdDecompressor(
                max_window_size=MAX_WINDOW
            )
        try:
            raw: bytes = decompressor.decompress(
                payload, max_output_size=raw_size, allow_extra_data=False
            )
        except zstandard.ZstdError as error:
            raise Damaged(f"zstd frame does not decode: {error}") from error
        if len(raw) != raw_size:
            raise Damaged(f"zstd frame gives {len(raw)} bytes, expected {raw_size}")
        return raw


def check_frame(payload: Buffer, raw_size: int) -> None:
    """Refuse a frame that lies about its size, before anything is allocated for it."""
    if raw_size > MAX_RAW_SIZE:
        raise Damaged(f"record of {raw_size} bytes is above the limit of {MAX_RAW_SIZE}")
    try:
        frame = zstandard.get_frame_parameters(bytes(payload[:18]))
    except zstandard.ZstdError as error:
        raise Damaged(f"not a zstd frame: {error}") from error
    if frame.content_size != raw_size:
        raise Damaged(f"zstd frame states {frame.content_size} bytes, expected {raw_size}")
    if frame.window_size > MAX_WINDOW:
        raise Damaged(f"zstd window of {frame.window_size} bytes is above {MAX_WINDOW}")
    if frame.dict_id:
        raise Damaged(f"zstd frame wants dictionary {frame.dict_id}")
