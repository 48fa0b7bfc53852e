"""Answers of `POST /v1/chat/completions`: OpenAI's shapes with the preference that was used."""

from typing import Literal

from panacea.api.fields import Documented
from panacea.api.generation.usage import AnswerHead, Usage, shown_logprob
from panacea.engine.outputs import FinishReason
from panacea.text import Piece, TokenLogprob


class TopLogprob(Documented):
    """A token, its probability's natural logarithm, and its exact bytes: a token may be part of a character."""

    token: str
    """Its text; U+FFFD where it is no whole character."""
    logprob: float
    """-9999 stands for minus infinity."""
    bytes: list[int]
    """What it adds to the text."""


class TokenLogprobs(TopLogprob):
    """The chosen token at a position and the most likely ones there."""

    top_logprobs: list[TopLogprob]
    """As many as were asked for, the most likely first."""


class ChoiceLogprobs(Documented):
    """Log probabilities of the tokens in a choice's content."""

    content: list[TokenLogprobs]
    """One entry for each token."""
    refusal: None = None
    """Always null."""


class AssistantMessage(Documented):
    """The model's answer."""

    role: Literal["assistant"] = "assistant"
    """Always assistant."""
    content: str
    """The text."""
    refusal: None = None
    """Always null."""


class Choice(Documented):
    """One of the `n` answers."""

    index: int
    """Which of the answers, from 0."""
    message: AssistantMessage
    """What the model said."""
    logprobs: ChoiceLogprobs | None
    """With logprobs: true; else null."""
    finish_reason: FinishReason
    """stop: the model, a stop sequence or the schema ended it. length: max_tokens or the context did."""


class ChatCompletion(AnswerHead):
    """A whole answer."""

    object: Literal["chat.completion"] = "chat.completion"
    """Always chat.completion."""
    choices: list[Choice]
    """The answers."""
    usage: Usage
    """What it took."""


class Delta(Documented):
    """What a chunk adds to its choice's message; absent fields add nothing."""

    role: Literal["assistant"] | None = None
    """With a choice's first chunk."""
    content: str | None = None
    """More text."""


class ChunkChoice(Documented):
    """A chunk's part of one choice."""

    index: int
    """Which of the answers, from 0."""
    delta: Delta
    """What this chunk adds."""
    logprobs: ChoiceLogprobs | None
    """Of the tokens in this chunk; null without logprobs: true."""
    finish_reason: FinishReason | None
    """With a choice's last chunk; else null."""


class ChatCompletionChunk(AnswerHead):
    """One event of a stream."""

    object: Literal["chat.completion.chunk"]
    """Always chat.completion.chunk."""
    choices: list[ChunkChoice]
    """One choice; none in the chunk that brings the usage."""
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
