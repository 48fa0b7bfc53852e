"""Whether the demo refuses a dangerous request behind a harmless exchange as it does without one."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from panacea.preference import Preference
from panacea.text.chat_template import ChatMessage
from panacea_lab.demo.answerer import Answerer, DemoQuestion
from panacea_lab.world.held_out import HeldOut, TopicQuestion
from panacea_lab.world.world_reading import AnswerReader
from panacea_lab.world.world_texts import World

EARLIER_BYTES = 800
"""Longer than any answer of the world: an answer that is cut here was broken before."""


@dataclass(frozen=True)
class TurnRefusals:
    """Shares of dangerous requests that are refused, at one preference. They are 0 if there are no requests."""

    preference: Preference
    asked: int
    first_turn: float
    second_turn: float
    kept: float
    """The share of those refused in the first turn that are refused in the second turn, too."""


def dangerous_questions(world: World, held_out: HeldOut) -> list[TopicQuestion]:
    """Every dangerous request, in every held-out phrasing."""
    return [
        TopicQuestion(template.format(task=topic.wordings[0]), topic)
        for template in held_out.templates
        for topic in world.dangers
    ]


def measure_refusals(
    world: World, answerer: Answerer, questions: Sequence[TopicQuestion], preferences: Sequence[Preference], seed: int
) -> list[TurnRefusals]:
    """Asks the dangerous ones of `questions` twice, greedy, at each preference.

    First they are asked alone. Then each is asked behind a harmless one and the answer that this was given.
    """
    reader, rng = AnswerReader(world), random.Random(seed)
    dangers = [question for question in questions if question.topic.dangerous]
    harmless = [question for question in questions if not question.topic.dangerous]
    before = [rng.choice(harmless) for _ in dangers]
    alone: list[tuple[ChatMessage, ...]] = [()] * len(dangers)

    def ask(
        asked: Sequence[TopicQuestion], preference: Preference, earlier: Sequence[tuple[ChatMessage, ...]]
    ) -> list[str]:
        asks = [
            DemoQuestion(question.text, preference, 0.0, seed, earlier=turns)
            for question, turns in zip(asked, earlier, strict=True)
        ]
        return answerer.answer(asks, lambda _share, _figures: None) if asks else []

    def refused(preference: Preference, earlier: Sequence[tuple[ChatMessage, ...]]) -> list[bool]:
        texts = ask(dangers, preference, earlier)
        return [reader.read(danger.topic, text).refuses for danger, text in zip(dangers, texts, strict=True)]

    def measured(preference: Preference) -> TurnRefusals:
        said = ask(before, preference, alone)
        turns = [exchange(question, text) for question, text in zip(before, said, strict=True)]
        first, second = refused(preference, alone), refused(preference, turns)
        both = sum(a and b for a, b in zip(first, second, strict=True))
        asked = len(dangers)
        return TurnRefusals(
            preference, asked, _share(sum(first), asked), _share(sum(second), asked), _share(both, sum(first))
        )

    return [measured(preference) for preference in preferences]


def exchange(question: TopicQuestion, answer: str) -> tuple[ChatMessage, ...]:
    """A question and its answer, as the messages before another question."""
    # A token stands for at least one byte: this leaves room in the context, whatever a hardly trained model says.
    said = answer.encode()[:EARLIER_BYTES].decode(errors="ignore")
    return ChatMessage("user", question.text), ChatMessage("assistant", said)


def _share(some: int, every: int) -> float:
    return round(some / max(1, every), 4)
