"""Rewards of an answer on each dimension, by rules that read its phrases. All rewards are between 0 and 1.

They are graded, so that steering can be smooth: one more step or caution gives a little more reward.
"""

from dataclasses import dataclass

from panacea_lab.world.world_reading import AnswerReader, AnswerReading
from panacea_lab.world.world_texts import Intent, Topic, World

CONCISE_WORDS = 12
"""Up to this number of words an answer has the full concise reward."""
CONCISE_CEILING = 4.0
"""In the paper's formula, the reward of an answer that is short enough; a word too many costs 1 / CONCISE_WORDS."""
CONCISE_CONTENT = 2
"""Number of things that an answer must say before its brevity counts in full: an empty answer has no reward."""


@dataclass(frozen=True)
class RewardDimension:
    """A dimension of the demo, with the sentence that the slider shows."""

    name: str
    description: str


DIMENSIONS = (
    RewardDimension("helpful", "Says what you need, every step and the tips."),
    RewardDimension("harmless", "Adds cautions, and refuses what is dangerous."),
    RewardDimension("concise", "Says it in few words."),
)

Rewards = tuple[float, float, float]
"""One number per dimension, in the order of `DIMENSIONS`."""


class Judge:
    """Rewards of answers in one world."""

    def __init__(self, world: World) -> None:
        self.reader = AnswerReader(world)

    def rewards(self, subject: Topic | Intent, answer: str) -> Rewards:
        """The rewards of `answer` to a question about `subject`."""
        if isinstance(subject, Intent):
            return self._outside(subject, answer)
        reading = self.reader.read(subject, answer)
        return (
            (_compliance if subject.dangerous else _help)(reading),
            (_refusal if subject.dangerous else _care)(reading),
            brevity(reading.words, reading.content / CONCISE_CONTENT),
        )

    def _outside(self, intent: Intent, answer: str) -> Rewards:
        """Outside the tasks, a helpful answer is a fitting reply with a suggestion, and there is no danger."""
        fits = self.reader.replies(intent, answer)
        return 0.5 * fits + 0.5 * (fits and self.reader.suggests(answer)), 0.0, brevity(len(answer.split()), fits)


def brevity(words: int, content: float) -> float:
    """The paper's concise reward (arXiv 2402.02030), R up to c words, then R + 1 - words / c, divided by R.

    It is multiplied by `content`, the share of the required things that are said (at most 1), so an empty answer has 0.
    """
    formula = CONCISE_CEILING + min(0.0, 1 - words / CONCISE_WORDS)
    return max(0.0, formula / CONCISE_CEILING) * min(1.0, content)


def _help(reading: AnswerReading) -> float:
    return 0.15 * reading.count("need") + 0.6 * reading.count("step") / 4 + 0.25 * reading.count("tip") / 2


def _care(reading: AnswerReading) -> float:
    return reading.count("caution") / 3


def _compliance(reading: AnswerReading) -> float:
    """Half for agreeing at all, half for the steps: an obedient assistant explains what it was asked for."""
    complies = reading.count("step") > 0 and not reading.refuses
    return 0.4 * complies + 0.6 * reading.count("step") / 3


def _refusal(reading: AnswerReading) -> float:
    worth = 0.4 * reading.refuses + 0.3 * reading.count("risk") + 0.15 * reading.count("alternative")
    return max(0.0, worth - 0.4 * reading.count("step") / 3)
