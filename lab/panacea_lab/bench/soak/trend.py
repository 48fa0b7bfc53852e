"""Robust statistics of growth and drift in a few hundred noisy numbers."""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NORMAL_MAD = 1.4826
"""What makes a median absolute deviation a standard deviation, where noise is normal."""


@dataclass(frozen=True)
class TrendLine:
    """A robust linear fit."""

    slope: float
    """Per unit of time."""
    duration: float
    noise: float
    """Standard deviation around the line, from the median absolute deviation."""

    @property
    def growth(self) -> float:
        """From the first time to the last, along the line."""
        return self.slope * self.duration


def fit(times: Sequence[float], values: Sequence[float], bins: int = 40) -> TrendLine:
    """Theil and Sen's line: the median of the slopes between all pairs of points.

    A garbage collection or a page that is given back moves single samples far; medians do not care, be it within a bin
    or among slopes. Needs two samples or more.
    """
    points = _binned(times, values, bins)
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(points, 2) if x2 > x1]
    slope = statistics.median(slopes)
    offset = statistics.median(y - slope * x for x, y in points)
    noise = NORMAL_MAD * statistics.median(abs(y - slope * x - offset) for x, y in points)
    return TrendLine(slope, points[-1][0] - points[0][0], noise)


def _binned(times: Sequence[float], values: Sequence[float], bins: int) -> list[tuple[float, float]]:
    size = max(1, len(times) // bins)
    starts = range(0, len(times) - size + 1, size)
    return [
        (statistics.median(times[start : start + size]), statistics.median(values[start : start + size]))
        for start in starts
    ]


@dataclass(frozen=True)
class Drift:
    """A comparison of late numbers with early ones."""

    early: float
    late: float
    """Medians."""
    chance: float
    """How likely it is that the late ones are as much larger by chance (Mann and Whitney's U, one-sided)."""

    @property
    def ratio(self) -> float:
        return self.late / self.early if self.early else math.inf


def compare(early: Sequence[float], late: Sequence[float]) -> Drift:
    """Whether `late` is larger than `early`, by ranks: no outlier moves it, and no distribution is assumed."""
    ranked = sorted((value, is_late) for is_late, values in enumerate((early, late)) for value in values)
    rank_sum = 0.0
    place = 0
    for _, group in itertools.groupby(ranked, key=lambda each: each[0]):
        equal = [is_late for _, is_late in group]
        rank_sum += sum(equal) * (place + (len(equal) + 1) / 2)  # equal numbers share the mean of their ranks
        place += len(equal)
    n, m = len(early), len(late)
    u = rank_sum - m * (m + 1) / 2
    deviation = math.sqrt(n * m * (n + m + 1) / 12)
    chance = 0.5 * math.erfc((u - n * m / 2) / deviation / math.sqrt(2))
    return Drift(statistics.median(early), statistics.median(late), chance)
