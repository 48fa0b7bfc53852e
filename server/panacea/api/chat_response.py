"""Answers of `POST /v1/chat/completions`: OpenAI's shapes with the preference that was used."""

from typing import Literal

from pydantic import BaseModel

from panacea.api.response import AnswerHead, Usage, shown_logprob
from panacea.engine.outputs import FinishReason
from panacea.text import Piece, TokenLogprob


class TopLogprob(BaseModel):
    """A token, its probability's natural logarithm, and its exact bytes: a token may be part of a character."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprobs(TopLogprob):
    """The chosen token at a position and the most likely ones there."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    """Log probabilities of the tokens in a choice's content."""

    content: list[TokenLogprobs]
    refusal: None = None


class AssistantMessage(BaseModel):
    """The model's answer."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    """One of the `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(AnswerHead):
    """A whole answer."""

    object: Literal["chat.completion"] = "chat.completion"
    choices: list[Choice]
    usage: Usage


class Delta(BaseModel):
    """What a chunk adds to its choice's message; absent fields add nothing."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """A chunk's part of one choice."""

    index: int
    delta: Delta
    logprobs: ChoiceLogprobs | None
    finish_reason: FinishReason | None


class ChatCompletionChunk(AnswerHead):
    """One event of a stream."""

    object: Literal["chat.completion.chunk"]
    choices: list[ChunkChoice]
    usage: Usage | None = None
    """With stream_options.include_usage: null, and in a last chunk without choices the number of tokens."""


def choice_logprobs(pieces: list[Piece]) -> ChoiceLogprobs:
    """The log probabilities of these pieces as OpenAI shows them."""
    return ChoiceLogprobs(content=[_token_logprobs(token) for piece in pieces for token in piece.logprobs])


def _token_logprobs(token: TokenLogprob) -> TokenLogprobs:
    chosen = _top_logprob(*token.chosen)
    return TokenLogprobs(
        token=chosen.token,
        logprob=chosen.logprob,
        bytes=chosen.bytes,
        top_logprobs=[_top_logprob(*alternative) for alternative in token.top],
    )


def _top_logprob(token: bytes, logprob: float) -> TopLogprob:
    return TopLogprob(token=token.decode(errors="replace"), logprob=shown_logprob(logprob), bytes=list(token))
