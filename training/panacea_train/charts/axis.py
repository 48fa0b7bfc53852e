"""A linear scale with round numbers on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from panacea_train.charts.number_text import MINUS, times_power

TICKS = 5
ROOM = 0.02
"""Free space at both ends, as a share of the values' span."""
TINY = 1e-300
"""Smaller numbers lose digits."""
ROUND = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Tick:
    """A round number on an axis."""

    value: float
    position: float
    """Where it is drawn."""
    label: str


@dataclass(frozen=True)
class Axis:
    """Where values are drawn: `least` at `start` and `most` at `end`, both in the picture's units."""

    least: float
    most: float
    step: float
    start: float
    end: float

    def at(self, value: float) -> float:
        return self.start + (value - self.least) / (self.most - self.least) * (self.end - self.start)

    def clipped(self, value: float) -> float:
        """As `at`, but limited to the ends of the axis."""
        return self.at(min(max(value, self.least), self.most))

    @property
    def exponent(self) -> int:
        """The power of ten of the ticks' labels: 0 unless the labels would be long."""
        largest = max(abs(self.least), abs(self.most))
        return 0 if 1e-2 <= largest < 1e5 else math.floor(math.log10(largest))

    @property
    def unit(self) -> str:
        """The power of ten as text, to be added to the axis' name; empty if it is 0."""
        return f" ({times_power(self.exponent)})" if self.exponent else ""

    @property
    def ticks(self) -> tuple[Tick, ...]:
        step = self.step / 10.0**self.exponent
        power = math.floor(math.log10(step) + 1e-9)
        decimals = max(0, -power + (round(step / 10.0**power, 6) == 2.5))
        return tuple(
            Tick(value, self.at(value), _label(value / 10.0**self.exponent, decimals))
            for value in (
                self.least + index * self.step for index in range(round((self.most - self.least) / self.step) + 1)
            )
        )


def axis(values: Sequence[float], start: float, end: float, ticks: int = TICKS) -> Axis:
    """An axis that covers all of `values`, of which there is at least one, with about `ticks` ticks.

    It ends at 0 or 1 if no value is beyond, because many rewards and shares cannot be.
    """
    low, high = min(values), max(values)
    span = high - low
    if span <= max(1e-9 * max(abs(low), abs(high)), TINY):
        span = abs(high) if abs(high) > TINY else 1.0
    rough = span / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(each for each in ROUND if each * power >= rough * (1 - 1e-9))
    first, last = math.floor((low - span * ROOM) / step), math.ceil((high + span * ROOM) / step)
    if low >= 0:
        first = max(first, 0)
    elif high <= 0:
        last = min(last, 0)
    ones = round(1 / step)
    if high <= 1 < last * step and math.isclose(ones * step, 1):
        last = ones
    return Axis(first * step, last * step, step, start, end)


def _label(value: float, decimals: int) -> str:
    shown = f"{value:.{decimals}f}"
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return (shown.lstrip("-") if float(shown) == 0 else shown).replace("-", MINUS)
