"""Which answers are shown to people."""

import pytest

from panacea_train.evaluation import Answered, choose_examples
from panacea_train.pareto import simplex_grid


@pytest.mark.parametrize(
    ("dimensions", "divisions", "shown"), [(2, 4, 5), (3, 4, 15), (3, 8, 15), (4, 4, 15), (5, 4, 15), (16, 1, 16)]
)
def test_every_vertex_is_among_them(dimensions: int, divisions: int, shown: int) -> None:
    grid = simplex_grid(dimensions, divisions)
    answers = [[[Answered(str(point), point, 1)]] * 7 for point in grid]
    examples = choose_examples([f"{number}?" for number in range(7)], grid, 0.0, answers)
    assert [example.prompt for example in examples] == ["0?", "3?", "6?"]
    for example in examples:
        preferences = [answer.preference for answer in example.answers]
        assert set(simplex_grid(dimensions, 1)) <= set(preferences)
        assert len(set(preferences)) == len(preferences) == shown
        assert preferences == [point for point in grid if point in preferences], "in the grid's order"
        assert all(answer.text == str(answer.preference) for answer in example.answers)
