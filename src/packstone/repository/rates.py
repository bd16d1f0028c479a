"""How long restores, checks and loads took: what a later one is estimated from.

Implements the kind `rates` of docs/format.md §12. Hints only, like all of the history: what is
damaged, unknown or gone costs an estimate. Invariants: a reader takes a bounded number of bytes
and samples whatever the storage holds; samples are merged before their objects get many, and
of merged ones the newest stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from packstone.codec.encryption import Sealer
from packstone.errors import Damaged, ObjectMissing
from packstone.model import MIB, Size
from packstone.repository.history import MERGED_FROM, read_records, write_record
from packstone.repository.layout import decode_payload, list_ids
from packstone.storage.base import Storage

RATES = "rates"
RESTORE, VERIFIED_RESTORE, STREAM = "restore", "verified", "stream"
CHECK, LOAD = "check", "load"
LARGEST = MIB  # bytes of an object, which ours never reach; what is larger is not read
MOST_SAMPLES = 512  # in one object, and of all that are kept
MOST_ALIKE = 32  # of those, of one job doing one thing on one host
_LONGEST = 100  # characters of a text
# Below these most of the time goes into opening the repository and the first reads.
_SMALL_NS = 1_000_000_000
_SMALL_BYTES = 16 * MIB
_SMALL_FILES = 2_000
# Objects of all kinds; dates of verification alone stay below MERGED_FROM.
_MANY = MERGED_FROM + 8


class Sample(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One thing that was done: how much content, how many files, in what time.

    `what` is "restore", "verified" (a restore that read everything back), "stream" (a file read
    and passed on), "check" (of data: the bytes are those of objects before compression) or "load"
    (into a database). `storage` is "directory" or the scheme of a URL; `job` is empty outside of
    jobs; `estimated_ns` is what was said before it began, 0 without an estimate.
    """

    time_ns: Size
    what: str
    bytes: Size
    files: Size
    elapsed_ns: Size
    host: str = ""
    storage: str = ""
    job: str = ""
    estimated_ns: Size = 0

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.elapsed_ns / 1e9


def is_small(sample: Sample) -> bool:
    """Return whether a sample tells how long it takes to begin, and nothing of a rate."""
    if sample.elapsed_ns < _SMALL_NS:
        return True
    return sample.bytes < _SMALL_BYTES and sample.files < _SMALL_FILES


def decode_samples(data: bytes, name: str) -> list[Sample]:
    """Return the samples in an object of the kind `rates`; raises Damaged."""
    samples = decode_payload(data, list[Sample], name)
    if len(samples) > MOST_SAMPLES:
        raise Damaged(f"{name} lists {len(samples)} rates, expected {MOST_SAMPLES} at most")
    return samples


def read_rates(
    storage: Storage,
    sealer: Sealer,
    now_ns: int,
    warn: Callable[[str], None] = lambda _text: None,
) -> list[Sample]:
    """Return what was measured, oldest first; samples later than `now_ns` count for nothing.

    Raises StorageError when the listing fails.
    """
    return _read(storage, sealer, now_ns, warn)[0]


def _read(
    storage: Storage, sealer: Sealer, now_ns: int, warn: Callable[[str], None]
) -> tuple[list[Sample], list[str]]:
    """Return the samples, and the names of all objects that they stand in."""
    found: set[Sample] = set()  # a merge that was cut off leaves some twice
    names = []
    for stored in read_records(storage, sealer, RATES, decode_samples, warn, largest=LARGEST):
        names.append(stored.name)
        found.update(sample for sample in stored.data if _is_sound(sample, now_ns))
    return newest_samples(found), names


def _is_sound(sample: Sample, now_ns: int) -> bool:
    texts = (sample.what, sample.host, sample.storage, sample.job)
    is_sound = sample.time_ns <= now_ns and sample.elapsed_ns > 0
    return is_sound and all(len(text) <= _LONGEST for text in texts)


def newest_samples(samples: Iterable[Sample]) -> list[Sample]:
    """Return the newest samples of each kind, oldest first: a bounded number."""
    alike: Counter[tuple[str, str, str]] = Counter()
    kept = []
    for sample in sorted(samples, key=msgspec.structs.astuple, reverse=True):
        key = (sample.what, sample.job, sample.host)
        alike[key] += 1
        if alike[key] <= MOST_ALIKE:
            kept.append(sample)
    return kept[:MOST_SAMPLES][::-1]


def keep_rates(
    storage: Storage,
    sealer: Sealer,
    samples: Sequence[Sample],
    now_ns: int,
    random: Callable[[int], bytes],
) -> None:
    """Store samples durably; merge objects that have become many.

    Raises StorageError: then these samples are lost and nothing else.
    """
    if not samples:
        return
    samples = [_shortened(sample) for sample in samples[-MOST_SAMPLES:]]
    try:
        count = sum(size <= LARGEST for _id, size in list_ids(storage, "history"))
    except ObjectMissing:
        storage.make_directories(["history"])
        count = 0
    merged: list[str] = []
    if count + 1 >= _MANY:
        known, merged = _read(storage, sealer, now_ns, lambda _text: None)
        samples = newest_samples([*known, *samples])
    write_record(storage, sealer, random(32), RATES, now_ns, samples)
    for name in merged:  # only what is stored anew, and only after it
        storage.delete(name)


def _shortened(sample: Sample) -> Sample:
    texts = {name: getattr(sample, name)[:_LONGEST] for name in ("what", "host", "storage", "job")}
    return msgspec.structs.replace(sample, **texts)
