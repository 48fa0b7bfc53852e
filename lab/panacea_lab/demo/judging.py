"""The demo's own held-out questions, and its world's judge, for an evaluation of the embedded demo model."""

from collections.abc import Sequence

from panacea.text.chat_template import ChatMessage
from panacea_lab.demo.examination import NAMES, REFERENCE_POINT, ExamSettings, judged
from panacea_lab.world.held_out import draw_questions, load_held_out
from panacea_lab.world.world_judge import Judge
from panacea_lab.world.world_texts import World, load_world
from panacea_train.evaluation.sweep_summary import Answered
from panacea_train.prompts import Prompt

__all__ = ["NAMES", "REFERENCE_POINT", "TOPIC", "WorldScorer", "demo_prompts"]

TOPIC = "topic"
"""The field of a prompt that names what it is about."""


def demo_prompts(seed: int) -> list[Prompt]:
    """The questions that the demo model was examined with when it was trained with `seed`."""
    world = load_world()
    held_out, settings = load_held_out(world), ExamSettings()
    questions = [*draw_questions(world, held_out, seed, settings.tasks, settings.dangers), *held_out.paraphrases]
    return [Prompt((ChatMessage("user", question.text),), {TOPIC: question.topic.name}) for question in questions]


class WorldScorer:
    """The world's own judge, which also tells how faithful answers are."""

    def __init__(self, world: World | None = None) -> None:
        self._world = world or load_world()
        self._judge = Judge(self._world)

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Answered]:
        return [
            judged(self._judge, self._world.by_name[prompt.fields[TOPIC]], text)
            for prompt, text in zip(prompts, answers, strict=True)
        ]
