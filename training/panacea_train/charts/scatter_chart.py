"""Dots over two axes. Only measured points are drawn: no curves between them and no extrapolation."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from panacea_train.charts.axis import Axis, axis
from panacea_train.charts.number_text import shortened

WIDTH = 440
HEIGHT = 330
TOP = 14
RIGHT = 18
BOTTOM = 46
LABEL_LENGTH = 16
NAME_LENGTH = 30
CHARACTER = 8.4
"""Approximate width of a character on a phone, where letters are larger, in the picture's units."""

MARKERS = (
    "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0Z",
    "M-5 -5H5V5H-5Z",
    "M0 -6.2L6 4.8H-6Z",
    "M0 -6.6L6.6 0L0 6.6L-6.6 0Z",
    "M0 6.2L6 -4.8H-6Z",
    "M-6.4 -2.1H-2.1V-6.4H2.1V-2.1H6.4V2.1H2.1V6.4H-2.1V2.1H-6.4Z",
)
"""Disc, square, triangle, diamond, inverted triangle and cross, centred at (0, 0), of equal visual weight."""

Place = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Dot:
    """One measured point, in the units of the data."""

    x: float
    y: float
    colour: str
    marker: int = 0
    """Index into `MARKERS`."""
    is_best: bool = True
    """No other point of the model dominates it."""
    x_error: float = 0.0
    y_error: float = 0.0
    """Standard errors."""
    title: str = ""
    label: str = ""


@dataclass(frozen=True)
class Steps:
    """The edge of what some dots dominate."""

    path: str
    colour: str


@dataclass(frozen=True)
class Label:
    """The text beside a dot."""

    x: float
    y: float
    anchor: str
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart of `dots`; the template calls its methods."""

    name: str
    x: Axis
    y: Axis
    x_name: str
    y_name: str
    dots: Sequence[Dot]
    steps: Sequence[Steps] = ()
    region: str = ""
    width: int = WIDTH
    height: int = HEIGHT
    labels: Sequence[Label] = field(default=())

    def at(self, dot: Dot) -> Place:
        return self.x.at(dot.x), self.y.at(dot.y)

    def bars(self, dot: Dot) -> str:
        """One standard error to each side."""
        across = f"M{self.x.at(dot.x - dot.x_error):.2f} {self.y.at(dot.y):.2f}H{self.x.at(dot.x + dot.x_error):.2f}"
        up = f"M{self.x.at(dot.x):.2f} {self.y.at(dot.y - dot.y_error):.2f}V{self.y.at(dot.y + dot.y_error):.2f}"
        return (across if dot.x_error else "") + (up if dot.y_error else "")


def scatter_chart(
    name: str,
    x_name: str,
    y_name: str,
    dots: Sequence[Dot],
    fronts: Sequence[Sequence[Dot]] = (),
    reference: tuple[float, float] | None = None,
) -> Chart:
    """A chart of `dots`, with the edge of what each of `fronts` dominates.

    With `reference`, that edge begins there, as the hypervolume does, and the region of a single front is shaded. The
    axes include the reference point unless that would crowd the dots into a corner.
    """
    y_values = _reach([each for dot in dots for each in (dot.y - dot.y_error, dot.y + dot.y_error)], reference, 1)
    x_values = _reach([each for dot in dots for each in (dot.x - dot.x_error, dot.x + dot.x_error)], reference, 0)
    up = axis(y_values, HEIGHT - BOTTOM, TOP)
    left = 34 + CHARACTER * max(len(tick.label) for tick in up.ticks)
    across = axis(x_values, left, WIDTH - RIGHT)
    paths = [(_steps(front, across, up, reference), front[0].colour) for front in fronts if front]
    return Chart(
        name,
        across,
        up,
        shortened(x_name, NAME_LENGTH) + across.unit,
        shortened(y_name, NAME_LENGTH) + up.unit,
        dots,
        [Steps(f"M{_joined(corners)}", colour) for corners, colour in paths if corners],
        _region(paths[0][0], across, up, reference) if reference and len(paths) == 1 and paths[0][0] else "",
        labels=_labels(dots, across, up),
    )


def _reach(values: list[float], reference: tuple[float, float] | None, which: int) -> list[float]:
    """`values`, plus the reference point if its distance from them is at most their own span."""
    if reference is None or not 0 <= min(values) - reference[which] <= max(values) - min(values):
        return values
    return [*values, reference[which]]


def _steps(front: Sequence[Dot], x: Axis, y: Axis, reference: tuple[float, float] | None) -> list[Place]:
    """The corners of the edge of what `front` dominates in these two dimensions, from the left to the right."""
    start = reference or (x.least, y.least)
    best: list[tuple[float, float]] = []
    for place in sorted({(dot.x, dot.y) for dot in front}, reverse=True):
        is_above = reference is None or (place[0] > reference[0] and place[1] > reference[1])
        if is_above and (not best or place[1] > best[-1][1]):
            best.append(place)
    if not best:
        return []
    best.reverse()
    corners = [(start[0], best[0][1])]
    for place, following in zip(best, [*best[1:], None], strict=True):
        corners += [place, (place[0], following[1] if following else start[1])]
    return [(x.clipped(across), y.clipped(up)) for across, up in corners]


def _region(corners: Sequence[Place], x: Axis, y: Axis, reference: tuple[float, float]) -> str:
    return f"M{_joined([*corners, (x.clipped(reference[0]), y.clipped(reference[1]))])}Z"


def _joined(corners: Sequence[Place]) -> str:
    return "L".join(f"{x:.2f} {y:.2f}" for x, y in corners)


def _labels(dots: Sequence[Dot], x: Axis, y: Axis) -> list[Label]:
    """A place for each dot's label that covers the fewest dots and labels."""
    taken = [(x.at(dot.x) - 6, y.at(dot.y) - 6, x.at(dot.x) + 6, y.at(dot.y) + 6) for dot in dots]
    labels: list[Label] = []
    for dot in dots:
        if dot.label:
            places = _label_places(shortened(dot.label, LABEL_LENGTH), x.at(dot.x), y.at(dot.y))
            costs = [_cost(box, taken, x, y) for _, box in places]
            label, box = places[costs.index(min(costs))]
            labels.append(label)
            taken += [box] * 3  # text over text is worse than text over a dot
    return labels


def _label_places(text: str, x: float, y: float) -> list[tuple[Label, Box]]:
    """Candidate places above, beside, below and diagonal to the dot, each with the box of its text."""
    width = CHARACTER * len(text)
    labels = [
        (Label(x, y - 10, "middle", text), x - width / 2),
        (Label(x + 10, y + 4, "start", text), x + 10),
        (Label(x - 10, y + 4, "end", text), x - 10 - width),
        (Label(x, y + 19, "middle", text), x - width / 2),
        (Label(x + 8, y - 9, "start", text), x + 8),
        (Label(x - 8, y - 9, "end", text), x - 8 - width),
    ]
    return [(label, (left, label.y - 11, left + width, label.y + 3)) for label, left in labels]


def _cost(box: Box, taken: Sequence[Box], x: Axis, y: Axis) -> float:
    """The covered area. Leaving the chart costs more."""
    outside = (x.start - box[0], box[2] - WIDTH, -box[1], box[3] - y.start)
    return sum(_overlap(box, other) for other in taken) + 100 * sum(max(0.0, each) for each in outside)


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)
