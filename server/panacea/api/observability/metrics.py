"""`GET /metrics`: the server's metrics in Prometheus' text format, with vLLM's names.

docs/observability.md describes every metric. Labels are the served model's name, a finish reason, the reason of a
rejection, a dimension's name, or the name of a key in the key file. All values are known and few. A client's data, such
as a preference, never becomes a label.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from panacea.api.access.admission import Admission
from panacea.api.access.key_ring import Account
from panacea.api.engine_interface import EngineLike
from panacea.api.error_responses import error_docs
from panacea.engine.outputs import NO_TOKEN, FinishReason, TokenOutput
from panacea.engine.request import Request
from panacea.logs import log_lines_dropped
from panacea.preference import Preference, PreferenceSpace
from panacea.text.pool import TextService

FinishedReason = FinishReason | Literal["abort", "error"]
"""How a request ended: the engine's finish reason, "abort" if its client disconnected, or "error"."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REASONS: tuple[FinishedReason, ...] = ("stop", "length", "abort", "error")

# vLLM's bounds, plus smaller ones. Without those, all values of a small model or a fast GPU would be in one bucket.
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    *(160.0, 640.0, 2560.0),
)
_TOKEN_S = (
    *(0.001, 0.002, 0.004, 0.006, 0.008),
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2),
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0),
    *(1920.0, 7680.0),
)
_TENTHS = tuple(tenth / 10 for tenth in range(11))


class Metrics:
    """One server's metrics, in a registry of their own.

    Call it only from the event loop. The observations for one token take 1.4 us.
    """

    def __init__(
        self,
        model_name: str,
        engine: EngineLike,
        text: TextService,
        space: PreferenceSpace | None,
        admission: Admission,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per metric that is never used
        self._registry = CollectorRegistry(auto_describe=False)
        self._model_name = model_name
        ProcessCollector(registry=self._registry)
        self._registry.register(_StateCollector(model_name, engine))
        self._registry.register(_AdmissionCollector(model_name, admission))
        self._registry.register(_TextCollector(model_name, text))
        lengths = tuple(_one_two_five(engine.info.context_length))

        self.prompt_tokens = self._counter(
            "prompt_tokens", "Prompt tokens, counted when a request's first token is generated."
        )
        self.generation_tokens = self._counter("generation_tokens", "Generated tokens.")
        self.time_to_first_token = self._histogram(
            "time_to_first_token_seconds", "Time from a request to its first token.", _FIRST_TOKEN_S
        )
        self.inter_token_latency = self._histogram(
            "inter_token_latency_seconds", "Time from each token to the next one.", _TOKEN_S
        )
        self.time_per_output_token = self._histogram(
            "request_time_per_output_token_seconds", "A request's mean time between two tokens.", _TOKEN_S
        )
        self.e2e_latency = self._histogram(
            "e2e_request_latency_seconds", "Time from a request to its last token.", _REQUEST_S
        )
        self.queue_time = self._histogram(
            "request_queue_time_seconds", "Time from a request's arrival in the engine to its first step.", _REQUEST_S
        )
        self.prefill_time = self._histogram(
            "request_prefill_time_seconds", "Time from a request's first step to its first token.", _REQUEST_S
        )
        self.decode_time = self._histogram(
            "request_decode_time_seconds", "Time from a request's first token to its last one.", _REQUEST_S
        )
        self.inference_time = self._histogram(
            "request_inference_time_seconds", "Time from a request's first step to its last token.", _REQUEST_S
        )
        self.request_prompt_tokens = self._histogram("request_prompt_tokens", "Tokens of a request's prompt.", lengths)
        self.request_generation_tokens = self._histogram(
            "request_generation_tokens", "Tokens generated for a request.", lengths
        )
        finished = Counter(
            "panacea:request_success",
            "Finished requests, by finish reason.",
            ("model_name", "finished_reason"),
            registry=self._registry,
        )
        self.finished = {reason: finished.labels(model_name, reason) for reason in _REASONS}
        self._entropy, self._weights = self._preference_histograms(space)

    def observe_preference(self, preference: Preference) -> None:
        """Records the preference of a steered request."""
        if self._entropy is not None:
            self._entropy.observe(evenness(preference))
        for histogram, weight in zip(self._weights, preference, strict=True):
            histogram.observe(weight)

    def text(self) -> bytes:
        """The current values of all metrics, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _counter(self, name: str, meaning: str) -> Counter:
        counter = Counter(f"panacea:{name}", meaning, ("model_name",), registry=self._registry)
        return counter.labels(self._model_name)

    def _histogram(self, name: str, meaning: str, bounds: tuple[float, ...]) -> Histogram:
        histogram = Histogram(f"panacea:{name}", meaning, ("model_name",), registry=self._registry, buckets=bounds)
        return histogram.labels(self._model_name)

    def _preference_histograms(self, space: PreferenceSpace | None) -> tuple[Histogram | None, list[Histogram]]:
        if space is None or not space.names:
            return None, []
        entropy = self._histogram(
            "preference_entropy",
            "Normalised entropy of a request's preference: 0 for one dimension alone, 1 for equal weights.",
            _TENTHS,
        )
        weight = Histogram(
            "panacea:preference_weight",
            "Weight of a dimension in a request's preference.",
            ("model_name", "dimension"),
            registry=self._registry,
            buckets=_TENTHS,
        )
        return entropy, [weight.labels(self._model_name, name) for name in space.names]


class RequestMeasurement:
    """Measures one engine request, from its construction to `finish`."""

    def __init__(self, metrics: Metrics, request: Request) -> None:
        self._metrics = metrics
        self._prompt_tokens = len(request.prompt_ids)
        self._preference = request.preference
        self._begin = self._first = self._last = time.monotonic()
        self._prefill_s: float | None = None
        self._tokens = 0

    def token(self, output: TokenOutput) -> None:
        """Records a token."""
        now = time.monotonic()
        generated = output.token_id != NO_TOKEN
        self._tokens += generated
        self._metrics.generation_tokens.inc(generated)
        if self._tokens > 1:
            self._metrics.inter_token_latency.observe(now - self._last)
        else:
            self._begin_answer(output, now)
        self._last = now

    def finish(self, reason: FinishedReason) -> None:
        """Records the end of the request. Its durations and lengths count only if the answer is complete."""
        metrics = self._metrics
        metrics.finished[reason].inc()
        if reason in ("abort", "error") or not self._tokens:
            return
        decode_s = self._last - self._first
        metrics.e2e_latency.observe(self._last - self._begin)
        metrics.decode_time.observe(decode_s)
        metrics.request_prompt_tokens.observe(self._prompt_tokens)
        metrics.request_generation_tokens.observe(self._tokens)
        if self._prefill_s is not None:
            metrics.inference_time.observe(self._prefill_s + decode_s)
        if self._tokens > 1:
            metrics.time_per_output_token.observe(decode_s / (self._tokens - 1))

    def _begin_answer(self, output: TokenOutput, now: float) -> None:
        self._first = now
        metrics = self._metrics
        metrics.time_to_first_token.observe(now - self._begin)
        metrics.prompt_tokens.inc(self._prompt_tokens)
        if self._preference is not None:
            metrics.observe_preference(self._preference)
        if output.start is not None:
            self._prefill_s = output.start.prefill_s
            metrics.queue_time.observe(output.start.queue_s)
            metrics.prefill_time.observe(output.start.prefill_s)


class _StateCollector:
    """The state of this process and the engine's state from its last heartbeat.

    Before the first heartbeat it reports only what the HTTP process knows by itself.
    """

    def __init__(self, model_name: str, engine: EngineLike) -> None:
        self._model_name = model_name
        self._engine = engine
        # The probe port collects from another thread, whose event loop is not of interest.
        self._loop = _running_loop()

    def collect(self) -> Iterable[Metric]:
        tasks = len(asyncio.all_tasks(self._loop))
        yield self._gauge("event_loop_tasks", "Tasks of the HTTP process's event loop.", tasks)
        yield self._counter("engine_restarts", "Restarts of the engine after a failure.", self._engine.restarts)
        stats = self._engine.stats
        yield self._log_lines_dropped(0 if stats is None else stats.log_lines_dropped)
        if stats is None:
            return
        info = self._engine.info
        used = 1 - stats.free_blocks / info.num_blocks
        slots = info.max_batch - stats.free_slots
        yield self._gauge("num_requests_running", "Requests in the engine's batch.", stats.running)
        yield self._gauge("num_requests_waiting", "Requests waiting for a place in the batch.", stats.waiting)
        yield self._gauge("kv_cache_usage_perc", "Fraction of the KV cache's blocks in use, 0 to 1.", used)
        yield self._gauge("num_slots_used", "Slots of the preference table in use.", slots)
        yield self._counter(
            "num_preemptions", "Preemptions: a request lost its blocks and was computed again later.", stats.preemptions
        )
        yield self._counter(
            "prefix_cache_queries", "Prompt tokens looked up in the prefix cache.", stats.prefix_queries
        )
        yield self._counter("prefix_cache_hits", "Prompt tokens found in the prefix cache.", stats.prefix_hits)

    def _log_lines_dropped(self, by_the_engine: int) -> Metric:
        family = CounterMetricFamily(
            "panacea:log_lines_dropped",
            "Log lines that were lost because standard error was not read.",
            labels=("model_name", "process"),
        )
        family.add_metric((self._model_name, "server"), log_lines_dropped())
        family.add_metric((self._model_name, "engine"), by_the_engine)
        return family

    def _gauge(self, name: str, meaning: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"panacea:{name}", meaning, labels=("model_name",))
        family.add_metric((self._model_name,), value)
        return family

    def _counter(self, name: str, meaning: str, value: float) -> Metric:
        family = CounterMetricFamily(f"panacea:{name}", meaning, labels=("model_name",))
        family.add_metric((self._model_name,), value)
        return family


class _AdmissionCollector:
    """Requests that a limit rejected or ended."""

    def __init__(self, model_name: str, admission: Admission) -> None:
        self._model_name = model_name
        self._admission = admission

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(
            "panacea:requests_rejected", "Requests rejected or ended by a limit.", labels=("model_name", "reason")
        )
        for reason, count in self._admission.rejections.items():
            family.add_metric((self._model_name, reason), count)
        yield family
        reloads = CounterMetricFamily(
            "panacea:key_file_errors", "Changes of the key file that could not be used.", labels=("model_name",)
        )
        reloads.add_metric((self._model_name,), self._admission.keys.failed_reloads)
        yield reloads
        yield self._by_key("requests", "Answers asked for with a key.", lambda account: account.total_requests)
        yield self._by_key("tokens", "Tokens charged to a key.", lambda account: account.total_tokens)
        yield self._by_key(
            "requests_rejected", "Requests with a key that a limit refused.", lambda account: account.total_rejected
        )

    def _by_key(self, name: str, meaning: str, count: Callable[[Account], int]) -> Metric:
        """One series for each key that has a name. The other keys are not told apart."""
        family = CounterMetricFamily(f"panacea:key_{name}", meaning, labels=("model_name", "key"))
        for account in self._admission.keys.accounts:
            if account.key is not None and account.key.name is not None:
                family.add_metric((self._model_name, account.key.name), count(account))
        return family


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """None outside of an event loop; `asyncio.all_tasks` then takes the one that runs."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _TextCollector:
    """The text workers."""

    def __init__(self, model_name: str, text: TextService) -> None:
        self._model_name = model_name
        self._text = text

    def collect(self) -> Iterable[Metric]:
        stats = self._text.stats
        waiting = GaugeMetricFamily(
            "panacea:text_jobs_waiting", "Jobs that wait for a text worker.", labels=("model_name",)
        )
        waiting.add_metric((self._model_name,), stats.waiting)
        yield waiting
        for name, meaning, value in (
            ("text_jobs", "Jobs that text workers have begun.", stats.jobs),
            ("text_jobs_waited_seconds", "Time that jobs have waited for a text worker.", stats.waited_s),
            ("text_workers_killed", "Text workers that were killed, or died, during a job.", stats.killed),
        ):
            family = CounterMetricFamily(f"panacea:{name}", meaning, labels=("model_name",))
            family.add_metric((self._model_name,), value)
            yield family


def evenness(preference: Preference) -> float:
    """Shannon entropy of the weights, divided by its maximum log m: 0 for a vertex, 1 for equal weights."""
    if len(preference) < 2:
        return 0.0
    return -sum(weight * math.log(weight) for weight in preference if weight) / math.log(len(preference))


def _one_two_five(most: int) -> Iterator[int]:
    """1, 2, 5, 10, 20, 50 ... up to `most`: vLLM's buckets for numbers of tokens."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power > most:
                return
            yield digit * power
        power *= 10


def metrics_router(metrics: Metrics) -> APIRouter:
    """The route for these metrics."""
    router = APIRouter(tags=["health"])

    @router.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={
            200: {"description": "Prometheus' text format.", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **error_docs(401, 403, 421, 431),
        },
    )
    async def get_metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        """vLLM's metrics with the prefix `panacea:`, and histograms of the requested preferences."""
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    return router
