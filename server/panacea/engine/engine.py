"""The engine: requests in, tokens out. The same one runs in the server's engine process and in yours."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Protocol

from panacea.config import EngineConfig
from panacea.engine.grammar import FIELD, Grammar, Grammars
from panacea.engine.outputs import (
    NO_TOKEN,
    Completion,
    EngineInfo,
    EngineStats,
    FinishReason,
    RequestFailure,
    StartTimes,
    TokenOutput,
)
from panacea.engine.prefix_keys import ModelIdentity, root_key
from panacea.engine.runner import Runner
from panacea.engine.sampler import Sampled
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.scheduler import Scheduler, Work
from panacea.engine.sequence import Request
from panacea.errors import EngineError, RequestError, RequestFailedError
from panacea.model.loader import LoadedModel, load_model
from panacea.preference import Preference

if TYPE_CHECKING:
    from llguidance import LLMatcher

_COMPILE_PATIENCE_S = 0.005
"""How long a step without work waits for a grammar, before messages are looked at again."""


class RunningStep(Protocol):
    """A step that was launched."""

    def result(self) -> list[Sampled]:
        """A token for each item of work that samples, in their order. Waits until the step is done."""
        ...


class StepRunner(Protocol):
    """What the engine needs of a runner. Tests put a model of a few lines here."""

    @property
    def steps_ahead(self) -> int:
        """How many steps are launched before the oldest one's tokens are waited for: 1 where a device works beside
        the host, which then prepares step n + 1 while step n runs."""
        ...

    def launch(self, work: Sequence[Work]) -> RunningStep:
        """Starts one forward over `work` (single tokens first)."""
        ...


class Engine:
    """Continuous batching of requests that each bring their own preference.

    Offline use:

        engine = Engine.load(EngineConfig(model=Path("base"), adapter=Path("adapter")))
        completions = engine.generate([prompt_ids], [(0.7, 0.3)], SamplingParams(max_tokens=64))
    """

    def __init__(
        self,
        runner: StepRunner,
        scheduler: Scheduler,
        info: EngineInfo,
        dimensions: int | None,
        identity: ModelIdentity | None = None,
        grammars: Grammars | None = None,
        queue_timeout_s: float | None = None,
    ) -> None:
        """`dimensions`: how many weights a preference has; None for an engine without adapter. `identity`: of the model
        whose prefixes are cached; None for no prefix cache. `grammars`: of the model's vocabulary; None where no answer
        can follow any. `queue_timeout_s`: see `drop_late`."""
        self.info = info
        self._runner = runner
        self._scheduler = scheduler
        self._dimensions = dimensions
        self._identity = identity
        self._grammars = grammars
        self._compiling: dict[Request, Future[LLMatcher]] = {}
        """Requests that are not queued yet: their grammars are compiled first."""
        self._queue_timeout_s = queue_timeout_s
        self._requests: dict[str, Request] = {}
        self._running_steps: deque[tuple[list[Request], RunningStep]] = deque()
        self._failures: list[RequestFailure] = []
        self._steps = 0
        self._max_step_requests = 0
        self._max_step_preferences = 0

    @classmethod
    def load(cls, config: EngineConfig) -> "Engine":
        """Loads base and adapter. Raises `CheckpointError` or `ConfigError` with one clear line."""
        return cls.over(load_model(config), config)

    @classmethod
    def over(cls, model: LoadedModel, config: EngineConfig) -> "Engine":
        """An engine for a model that is loaded. Raises `ConfigError` if it and its cache do not fit the device."""
        runner = Runner(model, config)
        scheduler = Scheduler(
            num_blocks=runner.num_blocks,
            block_size=config.block_size,
            max_batch=config.max_batch,
            max_step_tokens=config.max_step_tokens,
            context_length=model.context_length,
        )
        info = EngineInfo(
            context_length=scheduler.context_length,
            vocab_size=model.vocab_size,
            eos_token_ids=model.eos_token_ids,
            block_size=config.block_size,
            num_blocks=runner.num_blocks,
            max_batch=config.max_batch,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            parameters=model.parameters,
        )
        dimensions = len(model.adapter.config.space.dimensions) if model.adapter else None
        identity = None
        if config.prefix_cache:
            identity = ModelIdentity(model.base_identity, model.adapter.content_digest() if model.adapter else None)
        grammars = Grammars.load(config.model, model.vocab_size, model.eos_token_ids)
        return cls(runner, scheduler, info, dimensions, identity, grammars, config.queue_timeout_s)

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._running_steps) or bool(self._compiling)

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            steps=self._steps,
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + len(self._compiling),
            free_blocks=len(self._scheduler.blocks),
            free_slots=len(self._scheduler.slots),
            preemptions=self._scheduler.preemptions,
            max_step_requests=self._max_step_requests,
            max_step_preferences=self._max_step_preferences,
            prefix_queries=self._scheduler.prefix_queries,
            prefix_hits=self._scheduler.prefix_hits,
        )

    def add(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        preference: Preference | None,
        params: SamplingParams,
        cache_salt: str = "",
        tenant: str = "",
    ) -> None:
        """Queues a request; `preference` None is the bare base. Raises `RequestError` if it could never be served.

        Requests share cached prefixes with those of equal `cache_salt` alone. Tenants take turns.
        """
        if request_id in self._requests:
            raise RequestError("this request id is in use")
        self._check(prompt_ids, preference, params)
        root = None if self._identity is None else root_key(self._identity, preference, cache_salt)
        request = Request(request_id, list(prompt_ids), preference, params, tenant=tenant, prefix_root=root)
        if params.json_schema is None:
            self._scheduler.add(request)
        else:
            self._scheduler.check(request)
            self._compiling[request] = self._begin_grammar(params.json_schema)
        self._requests[request_id] = request

    def abort(self, request_id: str) -> None:
        """Ends a request and frees all it holds. An unknown id is fine: it may just have finished."""
        request = self._requests.pop(request_id, None)
        if request is not None and self._compiling.pop(request, None) is None:
            self._scheduler.remove(request)

    def step(self) -> list[TokenOutput]:
        """Schedule, launch, wait, report: starts one forward, and returns the tokens that came of it.

        With a runner that works ahead, the tokens are those of the step before.
        """
        self._queue_compiled()
        work = self._scheduler.schedule()
        if work:
            sampling = [item.request for item in work if item.samples]
            self._running_steps.append((sampling, self._runner.launch(work)))
            self._scheduler.advance(work)
            self._count(work)
        tokens: list[TokenOutput] = []
        while len(self._running_steps) > (self._runner.steps_ahead if work else 0):
            requests, step = self._running_steps.popleft()
            sampled = zip(requests, step.result(), strict=True)
            # A request that ended while this step was on its way wants nothing of it.
            for request, token in sampled:
                if self._is_live(request):
                    tokens += self._report(request, token)
        return tokens

    def drop_late(self) -> list[Request]:
        """Ends the requests that have waited for their first step for longer than the configured limit."""
        if self._queue_timeout_s is None:
            return []
        late = self._scheduler.waiting.arrived_before(time.monotonic() - self._queue_timeout_s)
        for request in late:
            self.abort(request.request_id)
        return late

    def take_failures(self) -> list[RequestFailure]:
        """The requests that ended in failure since the last call. Each one's step gave it no token."""
        failures, self._failures = self._failures, []
        return failures

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        preferences: Sequence[Preference | None],
        params: SamplingParams | Sequence[SamplingParams],
        cache_salt: str = "",
    ) -> list[Completion]:
        """Answers to all `prompts` (token ids), batched, each under its own preference. Blocks until all are done.

        `params` is one for all, or one per prompt; `cache_salt` as in `add`. Raises `RequestError` if one could never
        be served; then none is. The engine must have no other requests (`EngineError`): their tokens would have nowhere
        to go. Raises `RequestFailedError` if one of them cannot be computed.
        """
        if self._requests:
            raise EngineError("generate needs an engine without other requests")
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
        ids = [str(index) for index in range(len(prompts))]
        collected: dict[str, list[TokenOutput]] = {request_id: [] for request_id in ids}
        try:
            for request_id, prompt, preference, own in zip(ids, prompts, preferences, each, strict=True):
                self.add(request_id, prompt, preference, own, cache_salt)
            while self._requests:
                for token in self.step():
                    collected[token.request_id].append(token)
                for failure in self.take_failures():
                    if failure.param is not None:
                        raise RequestError(failure.message, failure.param)
                    raise RequestFailedError(f"request {failure.request_id} failed: {failure.message}")
        finally:
            for request_id in ids:
                self.abort(request_id)
        return [_completion(collected[request_id]) for request_id in ids]

    def check_integrity(self) -> None:
        """Raises `ValueError` if a block or slot is lost or owned twice."""
        self._scheduler.check_integrity()

    def _check(self, prompt_ids: Iterable[int], preference: Preference | None, params: SamplingParams) -> None:
        if any(not 0 <= token < self.info.vocab_size for token in prompt_ids):
            raise RequestError(f"a prompt token is not between 0 and {self.info.vocab_size - 1}", "prompt")
        if any(not 0 <= token < self.info.vocab_size for token in params.stop_token_ids):
            raise RequestError(f"a stop token is not between 0 and {self.info.vocab_size - 1}", "stop_token_ids")
        if any(not 0 <= token < self.info.vocab_size for token, _ in params.logit_bias):
            raise RequestError(
                f"logit_bias names a token that is not between 0 and {self.info.vocab_size - 1}", "logit_bias"
            )
        if preference is None:
            return
        if len(preference) != self._dimensions:
            raise RequestError("the preference does not fit the adapter's dimensions", "preference")
        if not all(0 <= weight <= 1 for weight in preference):  # false for NaN too
            raise RequestError("a preference's weights are between 0 and 1", "preference")

    def _is_live(self, request: Request) -> bool:
        return self._requests.get(request.request_id) is request

    def _begin_grammar(self, schema: str) -> "Future[LLMatcher]":
        if self._grammars is None:
            raise RequestError(
                f"{FIELD}: this engine cannot follow a grammar: llguidance is not installed, or cannot read the "
                "model's tokenizer",
                FIELD,
            )
        return self._grammars.begin(schema)

    def _queue_compiled(self) -> None:
        """Queues the requests whose grammars are ready, and waits a moment for one if there is nothing else to do."""
        if self._compiling and not self._scheduler.has_work and not self._running_steps:
            wait(self._compiling.values(), _COMPILE_PATIENCE_S, FIRST_COMPLETED)
        for request, compiled in list(self._compiling.items()):
            if compiled.done():
                try:
                    request.grammar = Grammars.start(compiled)
                except RequestError as error:
                    self._fail(request, str(error), error.param)
                    continue
                del self._compiling[request]
                self._scheduler.add(request)

    def _fail(self, request: Request, message: str, param: str | None = None) -> None:
        self.abort(request.request_id)
        self._failures.append(RequestFailure(request.request_id, message, param))

    def _report(self, request: Request, sampled: Sampled) -> list[TokenOutput]:
        """The request's token, or nothing if it failed."""
        if not sampled.finite:
            self._scheduler.distrust(request)
            self._fail(request, "its logits are not finite numbers")
            return []
        self._scheduler.learn(request, sampled.token_id)
        if request.grammar is not None and not self._follow(request, request.grammar):
            return []
        reason = self._finish_reason(request)
        if reason is not None:
            self.abort(request.request_id)
        is_first = len(request.output_ids) == 1
        generates = request.params.max_tokens > 0
        output = TokenOutput(
            request.request_id,
            sampled.token_id if generates else NO_TOKEN,
            reason,
            sampled.logprob if generates else None,
            sampled.top_logprobs if generates else (),
            start=_start_times(request) if is_first else None,
            cached_tokens=request.cached_tokens if is_first else 0,
            prompt_logprobs=sampled.prompt_logprobs,
            completes=reason == "stop" and not self._is_end(request, sampled.token_id),
        )
        return [output]

    def _follow(self, request: Request, grammar: Grammar) -> bool:
        """Takes the request's last token into its grammar. False: the request failed."""
        grammar.accept(request.output_ids[-1])
        if grammar.has_failed:
            self._fail(request, f"{FIELD}: following the JSON schema takes too much work at this place", FIELD)
        return not grammar.has_failed

    def _finish_reason(self, request: Request) -> FinishReason | None:
        params, count = request.params, len(request.output_ids)
        if request.grammar is not None and request.grammar.has_ended:
            return "stop"
        if self._is_end(request, request.output_ids[-1]) and params.max_tokens and count > params.min_tokens:
            return "stop"
        return "length" if count >= params.max_tokens else None

    def _is_end(self, request: Request, token: int) -> bool:
        """Whether this token ends the answer and is none of its text."""
        ends_text = token in self.info.eos_token_ids and not (request.params.ignore_eos and request.grammar is None)
        return token in request.params.stop_token_ids or ends_text

    def _count(self, work: Sequence[Work]) -> None:
        self._steps += 1
        self._max_step_requests = max(self._max_step_requests, len(work))
        preferences = {item.request.preference for item in work}
        self._max_step_preferences = max(self._max_step_preferences, len(preferences))


def _start_times(request: Request) -> StartTimes:
    """Called when the first token is known."""
    assert request.started_at is not None
    return StartTimes(request.started_at - request.arrived_at, time.monotonic() - request.started_at)


def _completion(tokens: Sequence[TokenOutput]) -> Completion:
    reason = tokens[-1].finish_reason
    assert reason is not None
    return Completion(
        token_ids=[token.token_id for token in tokens if token.token_id != NO_TOKEN],
        finish_reason=reason,
        logprobs=[token.logprob for token in tokens if token.logprob is not None],
        top_logprobs=[token.top_logprobs for token in tokens if token.logprob is not None],
        cached_tokens=tokens[0].cached_tokens,
        prompt_logprobs=tokens[0].prompt_logprobs,
    )
