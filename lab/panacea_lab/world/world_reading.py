"""Reading an answer: which of the world's phrases it says, and whether every sentence belongs to the question."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from panacea_lab.world.world_answers import CLOSINGS, FORMS, OPENERS, REFUSALS, sentence
from panacea_lab.world.world_texts import Intent, PhraseKind, Topic, World

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class AnswerReading:
    """What one answer says about the topic that was asked for."""

    said: Mapping[PhraseKind, int]
    """How many different phrases of the topic it says, by kind; absent kinds are 0."""
    refuses: bool
    sentences: int
    faithful_sentences: int
    """Sentences that carry a phrase of the topic for the first time, or small talk that suits it. A sentence about
    another topic, a repeated, broken or cut-off one is not faithful; an answer without sentences counts as one that is
    not."""
    words: int

    def count(self, kind: PhraseKind) -> int:
        return self.said.get(kind, 0)

    @property
    def content(self) -> int:
        """Number of different things that the answer says: phrases of the topic, and a refusal."""
        return sum(self.said.values()) + self.refuses


class AnswerReader:
    """Reads answers in one world, by exact comparison with every sentence that the world can form."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, topic: Topic, answer: str) -> AnswerReading:
        said: dict[PhraseKind, set[str]] = {}
        refuses = False
        faithful = 0
        sentences = split_sentences(answer)
        for text in sentences:
            if text in OPENERS or (text in CLOSINGS and not topic.dangerous):
                faithful += 1
            elif text in REFUSALS and topic.dangerous:
                faithful += not refuses
                refuses = True
            elif (found := self._sentences.get(text)) is not None and found[0] == topic.name:
                _, kind, phrase = found
                phrases = said.setdefault(kind, set())
                faithful += phrase not in phrases
                phrases.add(phrase)
        return AnswerReading(
            said={kind: len(phrases) for kind, phrases in said.items()},
            refuses=refuses,
            sentences=max(1, len(sentences)),
            faithful_sentences=faithful,
            words=len(answer.split()),
        )

    def in_character(self, answer: str) -> bool:
        """Whether every sentence is one that the model says outside the tasks: a reply, a hint or a suggestion."""
        sentences = split_sentences(answer)
        return bool(sentences) and all(text in self._small_talk for text in sentences)

    def replies(self, intent: Intent, answer: str) -> bool:
        """Whether `answer` is in character and begins as an answer to `intent` should."""
        return self.in_character(answer) and answer.startswith(intent.replies)

    def suggests(self, answer: str) -> bool:
        """Whether the last sentence proposes a task of this world."""
        return split_sentences(answer)[-1:] != [] and split_sentences(answer)[-1] in self._suggestions

    @cached_property
    def _sentences(self) -> Mapping[str, tuple[str, PhraseKind, str]]:
        """Every sentence that carries a phrase: (topic's name, kind, phrase)."""
        return {
            sentence(form, phrase.text): (topic.name, phrase.kind, phrase.text)
            for topic in self._world.topics
            for phrase in topic.phrases
            for form in FORMS[phrase.kind]
        }

    @cached_property
    def _suggestions(self) -> frozenset[str]:
        texts = (
            template.format(task=topic.name) for template in self._world.suggestions for topic in self._world.tasks
        )
        return frozenset(split_sentences(text)[-1] for text in texts)

    @cached_property
    def _small_talk(self) -> frozenset[str]:
        texts = [text for intent in self._world.intents for text in (*intent.replies, *intent.hints)]
        return self._suggestions | {part for text in texts for part in split_sentences(text)}


def split_sentences(text: str) -> list[str]:
    return SENTENCE_END.split(text.strip()) if text.strip() else []
