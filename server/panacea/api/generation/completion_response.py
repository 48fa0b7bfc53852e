"""Answers of `POST /v1/completions`: OpenAI's shape, plus the preference that was used."""

from collections.abc import Sequence
from typing import Literal

from panacea.api.fields import Documented
from panacea.api.generation.usage import AnswerHead, Usage, shown_logprob
from panacea.engine.outputs import FinishReason
from panacea.text import TokenLogprob


class TextLogprobs(Documented):
    """Log probabilities of a choice's tokens: those of the prompt with echo, and each generated one.

    There are as many entries as usage counts tokens. The token that ends the answer is one of them.
    """

    tokens: list[str]
    """The tokens. A token inside a character is written as by OpenAI: bytes:\\xe2\\x80."""
    token_logprobs: list[float | None]
    """Log probability of each token. It is null for a prompt's first token, which has no context."""
    top_logprobs: list[dict[str, float] | None]
    """The most likely tokens at each position, always including the chosen one."""
    text_offset: list[int]
    """Offset of each token in the choice's text, in characters. A token that is not part of the text has the text's
    length: the token that ends the answer, and what a stop string cuts off."""


class TextChoice(Documented):
    """A choice's text, or a chunk's part of it. Choices of the first prompt come first."""

    index: int
    """Index of the choice, from 0."""
    text: str
    """The text. With echo, it starts with the prompt."""
    logprobs: TextLogprobs | None
    """Log probabilities, if requested. Else null."""
    finish_reason: FinishReason | None
    """In a stream, the reason is only in a choice's last chunk. Else it is null."""


class TextCompletion(AnswerHead):
    """A whole answer, or one event of a stream."""

    object: Literal["text_completion"]
    """Always text_completion."""
    choices: list[TextChoice]
    """The choices: `n` for each prompt."""
    usage: Usage | None
    """Numbers of tokens. In a stream with stream_options.include_usage: in a last chunk without choices, else null."""


def text_logprobs(tokens: Sequence[TokenLogprob], shift: int = 0) -> TextLogprobs:
    """Log probabilities in OpenAI's shape. The tokens' text starts at offset `shift` of the choice's text."""
    return TextLogprobs(
        tokens=[_written(token.chosen.token) for token in tokens],
        token_logprobs=[shown_logprob(token.chosen.logprob) for token in tokens],
        top_logprobs=[_top(token) for token in tokens],
        text_offset=[shift + token.start for token in tokens],
    )


def with_prompt(first: bytes, prompt: Sequence[TokenLogprob], answer: TextLogprobs) -> TextLogprobs:
    """The log probabilities of a prompt and its answer. The prompt's `first` token has none."""
    rest = text_logprobs(prompt)
    return TextLogprobs(
        tokens=[_written(first), *rest.tokens, *answer.tokens],
        token_logprobs=[None, *rest.token_logprobs, *answer.token_logprobs],
        top_logprobs=[None, *rest.top_logprobs, *answer.top_logprobs],
        text_offset=[0, *rest.text_offset, *answer.text_offset],
    )


def _top(token: TokenLogprob) -> dict[str, float]:
    top: dict[str, float] = {}
    for each in (token.chosen, *token.top):
        # Different tokens may have the same text. Then the chosen one wins, else the most likely one.
        top.setdefault(_written(each.token), shown_logprob(each.logprob))
    return top


def _written(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
