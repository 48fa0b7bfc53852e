"""The fronts, two rewards at a time. With two dimensions, also all quantities over the weight."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from panacea_train.charts import colours
from panacea_train.charts.number_text import vertex
from panacea_train.charts.scatter_chart import Chart, Dot, scatter_chart
from panacea_train.report.shown_sweep import Quantity, ShownSweep, quantities, reward

MOST_PAIRS = 6
"""Most charts on a page: all pairs of four dimensions."""
MOST_LABELLED = 2
"""Number of models with labels at their vertices. More labels would hide the dots."""


@dataclass(frozen=True)
class Fronts:
    """The charts, and a sentence on the ones that are left out."""

    charts: Sequence[Chart]
    choice: str
    colours_mean: str
    """The meaning of a dot's colour: model, preference, or share."""


def fronts(shown: Sequence[ShownSweep]) -> Fronts:
    """A chart of the rewards for every pair of dimensions, or for the pairs that conflict most."""
    dimensions = shown[0].evaluation.dimensions
    pairs = list(combinations(range(len(dimensions)), 2))
    chosen = sorted(sorted(pairs, key=lambda pair: _agreement(shown[0], pair))[:MOST_PAIRS])
    meaning = "model" if len(shown) > 1 else "preference" if len(dimensions) in colours.HUES else "share"
    choice = (
        f"{len(dimensions)} dimensions make {len(pairs)} pairs. Drawn are the {MOST_PAIRS} that conflict most: their "
        f"rewards{' of ' + shown[0].name if len(shown) > 1 else ''} have the lowest correlation over the points."
    )
    return Fronts(
        [_front(shown, *pair, meaning) for pair in chosen], choice if len(pairs) > MOST_PAIRS else "", meaning
    )


def over_weight(shown: Sequence[ShownSweep]) -> list[Chart]:
    """For two dimensions: each reward over its own weight, and other quantities over the first dimension's weight."""
    return [_over_weight(shown, quantity) for quantity in quantities(shown)]


def _agreement(shown: ShownSweep, pair: tuple[int, int]) -> float:
    """Correlation of two rewards over the points; 1 if either is constant, because then they cannot conflict."""
    one, other = (np.asarray([point.rewards[each] for point in shown.sweep.points]) for each in pair)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 1.0
    return float(np.corrcoef(one, other)[0, 1])


def _front(shown: Sequence[ShownSweep], first: int, second: int, meaning: str) -> Chart:
    dimensions = shown[0].evaluation.dimensions
    pair = (first, second)
    series = [_dots(each, reward(dimensions, first), reward(dimensions, second), pair, meaning) for each in shown]
    corner = shown[0].evaluation.reference_point
    return scatter_chart(
        f"{dimensions[second]} over {dimensions[first]}",
        f"reward: {dimensions[first]}",
        f"reward: {dimensions[second]}",
        [dot for dots in series for dot in dots],
        series,
        (corner[0], corner[1]) if len(dimensions) == 2 else None,
    )


def _over_weight(shown: Sequence[ShownSweep], quantity: Quantity) -> Chart:
    dimension = quantity.dimension or 0
    dimensions = shown[0].evaluation.dimensions
    weight = Quantity(f"weight: {dimensions[dimension]}", lambda point: point.preference[dimension], lambda _: 0.0)
    meaning = "model" if len(shown) > 1 else "preference"
    dots = [dot for each in shown for dot in _dots(each, weight, quantity, None, meaning)]
    return scatter_chart(f"{quantity.name} over {weight.name}", weight.name, quantity.name, dots)


def _dots(shown: ShownSweep, across: Quantity, up: Quantity, pair: tuple[int, int] | None, meaning: str) -> list[Dot]:
    """The dots of one model. They have labels only with `pair`."""
    dots: list[Dot] = []
    for point in shown.sweep.points:
        corner = vertex(point.preference)
        is_labelled = pair is not None and corner is not None and shown.index < MOST_LABELLED
        colour = colours.of_model(shown.index)
        if meaning == "preference":
            colour = colours.of_preference(point.preference)
        elif meaning == "share" and pair is not None:
            colour = colours.of_value(sum(point.preference[each] for each in pair))
        dots.append(
            Dot(
                across.of(point),
                up.of(point),
                colour,
                shown.index if meaning == "model" else 0,
                point.non_dominated,
                across.error(point),
                up.error(point),
                shown.point_title(point, is_named=meaning == "model"),
                shown.evaluation.dimensions[corner] if is_labelled and corner is not None else "",
            )
        )
    return dots
