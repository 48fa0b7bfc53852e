"""What a model is asked in an evaluation."""

from typing import Any

import msgspec


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: str
    content: str


class Prompt(msgspec.Struct, frozen=True):
    """A conversation to be answered."""

    messages: tuple[Message, ...]
    fields: dict[str, Any] = {}
    """What else its line in the file said, like a reference answer: reward functions may read it."""

    @property
    def text(self) -> str:
        """What the user said last."""
        return next(message.content for message in reversed(self.messages) if message.role == "user")
