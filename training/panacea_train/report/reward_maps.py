"""Maps of every quantity over the triangle of three dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea_train.charts import colours
from panacea_train.charts.number_text import number
from panacea_train.charts.ternary_chart import Legend, Ternary, TernaryValue, scale, ternary_chart
from panacea_train.report.shown_sweep import Quantity, ShownSweep, quantities


@dataclass(frozen=True)
class RewardMap:
    """One quantity of every model, in the same colours."""

    name: str
    legend: Legend
    triangles: Sequence[Ternary]


def maps(shown: Sequence[ShownSweep]) -> list[RewardMap]:
    """A map of each quantity."""
    return [_map(shown, quantity) for quantity in quantities(shown)]


def key(shown: ShownSweep) -> Ternary:
    """The colour of each preference."""
    values = [
        TernaryValue(point.preference, colours.of_preference(point.preference), shown.point_title(point, False))
        for point in shown.sweep.points
    ]
    return ternary_chart("the colour of each preference", shown.evaluation.dimensions, values)


def _map(shown: Sequence[ShownSweep], quantity: Quantity) -> RewardMap:
    decimals = quantity.decimals(shown)
    colour, legend = scale([quantity.of(point) for each in shown for point in each.sweep.points], decimals)
    triangles = [
        ternary_chart(
            each.name if len(shown) > 1 else quantity.name,
            each.evaluation.dimensions,
            [
                TernaryValue(
                    point.preference,
                    colour(quantity.of(point)),
                    each.point_title(point, False),
                    number(quantity.of(point), decimals),
                )
                for point in each.sweep.points
            ],
        )
        for each in shown
    ]
    return RewardMap(quantity.name, legend, triangles)
