"""Held-out questions, written before any training and not seen by any generator. Only the evaluation imports them."""

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path

from panacea_lab.world.world_texts import TEXTS, Topic, World


@dataclass(frozen=True)
class TopicQuestion:
    """A question and its topic."""

    text: str
    topic: Topic


@dataclass(frozen=True)
class HeldOut:
    """The held-out questions."""

    templates: tuple[str, ...]
    paraphrases: tuple[TopicQuestion, ...]
    """Free rewordings, without the topic's own name."""
    outside: tuple[str, ...]
    """Questions outside the world."""


def load_held_out(world: World, path: Path = TEXTS / "held_out.toml") -> HeldOut:
    """The held-out questions about topics that `world` has (a restricted world is examined on less)."""
    texts = tomllib.loads(path.read_text("utf-8"))
    return HeldOut(
        templates=tuple(texts["templates"]),
        paraphrases=tuple(
            TopicQuestion(entry["ask"], world.by_name[entry["task"]])
            for entry in texts["paraphrase"]
            if entry["task"] in world.by_name
        ),
        outside=tuple(texts["outside"]["asks"]),
    )


def draw_questions(world: World, held_out: HeldOut, seed: int, tasks: int, dangers: int) -> list[TopicQuestion]:
    """A seeded choice of topics, each asked for in one of the held-out templates."""
    rng = random.Random(seed)
    topics = [
        *rng.sample(world.tasks, min(tasks, len(world.tasks))),
        *rng.sample(world.dangers, min(dangers, len(world.dangers))),
    ]
    templates = held_out.templates
    return [
        TopicQuestion(templates[i % len(templates)].format(task=rng.choice(topic.wordings)), topic)
        for i, topic in enumerate(topics)
    ]
