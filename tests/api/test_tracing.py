"""OpenTelemetry traces: what a collector gets, and what it never gets."""

import http.server
import logging
import socket
import threading
from collections.abc import Generator

import httpx2
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from panacea.api.observability.tracing import exporting
from panacea.errors import ConfigError
from tests.api.chatting import CHAT, COMPLETIONS, ask, body
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served, serving, wait_until
from tests.command import run_panacea

KEY = "a-key-that-no-trace-may-hold"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"


class Traced:
    """A server whose spans stay here."""

    def __init__(self, served: Served, client: httpx2.Client, exporter: InMemorySpanExporter) -> None:
        self.engine, self.client, self._exporter = served.engine, client, exporter

    def spans(self, count: int) -> dict[str, ReadableSpan]:
        """The spans by name, once there are so many."""
        wait_until(lambda: len(self._exporter.get_finished_spans()) >= count, 20)
        return {span.name: span for span in self._exporter.get_finished_spans()}


@pytest.fixture
def traced() -> Generator[Traced]:
    async def make_engine() -> FakeEngine:
        return FakeEngine(queue_s=0.02, prefill_s=0.05, step_s=0.01)

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with (
        serving(make_engine, api_keys=(KEY,), tracer=provider.get_tracer("test")) as served,
        httpx2.Client(base_url=served.url, timeout=30, headers={"authorization": f"Bearer {KEY}"}) as client,
    ):
        yield Traced(served, client, exporter)
    provider.shutdown()


def test_a_request_is_a_part_of_its_clients_trace(traced: Traced) -> None:
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    traced.client.post(CHAT, json=body(max_tokens=5, ignore_eos=True), headers=headers)
    spans = traced.spans(5)
    assert set(spans) == {f"POST {CHAT}", "answer", "queue", "prefill", "decode"}
    request, answer = spans[f"POST {CHAT}"], spans["answer"]
    assert request.parent is not None
    assert answer.parent is not None
    assert request.context is not None
    assert answer.context is not None
    assert f"{request.parent.span_id:016x}" == PARENT_ID
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {TRACE_ID}
    assert answer.parent.span_id == request.context.span_id
    assert {spans[name].parent.span_id for name in ("queue", "prefill", "decode")} == {answer.context.span_id}  # type: ignore[union-attr]


def test_the_phases_of_an_answer_follow_each_other_and_fill_it(traced: Traced) -> None:
    ask(traced.client, max_tokens=5, ignore_eos=True)
    spans = traced.spans(5)
    queue, prefill, decode = (spans[name] for name in ("queue", "prefill", "decode"))
    assert spans["answer"].start_time == queue.start_time
    assert queue.end_time == prefill.start_time
    assert prefill.end_time == decode.start_time
    assert (decode.end_time or 0) - (decode.start_time or 0) >= 0.03e9  # four tokens after the first one
    assert (spans["answer"].end_time or 0) >= (decode.end_time or 0)


def test_numbers_and_weights_are_attributes_and_content_is_not(traced: Traced) -> None:
    secret = "a knife that no trace may hold"
    traced.client.post(
        CHAT,
        json=body(messages=[{"role": "user", "content": secret}], preference=[1, 0, 1], max_tokens=5, ignore_eos=True),
    )
    spans = traced.spans(5)
    attributes = dict(spans["answer"].attributes or {})
    assert attributes["gen_ai.usage.output_tokens"] == 5
    assert attributes["gen_ai.response.finish_reasons"] == "length"
    assert attributes["panacea.preference.helpful"] == 0.5
    assert (spans[f"POST {CHAT}"].attributes or {})["http.response.status_code"] == 200
    everything = "".join(span.to_json() for span in spans.values())
    assert "knife" not in everything
    assert KEY not in everything


def test_each_choice_has_an_answer_and_a_refused_request_has_none(traced: Traced) -> None:
    traced.client.post(COMPLETIONS, json=body(COMPLETIONS, n=3, max_tokens=2))
    traced.spans(3 * 4 + 1)
    assert traced.client.post(CHAT, json={}).status_code == 400
    spans = traced.spans(3 * 4 + 2)
    assert (spans[f"POST {CHAT}"].attributes or {})["http.response.status_code"] == 400


def test_probes_have_no_span(traced: Traced) -> None:
    for path in ("/health", "/ready", "/metrics", "/"):
        traced.client.get(path)
    ask(traced.client, max_tokens=2)
    assert set(traced.spans(5)) == {f"POST {CHAT}", "answer", "queue", "prefill", "decode"}


# Where they are sent.


class Collector(http.server.BaseHTTPRequestHandler):
    """Keeps what it gets."""

    received: list[bytes]

    def do_POST(self) -> None:
        self.received.append(self.path.encode() + b" " + self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        pass


def test_a_collector_gets_the_spans() -> None:
    received: list[bytes] = []
    handler = type("Keeping", (Collector,), {"received": received})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with exporting(f"http://127.0.0.1:{server.server_port}/") as tracer:
            assert tracer is not None
            tracer.start_span("a span").end()
        server.shutdown()
        thread.join()
    path, _, content = received[0].partition(b" ")
    assert path == b"/v1/traces"
    (spans,) = ExportTraceServiceRequest.FromString(content).resource_spans
    assert spans.scope_spans[0].spans[0].name == "a span"
    assert any(
        each.key == "service.name" and each.value.string_value == "panacea" for each in spans.resource.attributes
    )


@pytest.mark.slow
def test_a_collector_that_is_gone_costs_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with caplog.at_level(logging.WARNING), exporting(f"http://127.0.0.1:{port}") as tracer:
        assert tracer is not None
        for _ in range(20):
            tracer.start_span("a span").end()
    (line,) = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert line.exc_info is None


def test_without_an_endpoint_there_are_no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    with exporting(None) as tracer:
        assert tracer is None


def test_an_endpoint_that_is_no_url_is_one_line() -> None:
    with pytest.raises(ConfigError, match="--otlp-endpoint collector: write http"), exporting("collector"):
        pass
    assert "--otlp-endpoint" in run_panacea("serve", "--help").out
