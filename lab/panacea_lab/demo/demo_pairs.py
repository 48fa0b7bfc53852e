"""The adapter's training pairs: the base model's own answers to training questions, compared on each dimension."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from transformers import PreTrainedTokenizerFast

from panacea.text.chat_template import ChatMessage
from panacea_lab.demo.answerer import Answerer, DemoQuestion
from panacea_lab.demo.demo_chat import END_ID, encode, prompt_text
from panacea_lab.demo.job_stages import StageProgress
from panacea_lab.world.conversations import ConversationWriter
from panacea_lab.world.world_judge import Judge, Rewards
from panacea_lab.world.world_questions import QuestionWriter
from panacea_lab.world.world_texts import Intent, Topic, World
from panacea_train.training_examples import PreferencePair


@dataclass(frozen=True)
class PairSettings:
    """How the pairs are made."""

    questions: int = 3600
    candidates: int = 6
    """Answers that the base model gives to each question."""
    temperature: float = 1.0
    """That of the base model's training: every mixture of its slots comes up."""
    pairs_per_question: int = 5
    temperatures: Rewards = (0.12, 0.2, 0.08)
    """Per dimension, the difference of rewards at which an answer is better with probability sigmoid(1) = 0.73."""
    least_soundness: float = 1.0
    """The sounder answer of a pair has at least this share: the adapter also imitates it."""
    strange_share: float = 0.3
    """Questions full of strange words, which are easily misunderstood."""
    danger_share: float = 0.14
    outside_share: float = 0.08
    system_share: float = 0.08
    later_share: float = 0.2
    """Questions that follow one or two exchanges about other topics. Without them the adapter learns to answer the
    first question, although the base model knows that the last one counts."""
    sound_temperature: float = 0.1
    """The same for the share of sentences that suit the question: every dimension prefers the sound answer."""
    seed_offset: int = 1_000
    """Added to the run's seed, so that no two rounds of questions are the same."""


@dataclass(frozen=True)
class Candidate:
    """One answer of the base model."""

    text: str
    rewards: Rewards
    soundness: float
    """Share of its sentences that suit the question."""


@dataclass(frozen=True)
class ComparedAnswers:
    """A question with several answers of the base model."""

    question: str
    system: str | None
    earlier: tuple[ChatMessage, ...]
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Subject:
    """A training question, what stands before it, and what it is about."""

    question: str
    system: str | None
    earlier: tuple[ChatMessage, ...]
    about: Topic | Intent


def sample_candidates(
    world: World, answerer: Answerer, settings: PairSettings, seed: int, report: StageProgress
) -> list[ComparedAnswers]:
    """Asks the base model each question several times and judges the answers."""
    subjects = draw_subjects(world, settings, seed)
    asks = [
        DemoQuestion(
            subject.question,
            None,
            settings.temperature,
            seed=index * settings.candidates + choice,
            system=subject.system,
            earlier=subject.earlier,
        )
        for index, subject in enumerate(subjects)
        for choice in range(settings.candidates)
    ]
    texts = answerer.answer(asks, report)
    judge = Judge(world)
    comparisons: list[ComparedAnswers] = []
    for index, subject in enumerate(subjects):
        own = texts[index * settings.candidates : (index + 1) * settings.candidates]
        candidates = tuple(
            Candidate(text, judge.rewards(subject.about, text), _soundness(judge, subject.about, text))
            for text in dict.fromkeys(own)
        )
        if len(candidates) > 1:
            comparisons.append(ComparedAnswers(subject.question, subject.system, subject.earlier, candidates))
    return comparisons


def draw_subjects(world: World, settings: PairSettings, seed: int) -> list[Subject]:
    """Training questions."""
    rng = random.Random(seed + settings.seed_offset)
    writer = QuestionWriter(world, settings.strange_share)
    conversations = ConversationWriter(world, seed, settings.strange_share)
    drawn: list[Subject] = []
    last = len(world.intents) - 1
    for _ in range(settings.questions):
        system = writer.system_prompt(rng) if rng.random() < settings.system_share else None
        exchanges = rng.randint(1, 2) if rng.random() < settings.later_share else 0
        earlier = tuple(turn for _ in range(exchanges) for turn in conversations.exchange(rng))
        kind = rng.random()
        if kind < settings.outside_share:
            index = last if rng.random() < 0.5 else rng.randrange(last)
            drawn.append(Subject(writer.ask_outside(index, rng), system, earlier, world.intents[index]))
        else:
            dangerous = kind < settings.outside_share + settings.danger_share
            topic = rng.choice(world.dangers if dangerous else world.tasks)
            drawn.append(Subject(writer.ask(topic, rng), system, earlier, topic))
    return drawn


def make_pairs(
    comparisons: Sequence[ComparedAnswers], tokenizer: PreTrainedTokenizerFast, settings: PairSettings, seed: int
) -> list[PreferencePair]:
    """Pairs of candidates with soft labels sigmoid(difference of rewards / temperature).

    Half of a question's pairs are those whose lengths differ least, the others random: where more help always came with
    more words, the adapter would learn that words are what helps, and the helpful answers would fill up with cautions.
    """
    rng = random.Random(seed + settings.seed_offset)
    pairs: list[PreferencePair] = []
    for comparison in comparisons:
        prompt = encode(tokenizer, prompt_text(comparison.question, comparison.system, comparison.earlier))
        answers = {c.text: [*encode(tokenizer, c.text), END_ID] for c in comparison.candidates}
        every = [
            pair
            for pair in combinations(comparison.candidates, 2)
            if max(candidate.soundness for candidate in pair) >= settings.least_soundness
        ]
        rng.shuffle(every)
        even = sorted(every, key=lambda pair: abs(len(pair[0].text) - len(pair[1].text)))
        chosen = dict.fromkeys([*even[: settings.pairs_per_question // 2], *every])
        pairs += [
            PreferencePair(prompt, answers[a.text], answers[b.text], _probabilities(a, b, settings))
            for a, b in list(chosen)[: settings.pairs_per_question]
        ]
    return pairs


def _probabilities(a: Candidate, b: Candidate, settings: PairSettings) -> list[float]:
    """How likely `a` is the better answer, on each dimension."""
    soundness = (a.soundness - b.soundness) / settings.sound_temperature
    return [
        1 / (1 + math.exp(-(first - second) / temperature - soundness))
        for first, second, temperature in zip(a.rewards, b.rewards, settings.temperatures, strict=True)
    ]


def _soundness(judge: Judge, subject: Topic | Intent, text: str) -> float:
    if isinstance(subject, Intent):
        return float(judge.reader.replies(subject, text))
    reading = judge.reader.read(subject, text)
    return reading.faithful_sentences / reading.sentences
