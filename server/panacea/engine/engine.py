"""The engine: requests in, tokens out. The server's engine process and offline callers use the same one."""

import itertools
import logging
import time
from collections import abc
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING

from panacea.config import EngineConfig
from panacea.engine.grammar import FIELD, Grammar, Grammars
from panacea.engine.local_stream import LocalStream
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
from panacea.engine.prefix_keys import ModelIdentity
from panacea.engine.proof import prove
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.running_steps import RunningSteps
from panacea.engine.sampler import Sampled
from panacea.engine.scheduler import Scheduler, Work
from panacea.engine.sequence import Sequence
from panacea.engine.step_runner import StepRunner
from panacea.errors import EngineError, PanaceaError, RequestError, RequestFailedError, is_contained
from panacea.model.loader import LoadedModel, load_model

if TYPE_CHECKING:
    from llguidance import LLMatcher

logger = logging.getLogger(__name__)

_COMPILE_PATIENCE_S = 0.005
"""How long a step without other work waits for a grammar before it returns to the caller."""


class Engine:
    """Continuous batching of requests that each bring their own preference.

    Offline use:

        engine = Engine.load(EngineConfig(model=Path("base"), adapter=Path("adapter")))
        requests = [Request(prompt_ids, (0.7, 0.3), SamplingParams(max_tokens=64))]
        completions = engine.generate(requests)
        for token in engine.open(requests[0]):
            print(token.token_id)

    Callers with a loop of their own, such as the server's engine process, use `add`, `abort` and `step`.
    """

    def __init__(
        self,
        runner: StepRunner,
        scheduler: Scheduler,
        info: EngineInfo,
        dimensions: int | None,
        grammars: Grammars | None = None,
        queue_timeout_s: float | None = None,
    ) -> None:
        """`dimensions`: number of weights of a preference; None without an adapter. `grammars`: compiles grammars for
        the model's vocabulary; None turns structured output off. `queue_timeout_s`: see `drop_late`."""
        self.info = info
        self._runner = runner
        self._scheduler = scheduler
        self._dimensions = dimensions
        self._grammars = grammars
        self._compiling: dict[Sequence, Future[LLMatcher]] = {}
        """Sequences that are not queued yet, because their grammars are being compiled."""
        self._queue_timeout_s = queue_timeout_s
        self._sequences: dict[str, Sequence] = {}
        self._streams: dict[str, LocalStream] = {}
        self._ids = itertools.count()
        self._steps = RunningSteps(scheduler)
        self._failures: list[RequestFailure] = []

    @classmethod
    def load(cls, config: EngineConfig) -> "Engine":
        """Loads base and adapter. Raises `CheckpointError` or `ConfigError` with a message of one line."""
        return cls.over(load_model(config), config)

    @classmethod
    def over(cls, model: LoadedModel, config: EngineConfig) -> "Engine":
        """An engine for a loaded model. Raises `ConfigError` for lack of memory, and `CheckpointError` as `prove`."""
        runner = Runner(model, config)
        digest = model.adapter.content_digest() if model.adapter else None
        identity = ModelIdentity(model.base_identity, digest) if config.prefix_cache else None
        scheduler = Scheduler(
            num_blocks=runner.num_blocks,
            block_size=config.block_size,
            max_batch=config.max_batch,
            max_step_tokens=config.max_step_tokens,
            context_length=model.context_length,
            identity=identity,
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
        prove(model, config, runner.num_blocks, lambda scheduler: cls(runner, scheduler, info, dimensions).generate)
        grammars = Grammars.load(config.model, model.vocab_size, model.eos_token_ids)
        return cls(runner, scheduler, info, dimensions, grammars, config.queue_timeout_s)

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._steps) or bool(self._compiling)

    @property
    def stats(self) -> EngineStats:
        return EngineStats(
            steps=self._steps.launched,
            running=len(self._scheduler.running),
            waiting=len(self._scheduler.waiting) + len(self._compiling),
            free_blocks=len(self._scheduler.blocks),
            free_slots=len(self._scheduler.slots),
            preemptions=self._scheduler.preemptions,
            max_step_requests=self._steps.most_requests,
            max_step_preferences=self._steps.most_preferences,
            prefix_queries=self._scheduler.prefix_cache.queries,
            prefix_hits=self._scheduler.prefix_cache.hits,
        )

    def add(self, request_id: str, request: Request) -> None:
        """Queues a request under the caller's id. Raises `RequestError` if it could never be served."""
        if request_id in self._sequences:
            raise RequestError("this request id is in use: choose another one")
        self._check(request)
        sequence = Sequence(request_id, request)
        if request.params.json_schema is None:
            self._scheduler.add(sequence)
        else:
            self._scheduler.check(sequence)
            self._compiling[sequence] = self._begin_grammar(request.params.json_schema)
        self._sequences[request_id] = sequence

    def abort(self, request_id: str) -> None:
        """Ends a request and frees all it holds. Ignores unknown ids, because the request may just have finished."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None and self._compiling.pop(sequence, None) is None:
            self._scheduler.remove(sequence)

    def step(self) -> list[TokenOutput]:
        """Schedule, launch, wait, report: starts one forward and returns its tokens.

        With a runner that works a step ahead, the tokens are those of the previous step. A launch that raises fails
        only the requests that cause it, unless the device is not usable any more. Then the exception is raised.
        """
        self._queue_compiled()
        work = self._scheduler.schedule()
        tokens: list[TokenOutput] = []
        fault = self._steps.launch(self._runner, work) if work else None
        if fault is not None:
            tokens += self._wait(0)  # a second launch needs the tokens of the steps that still run
            tokens += self._launch_in_halves(work, fault)
        return tokens + self._wait(self._runner.steps_ahead if work else 0)

    def drop_late(self) -> list[Sequence]:
        """Ends the requests that have waited for their first step for longer than the configured limit."""
        if self._queue_timeout_s is None:
            return []
        late = self._scheduler.waiting.arrived_before(time.monotonic() - self._queue_timeout_s)
        for sequence in late:
            self.abort(sequence.request_id)
        return late

    def take_failures(self) -> list[RequestFailure]:
        """The requests that failed since the last call. The step that failed returned no token for them."""
        failures, self._failures = self._failures, []
        return failures

    def open(self, request: Request) -> LocalStream:
        """Queues a request and returns the handle of its answer. Iterating over it runs the engine.

        Raises `RequestError` if the request could never be served, and `EngineError` if requests were queued with
        `add`: their tokens would have nowhere to go.
        """
        if len(self._sequences) > len(self._streams):
            raise EngineError(
                "open and generate cannot run beside requests that were queued with add: finish or abort those first"
            )
        request_id = str(next(self._ids))
        self.add(request_id, request)
        self._streams[request_id] = LocalStream(request_id, self._advance, self._close)
        return self._streams[request_id]

    def generate(
        self, requests: abc.Sequence[Request], completed: abc.Callable[[int, Completion], None] | None = None
    ) -> list[Completion]:
        """The answers to all `requests`, in their order and in shared batches. Blocks until all are done.

        `completed` is called with the index and the answer of each request as soon as it is complete. Raises
        `RequestError` if one of them could never be served; then none is. Raises `RequestFailedError`, with the
        request's `index`, if one of them cannot be computed. Raises `EngineError` as `open` does.
        """
        collected: dict[LocalStream, list[TokenOutput]] = {}
        completions: dict[int, Completion] = {}
        try:
            for request in requests:
                collected[self.open(request)] = []
            index_of = {stream: index for index, stream in enumerate(collected)}
            while len(completions) < len(requests):
                for stream in self._advance():
                    if stream not in collected:  # opened by another caller, who reads it later
                        continue
                    try:
                        collected[stream] += stream.take()
                    except RequestFailedError as error:
                        raise RequestFailedError(str(error), index_of[stream]) from None
                    if collected[stream][-1].finish_reason is not None:
                        index = index_of[stream]
                        completions[index] = Completion.of(collected[stream])
                        if completed is not None:
                            completed(index, completions[index])
        finally:
            for stream in collected:
                stream.close()
        return [completions[index] for index in range(len(requests))]

    def check_integrity(self) -> None:
        """Raises `ValueError` if a block or slot is lost or owned twice."""
        self._scheduler.check_integrity()

    def _advance(self) -> list[LocalStream]:
        """Runs one step and delivers its tokens and errors. Returns the streams that received any."""
        arrived: list[tuple[str, TokenOutput | PanaceaError]] = [(token.request_id, token) for token in self.step()]
        arrived += [(failure.request_id, failure.as_error()) for failure in self.take_failures()]
        reached: dict[LocalStream, None] = {}  # a set in order: a step may return two tokens of one stream
        for request_id, item in arrived:
            stream = self._streams[request_id]
            stream.deliver(item)
            reached[stream] = None
            if stream.ended:
                del self._streams[request_id]
        return list(reached)

    def _close(self, request_id: str) -> None:
        del self._streams[request_id]
        self.abort(request_id)

    def _check(self, request: Request) -> None:
        vocab_size, params, preference = self.info.vocab_size, request.params, request.preference
        if any(not 0 <= token < vocab_size for token in request.prompt_ids):
            raise RequestError(f"prompt tokens must be between 0 and {vocab_size - 1}", "prompt")
        if any(not 0 <= token < vocab_size for token in params.stop_token_ids):
            raise RequestError(f"stop_token_ids must be between 0 and {vocab_size - 1}", "stop_token_ids")
        if any(not 0 <= token < vocab_size for token, _ in params.logit_bias):
            raise RequestError(f"logit_bias: token ids must be between 0 and {vocab_size - 1}", "logit_bias")
        if preference is None:
            return
        if len(preference) != self._dimensions:
            raise RequestError(
                f"the preference has {len(preference)} weights: give one for each of the adapter's dimensions",
                "preference",
            )
        if not all(0 <= weight <= 1 for weight in preference):  # false for NaN too
            raise RequestError("the weights of a preference must be between 0 and 1", "preference")

    def _launch_in_halves(self, work: abc.Sequence[Work], fault: BaseException) -> list[TokenOutput]:
        """Launches work that raised `fault` once more, in parts, and returns the tokens. A request that raises alone
        fails.

        No other request notices: nothing was sampled yet, and its keys and values are written to the same places.
        """
        if len(work) == 1:
            if self._is_live(work[0].sequence):
                self._fail_by(work[0].sequence, fault)
            return []
        tokens: list[TokenOutput] = []
        middle = len(work) // 2
        for part in (work[:middle], work[middle:]):
            live = [item for item in part if self._is_live(item.sequence)]  # one may have ended since it was scheduled
            again = self._steps.launch(self._runner, live) if live else None
            tokens += self._wait(0) if again is None else self._launch_in_halves(live, again)
        return tokens

    def _wait(self, steps_left: int) -> list[TokenOutput]:
        """Waits for the oldest running steps until `steps_left` of them run. Returns their tokens."""
        tokens: list[TokenOutput] = []
        while len(self._steps) > steps_left:
            for sequence, sampled in self._steps.wait():
                if self._is_live(sequence):  # it may have ended after this step was launched
                    try:
                        tokens += self._report(sequence, sampled)
                    except BaseException as error:
                        self._fail_by(sequence, error)
        return tokens

    def _is_live(self, sequence: Sequence) -> bool:
        return self._sequences.get(sequence.request_id) is sequence

    def _begin_grammar(self, schema: str) -> "Future[LLMatcher]":
        if self._grammars is None:
            raise RequestError(
                f"{FIELD}: structured output is not available on this server: llguidance is not installed, or cannot "
                "read the model's tokenizer",
                FIELD,
            )
        return self._grammars.begin(schema)

    def _queue_compiled(self) -> None:
        """Queues the sequences whose grammars are ready. Waits a moment for one if there is nothing else to do."""
        if self._compiling and not self._scheduler.has_work and not self._steps:
            wait(self._compiling.values(), _COMPILE_PATIENCE_S, FIRST_COMPLETED)
        for sequence, compiled in list(self._compiling.items()):
            if compiled.done():
                try:
                    sequence.grammar = Grammars.start(compiled)
                    self._scheduler.add(sequence)
                except RequestError as error:
                    self._fail(sequence, str(error), error.param)
                except BaseException as error:
                    self._fail_by(sequence, error)
                else:
                    del self._compiling[sequence]

    def _fail(self, sequence: Sequence, message: str, param: str | None = None) -> None:
        self.abort(sequence.request_id)
        self._failures.append(RequestFailure(sequence.request_id, message, param))

    def _fail_by(self, sequence: Sequence, error: BaseException) -> None:
        """Fails a sequence for which something raised `error`. The message does not repeat the error's text, which may
        contain parts of other requests."""
        if not is_contained(error):
            raise error
        logger.error("request %s failed", sequence.request_id, exc_info=error)
        self._fail(sequence, f"its step raised {type(error).__name__}")

    def _report(self, sequence: Sequence, sampled: Sampled) -> list[TokenOutput]:
        """The sequence's token in a list, which is empty if the sequence failed."""
        if not sampled.finite:
            self._scheduler.prefix_cache.invalidate(sequence)
            self._fail(sequence, "its logits are not finite numbers")
            return []
        if not sampled.allowed:
            field, schema = ("stop_token_ids", "") if sequence.grammar is None else (FIELD, "the schema, ")
            rule = f"the answer allows no further token: {schema}min_tokens and stop_token_ids exclude all"
            self._fail(sequence, f"{field}: {rule}; change one of them", field)
            return []
        self._scheduler.append_token(sequence, sampled.token_id)
        if sequence.grammar is not None and not self._follow(sequence, sequence.grammar):
            return []
        reason = self._finish_reason(sequence)
        if reason is not None:
            self.abort(sequence.request_id)
        is_first = len(sequence.output_ids) == 1
        generates = sequence.request.params.max_tokens > 0
        output = TokenOutput(
            sequence.request_id,
            sampled.token_id if generates else NO_TOKEN,
            reason,
            sampled.logprob if generates else None,
            sampled.top_logprobs if generates else (),
            start=_start_times(sequence) if is_first else None,
            cached_tokens=sequence.cached_tokens if is_first else 0,
            prompt_logprobs=sampled.prompt_logprobs,
            completes=reason == "stop" and not self._is_end(sequence, sampled.token_id),
        )
        return [output]

    def _follow(self, sequence: Sequence, grammar: Grammar) -> bool:
        """Advances the grammar by the sequence's last token. False: the sequence failed."""
        grammar.accept(sequence.output_ids[-1])
        failure = grammar.failure
        if failure is not None:
            self._fail(sequence, failure, FIELD)
        return failure is None

    def _finish_reason(self, sequence: Sequence) -> FinishReason | None:
        params, count = sequence.request.params, len(sequence.output_ids)
        if sequence.grammar is not None and sequence.grammar.has_ended:
            return "stop"
        if self._is_end(sequence, sequence.output_ids[-1]) and params.max_tokens and count > params.min_tokens:
            return "stop"
        return "length" if count >= params.max_tokens else None

    def _is_end(self, sequence: Sequence, token: int) -> bool:
        """Whether this token ends the answer and is not part of its text."""
        params = sequence.request.params
        ends_text = token in self.info.eos_token_ids and not (params.ignore_eos and sequence.grammar is None)
        return token in params.stop_token_ids or ends_text


def _start_times(sequence: Sequence) -> StartTimes:
    """Call this as soon as the first token is known: it reads the clock."""
    assert sequence.started_at is not None
    return StartTimes(sequence.started_at - sequence.arrived_at, time.monotonic() - sequence.started_at)
