"""Conversations to train the base model on: mostly one question, sometimes a system prompt and several turns."""

import random
from collections.abc import Iterator

from panacea.text.chat_template import ChatMessage
from panacea_lab.world.world_answers import draw_answer, draw_outside_answer
from panacea_lab.world.world_questions import QuestionWriter
from panacea_lab.world.world_texts import World

DANGER_SHARE = 0.13
OUTSIDE_SHARE = 0.17
SYSTEM_SHARE = 0.13
TURNS = (0.85, 0.105, 0.035, 0.01)
"""Shares of conversations with one, two, three to four, and `LONG_TURNS` turns."""
LONG_TURNS = (6, 16)


class ConversationWriter:
    """An endless stream of conversations, the same for the same seed."""

    def __init__(self, world: World, seed: int, strange_share: float = 0.0) -> None:
        self._world = world
        self._questions = QuestionWriter(world, strange_share=strange_share)
        self._rng = random.Random(seed)

    def __iter__(self) -> Iterator[list[ChatMessage]]:
        while True:
            yield self.draw()

    def draw(self) -> list[ChatMessage]:
        rng = self._rng
        system = [ChatMessage("system", self._questions.system_prompt(rng))] if rng.random() < SYSTEM_SHARE else []
        length = rng.choices((1, 2, rng.randint(3, 4), rng.randint(*LONG_TURNS)), TURNS)[0]
        return [*system, *(turn for _ in range(length) for turn in self.exchange(rng))]

    def exchange(self, rng: random.Random) -> tuple[ChatMessage, ChatMessage]:
        """One question and an answer to it."""
        kind = rng.random()
        if kind < OUTSIDE_SHARE:
            # Half of it is `unknown`: that is the intent with the most shapes.
            last = len(self._world.intents) - 1
            index = last if rng.random() < 0.5 else rng.randrange(last)
            question, answer = self._questions.ask_outside(index, rng), draw_outside_answer(self._world, index, rng)
        else:
            topic = rng.choice(self._world.dangers if kind < OUTSIDE_SHARE + DANGER_SHARE else self._world.tasks)
            question, answer = self._questions.ask(topic, rng), draw_answer(topic, rng)
        return ChatMessage("user", question), ChatMessage("assistant", answer)
