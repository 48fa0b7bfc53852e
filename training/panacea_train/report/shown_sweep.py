"""The part of an evaluation that a report shows at one temperature."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from panacea.evaluation import Evaluation, EvaluationPoint, EvaluationSweep
from panacea_train.charts.number_text import decimals_for, described, number


class Measured(Protocol):
    """Anything with a name and an evaluation, such as a model or an average over seeds."""

    @property
    def name(self) -> str: ...

    @property
    def evaluation(self) -> Evaluation: ...


@dataclass(frozen=True)
class ShownSweep:
    """One model's sweep."""

    index: int
    """Of its model: colour and marker."""
    name: str
    evaluation: Evaluation
    sweep: EvaluationSweep

    def point_title(self, point: EvaluationPoint, is_named: bool) -> str:
        """The measurements at a point as text, with the model's name if `is_named`."""
        rewards = ", ".join(
            f"{name} {number(reward, decimals_for([reward, error]))} ± {number(error, decimals_for([reward, error]))}"
            for name, reward, error in zip(
                self.evaluation.dimensions, point.rewards, point.standard_errors, strict=True
            )
        )
        who = f"{self.name}, " if is_named else ""
        asked = described(point.preference, self.evaluation.dimensions)
        return f"{who}asked for {asked}. Rewards: {rewards}{'' if point.non_dominated else '. Dominated'}"


@dataclass(frozen=True)
class Quantity:
    """A value that every point has."""

    name: str
    of: Callable[[EvaluationPoint], float]
    error: Callable[[EvaluationPoint], float]
    """Standard error; 0 if none was computed."""
    dimension: int | None = None
    """The dimension of a reward; None for other quantities."""

    def decimals(self, shown: Sequence[ShownSweep]) -> int | None:
        return decimals_for(self.of(point) for each in shown for point in each.sweep.points)


def reward(dimensions: Sequence[str], index: int) -> Quantity:
    return Quantity(
        f"reward: {dimensions[index]}",
        lambda point: point.rewards[index],
        lambda point: point.standard_errors[index],
        index,
    )


def quantities(shown: Sequence[ShownSweep]) -> list[Quantity]:
    """The rewards, the length, and faithfulness if it was judged at every point."""
    dimensions = shown[0].evaluation.dimensions
    rewards = [reward(dimensions, index) for index in range(len(dimensions))]
    words = Quantity("words per answer", lambda point: point.mean_words, lambda _: 0.0)
    faithful = Quantity("share of faithful sentences", lambda point: point.faithful or 0.0, lambda _: 0.0)
    is_told = all(point.faithful is not None for each in shown for point in each.sweep.points)
    return [*rewards, words, *([faithful] if is_told else [])]
