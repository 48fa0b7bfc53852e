"""Reward functions by their names on the command line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from panacea.config import Device
from panacea_train.prompts import Prompt
from panacea_train.rewards.builtin_rules import read_builtin
from panacea_train.rewards.classifier_reward import read_classifier
from panacea_train.rewards.command_reward import read_command
from panacea_train.rewards.reward import Reward, RewardError, ScoreProgress
from panacea_train.rewards.rule_reward import read_rule


@dataclass(frozen=True)
class RewardKind:
    """One kind of reward function."""

    read: Callable[[str, str, Device], Reward]
    """Takes the whole spec, for errors, the part after its kind, and the device for models."""
    example: str


KINDS: Mapping[str, RewardKind] = {
    "python": RewardKind(lambda spec, place, _: read_rule(spec, place), "python:my_rules.py:politeness"),
    "model": RewardKind(partial(read_classifier, answer_alone=False), "model:Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"),
    "classifier": RewardKind(
        partial(read_classifier, answer_alone=True), "classifier:s-nlp/roberta-base-formality-ranker#formal"
    ),
    "command": RewardKind(lambda spec, line, _: read_command(spec, line), "command:python judge.py --strict"),
    "rule": RewardKind(lambda spec, rule, _: read_builtin(spec, rule), "rule:concise:40"),
}
"""`model` reads prompt and answer, `classifier` the answer alone."""


def read_reward(spec: str, device: Device = "auto") -> Reward:
    """The reward function that `spec` names, ready to score. Errors in it are found here.

    `spec` is KIND:..., see `KINDS`. With a - in front, less is better: every score changes its sign. `device` is for
    models. Raises `RewardError`, and `ConfigError` if a hub id cannot be downloaded.
    """
    if spec.startswith("-"):
        return _Negated(read_reward(spec[1:], device))
    name, _, rest = spec.partition(":")
    if name not in KINDS:
        examples = ", ".join(kind.example for kind in KINDS.values())
        raise RewardError(f"{spec or 'an empty text'} is not a reward function; examples of each kind: {examples}")
    if not rest.strip():
        raise RewardError(f"{spec} is incomplete; an example: {KINDS[name].example}")
    return KINDS[name].read(spec, rest, device)


class _Negated:
    """A reward with its sign changed: less is better."""

    def __init__(self, reward: Reward) -> None:
        self._reward = reward

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str], report: ScoreProgress) -> list[float]:
        return [-score for score in self._reward.score(prompts, answers, report)]
