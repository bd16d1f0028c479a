"""How fast a series grows: a robust slope, its interval, and steps that are none of it. Pure.

Times in ns, values in bytes, slopes in bytes a day. What has too little behind it is None, never
a guess. Standard library only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

DAY_NS = 86_400 * 10**9
FEWEST = 8  # points below which nothing is said
SHORTEST_DAYS = 4.0  # and days
WEEK_DAYS = 14.0  # below which a weekly rhythm cannot be told from growth
CONFIDENCE = 0.90
_MOST = 400  # points: their pairs are all looked at
_JUMP = 8.0  # times what four of five changes keep to: no growth any more
_JUMP_SHARE = 0.02  # of the whole value, at least
_BACK = 0.25  # of a jump that may be left when it is taken back
_MOST_STEPS = 2
_LAGS = 7  # changes that may hang together: a week of nights


@dataclass(frozen=True, slots=True)
class Step:
    """A change in one go that is no growth: an import, a clean-up."""

    time_ns: int
    size: float


@dataclass(frozen=True, slots=True)
class Slope:
    """Bytes a day, between `low` and `high` with `CONFIDENCE`; `points` over `days`."""

    per_day: float
    low: float
    high: float
    points: int
    days: float
    steps: tuple[Step, ...] = ()


def fit_growth(times_ns: Sequence[int], values: Sequence[float]) -> Slope | None:
    """Fit the growth of a series in order of time; None with too little of it.

    Steps are taken out and told. The slope is the median of those of all pairs of points (Theil
    1950; Sen, "Estimates of the regression coefficient based on Kendall's tau", Journal of the
    American Statistical Association 63, 1968), which up to 29 % of wild points do not move; its
    interval is from Sen's ranks, widened for neighbours that are alike, and never narrower than
    that of a series that wanders.
    """
    times = [time_ns / DAY_NS for time_ns in times_ns]
    if len(times) < FEWEST or times[-1] - times[0] < SHORTEST_DAYS:
        return None
    steps, level = _without_steps(times, values)
    found = tuple(Step(times_ns[at], size) for at, size in steps)
    if len(times) > _MOST:
        chosen = [round(k * (len(times) - 1) / (_MOST - 1)) for k in range(_MOST)]
        times = [times[k] for k in chosen]
        level = [level[k] for k in chosen]
    slope, low, high = theil_sen(times, level)
    drift = _drift_error(times, level) * _student(CONFIDENCE, len(times) - 1)
    # of what wanders the two ends say the most, of what returns to a line the middle does
    ends = (level[-1] - level[0]) / (times[-1] - times[0])
    low, high = min(low, slope - drift, ends - drift), max(high, slope + drift, ends + drift)
    return Slope(slope, low, high, len(times_ns), times[-1] - times[0], found)


def theil_sen(
    times: Sequence[float], values: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Return the median slope of all pairs and its interval by ranks; times ascending.

    The ranks' variance is that of Kendall's S, multiplied for residuals that follow one another
    (Hamed and Rao, "A modified Mann-Kendall trend test for autocorrelated data", Journal of
    Hydrology 204, 1998, in the form for a first-order process of Yue and Wang, Water Resources
    Management 18, 2004). Raises ValueError with fewer than two times.
    """
    count = len(times)
    slopes = sorted(
        (values[j] - values[i]) / (times[j] - times[i])
        for j in range(count)
        for i in range(j)
        if times[j] > times[i]
    )
    if not slopes:
        raise ValueError("a slope needs two times")
    middle = median(slopes)
    residuals = [value - middle * at for at, value in zip(times, values, strict=True)]
    variance = count * (count - 1) * (2 * count + 5) / 18 * _inflation(residuals)
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * math.sqrt(variance)
    low = math.floor((len(slopes) - reach) / 2)
    high = math.ceil((len(slopes) + reach) / 2)
    return middle, slopes[max(low - 1, 0)], slopes[min(high, len(slopes) - 1)]


def _inflation(residuals: Sequence[float]) -> float:
    """Return by how much the variance grows when neighbours are alike, 1 at least."""
    count = len(residuals)
    mean = sum(residuals) / count
    around = [each - mean for each in residuals]
    total = sum(each * each for each in around)
    if not total:
        return 1.0
    alike = sum(a * b for a, b in itertools.pairwise(around)) / total
    alike += (1 + 4 * alike) / count  # what few points underrate (Kendall, Biometrika 41, 1954)
    alike = min(max(alike, 0.0), 1 - 1 / count)
    return (1 + alike) / (1 - alike)


def _drift_error(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the standard error of a slope where changes add up and nothing draws them back.

    A table that only grows wanders like that, and ranks then promise too much: the slope of a
    random walk over n steps of variance s has the variance 6/5 s / n (Durlauf and Phillips,
    "Trends versus random walks", Econometrica 56, 1988). s is the long-run variance of the
    steps, which is near nothing where levels return (Newey and West, Econometrica 55, 1987).
    """
    steps = [later - earlier for earlier, later in itertools.pairwise(values)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    count, span = len(steps), times[-1] - times[0]
    mean = sum(steps) / span
    around = [step - mean * gap for step, gap in zip(steps, gaps, strict=True)]
    variance = sum(each * each for each in around)
    reach = max(1, min(_LAGS, count // 4))
    for lag in range(1, reach + 1):
        product = sum(a * b for a, b in zip(around, around[lag:], strict=False))
        variance += 2 * (1 - lag / (reach + 1)) * product
    # of the sum of all steps, the mean taken from them having cost some of it
    variance = max(variance, 0.0) * count / max(count - 1 - reach, 1)
    return math.sqrt(1.2 * variance) / span


def _student(confidence: float, freedom: float) -> float:
    """Return the two-sided quantile of Student's t (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / freedom + second / freedom**2


def _without_steps(
    times: Sequence[float], values: Sequence[float]
) -> tuple[list[tuple[int, float]], list[float]]:
    """Return lasting steps by their index, and the series without them and without spikes."""
    jumps = _jumps(times, values)
    lasting: dict[int, float] = {}
    spikes: dict[int, float] = {}
    for at, size in jumps.items():
        before = next(reversed(lasting), None)
        if before is not None and abs(lasting[before] + size) < _BACK * abs(size):
            spikes[before] = lasting.pop(before)  # it went up and came back
            spikes[at] = size
        else:
            lasting[at] = size
    if len(lasting) > _MOST_STEPS:
        lasting = {}  # what comes again and again is how this series grows
    shift = 0.0
    level = []
    for at, value in enumerate(values):
        shift += lasting.get(at, 0.0) + spikes.get(at, 0.0)
        level.append(value - shift)
    return list(lasting.items()), level


def _jumps(times: Sequence[float], values: Sequence[float]) -> dict[int, float]:
    """Return changes that are far beyond nearly all others, by the index they lead to."""
    gaps = [max(later - earlier, 1e-6) for earlier, later in itertools.pairwise(times)]
    changes = [later - earlier for earlier, later in itertools.pairwise(values)]
    rates = [change / gap for change, gap in zip(changes, gaps, strict=True)]
    usual = median(rates)
    # four changes of five, so that weekends and nightly imports do not count as jumps
    spread = sorted(abs(rate - usual) for rate in rates)[math.ceil(0.8 * len(rates)) - 1]
    largest = max(abs(value) for value in values)
    found = {}
    for at, (change, gap) in enumerate(zip(changes, gaps, strict=True), 1):
        beyond = change - usual * gap
        if abs(beyond) > max(_JUMP * spread * gap, _JUMP_SHARE * largest):
            found[at] = beyond
    return found
