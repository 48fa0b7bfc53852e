"""Requests that take too long end with a clear error, free the engine, and leave their neighbours alone."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from panacea.config import Limits
from panacea.errors import QueueTimeoutError
from tests.api.chatting import CHAT, ask, body, contents, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until


@contextmanager
def limited(limits: Limits) -> Generator[tuple[Served, FakeEngine, httpx2.Client]]:
    engine = FakeEngine(script=list(range(50, 300)))

    async def make_engine() -> FakeEngine:
        return engine

    with serving(make_engine, limits=limits) as served, httpx2.Client(base_url=served.url, timeout=30) as client:
        yield served, engine, client


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_no_first_token_in_time_is_a_504(*, stream: bool) -> None:
    with limited(Limits(first_token_timeout_s=0.3)) as (served, engine, client):
        engine.prefill_s = 60
        response = client.post(CHAT, json=body(stream=stream, n=3))
        assert (response.status_code, error_of(response)["code"]) == (504, "first_token_timeout")
        assert response.headers["x-should-retry"] == "false"
        wait_until(lambda: engine.live == 0)
        assert engine.aborted == 3
        wait_until(lambda: served.admission.is_idle)
        assert Samples(client)("requests_rejected_total", reason="first_token_timeout") == 1
        engine.prefill_s, engine.step_s = 0, 0.2
        assert contents(ask(client, max_tokens=4))  # after the first token there is no such limit


def test_no_answer_in_time_is_a_504() -> None:
    with limited(Limits(request_timeout_s=0.5)) as (served, engine, client):
        engine.step_s = 0.02
        response = client.post(CHAT, json=body(max_tokens=200))
        assert (response.status_code, error_of(response)["code"]) == (504, "request_timeout")
        wait_until(lambda: engine.live == 0)
        wait_until(lambda: served.admission.is_idle)


def test_a_stream_that_takes_too_long_ends_with_an_error_event() -> None:
    with limited(Limits(request_timeout_s=0.5)) as (_, engine, client):
        engine.step_s = 0.02
        response = client.post(CHAT, json=body(max_tokens=200, stream=True))
        assert response.status_code == 200
        *events, last, _ = response.text.split("\n\n")
        assert len(events) > 3
        name, _, data = last.partition("\n")
        assert name == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["code"] == "request_timeout"
        wait_until(lambda: engine.live == 0)


def test_a_request_whose_turn_did_not_come_is_a_503_that_says_when_to_come_again() -> None:
    with limited(Limits()) as (served, engine, client):
        engine.failure = QueueTimeoutError("no room for the request after 60 s")
        response = client.post(CHAT, json=body())
        assert (response.status_code, error_of(response)["code"]) == (503, "queue_timeout")
        assert int(response.headers["retry-after"]) >= 1
        assert Samples(client)("requests_rejected_total", reason="queue_timeout") == 1
        wait_until(lambda: served.admission.is_idle)


@pytest.mark.slow
def test_neighbours_of_requests_that_time_out_get_the_same_tokens() -> None:
    with limited(Limits(request_timeout_s=2)) as (_, engine, client):
        alone = contents(ask(client))
        engine.step_s = 0.03
        with client.stream("POST", CHAT, json=body(max_tokens=200, stream=True)) as slow:
            lines = slow.iter_lines()
            next(lines)
            assert [contents(ask(client)) for _ in range(3)] == [alone] * 3
            assert "request_timeout" in [*lines][-2]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": [{"role": "user", "content": "word " * 60}]}, "messages", "prompt_too_long"),
        ({"max_tokens": 21}, "max_tokens", "answer_too_long"),
        ({"max_tokens": None, "max_completion_tokens": 21}, "max_completion_tokens", "answer_too_long"),
    ],
)
def test_an_operators_limits_on_tokens_are_a_400(fields: dict[str, Any], param: str, code: str) -> None:
    with limited(Limits(max_prompt_tokens=40, max_answer_tokens=20)) as (_, _, client):
        response = client.post(CHAT, json=body(**fields))
        error = error_of(response)
        assert (response.status_code, error["param"], error["code"]) == (400, param, code)
        usage = ask(client, max_tokens=None, ignore_eos=True)["usage"]
        assert usage["completion_tokens"] == 20
