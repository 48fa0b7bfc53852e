"""One answer's text as its tokens arrive."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from panacea.engine.outputs import NO_TOKEN, FinishReason, PromptLogprob, TokenOutput
from panacea.text.detokenizer import Detokenizer
from panacea.text.model_text import ModelText
from panacea.text.stop_strings import StopStrings


class Alternative(NamedTuple):
    """A token and how likely it was."""

    token: bytes
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """The token that was chosen at a position of the answer, and the most likely ones there."""

    chosen: Alternative
    top: tuple[Alternative, ...]
    start: int
    """Where in the answer's text its own begins; of a token within a character, where that character does."""


@dataclass(frozen=True)
class Piece:
    """What one token added to an answer: nothing, or text that may span several tokens."""

    text: str
    logprobs: tuple[TokenLogprob, ...]
    """Of the tokens that lie in the text returned so far and were not reported yet."""
    finish_reason: FinishReason | None
    cached_tokens: int = 0
    """With an answer's first piece: tokens of its prompt that were in the prefix cache."""
    prompt_logprobs: tuple[PromptLogprob, ...] | None = None
    """The engine's, with the first piece of an answer whose request wants its prompt scored."""
    tokens: int = 1
    """How many the model generated for it: 0 where only the prompt is scored."""


class _Pending(NamedTuple):
    end: int
    logprob: TokenLogprob


class Answer:
    """Detokenises one request's output and ends it at a stop string.

    All pieces' texts together are the answer. Neither a stop string nor an end token is part of it, and log
    probabilities are reported only for tokens that have a share in the text.
    """

    def __init__(
        self, text: ModelText, stops: Sequence[str] = (), min_tokens: int = 0, context: Sequence[int] = ()
    ) -> None:
        """Stop strings count only behind the first `min_tokens` tokens. The answer's text continues `context`'s."""
        self._vocabulary = text.vocabulary
        self._detokenizer = Detokenizer(text.tokenizer, text.vocabulary.special_ids, context)
        self._stops = StopStrings(stops)
        self._min_tokens = min_tokens
        self._tokens = 0
        self._decoded = 0
        """Characters that came out of the detokenizer."""
        self._shown = 0
        """Characters that were returned."""
        self._pending: deque[_Pending] = deque()

    def push(self, output: TokenOutput) -> Piece:
        """What the request's next token adds. The last piece has a finish reason; nothing may follow it."""
        if output.token_id == NO_TOKEN:
            return Piece("", (), output.finish_reason, output.cached_tokens, output.prompt_logprobs, tokens=0)
        self._tokens += 1
        text = "" if output.finish_reason == "stop" and not output.completes else self._decode(output)
        if output.finish_reason:
            text += self._detokenizer.flush()
        shown, stopped = self._stops.push(text) if self._tokens > self._min_tokens else (text, False)
        if output.finish_reason and not stopped:
            shown += self._stops.flush()
        self._shown += len(shown)
        finish_reason = "stop" if stopped else output.finish_reason
        logprobs = tuple(self._reportable(final=finish_reason is not None))
        return Piece(shown, logprobs, finish_reason, output.cached_tokens, output.prompt_logprobs)

    def _decode(self, output: TokenOutput) -> str:
        text = self._detokenizer.push(output.token_id)
        start, self._decoded = self._decoded, self._decoded + len(text)
        if output.logprob is not None:
            chosen = self._alternative(output.token_id, output.logprob)
            top = tuple(self._alternative(token_id, logprob) for token_id, logprob in output.top_logprobs)
            # A token without text of its own belongs to what comes next: it may be a part of that character.
            self._pending.append(_Pending(max(self._decoded, start + 1), TokenLogprob(chosen, top, start)))
        return text

    def _alternative(self, token_id: int, logprob: float) -> Alternative:
        return Alternative(self._vocabulary.token_bytes(token_id), logprob)

    def _reportable(self, final: bool) -> list[TokenLogprob]:
        ready: list[TokenLogprob] = []
        while self._pending and self._pending[0].end <= self._shown:
            ready.append(self._pending.popleft().logprob)
        if final:
            ready.extend(pending.logprob for pending in self._pending if pending.logprob.start < self._shown)
        return ready
