"""What an engine reports: plain dataclasses, for callers in its process and for messages alike."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from panacea.errors import RequestError, RequestFailedError

FinishReason = Literal["stop", "length"]


NO_TOKEN = -1
"""Stands in the only output of a request that generates none (`max_tokens` 0)."""


@dataclass(frozen=True, slots=True)
class PromptLogprob:
    """How likely a token of the prompt was behind those before it, and the most likely ones there."""

    logprob: float
    top_logprobs: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class StartTimes:
    """What a request waited for its first token, by the engine's clock."""

    queue_s: float
    """From its arrival until it was first given a slot."""
    prefill_s: float
    """From there until its first token was known."""


@dataclass(frozen=True, slots=True)
class TokenOutput:
    """One token of one request. When `finish_reason` is set, this is the request's last token.

    With `finish_reason` "stop" the token is the end-of-sequence or stop token itself and no part of the text, unless
    `completes` says that it is.
    """

    request_id: str
    token_id: int
    finish_reason: FinishReason | None = None
    logprob: float | None = None
    """Natural log of the token's probability under the model, before temperature, top-k and top-p."""
    top_logprobs: tuple[tuple[int, float], ...] = ()
    start: StartTimes | None = None
    """With a request's first token alone."""
    cached_tokens: int = 0
    """With a request's first token: tokens of its prompt whose keys and values were in the prefix cache."""
    prompt_logprobs: tuple[PromptLogprob, ...] | None = None
    """With the first output of a request that wants them: one for each token of the prompt but the first."""
    completes: bool = False
    """With `finish_reason` "stop": this is the text's own last token, because its grammar lets nothing more come."""


@dataclass(frozen=True, slots=True)
class RequestFailure:
    """A request that ended because it alone could not be computed."""

    request_id: str
    message: str
    param: str | None = None
    """The field at fault. None: the request itself was good."""

    def as_error(self) -> RequestError | RequestFailedError:
        """The error that the caller gets."""
        return RequestFailedError(self.message) if self.param is None else RequestError(self.message, self.param)


@dataclass(frozen=True)
class Completion:
    """A finished answer of `Engine.generate`."""

    token_ids: list[int]
    """With `finish_reason` "stop" the last one is the end-of-sequence or stop token, or completes a grammar."""
    finish_reason: FinishReason
    logprobs: list[float]
    """One per token if the request asked for logprobs, else empty."""
    top_logprobs: list[tuple[tuple[int, float], ...]]
    cached_tokens: int = field(default=0, compare=False)
    """Prompt tokens found in the prefix cache. Equal answers may differ in it."""
    prompt_logprobs: tuple[PromptLogprob, ...] | None = None
    """One for each token of the prompt but the first, if the request asked for them."""
    has_end_token: bool = False
    """Whether the last token ended the answer and is not part of its text."""

    @property
    def text_ids(self) -> list[int]:
        """The tokens of the answer's text."""
        return self.token_ids[:-1] if self.has_end_token else self.token_ids

    @classmethod
    def of(cls, tokens: Sequence[TokenOutput]) -> "Completion":
        """From all of a request's outputs."""
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
    """What a server needs to know of a loaded engine."""

    context_length: int
    """Most tokens of prompt and answer together, by the model and by the KV cache."""
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
    """The engine's state after a step. Counters grow from the engine's start."""

    steps: int
    """Forward passes so far."""
    running: int
    waiting: int
    free_blocks: int
    """Blocks that no request holds, whether the prefix cache keeps something in them or not."""
    free_slots: int
    preemptions: int
    max_step_requests: int
    """Most requests that ever shared one step."""
    max_step_preferences: int
    """Most different preferences (the base counts as one) that ever shared one step."""
    prefix_queries: int = 0
    """Tokens of all admitted prompts that were looked for in the prefix cache, once for each request."""
    prefix_hits: int = 0
    """How many of these tokens were found, and not computed again."""
