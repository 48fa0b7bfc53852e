"""Measures of fronts, against cases that can be counted by hand and against Monte Carlo."""

import moocore
import numpy as np
import pytest
from scipy import stats

from panacea_train.evaluation.sweep_summary import RESAMPLED_DIRECTIONS
from panacea_train.pareto import (
    distinct,
    hypervolume,
    inner_product,
    non_dominated,
    simplex_grid,
    spacing,
    sparsity,
    spearman,
)


def test_grid_of_the_issue_has_fifteen_points() -> None:
    grid = simplex_grid(3, 4)
    assert len(grid) == len(set(grid)) == 15
    assert all(sum(point) == 1 for point in grid)
    assert {(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.25, 0.25)} <= set(grid)


def test_spearman_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        xs = rng.integers(0, 5, 15).tolist()
        ys = rng.normal(size=15).tolist()
        assert spearman(xs, ys) == pytest.approx(float(stats.spearmanr(xs, ys).statistic))


def test_spearman_of_a_constant_is_zero() -> None:
    assert spearman([1, 2, 3], [0.5, 0.5, 0.5]) == 0


def test_non_dominated_and_distinct_tell_a_front_from_a_model_that_ignores_its_preference() -> None:
    assert non_dominated([(1, 0), (0, 1), (0.4, 0.4), (0.3, 0.3)]) == [True, True, True, False]
    same = [(0.5, 0.5)] * 15
    assert sum(non_dominated(same)) == 15
    assert distinct(same, (0.01, 0.01)) == 1
    assert distinct([(1, 5), (1.004, 5), (1.02, 5)], (0.01, 0.01)) == 2
    assert distinct([(1, 5), (2, 5)], (0.0, 0.01)) == 1, "nothing is told apart by it"
    assert distinct([(1, 5), (2, 5)], (0.0, 0.0)) == 1


def test_hypervolume_of_boxes() -> None:
    assert hypervolume([(2, 3, 4)], (0, 0, 0)) == 24
    assert hypervolume([(2, 3, 4)], (1, 1, 1)) == 6
    assert hypervolume([(1, 0.5), (0.5, 1)], (0, 0)) == pytest.approx(0.75)
    assert hypervolume([(1, 1, 0)], (0, 0, 0)) == 0
    assert hypervolume([], (0, 0, 0)) == 0


def test_hypervolume_in_one_and_in_four_dimensions() -> None:
    assert hypervolume([(2,), (5,)], (1,)) == 4
    # 16 + 16 less what both boxes share
    assert hypervolume([(1, 2, 2, 4), (2, 2, 2, 2)], (0, 0, 0, 0)) == pytest.approx(16 + 16 - 8)
    assert hypervolume([(1, 2, 2, 4), (2, 2, 2, 2), (-1, 9, 9, 9)], (0, 0, 0, 0)) == pytest.approx(24)


@pytest.mark.parametrize("dimensions", [2, 3, 4, 5, 6])
def test_hypervolume_agrees_with_throws_at_random(dimensions: int) -> None:
    rng = np.random.default_rng(dimensions)
    points = rng.random((12, dimensions)) - 0.1
    throws = rng.random((400_000, dimensions))
    inside = np.zeros(len(throws), dtype=bool)
    for point in points:
        inside |= (throws <= point).all(-1)
    # Five standard errors of the throws.
    allowed = 5 * np.sqrt(inside.var() / len(throws))
    assert hypervolume(points.tolist(), [0] * dimensions) == pytest.approx(inside.mean(), abs=allowed)


def test_few_directions_are_enough_for_a_resample() -> None:
    """Against moocore's exact algorithm, which is not used in so many dimensions because it may take minutes."""
    rng = np.random.default_rng(0)
    for dimensions in (6, 7):
        points = rng.random((40, dimensions))
        exact = moocore.hypervolume(points, ref=np.zeros(dimensions), maximise=True)
        few = hypervolume(points.tolist(), [0] * dimensions, RESAMPLED_DIRECTIONS)
        assert few == pytest.approx(exact, rel=0.02)
        assert hypervolume(points.tolist(), [0] * dimensions) == pytest.approx(exact, rel=0.003)


def test_inner_product_by_hand() -> None:
    assert inner_product([(1, 0), (0.5, 0.5)], [(3, 100), (2, 4)]) == (3 + 3) / 2


def test_sparsity_by_hand() -> None:
    # Sorted by dimension: 0 1 3 and 0 2 4; gaps 1 4 and 4 4 squared, over 2 dimensions and 2 gaps.
    assert sparsity([(0, 4), (3, 0), (1, 2)]) == (1 + 4 + 4 + 4) / 4
    assert sparsity([(1, 2)]) == sparsity([]) == 0


def test_spacing_by_hand() -> None:
    # Nearest neighbours: 5, 5 and 10 away.
    assert spacing([(0, 0), (3, 4), (9, 12)]) == pytest.approx(float(np.std([5, 5, 10])))
    assert spacing([(0, 0), (1, 0), (0, 1), (1, 1)]) == 0
    assert spacing([(1, 2)]) == spacing([]) == 0
