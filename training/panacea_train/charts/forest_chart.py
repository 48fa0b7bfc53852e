"""One measure of several models: a dot with an interval for each model, one below the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea_train.charts import colours
from panacea_train.charts.axis import Axis, axis
from panacea_train.charts.number_text import shortened
from panacea_train.charts.scatter_chart import MARKERS

WIDTH = 370
CHARACTER = 7.4
LINE = 30
TOP = 8
BOTTOM = 28
RIGHT = 22
NAME_LENGTH = 20


@dataclass(frozen=True)
class ModelValue:
    """The value of a measure for one model, and its 95 % interval."""

    model: str
    index: int
    """Number of the model: its colour and marker."""
    value: float
    interval: tuple[float, float]
    value_text: str
    interval_text: str


@dataclass(frozen=True)
class ForestLine:
    """One drawn line: a whisker from `low` to `high` with a marker at `x`."""

    y: float
    low: float
    x: float
    high: float
    name: str
    colour: str
    marker: str
    title: str


@dataclass(frozen=True)
class Forest:
    """The chart of one measure."""

    axis: Axis
    lines: Sequence[ForestLine]
    height: int
    width: int = WIDTH


def forest(values: Sequence[ModelValue]) -> Forest:
    """A chart with a line for each of `values`, on one axis."""
    names = [shortened(each.model, NAME_LENGTH) for each in values]
    across = axis(
        [number for each in values for number in (each.value, *each.interval)],
        16 + CHARACTER * max(map(len, names)),
        WIDTH - RIGHT,
        ticks=4,
    )
    lines = [
        _line(each, name, TOP + LINE * (row + 0.5), across)
        for row, (each, name) in enumerate(zip(values, names, strict=True))
    ]
    return Forest(across, lines, TOP + LINE * len(lines) + BOTTOM)


def _line(each: ModelValue, name: str, y: float, across: Axis) -> ForestLine:
    low, high = each.interval
    return ForestLine(
        y,
        across.at(low),
        across.at(each.value),
        across.at(high),
        name,
        colours.of_model(each.index),
        MARKERS[each.index % len(MARKERS)],
        f"{each.model}: {each.value_text}, 95% interval {each.interval_text}",
    )
