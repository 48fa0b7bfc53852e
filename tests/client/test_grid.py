"""Preferences of a sweep."""

from itertools import pairwise
from math import comb

import pytest

from panacea_client import preference_grid


@pytest.mark.parametrize("dimensions", [1, 2, 3, 4])
@pytest.mark.parametrize("steps", [2, 3, 5, 8])
def test_a_grid_has_its_points_once_and_all_on_the_simplex(dimensions: int, steps: int) -> None:
    names = [f"d{index}" for index in range(dimensions)]
    grid = preference_grid(names, steps)
    assert len(grid) == comb(steps - 1 + dimensions - 1, dimensions - 1)
    assert len({tuple(point.values()) for point in grid}) == len(grid)
    for point in grid:
        assert list(point) == names
        assert sum(point.values()) == pytest.approx(1, abs=1e-12)
        assert all(weight * (steps - 1) == pytest.approx(round(weight * (steps - 1))) for weight in point.values())
    assert [grid[0][names[0]], grid[-1][names[-1]]] == [1.0, 1.0]


def test_an_edge_leaves_the_other_dimensions_out() -> None:
    edge = preference_grid(["a", "b", "c"], 5, between=("c", "a"))
    assert [point["c"] for point in edge] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert all(point["b"] == 0 for point in edge)
    assert all(first["a"] < second["a"] for first, second in pairwise(edge))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["a", "b"], 1), "at least 2"),
        (([], 5), "base model"),
        ((["a", "b"], 5, ("a", "c")), "a, b"),
        ((["a", "b"], 5, ("a", "a")), "two different"),
    ],
)
def test_what_is_no_grid_is_an_error_that_says_why(arguments: tuple[list[str], int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        preference_grid(*arguments)
