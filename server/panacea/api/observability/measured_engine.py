"""Wraps the engine for the routes, and measures each request."""

import asyncio
from typing import Self

from panacea.api.engine_interface import EngineLike
from panacea.api.observability.metrics import FinishedReason, Metrics, RequestMeasurement
from panacea.api.observability.request_log import RequestOutcome, current_outcome
from panacea.api.observability.tracing import AnswerTrace, current_trace
from panacea.engine.outputs import NO_TOKEN, EngineInfo, EngineStats, TokenOutput
from panacea.engine.request import Request
from panacea.engine.token_stream import TokenStream
from panacea.errors import EngineError, RequestError


class MeasuredEngine:
    """Passes requests to another engine, and records them in the metrics and in the HTTP request's log line."""

    def __init__(self, engine: EngineLike, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    @property
    def stats(self) -> EngineStats | None:
        return self._engine.stats

    @property
    def alive(self) -> bool:
        return self._engine.alive

    @property
    def heartbeat_age_s(self) -> float:
        return self._engine.heartbeat_age_s

    @property
    def restarts(self) -> int:
        return self._engine.restarts

    def open(self, request: Request) -> "MeasuredStream":
        measurement = RequestMeasurement(self._metrics, request)
        outcome = current_outcome()
        outcome.prompt_tokens += 0 if request.params.choice else len(request.prompt_ids)  # once for each prompt
        try:
            trace = current_trace()
            answer_trace = None if trace is None else trace.answer(request)
            return MeasuredStream(self._engine.open(request), measurement, outcome, answer_trace)
        except EngineError:
            measurement.finish("error")
            outcome.count("error")
            raise


class MeasuredStream:
    """Wraps the stream of another engine. Counts its request once: when it finishes, fails, is closed or is cancelled.

    A stream that is closed before its last token counts as stopped (by a stop string). A cancelled one counts as
    aborted.
    """

    def __init__(
        self,
        tokens: TokenStream,
        measurement: RequestMeasurement,
        outcome: RequestOutcome,
        trace: AnswerTrace | None = None,
    ) -> None:
        self._tokens = tokens
        self._measurement = measurement
        self._outcome = outcome
        self._trace = trace
        self._counted = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenOutput:
        try:
            token = await anext(self._tokens)
        except asyncio.CancelledError:
            self._count("abort")
            raise
        except RequestError:
            self._counted = True  # the engine rejected it, so it is not measured
            raise
        except Exception:
            self._count("error")
            raise
        self._measurement.token(token)
        if self._trace is not None:
            self._trace.token(token)
        self._outcome.completion_tokens += token.token_id != NO_TOKEN
        if token.finish_reason is not None:
            self._count(token.finish_reason)
        return token

    def close(self) -> None:
        self._count("stop")
        self._tokens.close()

    def _count(self, reason: FinishedReason) -> None:
        if not self._counted:
            self._counted = True
            self._measurement.finish(reason)
            self._outcome.count(reason)
            if self._trace is not None:
                self._trace.finish(reason)
