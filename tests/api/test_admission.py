"""Bounds on what waits: a 429 beyond them, fair shares of them for each key, and all given back at the end."""

import json
import socket
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea.api.access.admission import Admission
from panacea.api.access.key_ring import KeyRing
from panacea.api.access.quota import Quota
from panacea.config import Limits
from panacea.errors import ConfigError
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, contents, error_of
from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until
from tests.api.test_disconnect import connection, request

KEYS = ("key-a", "key-b", "key-c")
BATCH = 8  # the fake engine's
ENDLESS: dict[str, Any] = {"max_tokens": 400, "ignore_eos": True}


@contextmanager
def limited(limits: Limits, api_keys: tuple[str, ...] = ()) -> Generator[tuple[Served, FakeEngine]]:
    """A server whose engine says nothing for a long time."""
    engine = FakeEngine(prefill_s=60)

    async def make_engine() -> FakeEngine:
        return engine

    with serving(make_engine, limits=limits, api_keys=api_keys) as served:
        yield served, engine


def asking(key: str = "any", path: str = CHAT, **fields: Any) -> bytes:
    return request(
        json.dumps(body(path, **ENDLESS | fields)).encode(), path=path, extra=f"Authorization: Bearer {key}\r\n"
    )


def wait_in(stack: ExitStack, served: Served, count: int, key: str = "any", **fields: Any) -> list[socket.socket]:
    """So many clients that have asked and wait."""
    clients = [stack.enter_context(connection(served)) for _ in range(count)]
    for client in clients:
        client.sendall(asking(key, **fields))
    return clients


def refusal(served: Served, key: str = "any", path: str = CHAT, **fields: Any) -> httpx2.Response:
    with httpx2.Client(base_url=served.url, headers={"authorization": f"Bearer {key}"}) as client:
        return client.post(path, json=body(path, **ENDLESS | fields))


def holds_nothing(served: Served) -> bool:
    admission = served.admission
    return admission.is_idle and admission.requests.held == admission.tokens.held == admission.body_bytes.held == 0


def test_requests_beyond_the_queue_are_a_429_and_the_others_stay() -> None:
    with limited(Limits(max_queued_requests=2)) as (served, engine), ExitStack() as stack:
        clients = wait_in(stack, served, BATCH + 2)
        wait_until(lambda: engine.live == BATCH + 2)
        for _ in range(3):
            response = refusal(served)
            error = error_of(response)
            assert (response.status_code, error["code"]) == (429, "too_many_requests")
            assert error["type"] == "rate_limit_error"
            assert 1 <= int(response.headers["retry-after"]) <= 60
        with httpx2.Client(base_url=served.url) as client:
            assert client.get("/v1/models").status_code == client.get("/ready").status_code == 200
            assert Samples(client)("requests_rejected_total", reason="too_many_requests") == 3
        assert engine.live == BATCH + 2
        clients[0].close()
        wait_until(lambda: engine.live == BATCH + 1)
        wait_in(stack, served, 1)
        wait_until(lambda: engine.live == BATCH + 2)
    wait_until(lambda: holds_nothing(served))


def test_each_answer_of_a_request_counts() -> None:
    with limited(Limits(max_queued_requests=2)) as (served, engine), ExitStack() as stack:
        wait_in(stack, served, 2, n=4)
        wait_until(lambda: engine.live == 8)
        assert refusal(served, n=3).status_code == 429
        assert refusal(served, path=COMPLETIONS, prompt=["a", "b", "c"]).status_code == 429
        wait_in(stack, served, 1, n=2)
        wait_until(lambda: engine.live == 10)
    wait_until(lambda: holds_nothing(served))


def test_prompt_tokens_are_bounded_until_their_answer_begins() -> None:
    prompt = list(range(5, 105))
    with limited(Limits(max_queued_tokens=250)) as (served, engine), ExitStack() as stack:
        wait_in(stack, served, 2, path=COMPLETIONS, prompt=prompt)
        wait_until(lambda: served.admission.tokens.held == 200)
        response = refusal(served, path=COMPLETIONS, prompt=prompt)
        assert (response.status_code, error_of(response)["code"]) == (429, "too_many_tokens")
        assert refusal(served, path=COMPLETIONS, prompt=prompt[:20], n=3).status_code == 429
        assert engine.live == 2
        engine.prefill_s, engine.step_s = 0, 60
        wait_in(stack, served, 1, path=COMPLETIONS, prompt=prompt[:50])
        wait_until(lambda: engine.live == 3)
        wait_until(lambda: served.admission.tokens.held == 200)  # it has its first token, and is far from its last
        assert not served.admission.is_idle
    wait_until(lambda: holds_nothing(served))


def test_bodies_are_bounded_before_they_are_parsed() -> None:
    limits = Limits(max_queued_body_mib=1000 / 2**20)
    with limited(limits) as (served, engine), ExitStack() as stack:
        client = stack.enter_context(connection(served))
        client.sendall(request(b" " * 900, length=2000))
        wait_until(lambda: served.admission.body_bytes.held == 900)
        response = refusal(served)
        assert (response.status_code, error_of(response)["code"]) == (429, "too_many_bytes")
        assert engine.submitted == []
        client.sendall(b" " * 1100)  # alone it may be as large as one body may be
        assert client.recv(20).startswith(b"HTTP/1.1 400")
        wait_in(stack, served, 1)
        wait_until(lambda: engine.live == 1)
    wait_until(lambda: holds_nothing(served))


def test_a_request_is_never_refused_for_its_size_where_nobody_waits() -> None:
    limits = Limits(max_queued_requests=0, max_queued_tokens=1, max_queued_body_mib=1 / 2**20)
    with limited(limits, KEYS) as (served, engine), ExitStack() as stack:
        wait_in(stack, served, 1, "key-a", n=16)
        wait_until(lambda: engine.live == 16)
        assert refusal(served, "key-b").status_code == 429
    wait_until(lambda: holds_nothing(served))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"{", id="not JSON"),
        pytest.param(json.dumps({"messages": [{"role": "user", "content": "a"}], "nope": 1}).encode(), id="bad field"),
        pytest.param(json.dumps(body(max_tokens=10**6)).encode(), id="too long"),
        pytest.param(json.dumps(body(model="nobody")).encode(), id="no such model"),
    ],
)
def test_bad_requests_give_back_all_they_held(server: Served, sent: bytes) -> None:
    with httpx2.Client(base_url=server.url) as client:
        response = client.post(CHAT, content=sent, headers={"content-type": "application/json"})
    assert 400 <= response.status_code < 500
    wait_until(lambda: holds_nothing(server))


@pytest.mark.parametrize("stream", [False, True])
def test_failures_and_good_ends_give_back_all_they_held(
    own_server: Served, engine: FakeEngine, *, stream: bool
) -> None:
    for failure, at in ((None, 0), (ValueError("a bug"), 0), (ValueError("a bug"), 3)):
        engine.failure, engine.failure_at = failure, at
        with httpx2.Client(base_url=own_server.url) as client:
            client.post(CHAT, json=body(stream=stream, n=3))
        wait_until(lambda: holds_nothing(own_server))


def test_a_flood_by_one_key_leaves_room_for_the_others() -> None:
    with limited(Limits(max_queued_requests=32), KEYS) as (served, engine), ExitStack() as stack:
        wait_in(stack, served, 40, "key-a")
        wait_until(lambda: engine.live == 20)  # half of 8 + 32
        wait_until(lambda: len(served.server.server_state.tasks) == 20)
        assert refusal(served, "key-a").status_code == 429
        wait_in(stack, served, 40, "key-b")
        wait_until(lambda: engine.live == 30)  # half of what is left
        wait_in(stack, served, 5, "key-c")
        wait_until(lambda: engine.live == 35)
    wait_until(lambda: holds_nothing(served))


def test_a_server_of_one_tenant_gives_it_all() -> None:
    for keys in ((), KEYS[:1]):
        with limited(Limits(max_queued_requests=4), keys) as (served, engine), ExitStack() as stack:
            wait_in(stack, served, BATCH + 4, "key-a")
            wait_until(lambda: engine.live == BATCH + 4)


def test_the_official_client_comes_again_when_it_is_told_to() -> None:
    with limited(Limits(max_queued_requests=0)) as (served, engine), ExitStack() as stack:
        wait_in(stack, served, BATCH)
        wait_until(lambda: engine.live == BATCH)
        engine.prefill_s = 0
        timer = threading.Timer(0.5, stack.close)
        timer.start()
        with openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=2) as client:
            answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a"}])
        timer.join()
        assert answer.choices[0].message.content
        with httpx2.Client(base_url=served.url) as asker:
            assert Samples(asker)("requests_rejected_total", reason="too_many_requests") >= 1


def test_others_answers_are_the_same_beside_refusals() -> None:
    with limited(Limits(max_queued_requests=4)) as (served, engine), ExitStack() as stack:
        engine.prefill_s = 0
        with httpx2.Client(base_url=served.url, timeout=30) as client:
            alone = contents(ask(client))
            engine.prefill_s = 60
            wait_in(stack, served, BATCH + 3)
            wait_until(lambda: engine.live == BATCH + 3)
            engine.prefill_s, engine.step_s = 0, 0.01
            statuses: list[int] = []
            flood = threading.Thread(
                target=lambda: statuses.extend(refusal(served, n=9).status_code for _ in range(20))
            )
            flood.start()
            assert [contents(ask(client)) for _ in range(5)] == [alone] * 5
            flood.join()
        assert statuses == [429] * 20


def test_retry_after_is_how_long_the_queue_takes_at_the_present_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    limits = Limits(max_queued_requests=100)
    keys = KeyRing((), limits)
    admission = Admission(limits, 10, keys)
    assert admission.retry_after_s() == 1  # nobody knows
    for _ in range(20):
        ticket = admission.enter(keys.anonymous)
        now += 0.5
        ticket.close()
    waiting = [admission.enter(keys.anonymous) for _ in range(30)]
    assert admission.retry_after_s() == 10  # 20 wait besides the batch, and every half second one ends
    now += 10
    assert admission.retry_after_s() == 20  # none ended in as much time again
    now += 10_000
    assert admission.retry_after_s() == 60
    for ticket in waiting:
        ticket.close()
    assert admission.is_idle


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6), st.booleans()), max_size=60), st.booleans())
def test_a_quota_is_never_exceeded_and_nobody_is_locked_out(moves: list[tuple[str, int, bool]], shared: bool) -> None:
    limit = 24
    quota = Quota(limit, lambda: shared)
    held: list[tuple[str, int]] = []
    for tenant, amount, gives_back in moves:
        if gives_back and held:
            quota.give_back(*held.pop())
        elif quota.take(tenant, amount):
            held.append((tenant, amount))
        assert quota.held == sum(amount for _, amount in held) <= limit
        if shared:
            own = {tenant: sum(amount for name, amount in held if name == tenant) for tenant in "abc"}
            assert quota.take("a newcomer", 1), own  # three floods leave a fourth of it, or more
            quota.give_back("a newcomer", 1)
    for tenant, amount in held:
        quota.give_back(tenant, amount)
    assert quota.held == 0


@pytest.mark.parametrize(("name", "value"), [("max_connections", 0), ("drain_timeout_s", float("nan"))])
def test_limits_that_mean_nothing_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        Limits(**{name: value})
