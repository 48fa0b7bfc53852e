"""Charts over the triangle of three dimensions: a coloured cell for each measured preference."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from panacea_train.charts import colours
from panacea_train.charts.number_text import number, shortened

SIDE = 260.0
TOP = 52.0
WIDTH = 340.0
HEIGHT = TOP + SIDE * math.sqrt(3) / 2 + 62
LARGEST = 0.125
"""Largest inner radius of a cell, as a share of the side: that of a grid of quarters."""
SMALLEST = 0.02
CORNER_LENGTH = 18
LEGEND_STEPS = 32
TEXT_SIZES = (8.0, 12.5)

CORNERS = (
    (WIDTH / 2, TOP),
    (WIDTH / 2 - SIDE / 2, TOP + SIDE * math.sqrt(3) / 2),
    (WIDTH / 2 + SIDE / 2, TOP + SIDE * math.sqrt(3) / 2),
)
"""The places of the three vertices, in the dimensions' order, as on the server's page."""


@dataclass(frozen=True)
class TernaryCell:
    """One preference; `x` and `y` are its centre."""

    x: float
    y: float
    path: str
    colour: str
    title: str
    text: str = ""
    ink: str = ""


@dataclass(frozen=True)
class Ternary:
    """One triangle."""

    name: str
    corners: Sequence[str]
    cells: Sequence[TernaryCell]
    text_size: float


@dataclass(frozen=True)
class Legend:
    """A colour scale: `steps` from `low` to `high`."""

    low: str
    high: str
    steps: Sequence[str]


@dataclass(frozen=True)
class TernaryValue:
    """What is drawn at one preference of three weights."""

    preference: Sequence[float]
    colour: str
    title: str
    text: str = ""


def place(preference: Sequence[float]) -> tuple[float, float]:
    """The place of a preference in the picture."""
    total = sum(preference) or 1.0
    return (
        sum(weight * corner[0] for weight, corner in zip(preference, CORNERS, strict=True)) / total,
        sum(weight * corner[1] for weight, corner in zip(preference, CORNERS, strict=True)) / total,
    )


def scale(values: Sequence[float], decimals: int | None) -> tuple[Callable[[float], str], Legend]:
    """The colour of each value between the least and the largest of `values`, and the legend for it."""
    low, high = min(values), max(values)
    span = high - low

    def colour(value: float) -> str:
        return colours.of_value((value - low) / span if span else 0.5)

    steps = [colours.of_value((i + 0.5) / LEGEND_STEPS) for i in range(LEGEND_STEPS)] if span else [colour(low)]
    return colour, Legend(number(low, decimals), number(high, decimals) if span else "", steps)


def ternary_chart(name: str, dimensions: Sequence[str], values: Sequence[TernaryValue]) -> Ternary:
    """A cell for each of `values`, as large as fits without overlap, with its text if that can be read."""
    places = [place(value.preference) for value in values]
    radius = _inner_radius(places)
    longest = max(len(value.text) for value in values)
    size = min(TEXT_SIZES[1], 1.75 * radius / (0.6 * longest)) if longest else 0.0
    is_readable = size >= TEXT_SIZES[0]
    cells = [
        TernaryCell(
            x,
            y,
            _hexagon(x, y, radius),
            value.colour,
            value.title,
            value.text * is_readable,
            colours.ink_on(value.colour),
        )
        for value, (x, y) in zip(values, places, strict=True)
    ]
    return Ternary(name, [shortened(dimension, CORNER_LENGTH) for dimension in dimensions], cells, round(size, 1))


def _inner_radius(places: Sequence[tuple[float, float]]) -> float:
    """The largest radius at which no two cells overlap."""
    nearest = min((math.dist(*pair) for pair in combinations(set(places), 2)), default=SIDE)
    return min(max(nearest / 2, SMALLEST * SIDE), LARGEST * SIDE)


def _hexagon(x: float, y: float, inner_radius: float) -> str:
    """The path of a hexagon that shares its edges with six neighbours on a triangular grid."""
    radius = inner_radius * 2 / math.sqrt(3)
    angles = [math.radians(30 + 60 * index) for index in range(6)]
    return "M" + "L".join(f"{x + radius * math.cos(a):.2f} {y + radius * math.sin(a):.2f}" for a in angles) + "Z"
