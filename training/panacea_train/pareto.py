"""Measures of a front of rewards, everything to be maximised."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

Point = Sequence[float]


def simplex_grid(dimensions: int, divisions: int) -> list[tuple[float, ...]]:
    """All points of the simplex whose weights are multiples of 1 / `divisions`; 15 for three dimensions and four."""
    return [
        tuple(count / divisions for count in counts)
        for counts in product(range(divisions, -1, -1), repeat=dimensions)
        if sum(counts) == divisions
    ]


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; 0 when either side never changes."""
    x, y = _ranks(xs), _ranks(ys)
    if x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def non_dominated(points: Sequence[Point]) -> list[bool]:
    """For each point whether no other is at least as good everywhere and better somewhere.

    Equal points do not dominate each other, so a model that ignores its preference has a full front: read this number
    only beside `distinct`.
    """
    rows = np.asarray(points, dtype=float)
    at_least = (rows[:, None] >= rows[None]).all(-1)
    better = (rows[:, None] > rows[None]).any(-1)
    dominated: list[bool] = np.any(at_least & better, axis=0).tolist()
    return [not value for value in dominated]


def distinct(points: Sequence[Point], decimals: int = 2) -> int:
    """How many points differ after rounding to `decimals`."""
    return len({tuple(round(float(value), decimals) for value in point) for point in points})


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """Volume that the points dominate above `reference`, in any number of dimensions.

    By slices along the last dimension: exact, and fast enough for fronts of some hundred points in three dimensions.
    """
    rows = np.asarray([point for point in points if all(p > r for p, r in zip(point, reference, strict=True))])
    if not len(rows):
        return 0.0
    if rows.shape[1] == 1:
        return float(rows.max() - reference[0])
    levels = np.unique(rows[:, -1])
    floors = [reference[-1], *levels[:-1]]
    return sum(
        float(level - floor) * hypervolume(rows[rows[:, -1] >= level][:, :-1].tolist(), reference[:-1])
        for floor, level in zip(floors, levels, strict=True)
    )


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing their mean rank."""
    numbers = np.asarray(values, dtype=float)
    below = (numbers[None] < numbers[:, None]).sum(1)
    equal = (numbers[None] == numbers[:, None]).sum(1)
    return np.asarray(below + (equal - 1) / 2, dtype=np.float64)
