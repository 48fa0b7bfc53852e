"""An engine of a few lines: its tokens are a hash of what they may depend on, and it remembers who asked for what."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from panacea.engine.outputs import (
    NO_TOKEN,
    EngineInfo,
    EngineStats,
    FinishReason,
    PromptLogprob,
    StartTimes,
    TokenOutput,
)
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import EngineError
from panacea.preference import Preference

EOS = 1
FIRST_TEXT_TOKEN = 5


@dataclass(frozen=True)
class Submitted:
    """One engine request as it arrived."""

    prompt_ids: tuple[int, ...]
    preference: Preference | None
    params: SamplingParams
    cache_salt: str
    tenant: str


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
    failure: Exception | None = None
    """Raised before the token at `failure_at`."""
    failure_at: int = 0
    truncate_at: int | None = None
    """Ends before this position without a finish reason, as no engine should."""
    cached_tokens: int = 0
    """Tokens of each prompt that are said to come from the prefix cache."""
    submitted: list[Submitted] = field(default_factory=list[Submitted])
    live: int = 0
    """Requests that hold something in the engine."""
    aborted: int = 0

    kept: list[AsyncGenerator[TokenOutput]] = field(default_factory=list[AsyncGenerator[TokenOutput]])
    """All generators: nobody's request ends because its garbage was collected."""

    def generate(
        self,
        prompt_ids: Sequence[int],
        preference: Preference | None,
        params: SamplingParams,
        cache_salt: str = "",
        tenant: str = "",
    ) -> AsyncGenerator[TokenOutput]:
        self.kept.append(self._generate(prompt_ids, preference, params, cache_salt, tenant))
        return self.kept[-1]

    async def _generate(
        self,
        prompt_ids: Sequence[int],
        preference: Preference | None,
        params: SamplingParams,
        cache_salt: str,
        tenant: str,
    ) -> AsyncGenerator[TokenOutput]:
        self.submitted.append(Submitted(tuple(prompt_ids), preference, params, cache_salt, tenant))
        self.live += 1
        ended = False
        try:
            for position in range(max(1, params.max_tokens)):
                await asyncio.sleep(self.step_s if position else self.prefill_s)
                if self.failure is not None and position >= self.failure_at:
                    ended = True
                    raise self.failure
                if position == self.truncate_at:
                    return
                output = self._output(prompt_ids, preference, params, position)
                ended = output.finish_reason is not None
                yield output
                if ended:
                    return
        finally:
            self.live -= 1
            self.aborted += not ended

    def _output(
        self, prompt_ids: Sequence[int], preference: Preference | None, params: SamplingParams, position: int
    ) -> TokenOutput:
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


ENGINE_FAILURE = EngineError("a made-up failure")
