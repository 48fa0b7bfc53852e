"""Results of an engine: plain dataclasses, for callers in its process and for messages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from panacea.errors import RequestError, RequestFailedError

FinishReason = Literal["stop", "length"]


NO_TOKEN = -1
"""`token_id` in the only output of a request that generates no token (`max_tokens` 0)."""


@dataclass(frozen=True, slots=True)
class PromptLogprob:
    """Log probability of a prompt token given the tokens before it, and the most likely tokens at its position."""

    logprob: float
    """Natural log of the token's probability."""
    top_logprobs: tuple[tuple[int, float], ...]
    """Token ids and log probabilities, the most likely first."""


@dataclass(frozen=True, slots=True)
class StartTimes:
    """How long a request waited for its first token, in seconds of the engine's clock."""

    queue_s: float
    """From its arrival until it was first given a slot."""
    prefill_s: float
    """From its first slot until its first token was known."""


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One token of one request. When `finish_reason` is set, this is the request's last token.

    If `finish_reason` is "stop", this token is the end-of-sequence or stop token and not part of the text, unless
    `completes` is true.
    """

    request_id: str
    token_id: int
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    """Natural log of the token's probability under the model, before temperature, top-k and top-p."""
    top_logprobs: tuple[tuple[int, float], ...] = ()
    start: StartTimes | None = None
    """Set in a request's first output only."""
    cached_tokens: int = 0
    """In a request's first output: prompt tokens whose keys and values were in the prefix cache."""
    prompt_logprobs: tuple[PromptLogprob, ...] | None = None
    """In the first output, if the request asks for them: one for each prompt token but the first."""
    completes: bool = False
    """If `finish_reason` is "stop": this token is the last one of the text, because the grammar allows no more."""


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """A request that ended because it could not be computed. Other requests are not affected."""

    request_id: str
    message: str
    param: str | None = None
    """The request field at fault; None if the request was valid."""

    def as_error(self) -> RequestError | RequestFailedError:
        """The error to raise for the caller."""
        return RequestFailedError(self.message) if self.param is None else RequestError(self.message, self.param)


@dataclass(frozen=True)
class Completion:
    """A finished answer of `Engine.generate`."""

    token_ids: list[int]
    """If `finish_reason` is "stop", the last one is the end-of-sequence or stop token, or completes a grammar."""
    finish_reason: FinishReason
    logprobs: list[float]
    """One per token if the request asked for logprobs, else empty."""
    top_logprobs: list[tuple[tuple[int, float], ...]]
    cached_tokens: int = field(default=0, compare=False)
    """Prompt tokens found in the prefix cache. It does not count when two completions are compared."""
    prompt_logprobs: tuple[PromptLogprob, ...] | None = None
    """One for each prompt token but the first, if the request asked for them."""
    has_end_token: bool = False
    """Whether the last token ended the answer and is not part of its text."""

    @property
    def text_ids(self) -> list[int]:
        """The tokens of the answer's text."""
        return self.token_ids[:-1] if self.has_end_token else self.token_ids

    @classmethod
    def of(cls, tokens: Sequence[TokenOutput]) -> "Completion":
        """From all outputs of one request."""
        last = tokens[-1]
        assert last.finish_reason is not None
        return cls(
            token_ids=[token.token_id for token in tokens if token.token_id != NO_TOKEN],
            finish_reason=last.finish_reason,
            logprobs=[token.logprob for token in tokens if token.logprob is not None],
            top_logprobs=[token.top_logprobs for token in tokens if token.logprob is not None],
            cached_tokens=tokens[0].cached_tokens,
            prompt_logprobs=tokens[0].prompt_logprobs,
            has_end_token=last.finish_reason == "stop" and not last.completes,
        )


@dataclass(frozen=True)
class EngineInfo:
    """Properties of a loaded engine that the server needs."""

    context_length: int
    """Most tokens of prompt and answer together, as limited by the model and by the KV cache."""
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    block_size: int
    num_blocks: int
    max_batch: int
    device: str
    dtype: str
    parameters: int


@dataclass(frozen=True)
class EngineStats:
    """The engine's state after a step. Counters start at 0 when the engine starts."""

    steps: int
    """Forward passes so far."""
    running: int
    waiting: int
    free_blocks: int
    """Blocks that no request holds, including those that the prefix cache keeps."""
    free_slots: int
    preemptions: int
    max_step_requests: int
    """Most requests in one step so far."""
    max_step_preferences: int
    """Most different preferences in one step so far. The base counts as one."""
    prefix_queries: int = 0
    """Tokens of admitted prompts that were looked up in the prefix cache, once for each request."""
    prefix_hits: int = 0
    """Tokens of these that were found, and not computed again."""
    log_lines_dropped: int = 0
    """Log lines of the engine's process that were lost, because nobody read them."""
