"""The interface of all reward functions."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, SupportsFloat

from panacea.errors import ConfigError
from panacea_train.prompts import Prompt

LARGEST = 1e30
"""Squares and volumes of larger rewards would overflow."""

ScoreProgress = Callable[[int], None]
"""Called with the number of answers that were scored since the last call."""

_EXCERPT_CHARS = 60


class RewardError(ConfigError):
    """A reward function cannot be loaded, or did not give a finite number for each answer."""


class Reward(Protocol):
    """Scores answers on one dimension. More is better. Scores are finite numbers in any unit."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
        """A number for each answer; `answers[i]` was given to `prompts[i]`. Raises `RewardError`."""
        ...


def finite(value: object, reward: str, prompt: Prompt, answer: str) -> float:
    """`value`, which `reward` gave for `answer`, as a finite number. Raises `RewardError`."""
    try:
        number = float(value) if isinstance(value, SupportsFloat) else math.nan
    except (TypeError, ValueError, OverflowError, RuntimeError):  # arrays and tensors of several numbers; huge integers
        number = math.nan
    if not math.isfinite(number):
        raise RewardError(f"{reward} gave {excerpt(value)}, which is not a finite number, {about(prompt, answer)}")
    if abs(number) > LARGEST:
        raise RewardError(f"{reward} gave {excerpt(value)}, which is beyond {LARGEST:g}, {about(prompt, answer)}")
    return number


def about(prompt: Prompt, answer: str) -> str:
    """The end of an error message: which answer it is about."""
    return f'for the answer "{excerpt(answer)}" to "{excerpt(prompt.text)}"'


def excerpt(value: object, chars: int = _EXCERPT_CHARS) -> str:
    """The beginning of `value` as text, in one line that a terminal can show."""
    text = " ".join(str(value).split())
    shown = text if len(text) <= chars else f"{text[:chars]}..."
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)
