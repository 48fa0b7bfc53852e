"""An engine of a few lines: its tokens are a hash of what they may depend on, and it remembers who asked for what."""

import asyncio
import hashlib
from dataclasses import dataclass, field, replace
from typing import Self

from panacea.engine.outputs import (
    NO_TOKEN,
    EngineInfo,
    EngineStats,
    FinishReason,
    PromptLogprob,
    StartTimes,
    TokenOutput,
)
from panacea.engine.request import Request
from panacea.errors import EngineError

EOS = 1
FIRST_TEXT_TOKEN = 5


@dataclass
class FakeEngine:
    """Stands in for `EngineClient`. All of it may be changed while it runs."""

    info: EngineInfo = field(
        default_factory=lambda: EngineInfo(
            context_length=512,
            vocab_size=354,
            eos_token_ids=(EOS,),
            block_size=16,
            num_blocks=64,
            max_batch=8,
            device="cpu",
            dtype="float32",
            parameters=1,
        )
    )
    stats: EngineStats | None = None
    alive: bool = True
    heartbeat_age_s: float = 0.0
    restarts: int = 0
    queue_s: float = 0.0
    """What it says that each request waited before its prefill."""
    prefill_s: float = 0.0
    """Time before the first token."""
    step_s: float = 0.0
    """Time before each other token."""
    script: list[int] | None = None
    """Tokens to say, and then the end token; None hashes."""
    failure: BaseException | None = None
    """Raised before the token at `failure_at`."""
    failure_at: int = 0
    truncate_at: int | None = None
    """Ends before this position without a finish reason, as no engine should."""
    cached_tokens: int = 0
    """Tokens of each prompt that are said to come from the prefix cache."""
    submitted: list[Request] = field(default_factory=list[Request])
    live: int = 0
    """Requests that hold something in the engine."""
    aborted: int = 0

    def open(self, request: Request) -> "FakeStream":
        self.submitted.append(replace(request, prompt_ids=tuple(request.prompt_ids)))
        self.live += 1
        return FakeStream(self, request)

    def release(self) -> None:
        """A request gave back all that it held."""
        self.live -= 1

    def output(self, request: Request, position: int) -> TokenOutput:
        prompt_ids, preference, params = request.prompt_ids, request.preference, request.params
        noise = (params.seed, params.choice) if params.temperature else ()
        token_id = self._token(f"{list(prompt_ids)} {preference} {noise} {position}", position)
        if token_id == EOS and (params.ignore_eos or position < params.min_tokens):
            token_id = FIRST_TEXT_TOKEN
        last = position + 1 >= params.max_tokens
        stopped = (token_id == EOS and not params.ignore_eos) or token_id in params.stop_token_ids
        logprob = None if params.logprobs is None else -0.25 * (position + 1)
        top = tuple((token_id + index, -0.25 * (index + 1)) for index in range(params.logprobs or 0))
        reason: FinishReason | None = "stop" if stopped else "length" if last else None
        start = None if position else StartTimes(self.queue_s, self.prefill_s)
        cached = 0 if position else self.cached_tokens
        scores: tuple[PromptLogprob, ...] | None = None
        if params.prompt_logprobs is not None and position == 0:
            tops = [
                tuple((token + index, -1.0 - index) for index in range(params.prompt_logprobs)) for token in prompt_ids
            ]
            scores = tuple(PromptLogprob(-0.5 * place, tops[place]) for place in range(1, len(prompt_ids)))
        if params.max_tokens == 0:
            return TokenOutput("", NO_TOKEN, "length", start=start, prompt_logprobs=scores)
        return TokenOutput("", token_id, reason, logprob, top, start, cached, scores)

    def _token(self, key: str, position: int) -> int:
        if self.script is not None:
            return self.script[position] if position < len(self.script) else EOS
        number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        if position and number % 61 == 0:  # every answer has a text, whatever seed the server drew
            return EOS
        return FIRST_TEXT_TOKEN + number % (self.info.vocab_size - FIRST_TEXT_TOKEN)


class FakeStream:
    """The handle of one answer."""

    def __init__(self, engine: FakeEngine, request: Request) -> None:
        self._engine = engine
        self._request = request
        self._position = 0
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenOutput:
        engine, position = self._engine, self._position
        if self._ended:
            raise StopAsyncIteration
        await asyncio.sleep(engine.step_s if position else engine.prefill_s)
        if engine.failure is not None and position >= engine.failure_at:
            self._end()
            raise engine.failure
        if position == engine.truncate_at:
            raise StopAsyncIteration
        self._position += 1
        output = engine.output(self._request, position)
        if output.finish_reason is not None:
            self._end()
        return output

    def close(self) -> None:
        if not self._ended:
            self._end()
            self._engine.aborted += 1

    def _end(self) -> None:
        self._ended = True
        self._engine.release()


ENGINE_FAILURE = EngineError("a made-up failure")
