"""The search for learning rates: each method has as many trials as any other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, order=True)
class Rates:
    """Learning rates of one training."""

    learning_rate: float
    factor: float
    """Factor of the learning rate of Panacea's E. Methods without E ignore it."""

    def __str__(self) -> str:
        return f"{self.learning_rate:g}x{self.factor:g}"


def best(found: Mapping[Rates, float]) -> Rates:
    """The rates with the largest hypervolume."""
    return max(found, key=lambda rates: found[rates])


def next_trials(found: Mapping[Rates, float], has_factor: bool, left: int) -> Sequence[Rates]:
    """What to try next, at most `left` of it; nothing only when none is left.

    The next rate where the best one is the least or the largest of those tried. Else, where there is a second rate,
    half and twice the factor at the best rate, once; and after that, or without a second rate, the best rate times and
    divided by the square root of 2, the fourth root, and so on.
    """
    chosen = best(found)
    tried = [rates.learning_rate for rates in found]
    if chosen.learning_rate == max(tried):
        return [replace(chosen, learning_rate=chosen.learning_rate * 2)][:left]
    if chosen.learning_rate == min(tried):
        return [replace(chosen, learning_rate=chosen.learning_rate / 2)][:left]
    if has_factor and len({rates.factor for rates in found}) == 1:
        return [replace(chosen, factor=chosen.factor / 2), replace(chosen, factor=chosen.factor * 2)][:left]
    step = 2**0.5
    while (finer := [replace(chosen, learning_rate=chosen.learning_rate * by) for by in (step, 1 / step)]) and all(
        rates in found for rates in finer
    ):
        step = step**0.5
    return [rates for rates in finer if rates not in found][:left]
