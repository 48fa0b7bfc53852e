"""The measures of the comparison, against cases that can be counted by hand."""

import pytest

from panacea_lab.reproduce.comparison_results import ComparisonResults, MethodResults, TrainedMethod, compare
from panacea_lab.reproduce.comparison_settings import ReproduceSettings
from panacea_lab.reproduce.rate_search import Rates
from panacea_train.evaluation import Answered

QUESTIONS = 5
CENTRE = (1 / 3, 1 / 3, 1 / 3)
VERTICES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def said(*points: tuple[float, float, float]) -> list[list[list[list[Answered]]]]:
    """Greedy answers that are worth the same for every question."""
    return [[[[Answered("", point, 3, 2, 1)]] * QUESTIONS for point in points]]


def method(
    name: str, preferences: tuple[tuple[float, float, float], ...], *seeds: list[tuple[float, float, float]]
) -> MethodResults:
    trained = [TrainedMethod(number, 1.0, said(*points)) for number, points in enumerate(seeds)]
    return MethodResults(name, name, "", len(seeds[0]), list(preferences), [], Rates(1e-3, 20), False, trained)


def results(*methods: MethodResults) -> ComparisonResults:
    settings = ReproduceSettings(resamples=200)
    return ComparisonResults(settings, QUESTIONS, [0.0], said((0.5, 0.5, 0.5)), list(methods))


def test_hypervolumes_inner_products_and_leads_by_hand() -> None:
    found = compare(
        results(
            method(
                "first",
                (*VERTICES, CENTRE),
                [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0.5)],
                [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0.3)],
            ),
            method(
                "second",
                VERTICES,
                [(1, 0.1, 0.1), (0.1, 1, 0.1), (0.1, 0.1, 1)],
                [(0.5, 0, 0), (0, 0.5, 0), (0, 0, 0.5)],
            ),
        ),
        0,
    )
    assert found.base_hypervolume == pytest.approx(0.125)
    assert found.hypervolumes["first"].by_seed == pytest.approx((0.5, 0.3))
    assert found.hypervolumes["first"].value == pytest.approx(0.4)
    # A cube of 0.1 that all three share, and for each what is beyond it: 0.9 x 0.1 x 0.1.
    assert found.hypervolumes["second"].by_seed == pytest.approx((0.001 + 3 * 0.009, 0))
    # Over the preferences that both have: the vertices, not the centre.
    assert found.inner_products["first"].by_seed == pytest.approx((1, 1))
    assert found.inner_products["second"].by_seed == pytest.approx((1, 0.5))
    assert found.hypervolume_leads["second"].value == pytest.approx(0.4 - 0.014)
    assert found.inner_product_leads["second"].by_seed == pytest.approx((0, 0.5))
    assert found.inner_product_leads["second"].interval == pytest.approx((0, 0.5))


def test_intervals_tell_of_seeds_where_questions_are_all_alike() -> None:
    same = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.2, 0.2, 1.0)]
    found = compare(
        results(
            method("a", VERTICES, same, same),
            method("b", VERTICES, same, [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.6, 0.6, 1.0)]),
        ),
        0,
    )
    assert found.hypervolumes["a"].interval == pytest.approx((0.04, 0.04))
    # Drawn twice of 0.04 and 0.36: each of them alone a quarter of the time, and both half of it.
    assert found.hypervolumes["b"].interval == pytest.approx((0.04, 0.36))
    low, high = found.hypervolume_leads["b"].interval
    assert (low, high) == pytest.approx((-0.32, 0))


def test_intervals_tell_of_questions() -> None:
    points = [(0.5, 0.5, 0.5)]
    one = method("a", (CENTRE,), points)
    answers = [[[[Answered("", (x, x, x), 1)] for x in (0.0, 0.0, 1.0, 1.0, 0.5)]]]
    varied = MethodResults("b", "b", "", 1, [CENTRE], [], Rates(1e-3, 20), False, [TrainedMethod(0, 1.0, answers)])
    found = compare(results(one, varied), 0)
    low, high = found.hypervolumes["b"].interval
    assert found.hypervolumes["b"].value == pytest.approx(0.125)
    assert low < 0.06
    assert high > 0.25
    assert found.hypervolumes["a"].interval == pytest.approx((0.125, 0.125))
