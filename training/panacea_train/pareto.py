"""Measures of a front of rewards. All rewards are maximised."""

from collections.abc import Sequence
from itertools import combinations, pairwise

import moocore
import numpy as np
from numpy.typing import NDArray

Point = Sequence[float]

EXACT_DIMENSIONS = 5
"""Up to this number of dimensions a hypervolume is computed exactly. 500 points take 10 ms in five dimensions, 0.3 s in
six and 14 s in seven."""
DIRECTIONS = 1 << 18
"""Directions of the estimate in more dimensions: 0.1 s, and off by 0.1 % or less on fronts of 70 random points."""


def simplex_grid(dimensions: int, divisions: int) -> list[tuple[float, ...]]:
    """All points of the simplex whose weights are multiples of 1 / `divisions`; 15 for three dimensions and four."""
    # Of divisions + dimensions - 1 places in a row, dimensions - 1 hold a bar. A weight counts the places between two.
    places = divisions + dimensions - 1
    bars = [(-1, *chosen, places) for chosen in combinations(range(places), dimensions - 1)]
    return [tuple((end - start - 1) / divisions for start, end in pairwise(row)) for row in reversed(bars)]


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's rank correlation. Equal values share their mean rank. 0 if either side is constant."""
    x, y = _ranks(xs), _ranks(ys)
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def non_dominated(points: Sequence[Point]) -> list[bool]:
    """For each point: True if no other point is at least as good in every dimension and better in one.

    Equal points do not dominate each other, so every point of a model that ignores its preference is non-dominated.
    Read this number only beside `distinct`.
    """
    rows = np.asarray(points, dtype=float)
    at_least = (rows[:, None] >= rows[None]).all(-1)
    better = (rows[:, None] > rows[None]).any(-1)
    dominated: list[bool] = np.any(at_least & better, axis=0).tolist()
    return [not value for value in dominated]


def distinct(points: Sequence[Point], steps: Point) -> int:
    """Number of different points after rounding to multiples of `steps`, one per dimension; a step of 0 is ignored."""
    units = np.asarray(steps, dtype=float)
    kept = units > 0
    rows = np.asarray(points, dtype=float)[:, kept] / units[kept]
    return len({tuple(row) for row in np.round(rows).tolist()})


def hypervolume(points: Sequence[Point], reference: Point, directions: int = DIRECTIONS) -> float:
    """Volume that the points dominate above `reference`.

        HV(P, r) = volume of the union over p in P of the boxes [r, p]

    Points that are not above `reference` in every dimension add nothing. The result is exact in up to five dimensions.
    With more it is a quasi-Monte Carlo estimate with `directions` directions, the same ones every time. Both are
    moocore's (Zitzler & Thiele 1998; Deng & Zhang 2019).
    """
    rows = np.asarray(points, dtype=float)
    corner = np.asarray(reference, dtype=float)
    above = rows[(rows > corner).all(-1)] if len(rows) else rows
    if not len(above):
        return 0.0
    if len(corner) == 1:
        return float(above.max() - corner[0])
    if len(corner) <= EXACT_DIMENSIONS:
        return float(moocore.hypervolume(above, ref=corner, maximise=True))
    return float(moocore.hv_approx(above, ref=corner, maximise=True, nsamples=directions))


def inner_product(preferences: Sequence[Point], points: Sequence[Point]) -> float:
    """How well each preference is followed: the mean over points of <preference, rewards>.

    It has the units of the rewards, and the paper (arXiv 2402.02030) reports it under this name. It is comparable
    between models that were evaluated at the same preferences.
    """
    return float((np.asarray(preferences, dtype=float) * np.asarray(points, dtype=float)).sum(-1).mean())


def sparsity(points: Sequence[Point]) -> float:
    """How far apart neighbours on the front are: a smaller value is a denser front.

        S = 1 / (m (N - 1)) * sum over dimensions j and i < N of (p_j(i+1) - p_j(i))^2

    where p_j(1) <= ... <= p_j(N) are the N points' values in dimension j, sorted (Xu et al. 2020, "Prediction-Guided
    Multi-Objective Reinforcement Learning", there without the m). 0 for fewer than two points. A collapsed front is the
    densest, so read this measure beside the hypervolume and the number of distinct points.
    """
    rows = np.sort(np.asarray(points, dtype=float), axis=0)
    return float((np.diff(rows, axis=0) ** 2).mean()) if len(rows) > 1 else 0.0


def spacing(points: Sequence[Point]) -> float:
    """How unevenly the points are spread: the standard deviation of the distances to the nearest neighbour.

        SP = sqrt(1 / N * sum over i of (d_i - mean d)^2),  d_i = min over k != i of |p_i - p_k|

    Distances are Euclidean (Schott 1995 takes sums of absolute differences). 0 is even; fewer than two points have 0.
    """
    rows = np.asarray(points, dtype=float)
    if len(rows) < 2:
        return 0.0
    distances = np.sqrt(((rows[:, None] - rows[None]) ** 2).sum(-1))
    np.fill_diagonal(distances, np.inf)
    return float(distances.min(1).std())


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 0; equal values share their mean rank."""
    numbers = np.asarray(values, dtype=float)
    below = (numbers[None] < numbers[:, None]).sum(1)
    equal = (numbers[None] == numbers[:, None]).sum(1)
    return np.asarray(below + (equal - 1) / 2, dtype=np.float64)
