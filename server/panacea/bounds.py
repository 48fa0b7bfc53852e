"""Bounds of the numbers in a configuration: declared beside each field, and checked when the object is built.

@dataclass(frozen=True)
class EngineOptions(Bounded):
    max_batch: Annotated[int, Bounds(least=1)] = 64
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from panacea.errors import OptionError


@dataclass(frozen=True)
class Bounds:
    """The finite numbers that a field may have: `least` and `most` are allowed, `above` is not."""

    least: float | None = None
    most: float | None = None
    above: float | None = None

    def hold(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
        )

    def __str__(self) -> str:
        limits = [
            f"{word} {limit}"
            for word, limit in (("at least", self.least), ("above", self.above), ("at most", self.most))
            if limit is not None
        ]
        return " and ".join(limits) or "finite"


Count = Annotated[int, Bounds(least=1)]
"""A whole number that is at least 1."""
Natural = Annotated[int, Bounds(least=0)]
"""A whole number that is at least 0."""
Positive = Annotated[float, Bounds(above=0)]
"""A finite number above 0."""


class Bounded:
    """Base of dataclasses whose numbers have `Bounds`. A field whose value is None has no number to check.

    Raises `OptionError` for the first field whose value is outside its bounds.
    """

    def __post_init__(self) -> None:
        for name, bounds in _bounds_of(type(self)):
            value: float | None = getattr(self, name)
            if value is not None and not bounds.hold(value):
                finite = "" if math.isfinite(value) else "a finite number, "
                raise OptionError(name, f"is {value}, but must be {finite}{bounds}")


def _bounds_of(kind: type[Any]) -> tuple[tuple[str, Bounds], ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple((field.name, bounds) for field in fields(kind) for bounds in _bounds_in(hints[field.name]))


def _bounds_in(hint: Any) -> Iterator[Bounds]:
    """The bounds of an annotation, also of one in a union with None."""
    if isinstance(hint, Bounds):
        yield hint
    elif get_origin(hint) in (Annotated, Union, UnionType):
        for part in get_args(hint):
            yield from _bounds_in(part)
