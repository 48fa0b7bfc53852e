"""Maps over the triangle of three dimensions: a coloured cell where a preference was measured, nothing elsewhere."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from panacea.evaluation import EvaluationPoint
from panacea_train.report import colours
from panacea_train.report.shown import Quantity, Shown, quantities
from panacea_train.report.text import number, shortened

SIDE = 260.0
TOP = 52.0
WIDTH = 340.0
HEIGHT = TOP + SIDE * math.sqrt(3) / 2 + 62
LARGEST = 0.125
"""A cell's inner radius, at most, as a share of the side: that of a grid of quarters."""
SMALLEST = 0.02
CORNER_LENGTH = 18
LEGEND_STEPS = 32
TEXT_SIZES = (8.0, 12.5)

CORNERS = (
    (WIDTH / 2, TOP),
    (WIDTH / 2 - SIDE / 2, TOP + SIDE * math.sqrt(3) / 2),
    (WIDTH / 2 + SIDE / 2, TOP + SIDE * math.sqrt(3) / 2),
)
"""Where all weight is on the first, second and third dimension; as on the server's page."""


@dataclass(frozen=True)
class Cell:
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
    cells: Sequence[Cell]
    text_size: float


@dataclass(frozen=True)
class Legend:
    """What colours mean: `steps` from `low` to `high`."""

    low: str
    high: str
    steps: Sequence[str]


@dataclass(frozen=True)
class Map:
    """One quantity of every model, in the same colours."""

    name: str
    legend: Legend
    triangles: Sequence[Ternary]


def maps(shown: Sequence[Shown]) -> list[Map]:
    return [_map(shown, quantity) for quantity in quantities(shown)]


def key(shown: Sequence[Shown]) -> Ternary:
    """Which colour a preference has."""
    first = shown[0]
    return _triangle(
        first, "the colour of each preference", lambda point: (colours.of_preference(point.preference), "")
    )


def place(preference: Sequence[float]) -> tuple[float, float]:
    """Where a preference is in the picture."""
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


def _map(shown: Sequence[Shown], quantity: Quantity) -> Map:
    decimals = quantity.decimals(shown)
    colour, legend = scale([quantity.of(point) for each in shown for point in each.sweep.points], decimals)
    triangles = [
        _triangle(
            each,
            each.name if len(shown) > 1 else quantity.name,
            lambda point: (colour(quantity.of(point)), number(quantity.of(point), decimals)),
        )
        for each in shown
    ]
    return Map(quantity.name, legend, triangles)


def _triangle(shown: Shown, name: str, look: Callable[[EvaluationPoint], tuple[str, str]]) -> Ternary:
    """`look` tells a point's colour and text."""
    places = [place(point.preference) for point in shown.sweep.points]
    radius = _inner_radius(places)
    looks = [look(point) for point in shown.sweep.points]
    longest = max(len(text) for _, text in looks)
    size = min(TEXT_SIZES[1], 1.75 * radius / (0.6 * longest)) if longest else 0.0
    is_readable = size >= TEXT_SIZES[0]
    cells = [
        Cell(
            x,
            y,
            _hexagon(x, y, radius),
            colour,
            shown.point_title(point, False),
            text * is_readable,
            colours.ink_on(colour),
        )
        for point, (x, y), (colour, text) in zip(shown.sweep.points, places, looks, strict=True)
    ]
    corners = [shortened(dimension, CORNER_LENGTH) for dimension in shown.evaluation.dimensions]
    return Ternary(name, corners, cells, round(size, 1))


def _inner_radius(places: Sequence[tuple[float, float]]) -> float:
    """The largest at which no two cells overlap."""
    nearest = min((math.dist(*pair) for pair in combinations(set(places), 2)), default=SIDE)
    return min(max(nearest / 2, SMALLEST * SIDE), LARGEST * SIDE)


def _hexagon(x: float, y: float, inner_radius: float) -> str:
    """Flat to its six neighbours on a triangular grid."""
    radius = inner_radius * 2 / math.sqrt(3)
    angles = [math.radians(30 + 60 * index) for index in range(6)]
    return "M" + "L".join(f"{x + radius * math.cos(a):.2f} {y + radius * math.sin(a):.2f}" for a in angles) + "Z"
