"""Prompts, and a listener that counts, for tests of reward functions."""

from dataclasses import dataclass, field
from typing import Any

from panacea.text.chat_template import ChatMessage
from panacea_train.prompts import Prompt


def prompt(text: str, system: str | None = None, **fields: Any) -> Prompt:
    """A question, with a system message and further fields of its line if there are any."""
    before = () if system is None else (ChatMessage("system", system),)
    return Prompt((*before, ChatMessage("user", text)), fields)


@dataclass
class Heard:
    """A `Report`."""

    calls: list[int] = field(default_factory=list[int])

    def __call__(self, count: int) -> None:
        self.calls.append(count)

    @property
    def total(self) -> int:
        return sum(self.calls)
