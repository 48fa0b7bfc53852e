"""Measures of fronts, against cases that can be counted by hand and against Monte Carlo."""

import numpy as np
import pytest

from panacea_train.pareto import distinct, hypervolume, non_dominated, simplex_grid, spearman


def test_grid_of_the_issue_has_fifteen_points() -> None:
    grid = simplex_grid(3, 4)
    assert len(grid) == len(set(grid)) == 15
    assert all(sum(point) == 1 for point in grid)
    assert {(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.25, 0.25)} <= set(grid)


def test_spearman_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats", reason="install the extra `train`")
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
    assert distinct(same) == 1


def test_hypervolume_of_boxes() -> None:
    assert hypervolume([(2, 3, 4)], (0, 0, 0)) == 24
    assert hypervolume([(2, 3, 4)], (1, 1, 1)) == 6
    assert hypervolume([(1, 0.5), (0.5, 1)], (0, 0)) == pytest.approx(0.75)
    assert hypervolume([(1, 1, 0)], (0, 0, 0)) == 0
    assert hypervolume([], (0, 0, 0)) == 0


def test_hypervolume_agrees_with_monte_carlo() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((12, 3))
    throws = rng.random((200_000, 3))
    inside = (throws[:, None] <= points[None]).all(-1).any(-1).mean()
    assert hypervolume(points.tolist(), (0, 0, 0)) == pytest.approx(inside, abs=0.005)
