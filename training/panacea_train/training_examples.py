"""Training examples: tokenised prompts with answers. Plain Python."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TokenIds = Sequence[int]


@dataclass(frozen=True)
class Demonstration:
    """One answer to learn (SFT). The answer's tokens include the end-of-sequence token, if that is to be learned.

    With `preference` it is learned under that preference. Without it, it is learned under the preference that the step
    draws, which suits answers that no preference should change.
    """

    prompt_ids: TokenIds
    answer_ids: TokenIds
    preference: Sequence[float] | None = None
    weight: float = 1.0


@dataclass(frozen=True)
class Candidates:
    """Several answers with their rewards (SFT). The preference that a step draws chooses the answer to learn.

    `rewards[a][d]` is answer a's reward on dimension d. It is NaN for all answers of an unlabelled dimension. See
    `TrainingConfig.selection` for how the choice is made.
    """

    prompt_ids: TokenIds
    answers_ids: Sequence[TokenIds]
    rewards: Sequence[Sequence[float]]

    def best(self, preference: Sequence[float]) -> int:
        """Index of the answer with the largest preference-weighted reward; the first of equals."""
        return int(np.argmax(np.nan_to_num(np.asarray(self.rewards)) @ np.asarray(preference)))

    @property
    def labelled(self) -> Sequence[bool]:
        """For each dimension whether the answers have rewards on it."""
        return [not math.isnan(reward) for reward in self.rewards[0]]


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to compare (DPO). `probabilities[d]`: how likely a is better on dimension d (0.5: a tie).

    NaN where the pair is unlabelled: it teaches nothing about that dimension, while a tie teaches indifference.
    """

    prompt_ids: TokenIds
    answer_a_ids: TokenIds
    answer_b_ids: TokenIds
    probabilities: Sequence[float]


Example = Demonstration | Candidates | PreferencePair


def check_example(example: Example, dimensions: int, max_tokens: int | None = None) -> None:
    """Raises `ValueError` if `example` does not fit a model with this number of dimensions and positions."""
    answers = answers_of(example)
    if not answers or not len(example.prompt_ids) or not all(len(answer) for answer in answers):
        raise ValueError("the prompt and every answer need at least one token")
    if max_tokens is not None and longest(example) > max_tokens:
        raise ValueError(f"{longest(example)} tokens are more than the model's {max_tokens} positions")
    rows: Sequence[Sequence[float]]
    match example:
        case Demonstration():
            rows = [] if example.preference is None else [example.preference]
            if not example.weight >= 0:
                raise ValueError(f"the weight is {example.weight}")
        case Candidates():
            rows = example.rewards
            if len(rows) != len(answers):
                raise ValueError(f"{len(rows)} rows of rewards for {len(answers)} answers")
        case PreferencePair():
            rows = [example.probabilities]
            if not all(0 <= p <= 1 or math.isnan(p) for p in example.probabilities):
                raise ValueError(f"probabilities {tuple(example.probabilities)} are not between 0 and 1")
            if dimensions and all(map(math.isnan, example.probabilities)):
                raise ValueError("no dimension says which answer is better")
    if not isinstance(example, Demonstration) and dimensions == 0:
        raise ValueError("a model without preference dimensions learns from demonstrations only")
    if any(len(row) != dimensions for row in rows):
        raise ValueError(f"one number is needed for each of {dimensions} dimensions")


def answers_of(example: Example) -> Sequence[TokenIds]:
    """Every answer that a step may take from `example`."""
    match example:
        case Demonstration():
            return [example.answer_ids]
        case Candidates():
            return example.answers_ids
        case PreferencePair():
            return [example.answer_a_ids, example.answer_b_ids]


def longest(example: Example) -> int:
    """Tokens in the longest sequence that a step may build from `example`."""
    return len(example.prompt_ids) + max(len(answer) for answer in answers_of(example))
