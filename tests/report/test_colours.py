import matplotlib
import pytest
from matplotlib.colors import to_rgb

from panacea_train.charts import colours
from panacea_train.pareto import simplex_grid

BACKGROUNDS = ("#ffffff", "#1c1c1a")
"""Of cards, as in the style."""


def test_the_scale_of_values_is_matplotlibs_viridis() -> None:
    viridis = matplotlib.colormaps["viridis"]
    for index in range(256):
        ours, theirs = to_rgb(colours.of_value(index / 255)), viridis(index)[:3]
        assert max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) < 6 / 255


def test_beyond_the_scale_is_its_end() -> None:
    assert colours.of_value(-1) == colours.of_value(0) == "#440154"
    assert colours.of_value(2) == colours.of_value(1) == "#fde725"


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_dots_are_seen_on_light_and_dark(background: str) -> None:
    for dimensions in colours.HUES:
        for preference in simplex_grid(dimensions, 10):
            assert colours.contrast(colours.of_preference(preference), background) >= 3
    for colour in colours.MODELS:
        assert colours.contrast(colour, background) >= 3


def test_every_preference_has_its_own_colour() -> None:
    grid = simplex_grid(3, 6)
    assert len({colours.of_preference(each) for each in grid}) == len(grid)


def test_even_preferences_are_grey() -> None:
    channels = to_rgb(colours.of_preference((1 / 3, 1 / 3, 1 / 3)))
    assert max(channels) - min(channels) < 0.12


def test_words_are_read_on_every_colour() -> None:
    for index in range(101):
        colour = colours.of_value(index / 100)
        assert colours.contrast(colour, colours.ink_on(colour)) >= 4.5


def test_contrast_is_wcags() -> None:
    assert colours.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colours.contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
