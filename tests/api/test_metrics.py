"""`/metrics`: vLLM's names, right numbers, and no label that a client could choose."""

import math
import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest

from panacea.api import create_app
from panacea.api.access.admission import Rejection
from panacea.api.observability.metrics import evenness
from panacea.config import EngineConfig, ServerConfig
from panacea.engine.client import EngineClient
from panacea.engine.outputs import EngineStats
from panacea.errors import EngineError, RequestError
from tests.api.chatting import CHAT, COMPLETIONS, QUESTION, ask, body, events
from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import Samples, families
from tests.api.serving import NAME, SPACE, TEXT, Served, serving, wait_until
from tests.api.text_workers import text_workers
from tests.golden_files import ADAPTER, BASE

DOCUMENTATION = Path(__file__).parents[2] / "docs/observability.md"

# What vLLM 0.9 to 0.25 calls them, in its loggers.py.
VLLM = {
    "num_requests_running": "gauge",
    "num_requests_waiting": "gauge",
    "kv_cache_usage_perc": "gauge",
    "num_preemptions_total": "counter",
    "prefix_cache_queries_total": "counter",
    "prefix_cache_hits_total": "counter",
    "prompt_tokens_total": "counter",
    "generation_tokens_total": "counter",
    "request_success_total": "counter",
    "time_to_first_token_seconds": "histogram",
    "inter_token_latency_seconds": "histogram",
    "request_time_per_output_token_seconds": "histogram",
    "e2e_request_latency_seconds": "histogram",
    "request_queue_time_seconds": "histogram",
    "request_prefill_time_seconds": "histogram",
    "request_decode_time_seconds": "histogram",
    "request_inference_time_seconds": "histogram",
    "request_prompt_tokens": "histogram",
    "request_generation_tokens": "histogram",
}
OURS = {
    "engine_restarts_total": "counter",
    "num_slots_used": "gauge",
    "event_loop_tasks": "gauge",
    "requests_rejected_total": "counter",
    "log_lines_dropped_total": "counter",
    "key_file_errors_total": "counter",
    "key_requests_total": "counter",
    "key_tokens_total": "counter",
    "key_requests_rejected_total": "counter",
    "text_jobs_total": "counter",
    "text_jobs_waited_seconds_total": "counter",
    "text_jobs_waiting": "gauge",
    "text_workers_killed_total": "counter",
    "preference_entropy": "histogram",
    "preference_weight": "histogram",
}
STATS = EngineStats(
    steps=9,
    running=3,
    waiting=2,
    free_blocks=48,
    free_slots=5,
    preemptions=7,
    max_step_requests=3,
    max_step_preferences=3,
    prefix_queries=50,
    prefix_hits=20,
)
PROMPT_TOKENS = 10
"""Of the usual question, as each test's first answer says too."""


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(stats=STATS)


def test_all_names_are_vllms_or_documented_as_ours(own_client: httpx2.Client) -> None:
    served = {name.removeprefix("panacea:"): family.type for name, family in families(own_client).items()}
    assert {name: kind for name, kind in served.items() if not name.startswith("process_")} == VLLM | OURS
    assert not [name for name in families(own_client) if not name.startswith(("panacea:", "process_"))]


def test_the_documentation_lists_exactly_these(own_client: httpx2.Client) -> None:
    rows = re.findall(r"^\| `(panacea:\w+)` \| (\w+) \|", DOCUMENTATION.read_text("utf-8"), re.MULTILINE)
    served = {name: family.type for name, family in families(own_client).items() if name.startswith("panacea:")}
    assert dict(rows) == served
    assert len(rows) == len(served)


def test_tokens_and_requests_are_counted(own_client: httpx2.Client) -> None:
    usage = [ask(own_client, max_tokens=7, ignore_eos=True)["usage"] for _ in range(2)]
    usage += [events(own_client, max_tokens=5, ignore_eos=True, stream_options={"include_usage": True})[-1]["usage"]]
    usage += [ask(own_client, COMPLETIONS, max_tokens=1)["usage"]]
    now = Samples(own_client)
    prompt_tokens, tokens = (sum(each[name] for each in usage) for name in ("prompt_tokens", "completion_tokens"))
    assert tokens == 7 + 7 + 5 + 1
    assert now("prompt_tokens_total") == now("request_prompt_tokens_sum") == prompt_tokens
    assert now("generation_tokens_total") == now("request_generation_tokens_sum") == tokens
    for name in ("time_to_first_token_seconds", "request_queue_time_seconds", "request_prefill_time_seconds"):
        assert now(f"{name}_count") == 4
    for name in ("e2e_request_latency_seconds", "request_decode_time_seconds", "request_inference_time_seconds"):
        assert now(f"{name}_count") == 4
    assert now("inter_token_latency_seconds_count") == tokens - 4
    assert now("request_time_per_output_token_seconds_count") == 3
    assert now("request_success_total", finished_reason="length") == now("request_success_total") == 4


def test_each_answer_and_each_prompt_is_a_request(own_client: httpx2.Client) -> None:
    ask(own_client, n=3, max_tokens=2)
    ask(own_client, COMPLETIONS, prompt=[QUESTION, "Why?"], n=2, max_tokens=2)
    assert Samples(own_client)("request_success_total") == 3 + 4


@pytest.mark.parametrize("stream", [False, True])
def test_requests_are_counted_by_what_ended_them(own_client: httpx2.Client, engine: FakeEngine, stream: bool) -> None:
    def ended(**fields: Any) -> dict[str, float]:
        own_client.post(CHAT, json=body(stream=stream, **fields))
        now = Samples(own_client)
        return {
            reason: now("request_success_total", finished_reason=reason)
            for reason in ("stop", "length", "abort", "error")
        }

    engine.script = TEXT.encode(["Scoop out the water."])[0]
    assert ended(max_tokens=100) == {"stop": 1, "length": 0, "abort": 0, "error": 0}
    assert ended(max_tokens=100, stop="the wa") == {"stop": 2, "length": 0, "abort": 0, "error": 0}
    assert ended(max_tokens=2) == {"stop": 2, "length": 1, "abort": 0, "error": 0}
    engine.failure = RequestError("never")  # refused: no request of the engine's
    assert ended() == {"stop": 2, "length": 1, "abort": 0, "error": 0}
    engine.failure, engine.failure_at = EngineError("made up"), 2
    assert ended() == {"stop": 2, "length": 1, "abort": 0, "error": 1}
    engine.failure, engine.truncate_at = None, 2
    assert ended() == {"stop": 2, "length": 1, "abort": 0, "error": 2}
    assert ended(model="nobody") == {"stop": 2, "length": 1, "abort": 0, "error": 2}
    now = Samples(own_client)
    assert now("e2e_request_latency_seconds_count") == now("request_decode_time_seconds_count") == 3


def test_a_client_that_leaves_is_an_abort(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.step_s = 0.05
    with own_client.stream("POST", CHAT, json=body(stream=True, max_tokens=400, ignore_eos=True, n=2)) as response:
        next(response.iter_lines())
    wait_until(lambda: Samples(own_client)("request_success_total", finished_reason="abort") == 2)
    now = Samples(own_client)
    assert now("request_success_total") == 2
    assert now("e2e_request_latency_seconds_count") == 0


def test_times_are_what_they_were(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.prefill_s, engine.step_s, engine.queue_s = 0.08, 0.02, 3.0
    ask(own_client, max_tokens=6, ignore_eos=True)
    now = Samples(own_client)
    decode_s = now("request_decode_time_seconds_sum")
    assert 0.08 <= now("time_to_first_token_seconds_sum") < 0.5
    assert 5 * 0.02 <= decode_s < 1
    assert now("inter_token_latency_seconds_sum") == pytest.approx(decode_s)
    assert now("request_time_per_output_token_seconds_sum") == pytest.approx(decode_s / 5)
    first_s = now("time_to_first_token_seconds_sum")
    assert now("e2e_request_latency_seconds_sum") == pytest.approx(first_s + decode_s)
    # The engine's own: here what it made up.
    assert now("request_queue_time_seconds_sum") == 3.0
    assert now("request_prefill_time_seconds_sum") == 0.08
    assert now("request_inference_time_seconds_sum") == pytest.approx(0.08 + decode_s)
    assert now("request_queue_time_seconds_bucket", le="2.5") == 0
    assert now("request_queue_time_seconds_bucket", le="5.0") == 1


def test_the_engines_state_is_its_last_heartbeats(own_client: httpx2.Client, engine: FakeEngine) -> None:
    now = Samples(own_client)
    assert (now("num_requests_running"), now("num_requests_waiting"), now("num_preemptions_total")) == (3, 2, 7)
    assert (now("prefix_cache_queries_total"), now("prefix_cache_hits_total")) == (50, 20)
    assert (now("kv_cache_usage_perc"), now("num_slots_used")) == (0.25, 3)
    assert 1 <= now("event_loop_tasks") < 20
    assert now("engine_restarts_total") == 0
    engine.stats, engine.restarts = None, 2
    assert Samples(own_client)("engine_restarts_total") == 2
    assert not [name for name in families(own_client) if "num_requests" in name or "usage" in name]


# Preferences.


def test_preferences_are_counted_by_dimension_and_evenness(own_client: httpx2.Client) -> None:
    for weights in ([1, 0, 0], [2, 1, 1], [1, 1, 1]):
        ask(own_client, preference=weights, max_tokens=1)
    ask(own_client, model=f"{NAME}:base", max_tokens=1)  # has none
    now = Samples(own_client)
    for dimension, total in (("helpful", 1 + 1 / 2 + 1 / 3), ("harmless", 1 / 4 + 1 / 3), ("concise", 1 / 4 + 1 / 3)):
        assert now("preference_weight_sum", dimension=dimension) == pytest.approx(total)
        assert now("preference_weight_count", dimension=dimension) == 3
    assert now("preference_weight_bucket", dimension="harmless", le="0.0") == 1
    assert now("preference_entropy_sum") == pytest.approx(0 + 1.5 * math.log(2) / math.log(3) + 1)
    assert now("preference_entropy_bucket", le="0.0") == 1
    assert now("preference_entropy_bucket", le="0.9") == 1
    assert now("preference_entropy_bucket", le="+Inf") == 3


@pytest.mark.parametrize(
    ("preference", "expected"),
    [((), 0), ((1.0,), 0), ((1.0, 0.0), 0), ((0.5, 0.5), 1), ((0.25,) * 4, 1), ((0.5, 0.5, 0.0, 0.0), 0.5)],
)
def test_evenness_is_entropy_over_its_most(preference: tuple[float, ...], expected: float) -> None:
    assert evenness(preference) == pytest.approx(expected)


def test_a_bare_base_has_no_preferences_to_count() -> None:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    for space in (None, type(SPACE)((), ())):
        with serving(make_engine, space=space) as served, httpx2.Client(base_url=served.url) as client:
            ask(client, max_tokens=1)
            assert not [name for name in families(client) if "preference" in name]
            assert Samples(client)("request_success_total") == 1


# Labels.


def test_labels_are_known_at_the_start_and_no_request_adds_any(own_client: httpx2.Client) -> None:
    before = Samples(own_client)
    values: dict[str, set[str]] = {}
    for labels in before.labels.values():
        for name, given in labels.items():
            values.setdefault(name, set()).update(given)
    del values["le"]
    assert values == {
        "model_name": {NAME},
        "finished_reason": {"stop", "length", "abort", "error"},
        "dimension": set(SPACE.names),
        "process": {"server", "engine"},
        "reason": set(get_args(Rejection)),
    }
    requests: list[dict[str, Any]] = [
        {"preference": {"helpful": 0.123, "concise": 0.877}},
        {"preference": [0.1, 0.2, 0.7], "user": "canary", "n": 3},
        {"preference": {"canary": 1}},
        {"model": f"{NAME}:brief"},
        {"model": "canary"},
        {"canary": 1},
    ]
    for fields in requests:
        for stream in (False, True):
            own_client.post(CHAT, json=body(stream=stream, **fields), headers={"x-request-id": "canary"})
    own_client.get("/canary")
    assert Samples(own_client).series == before.series
    assert "canary" not in own_client.get("/metrics").text


def test_two_applications_count_apart() -> None:
    for _ in range(2):
        create_app(ServerConfig(NAME), FakeEngine(), text_workers(), SPACE, None)


# The real engine.


@pytest.fixture(scope="module")
def real() -> Generator[Served]:
    async def make_engine() -> EngineClient:
        return await EngineClient.start(EngineConfig(BASE, ADAPTER, device="cpu", threads=1, max_batch=1))

    with serving(make_engine) as served:
        yield served


@pytest.mark.slow
def test_the_real_engine_reports_queue_prefill_and_load(real: Served) -> None:
    with httpx2.Client(base_url=real.url, timeout=60) as client:
        # Two at once, and a batch of one: the second waits for as long as the first takes.
        ask(client, n=2, max_tokens=200, ignore_eos=True)
        now = Samples(client)
        assert now("request_queue_time_seconds_count") == 2
        decode_s = now("request_decode_time_seconds_sum")
        waited_s = now("request_queue_time_seconds_sum")
        assert decode_s / 4 < waited_s < decode_s
        assert 0 < now("request_prefill_time_seconds_sum") < decode_s
        # From the engine's clock and from the server's, which adds the way between them.
        served_s = now("e2e_request_latency_seconds_sum")
        assert served_s == pytest.approx(waited_s + now("request_inference_time_seconds_sum"), rel=0.2, abs=0.1)
        fields = body(stream=True, n=16, max_tokens=400, ignore_eos=True)
        with client.stream("POST", CHAT, json=fields) as response:
            lines = response.iter_lines()  # closing it would close the connection
            next(lines)

            def is_loaded() -> bool:
                now = Samples(client)
                return (
                    now("num_requests_running") == 1 <= now("num_requests_waiting") and now("kv_cache_usage_perc") > 0
                )

            wait_until(is_loaded)
        wait_until(lambda: Samples(client)("request_success_total") == 2 + 16)
        assert Samples(client)("request_success_total", finished_reason="abort") > 0
        wait_until(lambda: Samples(client)("num_requests_running") == 0 == Samples(client)("kv_cache_usage_perc"))


@pytest.fixture(scope="module")
def crowded() -> Generator[Served]:
    """An engine whose cache holds one request of the greatest length."""

    async def make_engine() -> EngineClient:
        return await EngineClient.start(
            EngineConfig(BASE, ADAPTER, device="cpu", threads=1, max_batch=2, block_size=4, num_blocks=24)
        )

    with serving(make_engine) as served:
        yield served


@pytest.mark.slow
def test_the_real_engine_reports_cached_prefixes_and_preemptions(crowded: Served) -> None:
    def heard(name: str, value: float) -> bool:
        return Samples(client)(name) == value

    with httpx2.Client(base_url=crowded.url, timeout=60) as client:
        prompt = "How do I sharpen a knife, and how do I keep it sharp?"
        usages = [ask(client, prompt=prompt, path=COMPLETIONS, max_tokens=1)["usage"] for _ in range(3)]
        cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages]
        assert cached[0] == 0 < cached[1] == cached[2]
        wait_until(lambda: heard("prefix_cache_hits_total", sum(cached)))
        assert heard("prefix_cache_queries_total", sum(usage["prompt_tokens"] for usage in usages))
        assert heard("num_preemptions_total", 0)
        # Two answers that fit alone but not together.
        ask(client, n=2, max_tokens=80, ignore_eos=True)
        wait_until(lambda: Samples(client)("num_preemptions_total") > 0)
        assert Samples(client)("request_success_total", finished_reason="length") == 3 + 2
