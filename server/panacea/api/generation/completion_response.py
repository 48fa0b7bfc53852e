"""Answers of `POST /v1/completions`: OpenAI's shape with the preference that was used."""

from collections.abc import Sequence
from typing import Literal

from panacea.api.fields import Documented
from panacea.api.generation.usage import AnswerHead, Usage, shown_logprob
from panacea.engine.outputs import FinishReason
from panacea.text import TokenLogprob


class TextLogprobs(Documented):
    """Log probabilities of the tokens in a choice's text."""

    tokens: list[str]
    """A token within a character is written as OpenAI does: bytes:\\xe2\\x80."""
    token_logprobs: list[float | None]
    """Null for a prompt's first token, behind which there is nothing."""
    top_logprobs: list[dict[str, float] | None]
    """The most likely tokens at each position; the chosen one is always among them."""
    text_offset: list[int]
    """Where in the choice's text each token begins, in characters."""


class TextChoice(Documented):
    """A choice's text, or a chunk's part of it. Choices of the first prompt come first."""

    index: int
    """Which of the answers, from 0."""
    text: str
    """The text, behind its prompt with echo."""
    logprobs: TextLogprobs | None
    """With logprobs; else null."""
    finish_reason: FinishReason | None
    """Null in all chunks but a choice's last."""


class TextCompletion(AnswerHead):
    """A whole answer, or one event of a stream."""

    object: Literal["text_completion"]
    """Always text_completion."""
    choices: list[TextChoice]
    """The answers."""
    usage: Usage | None
    """In a stream only with stream_options.include_usage: null, and in a last chunk without choices the numbers."""


def text_logprobs(tokens: Sequence[TokenLogprob], shift: int = 0) -> TextLogprobs:
    """Log probabilities as OpenAI shows them. The tokens' text begins `shift` characters behind the choice's."""
    return TextLogprobs(
        tokens=[_written(token.chosen.token) for token in tokens],
        token_logprobs=[shown_logprob(token.chosen.logprob) for token in tokens],
        top_logprobs=[_top(token) for token in tokens],
        text_offset=[shift + token.start for token in tokens],
    )


def with_prompt(first: bytes, prompt: Sequence[TokenLogprob], answer: TextLogprobs) -> TextLogprobs:
    """An answer's log probabilities behind its prompt's, whose `first` token has none."""
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
        # Different tokens may be written alike; then the chosen one counts, or the more likely.
        top.setdefault(_written(each.token), shown_logprob(each.logprob))
    return top


def _written(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
