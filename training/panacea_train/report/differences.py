"""The differences between the first model and the others, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea.evaluation import Interval
from panacea_train.charts.number_text import decimals_for, number
from panacea_train.evaluation.comparison import Difference


@dataclass(frozen=True)
class DifferenceCell:
    """A model's measure minus the first model's."""

    value: str
    interval: str
    is_clear: bool
    """The interval does not contain 0."""


@dataclass(frozen=True)
class DifferenceTable:
    """Rows are measures, columns are all models but the first. None if a difference was not computed."""

    rows: Sequence[tuple[str, Sequence[DifferenceCell | None]]]
    is_paired: bool


def difference_table(differences: Sequence[Difference], names: Sequence[str], temperature: float) -> DifferenceTable:
    """The differences of `names[1:]` from `names[0]`; without rows if there are none."""
    first, *others = names
    found: dict[tuple[str, str], tuple[float, Interval]] = {}
    is_paired = True
    for each in differences:
        low, high = each.interval
        if each.temperature != temperature or first not in (each.of, each.minus):
            continue
        is_paired = is_paired and each.paired
        if each.minus == first:
            found[each.measure, each.of] = (each.difference, (low, high))
        else:
            found[each.measure, each.minus] = (-each.difference, (-high, -low))
    measures = dict.fromkeys(measure for measure, _ in found)
    rows = [
        (measure.replace("_", " "), _cells([found.get((measure, name)) for name in others])) for measure in measures
    ]
    return DifferenceTable(rows, is_paired)


def _cells(row: Sequence[tuple[float, Interval] | None]) -> list[DifferenceCell | None]:
    decimals = decimals_for(value for cell in row if cell for value in (cell[0], *cell[1]))
    return [
        DifferenceCell(
            number(cell[0], decimals, is_signed=True),
            f"{number(cell[1][0], decimals, is_signed=True)} to {number(cell[1][1], decimals, is_signed=True)}",
            not cell[1][0] <= 0 <= cell[1][1],
        )
        if cell
        else None
        for cell in row
    ]
