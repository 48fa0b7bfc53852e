"""One measure of several models: a dot and its interval for each, one below the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from panacea_train.report import colours
from panacea_train.report.axis import Axis, axis
from panacea_train.report.chart import MARKERS
from panacea_train.report.measures import Reading, Row
from panacea_train.report.text import shortened

WIDTH = 370
CHARACTER = 7.4
LINE = 30
TOP = 8
BOTTOM = 28
RIGHT = 22
NAME_LENGTH = 20


@dataclass(frozen=True)
class Line:
    """One model: `low` to `high` with a marker at `x`."""

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
    """The picture of a measure."""

    axis: Axis
    lines: Sequence[Line]
    height: int
    width: int = WIDTH


def forest(row: Row) -> Forest:
    names = [shortened(reading.shown.name, NAME_LENGTH) for reading in row.readings]
    across = axis(
        [value for reading in row.readings for value in (reading.value, *reading.interval)],
        16 + CHARACTER * max(map(len, names)),
        WIDTH - RIGHT,
        ticks=4,
    )
    lines = [
        _line(reading, name, TOP + LINE * (index + 0.5), across)
        for index, (reading, name) in enumerate(zip(row.readings, names, strict=True))
    ]
    return Forest(across, lines, TOP + LINE * len(lines) + BOTTOM)


def _line(reading: Reading, name: str, y: float, across: Axis) -> Line:
    index = reading.shown.index
    low, high = reading.interval
    return Line(
        y,
        across.at(low),
        across.at(reading.value),
        across.at(high),
        name,
        colours.MODELS[index % len(colours.MODELS)],
        MARKERS[index % len(MARKERS)],
        f"{reading.shown.name}: {reading.value_text}, 95% interval {reading.interval_text}",
    )
