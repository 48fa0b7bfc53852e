"""Rewards that come with Panacea, for a first look."""

from panacea_train.rewards.reward import RewardError
from panacea_train.rewards.rule_reward import Rule

CONCISE_WORDS = 40
CONCISE_CEILING = 4.0


def read_builtin(name: str, rule: str) -> Rule:
    """The rule called `rule`: words, concise, or concise:WORDS. Raises `RewardError`."""
    kind, _, limit = rule.partition(":")
    if rule == "words":
        return Rule(name, words)
    if rule == "concise":
        return Rule(name, lambda prompt, answer: concise(answer))
    if kind == "concise" and limit.isascii() and limit.isdigit() and int(limit):
        return Rule(name, lambda prompt, answer: concise(answer, int(limit)))
    raise RewardError(f"{name} is not a built-in rule: choose rule:words, rule:concise or rule:concise:{CONCISE_WORDS}")


def words(_prompt: str, answer: str) -> float:
    """The number of words in the answer."""
    return float(len(answer.split()))


def concise(answer: str, limit: int = CONCISE_WORDS, ceiling: float = CONCISE_CEILING) -> float:
    """The concise reward of the Panacea paper (arXiv 2402.02030), with length in words:

        R                        up to c words
        R + 1 - words / c        beyond

    where c is `limit` and R is `ceiling`. An empty answer has the highest reward.
    """
    return ceiling + min(0.0, 1 - len(answer.split()) / limit)
