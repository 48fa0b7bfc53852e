"""The engine as the routes see it: each request that goes through is measured."""

import asyncio
from typing import Self

from panacea.api.engine_interface import EngineLike
from panacea.api.observability.metrics import FinishedReason, Metrics, RequestMeasurement
from panacea.api.observability.request_log import RequestOutcome, current_outcome
from panacea.engine.outputs import NO_TOKEN, EngineInfo, EngineStats, TokenOutput
from panacea.engine.request import Request
from panacea.engine.token_stream import TokenStream
from panacea.errors import EngineError, RequestError


class MeasuredEngine:
    """Another engine, with its requests entered into metrics and into the request's line in the log."""

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
            return MeasuredStream(self._engine.open(request), measurement, outcome)
        except EngineError:
            measurement.finish("error")
            outcome.count("error")
            raise


class MeasuredStream:
    """The stream of another engine. Its request is counted once: when it finishes, fails, or is closed or cancelled.

    Closed before its last token, it counts as stopped (by a stop string). A cancelled one counts as aborted.
    """

    def __init__(self, tokens: TokenStream, measurement: RequestMeasurement, outcome: RequestOutcome) -> None:
        self._tokens = tokens
        self._measurement = measurement
        self._outcome = outcome
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
            self._counted = True  # it was refused and never ran
            raise
        except Exception:
            self._count("error")
            raise
        self._measurement.token(token)
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
