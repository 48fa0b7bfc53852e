"""Who shares cached prefixes with whom, and that answers say how much of their prompts was cached."""

import json
from collections.abc import Generator
from typing import Any

import httpx2
import openai
import pytest

from panacea.config import EngineConfig
from panacea.engine.client import EngineClient
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, error_of, events
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, Served, serving
from tests.golden_files import ADAPTER, BASE

ROUTES = [CHAT, COMPLETIONS]
KEYS = ("first-key", "second-key")


@pytest.fixture
def guarded(engine: FakeEngine) -> Generator[Served]:
    async def make_engine() -> FakeEngine:
        return engine

    with serving(make_engine, api_keys=KEYS) as served:
        yield served


def salt_of(engine: FakeEngine, client: httpx2.Client, path: str = CHAT, key: str | None = None, **fields: Any) -> str:
    """The salt that the engine sees of a request."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    response = client.post(path, json=body(path, **fields), headers=headers)
    assert response.status_code == 200, response.text
    salts = {submitted.cache_salt for submitted in engine.submitted}
    engine.submitted.clear()
    (salt,) = salts
    return salt


def test_each_key_has_a_salt_of_its_own_on_all_routes(engine: FakeEngine, guarded: Served) -> None:
    with httpx2.Client(base_url=guarded.url) as client:
        first, second = ({salt_of(engine, client, path, key, n=2) for path in ROUTES} for key in KEYS)
    assert len(first) == len(second) == 1
    assert first != second
    for key in KEYS:
        assert not any(key in salt or key.encode().hex() in salt for salt in first | second), "no key is part of it"


def test_a_clients_salt_divides_a_key_and_joins_no_two(engine: FakeEngine, guarded: Served) -> None:
    with httpx2.Client(base_url=guarded.url) as client:
        salts = [
            salt_of(engine, client, CHAT, key, cache_salt=salt)
            for key in KEYS
            for salt in (None, "a", "b", *KEYS, NAME)
        ]
        assert len(set(salts)) == len(salts)
        again = [
            salt_of(engine, client, COMPLETIONS, key, cache_salt=salt)
            for key in KEYS
            for salt in (None, "a", "b", *KEYS, NAME)
        ]
        assert again == salts
        assert salt_of(engine, client, CHAT, KEYS[0]) == salts[0]


def test_without_keys_all_share_whatever_header_they_send(engine: FakeEngine, own_client: httpx2.Client) -> None:
    assert len({salt_of(engine, own_client, CHAT, key) for key in (None, *KEYS)}) == 1
    assert salt_of(engine, own_client, cache_salt="a") != salt_of(engine, own_client)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("salt", ['""', f'"{"x" * 257}"', "1", "true", '["a"]', r'"\ud800"'])
def test_a_salt_is_a_text_of_bounded_length(client: httpx2.Client, path: str, salt: str) -> None:
    content = json.dumps(body(path))[:-1] + f', "cache_salt": {salt}}}'
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error_of(response)["param"] in ("cache_salt", None)


@pytest.mark.parametrize("path", ROUTES)
def test_answers_say_how_many_prompt_tokens_were_cached(
    engine: FakeEngine, own_client: httpx2.Client, path: str
) -> None:
    engine.cached_tokens = 5
    usage = ask(own_client, path)["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 5}
    for fields in ({}, {"n": 3}):
        chunks = events(own_client, path, stream_options={"include_usage": True}, **fields)
        assert chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
        assert chunks[-1]["usage"]["prompt_tokens"] == usage["prompt_tokens"]


def test_each_prompts_cached_tokens_count_once(engine: FakeEngine, own_client: httpx2.Client) -> None:
    engine.cached_tokens = 3
    usage = ask(own_client, COMPLETIONS, prompt=["one", "two"], n=2)["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 6}


def test_the_official_client_reads_it(engine: FakeEngine, own_server: Served) -> None:
    engine.cached_tokens = 4
    with openai.OpenAI(base_url=f"{own_server.url}/v1", api_key="any", max_retries=0) as official:
        chat = official.chat.completions.create(
            model=NAME, messages=[{"role": "user", "content": "Hello"}], extra_body={"cache_salt": "mine"}
        )
        text = official.completions.create(model=NAME, prompt="Hello", extra_body={"cache_salt": "mine"})
    for usage in (chat.usage, text.usage):
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        assert usage.prompt_tokens_details.cached_tokens == 4


@pytest.mark.slow
def test_a_second_question_is_warm_for_its_own_key_salt_and_preference_alone() -> None:
    async def make_engine() -> EngineClient:
        return await EngineClient.start(EngineConfig(BASE, ADAPTER, device="cpu", threads=1))

    with serving(make_engine, api_keys=KEYS) as served, httpx2.Client(base_url=served.url, timeout=60) as client:

        def cached(key: str, **fields: Any) -> int:
            client.headers["authorization"] = f"Bearer {key}"
            answer = ask(client, COMPLETIONS, prompt=[3 + i % 300 for i in range(40)], temperature=0, **fields)
            tokens: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            return tokens

        assert [cached(KEYS[0]), cached(KEYS[0])] == [0, 32]
        assert [cached(KEYS[1]), cached(KEYS[1])] == [0, 32]
        assert [cached(KEYS[0], cache_salt="a"), cached(KEYS[0], cache_salt="a")] == [0, 32]
        for preference in ([1, 0, 0], [0.2, 0.2, 0.6]):
            assert [cached(KEYS[0], preference=preference) for _ in range(2)] == [0, 32]
        assert [cached(KEYS[0], model=f"{NAME}:base") for _ in range(2)] == [0, 32]
