import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea_train.charts.axis import axis
from panacea_train.charts.number_text import MINUS, TIMES


@given(
    st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=8),
    st.sampled_from([1e-12, 1.0, 1e9]),
)
def test_every_value_has_a_place_between_round_ticks(values: list[float], unit: float) -> None:
    scaled = [value * unit for value in values]
    found = axis(scaled, 100, 400)
    labels = [tick.label for tick in found.ticks]
    assert 2 <= len(labels) <= 9
    assert len(set(labels)) == len(labels)
    assert [tick.position for tick in found.ticks] == sorted(tick.position for tick in found.ticks)
    assert found.ticks[0].position == pytest.approx(100)
    assert found.ticks[-1].position == pytest.approx(400)
    for value in scaled:
        assert 100 - 1e-6 <= found.at(value) <= 400 + 1e-6


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.0, 1.0], "0 0.2 0.4 0.6 0.8 1"),
        ([0.22, 0.94], "0.2 0.4 0.6 0.8 1"),
        ([-0.3, 0.4], "-0.4 -0.2 0 0.2 0.4 0.6"),
        ([0.0, 0.0], "0 0.2"),
        ([17.0, 43.0], "10 20 30 40 50"),
        ([-5.0, -1.0], "-6 -5 -4 -3 -2 -1 0"),
        ([0.97, 0.975], "0.969 0.97 0.971 0.972 0.973 0.974 0.975 0.976"),
    ],
)
def test_ticks_are_numbers_that_people_use(values: list[float], labels: str) -> None:
    assert " ".join(tick.label for tick in axis(values, 0, 1).ticks).replace(MINUS, "-") == labels


def test_large_and_small_numbers_are_written_as_powers_of_ten() -> None:
    large, small = axis([0, 3e9], 0, 1), axis([2e-7, 9e-7], 0, 1)
    assert (large.exponent, small.exponent) == (9, -6)
    assert large.unit == f" ({TIMES}10⁹)"
    assert [tick.label for tick in small.ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
    assert math.isclose(small.at(2e-7), 0.2)


def test_an_axis_ends_where_values_cannot_go_on() -> None:
    assert axis([0.0, 0.99], 0, 1).most == 1
    assert axis([0.0, 1.01], 0, 1).most > 1
    assert axis([0.01, 5], 0, 1).least == 0
    assert axis([-0.01, 5], 0, 1).least < 0
