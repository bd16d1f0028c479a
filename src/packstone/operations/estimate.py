"""How long a restore will take, from how long earlier ones took. Pure: no clock, no storage.

seconds = opening + bytes · per_byte + files · per_file, no part below zero. What was measured
is next to what is asked: the same job before others, this host before others, restores before
checks, which write nothing. The interval rests on order statistics, not on a distribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from packstone.repository.rates import (
    CHECK,
    LOAD,
    RESTORE,
    STREAM,
    VERIFIED_RESTORE,
    Sample,
    is_small,
)

_MOST = 16  # samples, the newest: disks and hosts change
_UNLIKE = 4.0  # files per byte must differ so much before two costs can be told apart
_BETTER = 0.8  # and the second cost must bring the errors down to this
_STRANGE = 20.0  # how far off an estimate may be of files of a size that was never measured
_ENOUGH = 2  # samples of one job that make those of others not needed
_UNKNOWN = 2.0  # how far one sample, or a check, may be off: half to double


@dataclass(frozen=True, slots=True)
class Estimate:
    """Seconds, the range they should be in, and in words what that rests on.

    `samples` counts the measurements, `kind` is what was measured.
    """

    seconds: float
    low: float
    high: float
    basis: str
    samples: int
    kind: str


@dataclass(frozen=True, slots=True)
class RateModel:
    """What a byte, a file and the beginning cost, in seconds; `spread` is measured ÷ modelled."""

    opening: float
    per_byte: float
    per_file: float
    spread: tuple[float, ...]

    def seconds(self, size: int, files: int) -> float:
        """Return the time for content of `size` bytes in so many files."""
        return self.opening + size * self.per_byte + files * self.per_file


def fit_rates(samples: Sequence[Sample], opening: float = 0.0) -> RateModel | None:
    """Fit the costs of a byte and of a file, in seconds; None without samples.

    Least absolute relative deviations: a best fit of two costs passes through two samples or
    leaves one cost out, so the candidates are few and are tried (Bloomfield and Steiger, Least
    Absolute Deviations, 1983, ch. 1). Files count only where samples differ in files per byte
    and the fit gains by it; else the cost of a byte is the median of the ratios.
    """
    rows = [
        (sample.bytes, sample.files, max(sample.seconds - opening, 0.1 * sample.seconds))
        for sample in samples
        if sample.bytes or sample.files
    ]
    if not rows:
        return None

    def error(costs: tuple[float, float]) -> float:
        return sum(
            abs(size * costs[0] + files * costs[1] - took) / took for size, files, took in rows
        )

    with_bytes = [took / size for size, _files, took in rows if size]
    with_files = [took / files for _size, files, took in rows if files]
    best = (median(with_bytes), 0.0) if with_bytes else (0.0, median(with_files))
    rows = [row for row in rows if row[0] or not best[0]]  # empty files alone tell no rate
    if len(rows) >= 2 and _are_unlike(rows):
        pairs = [
            pair
            for first, second in combinations(rows, 2)
            if (pair := _through(first, second)) is not None
        ]
        singles = [(0.0, each) for each in with_files]
        # nothing that was measured may be for free: its time would not be explained at all
        whole = [
            pair
            for pair in pairs + singles
            if all(s * pair[0] + f * pair[1] > 0 for s, f, _ in rows)
        ]
        both = min(whole, key=error, default=best)
        if error(both) < _BETTER * error(best):
            best = both
    spread = tuple(took / (size * best[0] + files * best[1]) for size, files, took in rows)
    return RateModel(opening, best[0], best[1], spread)


def _are_unlike(rows: Sequence[tuple[int, int, float]]) -> bool:
    ratios = sorted(files / max(size, 1) for size, files, _took in rows)
    return ratios[-1] >= _UNLIKE * ratios[0]


def _through(
    first: tuple[int, int, float], second: tuple[int, int, float]
) -> tuple[float, float] | None:
    """Return the costs that explain two samples exactly, None unless both are positive."""
    (size1, files1, took1), (size2, files2, took2) = first, second
    determinant = size1 * files2 - size2 * files1
    if not determinant:
        return None
    per_byte = (took1 * files2 - took2 * files1) / determinant
    per_file = (size1 * took2 - size2 * took1) / determinant
    return (per_byte, per_file) if per_byte > 0 and per_file > 0 else None


def estimate_seconds(
    samples: Iterable[Sample],
    size: int,
    files: int,
    *,
    job: str = "",
    host: str = "",
    verify: bool = False,
    stream: bool = False,
    load: bool = False,
) -> Estimate | None:
    """Estimate a restore of so much content; None when nothing fit was measured.

    With `verify` everything is read back from the target; with `stream` nothing is written but
    passed on, with `load` into a database, as was measured for this job alone.
    """
    known = list(samples)
    begun = _near([each for each in known if is_small(each) and each.what != LOAD], "", host)
    opening = median(each.seconds for each in begun) if begun else 0.0
    rates = [each for each in known if not is_small(each)]
    kinds = [RESTORE, VERIFIED_RESTORE, STREAM, CHECK]
    if load:
        kinds = [LOAD]
    elif stream:
        kinds.insert(0, STREAM)
    elif verify:
        kinds.insert(0, VERIFIED_RESTORE)
    for kind in kinds:
        of_kind = [each for each in rates if each.what == kind and (not load or each.job == job)]
        near = _near(of_kind, job, host)
        model = fit_rates(near, opening)
        if model is not None:
            return _estimate(model, size, files, near, kind)
    return None


def _near(samples: Sequence[Sample], job: str, host: str) -> list[Sample]:
    """Return the newest of those samples that are most like what is asked."""
    here = [each for each in samples if each.host == host] or list(samples)
    same = [each for each in here if job and each.job == job]
    return (same if len(same) >= _ENOUGH else here)[-_MOST:]


def _estimate(
    model: RateModel, size: int, files: int, samples: Sequence[Sample], kind: str
) -> Estimate:
    seconds = model.seconds(size, files)
    low, high = spread_of(model.spread)
    if kind == CHECK:
        low, high = min(low, 1 / _UNKNOWN), max(high, _UNKNOWN)
    basis = _basis(model, samples, kind)
    if kind != CHECK and not (model.per_byte and model.per_file):
        # the cost that was left out may be all of it where files are of quite another size
        ratios = [each.files / max(each.bytes, 1) for each in samples]
        asked = files / max(size, 1)
        if asked > _UNLIKE * max(ratios):
            high *= _STRANGE
            basis += ", of larger files: smaller ones take longer"
        elif asked * _UNLIKE < min(ratios):
            low /= _STRANGE
            basis += ", of smaller files: larger ones take less"
    begin = model.opening
    return Estimate(
        seconds=seconds,
        low=begin + (seconds - begin) * low,
        high=begin + (seconds - begin) * high,
        basis=basis,
        samples=len(samples),
        kind=kind,
    )


def spread_of(ratios: Sequence[float]) -> tuple[float, float]:
    """Return factors between which the next time should be, of n that were measured ÷ modelled.

    The next of equally likely values lies between the least and the greatest of n others with
    probability (n - 1) / (n + 1) (Wilks, Annals of Mathematical Statistics 12, 1941); both are
    moved out by 1 / n for those that were not seen: one alone may be half or double.
    """
    wider = 1 + 1 / len(ratios)
    return min(*ratios, 1.0) / wider, max(*ratios, 1.0) * wider


def _basis(model: RateModel, samples: Sequence[Sample], kind: str) -> str:
    """Return in words what an estimate rests on; rates in MiB a second."""
    name = {VERIFIED_RESTORE: "verified restore"}.get(kind, kind)
    count = len(samples)
    of = f"{count} {name}{'' if count == 1 else 's'}"
    if kind == CHECK:
        of += ", which write nothing" if count > 1 else ", which writes nothing"
    parts = []
    if model.per_byte:
        parts.append(f"{1 / model.per_byte / (1 << 20):,.4g} MiB/s")
    if model.per_file:
        parts.append(f"{model.per_file * 1000:,.3g} ms a file")
    return f"{' and '.join(parts)} measured in {of}"
