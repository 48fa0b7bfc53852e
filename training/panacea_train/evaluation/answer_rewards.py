"""The rewards of a sweep's answers."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from tqdm import tqdm

from panacea_train.evaluation.sweep_summary import Answered
from panacea_train.prompts import Prompt
from panacea_train.rewards.reward import Reward, RewardError, finite


class Scorer(Protocol):
    """Judges answers on all dimensions of an adapter."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Answered]:
        """`answers[i]` answers `prompts[i]`. Raises `RewardError`."""
        ...


class RewardScorer:
    """A reward function for each dimension. A function that several dimensions share scores once."""

    def __init__(self, rewards: Mapping[str, Reward]) -> None:
        """`rewards` by dimension, in the adapter's order."""
        self._rewards = dict(rewards)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Answered]:
        """Shows a progress bar for each reward. Rewards do not judge whether answers are faithful."""
        rewards = list(self._rewards.values())
        columns: list[list[float]] = []
        for index, name in enumerate(self._rewards):
            first = next(place for place, reward in enumerate(rewards) if reward is rewards[index])
            columns.append(columns[first] if first < index else _scores(rewards[index], name, prompts, answers))
        return [
            Answered(text, scores, words=len(text.split()))
            for text, scores in zip(answers, zip(*columns, strict=True), strict=True)
        ]


def _scores(reward: Reward, name: str, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
    """Checks that a reward function returns a finite number for each answer."""
    with tqdm(total=len(answers), desc=f"Scoring {name}", unit="answer", leave=False) as bar:

        def report(more: int) -> None:
            bar.update(more)

        scores = reward.score(prompts, answers, report)
    if len(scores) != len(answers):
        raise RewardError(f"the reward of {name} gave {len(scores)} scores for {len(answers)} answers")
    return [
        finite(score, f"the reward of {name}", prompt, answer)
        for score, prompt, answer in zip(scores, prompts, answers, strict=True)
    ]
