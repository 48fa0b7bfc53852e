"""What every reward function is."""

from collections.abc import Callable, Sequence
from typing import Protocol

from panacea.errors import ConfigError
from panacea_train.evaluation.prompts import Prompt

Report = Callable[[int], None]
"""Hears how many more answers were scored."""


class RewardError(ConfigError):
    """A reward function that cannot be had, or that did not give a finite number for each answer."""


class Reward(Protocol):
    """Scores answers on one dimension. More is better; any finite numbers, in units of its own."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: Report) -> list[float]:
        """A number for each answer; `answers[i]` was given to `prompts[i]`. Raises `RewardError`."""
        ...
