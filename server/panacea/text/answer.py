"""Turns the tokens of one answer into text as they arrive."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from panacea.engine.outputs import NO_TOKEN, FinishReason, PromptLogprob, TokenOutput
from panacea.text.detokenizer import Detokenizer
from panacea.text.model_text import ModelTokens
from panacea.text.stop_strings import StopStrings


class Alternative(NamedTuple):
    """A token's bytes and its log probability."""

    token: bytes
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """The chosen token at a position of the answer, and the most likely tokens there."""

    chosen: Alternative
    top: tuple[Alternative, ...]
    start: int
    """Offset of the token's text in the answer's text. For a token inside a character: the offset of that character.
    For a token that is not part of the text (it ends the answer, or a stop string cut it off): the text's length."""


@dataclass(frozen=True)
class Piece:
    """What one token adds to an answer: no text, or text that may span several tokens."""

    text: str
    logprobs: tuple[TokenLogprob, ...]
    """Log probabilities of the tokens whose text has been returned, each reported once. The last piece has all that
    remain, so an answer has as many as it has tokens."""
    finish_reason: FinishReason | None
    cached_tokens: int = 0
    """In an answer's first piece: the prompt tokens found in the prefix cache."""
    prompt_logprobs: tuple[PromptLogprob, ...] | None = None
    """The prompt's scores, in the first piece of an answer whose request asked for them."""
    tokens: int = 1
    """Tokens generated for this piece: 0 if only the prompt is scored."""


class _Pending(NamedTuple):
    end: int
    logprob: TokenLogprob


class Answer:
    """Detokenises the output of one request and ends it at a stop string.

    The texts of all pieces, joined, are the answer. It contains neither a stop string nor an end token. Log
    probabilities are reported for every token, also for those that are not part of the text.
    """

    def __init__(
        self, text: ModelTokens, stops: Sequence[str] = (), min_tokens: int = 0, context: Sequence[int] = ()
    ) -> None:
        """Stop strings are ignored within the first `min_tokens` tokens. The answer continues the text of `context`."""
        self._vocabulary = text.vocabulary
        self._detokenizer = Detokenizer(text.tokenizer, text.vocabulary.special_ids, context)
        self._stops = StopStrings(stops)
        self._min_tokens = min_tokens
        self._tokens = 0
        self._decoded = 0
        """Characters that the detokenizer has produced."""
        self._shown = 0
        """Characters that have been returned."""
        self._pending: deque[_Pending] = deque()

    def push(self, output: TokenOutput) -> Piece:
        """The piece that the request's next token adds. The last piece has a finish reason; do not push after it."""
        if output.token_id == NO_TOKEN:
            return Piece("", (), output.finish_reason, output.cached_tokens, output.prompt_logprobs, tokens=0)
        self._tokens += 1
        ends = output.finish_reason == "stop" and not output.completes
        text = "" if ends else self._detokenizer.push(output.token_id)
        start, self._decoded = self._decoded, self._decoded + len(text)
        if output.finish_reason:
            text += self._detokenizer.flush()
        if output.logprob is not None:
            self._expect(output, output.logprob, start + len(text) if ends else start)
        shown, stopped = self._stops.push(text) if self._tokens > self._min_tokens else (text, False)
        if output.finish_reason and not stopped:
            shown += self._stops.flush()
        self._shown += len(shown)
        finish_reason = "stop" if stopped else output.finish_reason
        logprobs = tuple(self._reportable(final=finish_reason is not None))
        return Piece(shown, logprobs, finish_reason, output.cached_tokens, output.prompt_logprobs)

    def _expect(self, output: TokenOutput, logprob: float, start: int) -> None:
        """Reports the log probability with the token's text, which starts at offset `start`."""
        chosen = self._alternative(output.token_id, logprob)
        top = tuple(self._alternative(token_id, other) for token_id, other in output.top_logprobs)
        # A token without text is reported with the next text, because it may be a part of that character.
        self._pending.append(_Pending(max(self._decoded, start + 1), TokenLogprob(chosen, top, start)))

    def _alternative(self, token_id: int, logprob: float) -> Alternative:
        return Alternative(self._vocabulary.token_bytes(token_id), logprob)

    def _reportable(self, final: bool) -> list[TokenLogprob]:
        ready: list[TokenLogprob] = []
        while self._pending and self._pending[0].end <= self._shown:
            ready.append(self._pending.popleft().logprob)
        if final:
            ready += [replace(logprob, start=min(logprob.start, self._shown)) for _, logprob in self._pending]
        return ready
