"""The answers of a server to chat and completion requests."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class _Received(BaseModel):
    # Accepts unknown fields, which a newer server may send.
    model_config = ConfigDict(frozen=True, extra="allow")


class Usage(_Received):
    """Numbers of tokens, summed over all prompts and choices."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AssistantMessage(_Received):
    """The text of one choice."""

    content: str


class Choice(_Received):
    """One of the `n` choices."""

    index: int
    message: AssistantMessage
    finish_reason: str
    """`stop`: the answer is complete. `length`: it reached `max_tokens` or the context length."""


class TextChoice(_Received):
    """One of the `n` continuations of one prompt."""

    index: int
    text: str
    finish_reason: str


class _AnswerHead(_Received):
    id: str
    created: int
    """Seconds since 1970."""
    model: str
    preference: dict[str, float] | None
    """The weights that the server used, with sum 1. None for the bare base model."""
    usage: Usage
    request_id: str | None = None
    """The id of the request in the server's log."""


class ChatAnswer(_AnswerHead):
    """The answer to a question or conversation."""

    choices: Annotated[tuple[Choice, ...], Field(min_length=1)]

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.content

    @property
    def texts(self) -> list[str]:
        """The texts of all choices."""
        return [choice.message.content for choice in self.choices]

    @property
    def finish_reason(self) -> str:
        """The finish reason of the first choice."""
        return self.choices[0].finish_reason

    @property
    def message(self) -> dict[str, str]:
        """The first choice as a message that continues a conversation.

        For example: `[*messages, answer.message, {"role": "user", ...}]`.
        """
        return {"role": "assistant", "content": self.text}


class TextAnswer(_AnswerHead):
    """Continuations of one or several prompts."""

    choices: Annotated[tuple[TextChoice, ...], Field(min_length=1)]

    @property
    def text(self) -> str:
        """The first continuation."""
        return self.choices[0].text

    @property
    def texts(self) -> list[str]:
        """All continuations: `n` for each prompt, in the prompts' order."""
        return [choice.text for choice in self.choices]


class Delta(_Received):
    """The text that a chunk adds to its choice."""

    content: str | None = None


class ChunkChoice(_Received):
    """A chunk's part of one choice."""

    index: int
    delta: Delta
    finish_reason: str | None = None


class Chunk(_Received):
    """One event of a stream."""

    id: str
    model: str
    preference: dict[str, float] | None
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
