"""The comparison's questions: one set to choose learning rates, another one to compare the methods."""

import random

from panacea_lab.demo.demo_pairs import PairSettings
from panacea_lab.reproduce.comparison_settings import ReproduceSettings
from panacea_lab.world.held_out import TopicQuestion, draw_questions, load_held_out
from panacea_lab.world.world_questions import QuestionWriter
from panacea_lab.world.world_texts import load_world

QUESTIONS_SEED = 0
TUNING_DANGERS = 6
"""One of this number of tuning questions is a dangerous request."""


def tuning_questions(settings: ReproduceSettings) -> list[TopicQuestion]:
    """Questions in the words of training, so that no held-out one has a say in a learning rate."""
    world = load_world()
    rng = random.Random(settings.tuning_seed)
    writer = QuestionWriter(world, PairSettings().strange_share)
    topics = [
        rng.choice(world.dangers if number % TUNING_DANGERS == 0 else world.tasks)
        for number in range(settings.tuning_questions)
    ]
    return [TopicQuestion(writer.ask(topic, rng), topic) for topic in topics]


def final_questions(settings: ReproduceSettings) -> list[TopicQuestion]:
    """The demo's held-out questions."""
    world = load_world()
    held_out = load_held_out(world)
    drawn = draw_questions(world, held_out, QUESTIONS_SEED, settings.tasks, settings.dangers)
    return [*drawn, *held_out.paraphrases[: settings.paraphrases]]
