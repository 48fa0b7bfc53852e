"""What every reward function is."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol, SupportsFloat

from panacea.errors import ConfigError
from panacea_train.prompts import Prompt

LARGEST = 1e30
"""Beyond this, squares and volumes of rewards would overflow."""

ScoreProgress = Callable[[int], None]
"""Hears how many more answers were scored."""

_EXCERPT_CHARS = 60


class RewardError(ConfigError):
    """A reward function that cannot be had, or that did not give a finite number for each answer."""


class Reward(Protocol):
    """Scores answers on one dimension. More is better; any finite numbers, in units of its own."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
        """A number for each answer; `answers[i]` was given to `prompts[i]`. Raises `RewardError`."""
        ...


def finite(value: object, reward: str, prompt: Prompt, answer: str) -> float:
    """`value`, which `reward` gave for `answer`, as the finite number that it must be. Raises `RewardError`."""
    try:
        number = float(value) if isinstance(value, SupportsFloat) else math.nan
    except (TypeError, ValueError, OverflowError, RuntimeError):  # arrays and tensors of several numbers; huge integers
        number = math.nan
    if not math.isfinite(number):
        raise RewardError(f"{reward} gave {excerpt(value)}, which is no finite number, {about(prompt, answer)}")
    if abs(number) > LARGEST:
        raise RewardError(f"{reward} gave {excerpt(value)}, which is beyond {LARGEST:g}, {about(prompt, answer)}")
    return number


def about(prompt: Prompt, answer: str) -> str:
    """Which answer an error is about, in a few words."""
    return f'for the answer "{excerpt(answer)}" to "{excerpt(prompt.text)}"'


def excerpt(value: object, chars: int = _EXCERPT_CHARS) -> str:
    """The beginning of `value` as text, in one line that a terminal can show."""
    text = " ".join(str(value).split())
    shown = text if len(text) <= chars else f"{text[:chars]}..."
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in shown)
