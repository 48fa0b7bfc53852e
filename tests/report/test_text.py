import pytest

from panacea_train.charts.number_text import (
    MINUS,
    TIMES,
    decimals_for,
    described,
    finest_decimals,
    number,
    percent,
    shortened,
    single,
    vertex,
)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.8487, 0.009], "0.849 0.009"),
        ([1.0, 0.0067], "1.000 0.007"),
        ([41.48, 6.0], "41.5 6.0"),
        ([12345.6, -1.0], "12,346 -1"),
        ([0.0, 0.0], "0 0"),
        ([-0.0001, 0.5], "0.000 0.500"),
        ([3e7, -2.5e6, 0.0], f"3.00{TIMES}10⁷ -2.50{TIMES}10⁶ 0"),
        ([0.0342], "0.0342"),
        ([2e-7], f"2.00{TIMES}10⁻⁷"),
    ],
)
def test_columns_have_as_many_digits_as_their_largest_needs(values: list[float], shown: str) -> None:
    decimals = decimals_for(values)
    assert " ".join(number(value, decimals) for value in values).replace(MINUS, "-") == shown


def test_rows_of_numbers_that_are_far_apart_keep_the_small_ones() -> None:
    values = [0.124, 0.0049, 0.0]
    assert [number(value, finest_decimals(values)) for value in values] == ["0.1240", "0.0049", "0.0000"]
    assert finest_decimals([3e7, 0.1]) is None
    assert finest_decimals([]) == 0


def test_signs_are_shown_where_they_matter() -> None:
    assert [number(value, 1, is_signed=True) for value in (0.2, -0.2, 0.0, 0.04)] == [
        "+0.2",
        f"{MINUS}0.2",
        "0.0",
        "0.0",
    ]


def test_lone_numbers() -> None:
    assert [single(value) for value in (20.0, 0.86, -3.0, 1e9)] == ["20", "0.860", f"{MINUS}3", f"1.00{TIMES}10⁹"]


def test_preferences_in_words() -> None:
    assert described((0.75, 0.0, 0.25), ("a", "b", "c")) == "a 75%, c 25%"
    assert described((1 / 3, 2 / 3), ("a", "b")) == "a 33.3%, b 66.7%"
    assert described((0.0, 0.0), ("a", "b")) == "no weight at all"
    assert percent(0.125) == "12.5%"
    assert [vertex(each) for each in ((0.0, 1.0), (0.5, 0.5), (0.0, 0.0), (2.0,))] == [1, None, None, 0]


def test_long_names_are_cut() -> None:
    assert shortened("a long name", 7) == "a long…"
    assert shortened("short", 5) == "short"
