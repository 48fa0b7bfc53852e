"""Requests and tokens per minute: what counts, what a refusal says, and that the average holds."""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from panacea.api.access.key_ring import RATE_HEADERS, _duration  # pyright: ignore[reportPrivateUsage]
from panacea.api.access.minute_rate import MinuteRate
from panacea.api_key import ApiKey
from panacea.config import Limits
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, error_of, events
from tests.api.fake_engine import FakeEngine
from tests.api.metric_samples import Samples
from tests.api.serving import Served, serving, wait_until

ALICE, BOB = "key-of-alice", "key-of-bob"
KEYS = (replace(ApiKey.of(ALICE, "alice"), requests_per_minute=3, tokens_per_minute=float("inf")), ApiKey.of(BOB))


@contextmanager
def limited(limits: Limits, keys: tuple[ApiKey, ...] = ()) -> Generator[tuple[Served, httpx2.Client]]:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine, limits=limits, api_keys=keys) as served, httpx2.Client(base_url=served.url) as client:
        yield served, client


def refused(client: httpx2.Client, code: str, path: str = CHAT, **fields: Any) -> httpx2.Response:
    response = client.post(path, json=body(path, **fields))
    assert (response.status_code, error_of(response)["code"]) == (429, code), response.text
    assert int(response.headers["retry-after"]) >= 1
    return response


def test_requests_per_minute_are_all_clients_without_keys_and_the_refusal_says_which_limit_it_was() -> None:
    with limited(Limits(requests_per_minute=4)) as (_, client):
        first = client.post(CHAT, json=body())
        assert first.headers["x-ratelimit-limit-requests"] == "4"
        assert first.headers["x-ratelimit-remaining-requests"] == "3"
        assert re.fullmatch(r"1[0-9](\.\d)?s", first.headers["x-ratelimit-reset-requests"])  # a fourth of a minute
        assert "x-ratelimit-limit-tokens" not in first.headers
        assert client.post(COMPLETIONS, json=body(COMPLETIONS, stream=True)).status_code == 200
        assert client.post("/v1/tokenize", json={"prompt": "a"}).status_code == 200
        assert client.post(CHAT, json={}).status_code == 400  # it counts as well
        response = refused(client, "requests_per_minute")
        assert response.headers["x-ratelimit-remaining-requests"] == "0"
        assert 1 <= int(response.headers["retry-after"]) <= 15
        refused(client, "requests_per_minute")
        assert client.get("/v1/models").status_code == client.get("/health").status_code == 200
        assert Samples(client)("requests_rejected_total", reason="requests_per_minute") == 2


def test_each_answer_and_each_prompt_counts_as_a_request() -> None:
    with limited(Limits(requests_per_minute=10)) as (_, client):
        assert ask(client, n=4)
        assert client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=["a", "b"], n=2)).status_code == 200
        response = refused(client, "requests_per_minute", n=3)
        assert response.headers["x-ratelimit-remaining-requests"] == "1"  # the one that asked has been counted
        assert ask(client)


def test_tokens_are_prompts_and_answers_and_each_answer_counts_its_prompt() -> None:
    prompt = list(range(5, 25))
    with limited(Limits(tokens_per_minute=1000)) as (_, client):
        ask(client, COMPLETIONS, prompt=prompt, max_tokens=30, ignore_eos=True)
        now = client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=prompt, n=2, max_tokens=40, ignore_eos=True))
        # The headers are sent when the answer is complete.
        remaining = 1000 - (20 + 30) - (2 * 20 + 2 * 40)
        assert remaining <= int(now.headers["x-ratelimit-remaining-tokens"]) <= remaining + 20
        events(client, COMPLETIONS, prompt=prompt, max_tokens=400, ignore_eos=True)
        events(client, COMPLETIONS, prompt=prompt, max_tokens=400, ignore_eos=True)  # it was admitted: it is not cut
        response = refused(client, "tokens_per_minute", COMPLETIONS, prompt=prompt)
        assert response.headers["x-ratelimit-remaining-tokens"] == "0"
        assert refused(client, "tokens_per_minute", COMPLETIONS, prompt=prompt)


def test_the_bytes_of_a_text_to_tokenize_are_a_cost() -> None:
    with limited(Limits(tokens_per_minute=1000)) as (_, client):
        for path, wanted in (("/v1/tokenize", {"prompt": "a " * 1000}), ("/v1/detokenize", {"tokens": [100] * 400})):
            response = client.post(path, json=wanted)
            assert response.status_code == 200
            content = len(response.request.content)
        assert int(response.headers["x-ratelimit-remaining-tokens"]) <= 1000 - 500 - content / 4 + 20
        response = client.post("/v1/tokenize", json={"prompt": "a " * 1000})
        assert (response.status_code, error_of(response)["code"]) == (429, "tokens_per_minute")


def test_a_key_has_its_own_rates_and_no_other_key_uses_them_up() -> None:
    with limited(Limits(requests_per_minute=5, tokens_per_minute=10_000), KEYS) as (served, client):
        alice, bob = ({"authorization": f"Bearer {key}"} for key in (ALICE, BOB))
        statuses = [client.post(CHAT, json=body(), headers=alice).status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        answers = [client.post(CHAT, json=body(), headers=bob) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert answers[0].headers["x-ratelimit-limit-tokens"] == "10000"
        client.headers.update(bob)
        assert Samples(client)("key_requests_rejected_total", key="alice") == 1
        wait_until(lambda: served.admission.is_idle)


def test_a_refused_request_holds_and_charges_nothing() -> None:
    with limited(Limits(tokens_per_minute=100)) as (served, client):
        ask(client, COMPLETIONS, prompt=[5] * 90, max_tokens=1)
        refused(client, "tokens_per_minute", COMPLETIONS, prompt=[5] * 90)
        admission = served.admission
        wait_until(lambda: admission.is_idle)
        assert admission.requests.held == admission.tokens.held == admission.body_bytes.held == 0
        assert admission.keys.anonymous.total_tokens == 91
        assert admission.keys.anonymous.total_rejected == 1


def test_the_official_client_reads_the_headers_and_the_code() -> None:
    with (
        limited(Limits(requests_per_minute=1)) as (served, _),
        openai.OpenAI(base_url=f"{served.url}/v1", api_key="unused", max_retries=0) as client,
    ):
        ask_it = client.chat.completions.with_raw_response.create
        raw = ask_it(model="tiny", messages=[{"role": "user", "content": "a"}])
        assert raw.headers["x-ratelimit-limit-requests"] == "1"
        with pytest.raises(openai.RateLimitError) as error:
            ask_it(model="tiny", messages=[{"role": "user", "content": "a"}])
        assert error.value.code == "requests_per_minute"


def test_no_header_and_no_refusal_without_a_limit() -> None:
    with limited(Limits()) as (_, client):
        response = client.post(CHAT, json=body())
        assert not set(RATE_HEADERS) & set(response.headers)


@pytest.mark.parametrize(("path", "stream"), [(CHAT, False), (CHAT, True), (COMPLETIONS, False), (COMPLETIONS, True)])
def test_cached_tokens_are_hidden_where_the_operator_says_so(path: str, *, stream: bool) -> None:
    async def make_engine() -> FakeEngine:
        return FakeEngine(cached_tokens=7)

    with (
        serving(make_engine, limits=Limits(hide_cached_tokens=True)) as served,
        httpx2.Client(base_url=served.url) as client,
    ):
        options = {"stream_options": {"include_usage": True}}
        usage = events(client, path, **options)[-1]["usage"] if stream else ask(client, path)["usage"]
        assert usage["prompt_tokens_details"] is None
        assert usage["prompt_tokens"] > 0


# The bucket.


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_a_minutes_worth_may_be_used_at_once_and_then_at_its_pace(clock: list[float]) -> None:
    rate = MinuteRate(60)
    assert (rate.remaining, rate.reset_s, rate.wait_s(60)) == (60, 0, 0)
    rate.spend(60)
    assert (rate.remaining, rate.reset_s, rate.wait_s(1)) == (0, 60, 1)
    clock[0] += 1.5
    assert (rate.remaining, rate.wait_s(1), rate.wait_s(2)) == (1, 0, 0.5)


def test_more_than_a_minutes_worth_is_allowed_after_a_pause_and_paid_for_afterwards(clock: list[float]) -> None:
    rate = MinuteRate(60)
    assert rate.wait_s(600) == 0
    rate.spend(600)
    assert (rate.wait_s(1), rate.wait_s(600)) == (541, 600)
    clock[0] += 541
    assert (rate.wait_s(1), rate.remaining) == (0, 1)


def test_a_limit_may_change_and_go_away_and_what_was_used_counts(clock: list[float]) -> None:
    rate = MinuteRate(10)
    rate.spend(10)
    rate.per_minute = 20
    assert rate.remaining == 10
    rate.per_minute = float("inf")
    assert rate.wait_s(10**9) == 0
    rate.spend(10**9)
    rate.per_minute = 20
    assert rate.remaining == 10
    clock[0] += 3
    assert rate.remaining == 11


@given(
    st.integers(1, 1000),
    st.lists(st.tuples(st.floats(0, 30), st.integers(1, 400)), min_size=1, max_size=40),
)
def test_no_sequence_of_charges_gets_more_than_its_rate(limit: int, charges: list[tuple[float, int]]) -> None:
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: now)
        rate = MinuteRate(limit)
        used = 0.0
        for pause_s, amount in charges:
            now += pause_s
            if not rate.wait_s(amount):
                # All that was used before has drained, up to what fits beside this charge.
                assert used + min(amount, limit) <= limit + now * limit / 60 + 1e-6
                rate.spend(amount)
                used += amount
            else:
                now += rate.wait_s(amount)
                assert rate.wait_s(amount) < 1e-6, "after the time that it names there is room"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0101, "11ms"), (1, "1s"), (1.04, "1.1s"), (59.96, "1m0s"), (60, "1m0s"), (90.5, "1m30.5s"),
     (3600, "60m0s")],
)  # fmt: skip
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
