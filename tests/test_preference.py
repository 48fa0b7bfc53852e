"""Preferences: what is one, and what is none."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea.errors import PreferenceError
from panacea.preference import MAX_WEIGHT, Dimension, Preference, PreferenceSpace

NAMES = ("helpful", "harmless", "concise")
SPACE = PreferenceSpace(tuple(map(Dimension, NAMES)), (0.4, 0.3, 0.3), {"brief": (0, 0, 1)})

good_weights = st.lists(
    st.one_of(st.floats(0, MAX_WEIGHT), st.integers(0, int(MAX_WEIGHT))), min_size=3, max_size=3
).filter(any)


def test_an_object_and_an_array_mean_the_same() -> None:
    assert SPACE.resolve({"concise": 1, "helpful": 3}) == SPACE.resolve([3, 0, 1]) == (0.75, 0.0, 0.25)


@given(good_weights)
def test_a_preference_sums_to_one_in_the_weights_proportions(weights: list[float]) -> None:
    preference = SPACE.resolve(weights)
    assert math.fsum(preference) == pytest.approx(1, abs=1e-15)
    assert preference == pytest.approx([weight / math.fsum(weights) for weight in weights], rel=1e-12, abs=1e-300)


@given(good_weights)
def test_a_reported_preference_sent_back_is_the_same_preference(weights: list[float]) -> None:
    preference = SPACE.resolve(weights)
    assert SPACE.resolve(SPACE.as_dict(preference)) == preference
    assert SPACE.resolve(list(preference)) == preference


def test_negative_zero_is_zero_to_the_last_bit() -> None:
    assert [math.copysign(1, weight) for weight in SPACE.resolve([-0.0, 0, 1])] == [1, 1, 1]


@pytest.mark.parametrize("tiny", [5e-324, 1e-308])
def test_the_smallest_weights_still_count(tiny: float) -> None:
    assert SPACE.resolve([tiny, 0, tiny]) == (0.5, 0.0, 0.5)


@pytest.mark.parametrize(
    "weights",
    [
        pytest.param(None, id="null"),
        pytest.param("helpful", id="a name"),
        pytest.param(b"helpful", id="bytes"),
        pytest.param(1, id="a number"),
        pytest.param([], id="no weights"),
        pytest.param([1, 1], id="too few"),
        pytest.param([1, 1, 1, 1], id="too many"),
        pytest.param("abc", id="a string as long as the array"),
        pytest.param({"kind": 1}, id="unknown dimension"),
        pytest.param({1: 1}, id="a number as dimension"),
        pytest.param({}, id="empty object"),
        pytest.param([0, 0, 0], id="all zero"),
        pytest.param([-0.0, 0, 0.0], id="all zero, signed"),
        pytest.param([-1, 1, 1], id="negative"),
        pytest.param([-5e-324, 1, 1], id="barely negative"),
        pytest.param([math.nan, 1, 1], id="nan"),
        pytest.param([math.inf, 1, 1], id="infinity"),
        pytest.param([-math.inf, 1, 1], id="minus infinity"),
        pytest.param([math.nextafter(MAX_WEIGHT, math.inf), 1, 1], id="barely above the limit"),
        pytest.param([10**400, 1, 1], id="an integer beyond floats"),
        pytest.param([True, 1, 1], id="true"),
        pytest.param([False, 1, 1], id="false"),
        pytest.param(["1", 1, 1], id="a number in quotes"),
        pytest.param([None, 1, 1], id="null weight"),
        pytest.param([[1], 1, 1], id="nested"),
        pytest.param({"helpful": {"helpful": 1}}, id="nested object"),
    ],
)
def test_anything_else_is_refused_and_the_dimensions_listed(weights: object) -> None:
    with pytest.raises(PreferenceError, match="helpful, harmless, concise"):
        SPACE.resolve(weights)


@pytest.mark.parametrize("weights", ["abc", b"abc", None, 3, {1, 2, 3}])
def test_what_is_no_object_or_array_is_told_so(weights: object) -> None:
    with pytest.raises(PreferenceError, match="must be an object or an array"):
        SPACE.resolve(weights)


@pytest.mark.parametrize("name", ["x" * 1000, "\x1b[2J", "\u202e", "\U0001f600" * 40])
def test_an_unknown_name_is_shown_short_and_in_ascii(name: str) -> None:
    with pytest.raises(PreferenceError) as caught:
        SPACE.resolve({name: 1})
    shown = str(caught.value).removeprefix("preference names an unknown dimension ").partition(" (dimensions")[0]
    assert len(shown) <= 64
    assert shown.isascii()
    assert shown.isprintable()


def test_the_largest_weights_are_accepted() -> None:
    assert SPACE.resolve([MAX_WEIGHT, MAX_WEIGHT, 0]) == (0.5, 0.5, 0.0)


def test_default_and_presets_are_normalised() -> None:
    space = PreferenceSpace(SPACE.dimensions, (2, 1, 1), {"both": (1, 1, 0)})
    assert space.default == (0.5, 0.25, 0.25)
    assert space.presets == {"both": (0.5, 0.5, 0.0)}


def test_an_adapter_without_dimensions_has_one_empty_preference() -> None:
    space = PreferenceSpace((), ())
    assert space.default == space.resolve({}) == space.resolve([]) == ()
    with pytest.raises(PreferenceError, match="no dimensions"):
        space.resolve({"helpful": 1})


@pytest.mark.parametrize(
    ("dimensions", "default", "presets", "message"),
    [
        (("a", "a"), (1, 1), {}, "twice"),
        (("",), (1,), {}, "dimension name"),
        (("a b",), (1,), {}, "dimension name"),
        (("-a",), (1,), {}, "dimension name"),
        (("a" * 65,), (1,), {}, "dimension name"),
        (("a\n",), (1,), {}, "dimension name"),
        (("a",), (1,), {"b:c": (1,)}, "preset name"),
        (("a",), (1,), {"base": (1,)}, "base"),
        (("a",), (0,), {}, "above 0"),
        (("a",), (1, 1), {}, "instead of 1"),
        (("a", "b"), (1, 1), {"c": (1,)}, "instead of 2"),
    ],
)
def test_a_space_of_bad_names_or_weights_is_refused(
    dimensions: tuple[str, ...], default: Preference, presets: dict[str, Preference], message: str
) -> None:
    with pytest.raises(PreferenceError, match=re.escape(message)):
        PreferenceSpace(tuple(map(Dimension, dimensions)), default, presets)
