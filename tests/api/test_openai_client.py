"""The official client works unchanged."""

import asyncio
import json
from collections.abc import Generator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from panacea.errors import EngineError
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, TEXT, Served, serving

MESSAGES: Any = [{"role": "user", "content": "How do I sharpen a knife?"}]
KEY = "a-key"


def openai_client(server: Served, key: str = KEY) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def guarded() -> Generator[Served]:
    async def make_engine() -> FakeEngine:
        return FakeEngine()

    with serving(make_engine, api_keys=(KEY,)) as served:
        yield served


@pytest.fixture(scope="module")
def official(guarded: Served) -> Generator[openai.OpenAI]:
    with openai_client(guarded) as client:
        yield client


def test_chat_with_a_preference(official: openai.OpenAI) -> None:
    answer = official.chat.completions.create(
        model=NAME, messages=MESSAGES, seed=1, max_tokens=20, extra_body={"preference": {"helpful": 3, "concise": 1}}
    )
    assert answer.choices[0].message.content
    assert answer.model_dump()["preference"] == {"helpful": 0.75, "harmless": 0.0, "concise": 0.25}
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_is_the_answer(official: openai.OpenAI) -> None:
    whole = official.chat.completions.create(model=NAME, messages=MESSAGES, seed=1, max_tokens=60, n=2)
    stream = official.chat.completions.create(
        model=NAME, messages=MESSAGES, seed=1, max_tokens=60, n=2, stream=True, stream_options={"include_usage": True}
    )
    texts = ["", ""]
    usage = None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage == whole.usage


def test_the_clients_own_stream_helper_agrees(official: openai.OpenAI) -> None:
    whole = official.chat.completions.create(model=NAME, messages=MESSAGES, seed=1, max_tokens=400)
    with official.chat.completions.stream(model=NAME, messages=MESSAGES, seed=1, max_tokens=400) as stream:
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == whole.choices[0].message.content
    assert completion.choices[0].finish_reason == whole.choices[0].finish_reason


def test_an_answer_may_be_sent_back_as_the_client_holds_it(official: openai.OpenAI) -> None:
    first = official.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=5)
    conversation: Any = [*MESSAGES, first.choices[0].message, {"role": "user", "content": "And then?"}]
    assert official.chat.completions.create(model=NAME, messages=conversation, max_tokens=5).choices


def test_logprobs(official: openai.OpenAI) -> None:
    answer = official.chat.completions.create(
        model=NAME, messages=MESSAGES, seed=1, max_tokens=8, logprobs=True, top_logprobs=3
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    joined = b"".join(bytes(entry.bytes or ()) for entry in logprobs.content)
    assert joined.decode(errors="replace") == answer.choices[0].message.content
    assert {len(entry.top_logprobs) for entry in logprobs.content} == {3}


def test_stop_and_finish_reasons(official: openai.OpenAI) -> None:
    full = official.chat.completions.create(model=NAME, messages=MESSAGES, seed=1, max_tokens=30)
    text = full.choices[0].message.content or ""
    cut = official.chat.completions.create(model=NAME, messages=MESSAGES, seed=1, max_tokens=30, stop=[text[6:9]])
    assert cut.choices[0].message.content == text.partition(text[6:9])[0]
    assert (full.choices[0].finish_reason, cut.choices[0].finish_reason) == ("length", "stop")


def test_a_response_format_reaches_the_engine_as_its_schema(own_server: Served, engine: FakeEngine) -> None:
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "null"}}}
    named: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    with openai_client(own_server) as client:
        formats: list[Any] = [named, {"type": "json_object"}, {"type": "text"}]
        for response_format in formats:
            client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=2, response_format=response_format)
    asked = [submitted.params.json_schema for submitted in engine.submitted]
    assert asked == [json.dumps(schema, separators=(",", ":")), '{"type":"object"}', None]


def test_the_clients_parse_helper_gets_an_object(own_server: Served, engine: FakeEngine) -> None:
    class Person(BaseModel):
        name: str
        age: int | None

    engine.script = TEXT.encode(['{"name": "Ada", "age": 36}'])[0]
    with openai_client(own_server) as client:
        answer = client.chat.completions.parse(model=NAME, messages=MESSAGES, response_format=Person)
    assert answer.choices[0].message.parsed == Person(name="Ada", age=36)
    assert engine.submitted[0].params.json_schema is not None


def test_completions_with_a_preference(official: openai.OpenAI) -> None:
    answer = official.completions.create(
        model=NAME, prompt="How do I", seed=1, n=2, extra_body={"preference": {"helpful": 1}}
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.text for choice in answer.choices)
    assert answer.object == "text_completion"
    assert answer.model_dump()["preference"] == {"helpful": 1.0, "harmless": 0.0, "concise": 0.0}


def test_a_stream_of_completions_is_the_answer(official: openai.OpenAI) -> None:
    fields: Any = {"model": NAME, "prompt": [[50, 51], [52]], "seed": 1, "max_tokens": 60, "n": 2, "logprobs": 2}
    whole = official.completions.create(**fields)
    texts = [""] * 4
    offsets: list[list[int]] = [[], [], [], []]
    usage = None
    for chunk in official.completions.create(**fields, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
            assert choice.logprobs is not None
            offsets[choice.index] += choice.logprobs.text_offset or []
    assert texts == [choice.text for choice in whole.choices]
    assert offsets == [choice.logprobs and choice.logprobs.text_offset for choice in whole.choices]
    assert usage == whole.usage


def test_errors_of_completions_are_its_exceptions(official: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="best_of") as bad:
        official.completions.create(model=NAME, prompt="a", best_of=3)
    assert bad.value.param == "best_of"
    with pytest.raises(openai.BadRequestError, match="suffix"):
        official.completions.create(model=NAME, prompt="a", suffix="b")
    with pytest.raises(openai.NotFoundError):
        official.completions.create(model="nobody", prompt="a")


def test_models(official: openai.OpenAI) -> None:
    assert [model.id for model in official.models.list()] == [NAME, f"{NAME}:base", f"{NAME}:brief", f"{NAME}:thorough"]
    assert official.models.retrieve(f"{NAME}:brief").id == f"{NAME}:brief"


def test_the_async_client(guarded: Served) -> None:
    asyncio.run(stream_to_the_end(guarded))


async def stream_to_the_end(guarded: Served) -> None:
    async with openai.AsyncOpenAI(base_url=f"{guarded.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(model=NAME, messages=MESSAGES, max_tokens=5, stream=True)
        assert [chunk async for chunk in stream][-1].choices[0].finish_reason


def test_errors_are_its_exceptions(guarded: Served, official: openai.OpenAI) -> None:
    create = official.chat.completions.create
    with pytest.raises(openai.BadRequestError) as bad:
        create(model=NAME, messages=MESSAGES, extra_body={"preference": {"kind": 1}})
    assert (bad.value.param, bad.value.code, bad.value.type) == (
        "preference",
        "invalid_preference",
        "invalid_request_error",
    )
    assert "helpful, harmless, concise" in bad.value.message
    assert bad.value.request_id
    with pytest.raises(openai.BadRequestError, match="frequency_penalty"):
        create(model=NAME, messages=MESSAGES, frequency_penalty=3)
    with pytest.raises(openai.NotFoundError):
        create(model="nobody", messages=MESSAGES)
    with pytest.raises(openai.NotFoundError):
        official.models.retrieve("nobody")
    with openai_client(guarded, "wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_engine_failures_are_its_exceptions(own_server: Served, engine: FakeEngine) -> None:
    engine.failure = EngineError("made up")
    with openai_client(own_server) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model=NAME, messages=MESSAGES)
        assert failed.value.status_code == 503
        engine.failure_at, engine.script = 3, [20] * 50
        stream = client.chat.completions.create(model=NAME, messages=MESSAGES, stream=True, max_tokens=50)
        with pytest.raises(openai.APIError, match="made up"):
            list(stream)
