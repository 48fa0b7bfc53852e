"""Tables with coloured cells, for more than three dimensions: a row per preference."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea_train.charts import colours
from panacea_train.charts.number_text import described, number
from panacea_train.charts.ternary_chart import Legend, scale
from panacea_train.report.shown_sweep import ShownSweep, quantities


@dataclass(frozen=True)
class HeatCell:
    """One value."""

    text: str
    colour: str
    ink: str


@dataclass(frozen=True)
class HeatTable:
    """One model's values. Every column has its own scale, the same for all models."""

    index: int
    """Of its model."""
    name: str
    columns: Sequence[tuple[str, Legend]]
    rows: Sequence[tuple[str, Sequence[HeatCell]]]


def heat_tables(shown: Sequence[ShownSweep]) -> list[HeatTable]:
    columns = quantities(shown)
    decimals = [quantity.decimals(shown) for quantity in columns]
    scales = [
        scale([quantity.of(point) for each in shown for point in each.sweep.points], digits)
        for quantity, digits in zip(columns, decimals, strict=True)
    ]
    return [
        HeatTable(
            each.index,
            each.name,
            [(quantity.name, legend) for quantity, (_, legend) in zip(columns, scales, strict=True)],
            [
                (
                    described(point.preference, each.evaluation.dimensions),
                    [
                        HeatCell(number(value, digits), colour(value), colours.ink_on(colour(value)))
                        for value, digits, (colour, _) in zip(
                            (quantity.of(point) for quantity in columns), decimals, scales, strict=True
                        )
                    ],
                )
                for point in each.sweep.points
            ],
        )
        for each in shown
    ]
