"""The HTTP half and the real engine in its own process: golden answers, streams, log probabilities, its end."""

import json
from collections.abc import Generator
from typing import Any, cast

import httpx2
import jsonschema
import pytest
import torch

from panacea.config import EngineConfig
from panacea.engine.client import EngineClient
from tests.api.chatting import CHAT, COMPLETIONS, ask, body, contents, error_of, events, streamed
from tests.api.serving import NAME, TEXT, Served, serving, wait_until
from tests.golden_files import ADAPTER, BASE, Golden, golden
from tests.schemas import SCHEMAS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole() -> Generator[Served]:
    async def make_engine() -> EngineClient:
        return await EngineClient.start(EngineConfig(BASE, ADAPTER, device="cpu", threads=1))

    with serving(make_engine) as served:
        yield served


@pytest.fixture(scope="module")
def asker(whole: Served) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=whole.url, timeout=60) as client:
        yield client


def question(expected: Golden) -> str:
    """The user's words in a golden prompt."""
    return TEXT.tokenizer.decode(expected.prompt_ids)


@pytest.mark.parametrize("expected", [*golden("panacea"), *golden("base")])
def test_golden_answers_come_over_http(asker: httpx2.Client, expected: Golden) -> None:
    fields: dict[str, Any] = {"preference": expected.preference} if expected.preference else {"model": f"{NAME}:base"}
    messages = [{"role": "user", "content": question(expected)}]
    answer = ask(asker, messages=messages, temperature=0, max_tokens=len(expected.greedy_ids), **fields)
    assert contents(answer) == [TEXT.tokenizer.decode(expected.greedy_ids)]


@pytest.mark.parametrize("expected", [*golden("panacea"), *golden("base")])
def test_golden_answers_continue_their_prompts(asker: httpx2.Client, expected: Golden) -> None:
    """The same conversation as token ids and as the text that the chat template writes."""
    fields: dict[str, Any] = {"preference": expected.preference} if expected.preference else {"model": f"{NAME}:base"}
    for prompt in (expected.prompt_ids, TEXT.decode(expected.prompt_ids)):
        answer = ask(asker, COMPLETIONS, prompt=prompt, temperature=0, max_tokens=len(expected.greedy_ids), **fields)
        assert contents(answer) == [TEXT.tokenizer.decode(expected.greedy_ids)]


def test_raw_prompts_continue_as_in_transformers(asker: httpx2.Client) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    model: Any = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float64)
    prompts = ["How do I", "The attic", " is "]
    expected: list[str] = []
    for prompt in prompts:
        inputs = tokenizer(prompt, return_tensors="pt")
        tokens = model.generate(**inputs, do_sample=False, max_new_tokens=16)[0, inputs["input_ids"].shape[1] :]
        expected.append(str(tokenizer.decode(tokens, skip_special_tokens=True)))
    answer = ask(asker, COMPLETIONS, prompt=prompts, temperature=0, max_tokens=None, model=f"{NAME}:base")
    assert contents(answer) == expected


def test_a_stream_is_the_whole_answer_and_each_choice_its_own(asker: httpx2.Client) -> None:
    fields: dict[str, Any] = {"n": 4, "max_tokens": 40, "logprobs": True, "top_logprobs": 2, "temperature": 1.5}
    answer = ask(asker, **fields)
    assert streamed(events(asker, **fields)) == dict(enumerate(contents(answer)))
    assert len(set(contents(answer))) == 4


def test_logprobs_are_the_engines(asker: httpx2.Client) -> None:
    (choice,) = ask(asker, temperature=0, logprobs=True, top_logprobs=3)["choices"]
    for entry in choice["logprobs"]["content"]:
        best, *others = entry["top_logprobs"]
        assert (best["bytes"], best["logprob"]) == (entry["bytes"], entry["logprob"])
        assert all(other["logprob"] <= best["logprob"] < 0 for other in others)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_there_is_a_log_probability_for_each_token_of_prompt_and_answer(asker: httpx2.Client, path: str) -> None:
    fields: dict[str, Any] = {"logprobs": True} if path == CHAT else {"logprobs": 1, "echo": True}
    ended = 0
    for seed in range(30):
        answer = ask(asker, path, max_tokens=1 + 5 * seed, seed=seed, stop=["zz", "!"] if seed % 3 else None, **fields)
        (choice,), usage = answer["choices"], answer["usage"]
        ended += choice["finish_reason"] == "stop"
        entries = choice["logprobs"]["content"] if path == CHAT else choice["logprobs"]["tokens"]
        assert len(entries) == usage["completion_tokens"] + (usage["prompt_tokens"] if path == COMPLETIONS else 0)
    assert ended >= 5


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_answers_follow_a_schema_whole_or_streamed(asker: httpx2.Client, path: str) -> None:
    schema = SCHEMAS["person"]
    fields: dict[str, Any] = {
        "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}},
        "max_tokens": 200,
        "n": 4,
        "temperature": 0.8,
        "preference": [0, 1, 0],
    }
    answer = ask(asker, path, **fields)
    assert streamed(events(asker, path, **fields)) == dict(enumerate(contents(answer)))
    ended = [choice["finish_reason"] == "stop" for choice in answer["choices"]]
    for text, stopped in zip(contents(answer), ended, strict=True):
        if stopped:
            jsonschema.validate(json.loads(text), schema)
    assert sum(ended) >= 2


def test_any_object_is_an_object_and_what_is_cut_is_its_beginning(asker: httpx2.Client) -> None:
    fields: dict[str, Any] = {"response_format": {"type": "json_object"}, "temperature": 0}
    close = TEXT.tokenizer.get_vocab()["}"]
    (short,) = contents(ask(asker, logit_bias={str(close): 100}, max_tokens=100, **fields))
    assert isinstance(json.loads(short), dict)
    answer = ask(asker, max_tokens=7, logit_bias={str(close): -100}, **fields)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert contents(answer)[0].startswith("{")


def test_a_dead_engine_is_a_503_and_not_ready() -> None:
    async def make_engine() -> EngineClient:
        return await EngineClient.start(EngineConfig(BASE, device="cpu", threads=1))

    with serving(make_engine, space=None) as served, httpx2.Client(base_url=served.url, timeout=60) as client:
        assert client.get("/ready").status_code == 200
        assert ask(client)["preference"] is None
        engine = cast(EngineClient, served.engine)
        engine._process.kill()  # pyright: ignore[reportPrivateUsage]
        wait_until(lambda: not engine.alive)
        response = client.post(CHAT, json=body())
        assert (response.status_code, error_of(response)["code"]) == (503, "engine_unavailable")
        assert client.get("/ready").status_code == 503
        assert client.get("/health").status_code == 200
