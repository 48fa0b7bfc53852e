"""The engine as the routes see it: each request that goes through is measured."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from panacea.api.engine_interface import EngineLike
from panacea.api.observability.metrics import FinishedReason, Metrics, RequestMeasurement
from panacea.api.observability.request_log import current_outcome
from panacea.engine.outputs import NO_TOKEN, EngineInfo, EngineStats, TokenOutput
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import RequestError
from panacea.preference import Preference


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

    async def generate(
        self,
        prompt_ids: Sequence[int],
        preference: Preference | None,
        params: SamplingParams,
        cache_salt: str = "",
        tenant: str = "",
    ) -> AsyncGenerator[TokenOutput]:
        """The engine's tokens. Closed early, a request counts as stopped (by a stop string); cancelled, as aborted."""
        measurement = RequestMeasurement(self._metrics, len(prompt_ids), preference)
        outcome = current_outcome()
        outcome.prompt_tokens += 0 if params.choice else len(prompt_ids)  # once for all answers to a prompt
        reason: FinishedReason | None = "error"
        try:
            async with aclosing(self._engine.generate(prompt_ids, preference, params, cache_salt, tenant)) as outputs:
                async for output in outputs:
                    measurement.token(output)
                    outcome.completion_tokens += output.token_id != NO_TOKEN
                    if output.finish_reason is not None:
                        reason = output.finish_reason
                    yield output
        except GeneratorExit:
            reason = "stop" if reason == "error" else reason
            raise
        except asyncio.CancelledError:
            reason = "abort"
            raise
        except RequestError:
            reason = None  # it was refused and never ran
            raise
        finally:
            if reason is not None:
                measurement.finish(reason)
                outcome.finished[reason] = outcome.finished.get(reason, 0) + 1
