"""The search for learning rates: each method has as many trials as any other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, order=True)
class Rates:
    """Learning rates of one training."""

    learning_rate: float
    factor: float
    """Panacea's E learns so many times as fast. Nothing to the methods that have no E."""

    def __str__(self) -> str:
        return f"{self.learning_rate:g}x{self.factor:g}"


def best(found: Mapping[Rates, float]) -> Rates:
    """The rates with the largest hypervolume."""
    return max(found, key=lambda rates: found[rates])


def next_trials(found: Mapping[Rates, float], has_factor: bool, left: int) -> Sequence[Rates]:
    """What to try next, at most `left` of it.

    The next rate where the best one is the least or the largest of those tried; else, where there is a second rate,
    half and twice the factor at the best rate, once.
    """
    chosen = best(found)
    tried = [rates.learning_rate for rates in found]
    if chosen.learning_rate == max(tried):
        following = [replace(chosen, learning_rate=chosen.learning_rate * 2)]
    elif chosen.learning_rate == min(tried):
        following = [replace(chosen, learning_rate=chosen.learning_rate / 2)]
    elif has_factor and len({rates.factor for rates in found}) == 1:
        following = [replace(chosen, factor=chosen.factor / 2), replace(chosen, factor=chosen.factor * 2)]
    else:
        following = []
    return following[:left]
