"""Chat completions: what a request asks for is what the engine is asked for and what the answer says."""

from typing import Any, cast

import httpx2
import pytest

from tests.api.chatting import CHAT, ask, body, contents, error_of, events, streamed
from tests.api.fake_engine import EOS, FakeEngine
from tests.api.serving import NAME, SPACE, TEXT, Served


def ids(text: str) -> list[int]:
    return TEXT.tokenizer.encode(text, add_special_tokens=False).ids


def asked(server: Served, client: httpx2.Client, **fields: Any) -> Any:
    """What the engine was asked for by a good request."""
    ask(client, **fields)
    return cast(FakeEngine, server.engine).submitted[-1]


# The answer.


def test_an_answer_has_openais_shape_and_its_preference(client: httpx2.Client) -> None:
    answer = ask(client, preference={"helpful": 3, "concise": 1})
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == NAME
    assert answer["preference"] == {"helpful": 0.75, "harmless": 0.0, "concise": 0.25}
    (choice,) = answer["choices"]
    assert (choice["index"], choice["message"]["role"], choice["logprobs"]) == (0, "assistant", None)
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    usage = answer["usage"]
    assert usage == {
        "prompt_tokens": 10,
        "completion_tokens": 12,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_the_text_is_what_the_tokens_say(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.script = ids("With a stone. \U0001f600 毨")
    answer = ask(own_client, max_tokens=100)
    assert contents(answer) == ["With a stone. \U0001f600 毨"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == len(engine.script) + 1


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3},
        {"max_tokens": 200},
        {"n": 16, "max_tokens": 30},
        {"stop": ["e", "th"], "n": 4, "max_tokens": 100},
        {"temperature": 0, "preference": [0, 0, 1]},
        {"model": f"{NAME}:base"},
        {"logprobs": True, "top_logprobs": 2, "n": 2, "max_tokens": 40},
    ],
)
def test_a_streams_deltas_are_the_whole_answer(client: httpx2.Client, fields: dict[str, Any]) -> None:
    answer = ask(client, **fields)
    chunks = events(client, **fields)
    assert streamed(chunks) == dict(enumerate(contents(answer)))
    for index, choice in enumerate(answer["choices"]):
        parts = [part for chunk in chunks for part in chunk["choices"] if part["index"] == index]
        assert parts[0]["delta"] == {"role": "assistant", "content": ""}
        assert [part["finish_reason"] for part in parts if part["finish_reason"]] == [choice["finish_reason"]]
        assert parts[-1]["finish_reason"]
        logprobs = [entry for part in parts if part["logprobs"] for entry in part["logprobs"]["content"]]
        assert logprobs == (choice["logprobs"]["content"] if choice["logprobs"] else [])


def test_every_chunk_carries_id_model_and_preference(client: httpx2.Client) -> None:
    chunks = events(client, preference=[1, 1, 0], n=2, stream_options={"include_usage": True})
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {NAME}
    assert all(chunk["preference"] == {"helpful": 0.5, "harmless": 0.5, "concise": 0.0} for chunk in chunks)


def test_usage_is_a_last_chunk_if_it_is_asked_for(client: httpx2.Client) -> None:
    chunks = events(client, n=2, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == ask(client, n=2)["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])


@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
def test_without_it_no_chunk_has_usage(client: httpx2.Client, options: dict[str, Any] | None) -> None:
    assert not any("usage" in chunk for chunk in events(client, stream_options=options))


def test_n_answers_differ_but_a_seed_repeats_them(client: httpx2.Client) -> None:
    first = contents(ask(client, n=4, seed=7))
    assert len(set(first)) == 4
    assert contents(ask(client, n=4, seed=7)) == first
    assert contents(ask(client, n=4, seed=8)) != first


def test_without_a_seed_answers_differ(client: httpx2.Client) -> None:
    assert contents(ask(client, seed=None)) != contents(ask(client, seed=None))


def test_a_stop_string_ends_the_answer_and_the_engines_work(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.script = ids("Take a whetstone and some water.")
    answer = ask(own_client, stop="stone", max_tokens=100)
    assert contents(answer) == ["Take a whet"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert (engine.live, engine.aborted) == (0, 1)


def test_stop_strings_do_not_count_before_min_tokens(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.script = ids("a knife a knife")
    assert contents(ask(own_client, stop=["knife"], min_tokens=len(ids("a knife")))) == ["a knife a "]


def test_logprobs_have_tokens_bytes_and_alternatives(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.script = [*ids("a"), *ids("é")]
    (choice,) = ask(own_client, logprobs=True, top_logprobs=2)["choices"]
    first, *rest, end = choice["logprobs"]["content"]
    assert (first["token"], first["logprob"], first["bytes"]) == ("a", -0.25, [97])
    assert [entry["logprob"] for entry in first["top_logprobs"]] == [-0.25, -0.5]
    assert bytes(byte for entry in rest for byte in entry["bytes"]) == "é".encode()
    assert (end["token"], end["bytes"]) == ("<|end|>", list(b"<|end|>")), "the token that ends the answer has an entry"


def test_logprobs_without_alternatives_are_the_chosen_tokens_alone(client: httpx2.Client) -> None:
    (choice,) = ask(client, logprobs=True)["choices"]
    assert [entry["top_logprobs"] for entry in choice["logprobs"]["content"]] == [[]] * 12


# What the engine is asked for.


def test_messages_become_the_models_prompt(server: Served, client: httpx2.Client) -> None:
    messages = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "text": "now?"}]},
        {"role": "assistant", "content": "Well.", "refusal": None, "tool_calls": [], "audio": None, "annotations": []},
        {"role": "user", "content": ""},
    ]
    written = "<|system|>Be kind.<|end|><|user|>How now?<|end|><|assistant|>Well.<|end|><|user|><|end|><|assistant|>"
    prompt = asked(server, client, messages=messages).prompt_ids
    assert TEXT.tokenizer.decode(prompt, skip_special_tokens=False) == written


def test_all_sampling_fields_reach_the_engine(server: Served, client: httpx2.Client) -> None:
    params = asked(
        server,
        client,
        max_tokens=None,
        max_completion_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        frequency_penalty=-0.5,
        presence_penalty=2,
        repetition_penalty=1.1,
        logit_bias={"7": -100, "5": 2.5, "6": 0},
        seed=-(2**63),
        min_tokens=2,
        stop_token_ids=[9, 8, 9],
        ignore_eos=True,
        logprobs=True,
        top_logprobs=20,
    ).params
    assert params == type(params)(
        max_tokens=9,
        temperature=0.5,
        top_p=0.9,
        top_k=7,
        min_p=0.1,
        frequency_penalty=-0.5,
        presence_penalty=2.0,
        repetition_penalty=1.1,
        logit_bias=((7, -100.0), (5, 2.5)),
        seed=-(2**63),
        choice=0,
        min_tokens=2,
        stop_token_ids=(9, 8),
        ignore_eos=True,
        logprobs=20,
    )


def test_absent_and_null_fields_are_openais_defaults(server: Served, client: httpx2.Client) -> None:
    names = ("max_tokens", "temperature", "top_p", "n", "stop", "logprobs", "stream", "preference", "model", "top_k")
    for fields in ({"max_tokens": None}, dict.fromkeys(names)):
        submitted = asked(server, client, **fields)
        params = submitted.params
        assert submitted.preference == SPACE.default
        assert params == type(params)(max_tokens=512 - len(submitted.prompt_ids), seed=1)


def test_choices_share_the_seed_and_count_up(server: Served, client: httpx2.Client) -> None:
    ask(client, n=3)
    params = [submitted.params for submitted in cast(FakeEngine, server.engine).submitted[-3:]]
    assert [(each.seed, each.choice) for each in params] == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(("asked_for", "given"), [(-1, 0), (0, 0), (5, 5), (2**62, 354)])
def test_top_k_keeps_at_most_the_vocabulary(server: Served, client: httpx2.Client, asked_for: int, given: int) -> None:
    assert asked(server, client, top_k=asked_for).params.top_k == given


@pytest.mark.parametrize(
    ("fields", "preference"),
    [
        ({}, SPACE.default),
        ({"model": NAME}, SPACE.default),
        ({"preference": None}, SPACE.default),
        ({"model": f"{NAME}:brief"}, (0, 0, 1)),
        ({"model": f"{NAME}:brief", "preference": None}, (0, 0, 1)),
        ({"model": f"{NAME}:brief", "preference": {"helpful": 5}}, (1, 0, 0)),
        ({"model": f"{NAME}:base"}, None),
        ({"preference": [0, 2, 2]}, (0, 0.5, 0.5)),
        ({"preference": {"harmless": 1e6}}, (0, 1, 0)),
    ],
)
def test_the_preference_is_the_requests_then_the_presets_then_the_default(
    server: Served, client: httpx2.Client, fields: dict[str, Any], preference: tuple[float, ...] | None
) -> None:
    answer = ask(client, **fields)
    assert cast(FakeEngine, server.engine).submitted[-1].preference == preference
    assert answer["preference"] == (None if preference is None else SPACE.as_dict(preference))
    assert answer["model"] == fields.get("model", NAME)


NOTHING: list[dict[str, Any]] = [
    {"user": "me"},
    {"metadata": {"a": "b"}},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h", "safety_identifier": "s"},
    {"parallel_tool_calls": True},
    {"store": False},
    {"tools": [], "tool_choice": "auto"},
    {"tool_choice": "none", "functions": [], "function_call": "none"},
    {"frequency_penalty": 0, "presence_penalty": 0.0},
    {"logit_bias": {}},
    {"response_format": {"type": "text"}},
    {"modalities": ["text"]},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"reasoning_effort": "none"},
    {"verbosity": "medium"},
    {
        "n": 1,
        "stream": False,
        "logprobs": False,
        "ignore_eos": False,
        "min_tokens": 0,
        "stop": [],
        "stop_token_ids": [],
    },
    {"max_tokens": 12, "max_completion_tokens": 12},
    dict.fromkeys(
        ["audio", "prediction", "web_search_options", "moderation", "store", "tools", "prompt_cache_options"]
    ),
]


@pytest.mark.parametrize("fields", NOTHING)
def test_fields_that_ask_for_nothing_change_nothing(client: httpx2.Client, fields: dict[str, Any]) -> None:
    assert contents(ask(client, **fields)) == contents(ask(client))


def test_a_prompt_that_leaves_no_room_is_refused(client: httpx2.Client) -> None:
    error = error_of(client.post(CHAT, json=body(messages=[{"role": "user", "content": "?" * 510}], max_tokens=None)))
    assert (error["param"], error["code"]) == ("messages", "context_length_exceeded")
    ask(client, messages=[{"role": "user", "content": "? " * 254}], max_tokens=None)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_more_tokens_than_the_context_leaves_are_refused(client: httpx2.Client, name: str) -> None:
    fields: dict[str, Any] = {"max_tokens": None, name: 503}
    error = error_of(client.post(CHAT, json=body(**fields)))
    assert (error["param"], error["code"]) == (name, "context_length_exceeded")
    fields[name] = 502
    ask(client, **fields)


def test_a_long_prompt_is_encoded_beside_other_requests(client: httpx2.Client) -> None:
    error = error_of(client.post(CHAT, json=body(messages=[{"role": "user", "content": "knife " * 100_000}])))
    assert error["code"] == "context_length_exceeded"


def test_a_template_that_refuses_is_a_400(client: httpx2.Client) -> None:
    messages = [{"role": "user", "content": "<|end|>" * 10_001}]
    assert error_of(client.post(CHAT, json=body(messages=messages)))["param"] == "messages"


def test_end_tokens_of_the_fake_engine_occur(client: httpx2.Client) -> None:
    """So that the tests above have both finish reasons."""
    reasons = {choice["finish_reason"] for choice in ask(client, n=16, max_tokens=60)["choices"]}
    assert reasons == {"stop", "length"}
    assert TEXT.tokenizer.token_to_id("<|end|>") == EOS
