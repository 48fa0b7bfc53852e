"""Reward functions as they are named on a command line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from panacea_train.evaluation.prompts import Prompt
from panacea_train.rewards.builtin import read_builtin
from panacea_train.rewards.command import read_command
from panacea_train.rewards.reward import Report, Reward, RewardError
from panacea_train.rewards.rule import read_rule


@dataclass(frozen=True)
class Kind:
    """One way to say where scores come from."""

    read: Callable[[str, str], Reward]
    """From the whole spec, for errors, and what stands behind the kind's name."""
    example: str


KINDS: Mapping[str, Kind] = {
    "python": Kind(read_rule, "python:my_rules.py:politeness"),
    "command": Kind(read_command, "command:python judge.py --strict"),
    "rule": Kind(read_builtin, "rule:concise:40"),
}


def read_reward(spec: str) -> Reward:
    """The reward function that `spec` names, ready to score: what can be wrong with it is found out here.

    `spec` is KIND:..., see `KINDS`; with a - in front, less is better: every score changes its sign.
    Raises `RewardError`.
    """
    if spec.startswith("-"):
        return _Negated(read_reward(spec[1:]))
    name, _, rest = spec.partition(":")
    if name not in KINDS:
        examples = ", ".join(kind.example for kind in KINDS.values())
        raise RewardError(f"{spec or 'an empty text'} is no reward function; examples of each kind: {examples}")
    if not rest.strip():
        raise RewardError(f"{spec} is not all of a reward function; an example: {KINDS[name].example}")
    return KINDS[name].read(spec, rest)


class _Negated:
    """Less is better."""

    def __init__(self, reward: Reward) -> None:
        self._reward = reward

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: Report) -> list[float]:
        return [-score for score in self._reward.score(prompts, answers, report)]
