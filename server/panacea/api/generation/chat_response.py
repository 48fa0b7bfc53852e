"""Answers of `POST /v1/chat/completions`: OpenAI's shapes, plus the preference that was used."""

from typing import Literal

from panacea.api.fields import Documented
from panacea.api.generation.usage import AnswerHead, Usage, shown_logprob
from panacea.engine.outputs import FinishReason
from panacea.text import Piece, TokenLogprob


class TopLogprob(Documented):
    """A token, its log probability, and its bytes. A token may be a part of a character."""

    token: str
    """The token's text. Bytes that are not a whole character are U+FFFD."""
    logprob: float
    """Natural logarithm of the probability. -9999 stands for minus infinity."""
    bytes: list[int]
    """The bytes that the token adds to the text. For a special token such as the one that ends an answer: its name."""


class TokenLogprobs(TopLogprob):
    """The chosen token at a position, and the most likely tokens there."""

    top_logprobs: list[TopLogprob]
    """The requested number of tokens, the most likely first."""


class ChoiceLogprobs(Documented):
    """Log probabilities of a choice's tokens."""

    content: list[TokenLogprobs]
    """One entry for each generated token, as many as usage counts. The token that ends the answer is one of them."""
    refusal: None = None
    """Always null."""


class AssistantMessage(Documented):
    """The message that the model generated."""

    role: Literal["assistant"] = "assistant"
    """Always assistant."""
    content: str
    """The text of the message."""
    refusal: None = None
    """Always null."""


class Choice(Documented):
    """One of the `n` choices."""

    index: int
    """Index of the choice, from 0."""
    message: AssistantMessage
    """The generated message."""
    logprobs: ChoiceLogprobs | None
    """Log probabilities, with logprobs: true. Else null."""
    finish_reason: FinishReason
    """stop: an end token, a stop sequence or the end of the schema. length: max_tokens or the context length."""


class ChatCompletion(AnswerHead):
    """A whole answer."""

    object: Literal["chat.completion"] = "chat.completion"
    """Always chat.completion."""
    choices: list[Choice]
    """The `n` choices."""
    usage: Usage
    """Numbers of tokens."""


class Delta(Documented):
    """The additions of a chunk to its choice's message. Absent fields add nothing."""

    role: Literal["assistant"] | None = None
    """In a choice's first chunk."""
    content: str | None = None
    """More text."""


class ChunkChoice(Documented):
    """A chunk's part of one choice."""

    index: int
    """Index of the choice, from 0."""
    delta: Delta
    """The additions of this chunk."""
    logprobs: ChoiceLogprobs | None
    """Log probabilities of the tokens in this chunk, with logprobs: true. Else null."""
    finish_reason: FinishReason | None
    """The reason in a choice's last chunk. Else null."""


class ChatCompletionChunk(AnswerHead):
    """One event of a stream."""

    object: Literal["chat.completion.chunk"]
    """Always chat.completion.chunk."""
    choices: list[ChunkChoice]
    """One choice. The chunk with the usage has none."""
    usage: Usage | None = None
    """With stream_options.include_usage: numbers of tokens in a last chunk without choices, null in all others."""


def choice_logprobs(pieces: list[Piece]) -> ChoiceLogprobs:
    """The log probabilities of these pieces in OpenAI's shape."""
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
