"""Deliberate defects, one missing check each, that the targets must find (the controls of F1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Defect:
    """A defect, and the target that finds it."""

    target: str
    put_in: Callable[[], None]


def _footer_rows() -> None:
    """Rows of a footer are not compared with the pack's size."""
    from packstone.repository import packs

    packs._validate = lambda name, kind, rows, size, footer: kind or 1  # type: ignore[assignment]


def _frame_sizes() -> None:
    """A frame's word for its size is taken."""
    from packstone.codec import compression

    compression.check_frame = lambda payload, raw_size: None  # type: ignore[assignment]


def _names() -> None:
    """Names of a tree page are not looked at."""
    from packstone.repository import trees

    trees._check_names = lambda names: None  # type: ignore[assignment]


def _entries() -> None:
    """Content is not compared with the type of an entry."""
    from fuzz import targets

    targets.check_entry = lambda entry: None  # type: ignore[assignment]


def _lists() -> None:
    """Ids and sizes of a list need not go together."""
    from packstone.repository import contents

    contents._check_rows = lambda level, ids, sizes: None  # type: ignore[assignment]


def _short_envelopes() -> None:
    """An envelope's length is not looked at: struct.error gets out."""
    from packstone.codec import envelope
    from packstone.errors import Damaged

    def check(data: bytes, kind: Any, name: str, repository_id: Any) -> Any:
        row = envelope._HEADER.unpack_from(data)
        if data[-32:] != envelope.checksum(data[:-32]):
            raise Damaged("checksum")
        return row[5], row[3], row[6]

    envelope.check_envelope = check


def _payloads(name: str) -> Callable[[], None]:
    """An error of MessagePack gets out."""

    def put_in() -> None:
        import importlib

        import msgspec

        module = importlib.import_module(f"packstone.repository.{name}")
        vars(module)["decode_payload"] = lambda payload, kind, name: msgspec.msgpack.decode(
            payload, type=kind
        )

    return put_in


DEFECTS: dict[str, Defect] = {
    "rows of a footer unchecked": Defect("footer", _footer_rows),
    "a frame's size believed": Defect("record", _frame_sizes),
    "names unchecked": Defect("tree-page", _names),
    "entries unchecked": Defect("tree-page", _entries),
    "lists unchecked": Defect("list-page", _lists),
    "an envelope's length unchecked": Defect("envelope", _short_envelopes),
    "an error of MessagePack in history": Defect("history", _payloads("history")),
    "an error of MessagePack in rates": Defect("history", _payloads("rates")),
    "an error of MessagePack in bundles": Defect("bundle", _payloads("bundles")),
    "an error of MessagePack in snapshots": Defect("snapshot", _payloads("snapshots")),
}
