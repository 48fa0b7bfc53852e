"""Reads a report as a browser and a person do: elements by a parser, numbers off the axes' ticks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from panacea_train.charts.number_text import MINUS, TIMES

VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Element:
    """An element of the page."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    children: "list[Element | str]" = field(default_factory=list["Element | str"])

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def words(self) -> str:
        """As it is shown where white space does not count."""
        return " ".join(self.text.split())

    @property
    def classes(self) -> set[str]:
        return set(self.attributes.get("class", "").split())

    def everything(self) -> "Iterator[Element]":
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child.everything()

    def all(self, tag: str, *classes: str) -> "list[Element]":
        return [each for each in self.everything() if each.tag == tag and each.classes.issuperset(classes)]

    def one(self, tag: str, *classes: str) -> "Element":
        (found,) = self.all(tag, *classes)
        return found


class Reader(HTMLParser):
    """Builds the tree; complains about what is not closed in order."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root")
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> closes <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)

    def close(self) -> None:
        super().close()
        assert self._open == [self.root], f"{[each.tag for each in self._open[1:]]} stay open"


def read(html: str) -> Element:
    reader = Reader()
    reader.feed(html)
    reader.close()
    return reader.root


@dataclass(frozen=True)
class Scale:
    """What places on an axis mean, from its first and last tick and its name."""

    places: tuple[float, float]
    values: tuple[float, float]

    def value(self, place: float) -> float:
        share = (place - self.places[0]) / (self.places[1] - self.places[0])
        return self.values[0] + share * (self.values[1] - self.values[0])

    @property
    def unit(self) -> float:
        """How much the finest drawn difference is: a thousandth of the axis."""
        return abs(self.values[1] - self.values[0]) / 1000


def scales(chart: Element) -> tuple[Scale, Scale]:
    """Of a chart's two axes."""
    return _scale(chart, "across", "x"), _scale(chart, "up", "y")


def dots(chart: Element) -> list[tuple[float, float]]:
    """Where a chart's dots are, in the units of its axes."""
    across, up = scales(chart)
    places = [numbers(dot.attributes["transform"]) for dot in chart.all("path", "dot")]
    return [(across.value(x), up.value(y)) for x, y in places]


def numbers(path: str) -> list[float]:
    return [float(each) for each in re.findall(r"-?\d+(?:\.\d+)?", path)]


def _scale(chart: Element, which: str, attribute: str) -> Scale:
    ticks = chart.all("text", "tick", which)
    (name,) = chart.all("text", "name", which)
    power = re.search(rf"{TIMES}10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)\)", name.text)
    digits = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    factor = 10.0 ** int(power[1].translate(digits)) if power else 1.0
    first, last = ticks[0], ticks[-1]
    correction = 4 if which == "up" else 0  # words stand a little below their tick
    return Scale(
        (float(first.attributes[attribute]) - correction, float(last.attributes[attribute]) - correction),
        (plain(first.text) * factor, plain(last.text) * factor),
    )


def plain(text: str) -> float:
    return float(text.replace(MINUS, "-").replace(",", ""))
