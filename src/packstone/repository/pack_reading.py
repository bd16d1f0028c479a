"""Read the footers of many packs: one after the other, or many at once where each wait is long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged
from packstone.model import KIB
from packstone.repository.layout import pack_name
from packstone.repository.packs import Pack, Ranges, read_footer, read_pack
from packstone.storage.base import Storage

_AT_ONCE = 16
_TAIL = 128 * KIB  # what one request reads of a pack: most footers are shorter
_WHOLE = 512 * KIB  # of a pack that is read as a whole, and kept: its records are wanted next
_FEW = 64  # packs for which that holds


def read_packs(
    storage: Storage, pack_ids: Sequence[str], sizes: Mapping[str, int], sealer: Sealer
) -> Iterator[Pack | Damaged]:
    """Yield each pack as its footer tells it, or what is wrong with both copies of that."""
    if not storage.is_far:
        for pack_id in pack_ids:
            yield _read(storage, pack_id, sizes[pack_id], sealer)
        return
    waiting: deque[Future[Pack | Damaged]] = deque()
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="footers") as pool:
        try:
            for pack_id in pack_ids:
                size = sizes[pack_id]
                whole = size <= _WHOLE and len(pack_ids) <= _FEW
                tail = storage if whole else _Tail(storage, pack_id, size)
                waiting.append(pool.submit(_read, tail, pack_id, size, sealer, from_end=True))
                if len(waiting) >= 4 * _AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def read_footer_of(storage: Storage, pack_id: str, size: int, sealer: Sealer) -> bytes:
    """Return the bytes of a pack's footer, in one request as a rule; Damaged, StorageError."""
    start = max(0, size - _TAIL)
    at_hand = storage.is_quick(pack_name(pack_id), start, size - start)
    return read_footer(storage if at_hand else _Tail(storage, pack_id, size), pack_id, size, sealer)


def _read(
    storage: Ranges, pack_id: str, size: int, sealer: Sealer, *, from_end: bool = False
) -> Pack | Damaged:
    try:
        return read_pack(storage, pack_id, size, sealer, from_end=from_end)
    except Damaged as error:
        return error


class _Tail:
    """One pack whose end was read in one request; reads of it need no other."""

    def __init__(self, storage: Storage, pack_id: str, size: int) -> None:
        self._storage = storage
        self._name = pack_name(pack_id)
        self._start = max(0, size - _TAIL)
        self._data: bytes | None = None

    def get_range(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, from the end of the pack if they lie there."""
        if offset < self._start:
            return self._storage.get_once(name, offset, size)
        if self._data is None:
            self._data = self._storage.get_once(self._name, self._start, _TAIL)
        at = offset - self._start
        return self._data[at : at + size]
