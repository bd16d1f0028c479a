"""The sealer of one made-up repository, and storages and seals that take notes or fail."""

from __future__ import annotations

from typing import Any

from contract.storage_suite import MemorySpool, MemoryStorage

from packstone.codec.encryption import Sealer
from packstone.errors import StorageFull
from packstone.model import Buffer
from packstone.repository.layout import pack_name
from packstone.repository.packs import Pack, RecordRow

OWNER, SECRET, SALT = bytes(range(16)), bytes(range(100, 132)), bytes(range(32))
OURS = Sealer(OWNER, SECRET)


def stored(storage: MemoryStorage, pack: Pack) -> bytes:
    return storage.files[pack_name(pack.id)]


def record(data: bytes, row: RecordRow) -> bytes:
    return data[row.offset : row.offset + row.stored_size]


class Spy:
    """Notes the number of everything that is sealed."""

    def __init__(self, seal: Any, numbers: list[Any]) -> None:
        self._seal, self._numbers = seal, numbers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seal, name)

    def seal(self, number: int, *arguments: Any) -> Buffer:
        self._numbers.append(number)
        return self._seal.seal(number, *arguments)  # type: ignore[no-any-return]


class Failing(MemorySpool):
    """A disk that is full once, before it has taken anything, when there is something in `full`."""

    def __init__(self, storage: MemoryStorage, full: list[bool]) -> None:
        super().__init__(storage)
        self._full = full

    def write(self, data: Buffer) -> None:
        if self._full:
            self._full.clear()
            raise StorageFull("no room left")
        super().write(data)
