"""OpenTelemetry traces: a span for each request, and within it the queue, the prefill and the decoding of each answer.

A trace says how long a request took and why. It never contains a prompt, an answer or a key. The packages are an extra:
nothing here is imported unless traces are sent.
"""

import logging
import os
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from panacea.api.information.web_page import FOLDER
from panacea.api.observability.request_log import QUIET_PATHS
from panacea.engine.outputs import NO_TOKEN, StartTimes, TokenOutput
from panacea.engine.request import Request
from panacea.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORT_LIMIT_S = 5.0
_WARN_EVERY_S = 60.0
_NS = 1_000_000_000

_trace: ContextVar["RequestTrace | None"] = ContextVar("trace", default=None)


def current_trace() -> "RequestTrace | None":
    """The trace of the request that the current task serves. None if traces are off, or the request has none."""
    return _trace.get()


class RequestTrace:
    """The span of one HTTP request, which gets the spans of its answers."""

    def __init__(self, tracer: "Tracer", model_name: str, context: "Context", dimensions: tuple[str, ...]) -> None:
        self._tracer = tracer
        self._model_name = model_name
        self._context = context
        self._dimensions = dimensions

    def answer(self, request: Request) -> "AnswerTrace":
        """Begins the spans of an answer."""
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "generate",
            "gen_ai.request.model": self._model_name,
            "gen_ai.request.max_tokens": request.params.max_tokens,
            "gen_ai.request.temperature": request.params.temperature,
            "gen_ai.usage.input_tokens": len(request.prompt_ids),
        }
        if request.preference is not None:
            weights = zip(self._dimensions, request.preference, strict=True)
            attributes |= {f"panacea.preference.{name}": weight for name, weight in weights}
        return AnswerTrace(self._tracer, self._context, attributes)


class AnswerTrace:
    """The spans of one answer: the whole, and in it the queue, the prefill and the decoding."""

    def __init__(self, tracer: "Tracer", context: "Context", attributes: Mapping[str, str | int | float]) -> None:
        self._tracer = tracer
        self._context = context
        self._attributes = dict(attributes)
        self._begin_ns = time.time_ns()
        self._first_ns: int | None = None
        self._last_ns = self._begin_ns
        self._start: StartTimes | None = None
        self._tokens = 0

    def token(self, output: TokenOutput) -> None:
        """Notes a token's time."""
        self._last_ns = time.time_ns()
        self._tokens += output.token_id != NO_TOKEN
        if self._first_ns is None:
            self._first_ns, self._start = self._last_ns, output.start
            self._attributes["panacea.usage.cached_tokens"] = output.cached_tokens

    def finish(self, reason: str) -> None:
        """Ends all spans. `reason` is the finish reason, "abort" or "error"."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 (an extra)

        self._attributes["gen_ai.response.finish_reasons"] = reason
        self._attributes["gen_ai.usage.output_tokens"] = self._tokens
        end_ns = time.time_ns()
        whole = self._tracer.start_span("answer", self._context, attributes=self._attributes, start_time=self._begin_ns)
        inside = set_span_in_context(whole, self._context)
        for name, begin_ns, stop_ns in self._phases(end_ns):
            self._tracer.start_span(name, inside, start_time=begin_ns).end(stop_ns)
        whole.end(end_ns)

    def _phases(self, end_ns: int) -> list[tuple[str, int, int]]:
        if self._first_ns is None:
            return [("queue", self._begin_ns, end_ns)]  # it never got a token: the engine does not say how far it came
        phases: list[tuple[str, int, int]] = []
        if self._start is not None:
            admitted_ns = min(self._begin_ns + round(self._start.queue_s * _NS), self._first_ns)
            phases += [("queue", self._begin_ns, admitted_ns), ("prefill", admitted_ns, self._first_ns)]
        return [*phases, ("decode", self._first_ns, self._last_ns)]


class Tracing:
    """ASGI middleware: a span for each request, as a part of the client's trace if it sent one. Probes have none."""

    def __init__(self, app: ASGIApp, tracer: "Tracer", model_name: str, dimensions: tuple[str, ...]) -> None:
        self.app = app
        self._tracer = tracer
        self._model_name = model_name
        self._dimensions = dimensions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or path in QUIET_PATHS or path.startswith(f"{FOLDER}/"):
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415 (an extra)
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        headers = Headers(scope=scope)
        parent = TraceContextTextMapPropagator().extract(
            {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        )
        span = self._tracer.start_span(scope["method"], parent, SpanKind.SERVER)
        span.set_attribute("http.request.method", scope["method"])
        token = _trace.set(
            RequestTrace(self._tracer, self._model_name, set_span_in_context(span, parent), self._dimensions)
        )

        async def watched_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= 500:
                    span.set_status(Status(StatusCode.ERROR))
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            route = getattr(scope.get("route"), "path_format", None)
            if route:
                span.update_name(f"{scope['method']} {route}")
                span.set_attribute("http.route", route)
            span.end()
            _trace.reset(token)


@contextmanager
def exporting(endpoint: str | None) -> "Generator[Tracer | None]":
    """A tracer that sends to a collector while the block runs, or None if traces are off.

    They are on if there is an `endpoint` (`http://collector:4318`), or one of OpenTelemetry's own variables names one.
    Spans are sent in batches by a thread of their own, and dropped if the collector is too slow or gone.

    Raises `ConfigError` if the packages are missing.
    """
    if endpoint is None and not any(os.environ.get(name) for name in _ENDPOINT_VARIABLES):
        yield None
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 (an extra)
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "traces need OpenTelemetry's packages: pip install 'panacea-server[otel]', or unset --otlp-endpoint and "
            "OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from None
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError(f"--otlp-endpoint {endpoint}: write http://collector:4318")
    service_name = os.environ.get("OTEL_SERVICE_NAME", "panacea")
    provider = TracerProvider(resource=Resource.create({"service.name": service_name}))
    url = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(url, timeout=_EXPORT_LIMIT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, export_timeout_millis=1000 * _EXPORT_LIMIT_S))
    seldom = _Seldom()
    for handler in logging.getLogger().handlers:  # a logger's filter would not see its children's lines
        handler.addFilter(seldom)
    try:
        yield provider.get_tracer("panacea")
    finally:
        provider.shutdown()


class _Seldom(logging.Filter):
    """Of OpenTelemetry's lines, lets one a minute pass, without its traceback: a collector may be gone for hours."""

    def __init__(self) -> None:
        super().__init__()
        self._last = -_WARN_EVERY_S
        self._passed: logging.LogRecord | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("opentelemetry."):
            return True
        record.exc_info = record.exc_text = None
        now = time.monotonic()
        if record is not self._passed:  # every handler asks
            if now - self._last < _WARN_EVERY_S:
                return False
            self._last, self._passed = now, record
        return True
