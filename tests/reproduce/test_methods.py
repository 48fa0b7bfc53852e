"""What each method is given to learn from, and what it is asked."""

import math
from pathlib import Path

import numpy as np
import pytest

from panacea_lab.reproduce.compared_methods import Lesson, methods
from panacea_lab.reproduce.comparison_settings import ReproduceSettings
from panacea_lab.reproduce.rate_search import Rates, best, next_trials
from panacea_train.pareto import simplex_grid
from panacea_train.training_examples import PreferencePair

SETTINGS = ReproduceSettings()


@pytest.fixture
def lesson() -> Lesson:
    pairs = [PreferencePair([number], [1], [2], (1, 0, 0)) for number in range(9000)]
    reference = np.arange(18_000, dtype=np.float32).reshape(-1, 2)
    return Lesson(Path("base"), pairs, reference, SETTINGS, Rates(1e-3, 20), 0)


@pytest.mark.parametrize("adapters", [1, 3, 6])
def test_all_methods_have_the_same_steps_and_see_as_many_pairs(lesson: Lesson, adapters: int) -> None:
    parts = [lesson.part(number, adapters) for number in range(adapters)]
    assert sum(steps for _, _, steps in parts) == SETTINGS.steps
    assert sum(len(pairs) for pairs, _, _ in parts) == SETTINGS.steps * SETTINGS.adapter.batch_size
    for pairs, reference, steps in parts:
        assert len({pair.prompt_ids[0] for pair in pairs}) == len(pairs) == steps * SETTINGS.adapter.batch_size
        assert [2 * pair.prompt_ids[0] for pair in pairs] == reference[:, 0].tolist(), "each pair with its own"
    assert len({str(pairs) for pairs, _, _ in parts}) == adapters


def test_every_method_is_asked_at_its_own_preferences() -> None:
    panacea, soup, discrete = methods(SETTINGS)
    grid = simplex_grid(3, 4)
    assert panacea.points(SETTINGS) == soup.points(SETTINGS) == [(point, point) for point in grid]
    asked = [point for point, _ in discrete.points(SETTINGS)]
    assert asked == simplex_grid(3, 2)
    assert set(asked) < set(grid)
    served = np.array([point for _, point in discrete.points(SETTINGS)])
    assert (served == np.eye(6)).all(), "each policy alone"
    assert (panacea.adapters, soup.adapters, discrete.adapters) == (1, 3, 6)


def test_a_soup_adapter_belongs_to_the_dimension_that_it_learns() -> None:
    assert (np.array(simplex_grid(3, 1)) == np.eye(3)).all()


def test_the_search_goes_on_where_the_best_rate_is_at_an_end() -> None:
    low, middle, high = (Rates(rate, 20) for rate in (5e-4, 1e-3, 2e-3))
    assert best({middle: 0.3, high: 0.5, low: 0.4}) == high
    assert next_trials({middle: 0.3, high: 0.5, low: 0.4}, True, 2) == [Rates(4e-3, 20)]
    assert next_trials({middle: 0.3, high: 0.2, low: 0.4}, False, 2) == [Rates(2.5e-4, 20)]
    assert next_trials({middle: 0.3, high: 0.2, low: 0.4}, False, 0) == []


def test_trials_that_are_left_go_to_the_second_rate_or_between_the_rates() -> None:
    low, middle, high = (Rates(rate, 20) for rate in (5e-4, 1e-3, 2e-3))
    found = {middle: 0.5, high: 0.2, low: 0.4}
    beside = [Rates(1e-3, 10), Rates(1e-3, 40)]
    assert next_trials(found, True, 2) == beside
    assert next_trials(found, True, 1) == beside[:1]
    between = [Rates(1e-3 * 2**0.5, 20), Rates(1e-3 / 2**0.5, 20)]
    assert next_trials(found, False, 2) == between
    assert next_trials(found | dict.fromkeys(beside, 0.1), True, 2) == between, "the factors once"
    assert next_trials(found | dict.fromkeys(between, 0.1), False, 1) == [Rates(1e-3 * 2**0.25, 20)]


@pytest.mark.parametrize("has_factor", [False, True])
@pytest.mark.parametrize("peak", [1e-5, 4e-4, 1e-3, 1.1e-3, 1.9e-3, 3e-3, 1.0])
def test_every_method_has_as_many_trials(peak: float, has_factor: bool) -> None:
    found = {Rates(rate, 20): -abs(math.log(rate / peak)) for rate in SETTINGS.learning_rates}
    while left := SETTINGS.trials - len(found):
        following = next_trials(found, has_factor, left)
        assert 1 <= len(following) <= left
        assert not set(following) & set(found)
        for rates in following:
            found[rates] = -abs(math.log(rates.learning_rate / peak)) - 0.01 * abs(math.log(rates.factor / 20))
    assert len(found) == 5
