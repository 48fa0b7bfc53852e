"""Text completions: raw prompts, several at once, token ids, echo and OpenAI's older shape of log probabilities."""

from pathlib import Path
from typing import Any, cast

import httpx2
import pytest

from panacea.engine.request import Request
from tests.api.chatting import COMPLETIONS, QUESTION, body, contents, error_of, streamed
from tests.api.chatting import ask as ask_path
from tests.api.chatting import events as events_of
from tests.api.fake_engine import FakeEngine
from tests.api.serving import NAME, SPACE, TEXT, Served, serving
from tests.api.text_workers import text_workers
from tests.text.tiny import sentencepiece_tokenizer

OTHER = "The attic is"


def ask(client: httpx2.Client, **fields: Any) -> dict[str, Any]:
    return ask_path(client, COMPLETIONS, **fields)


def events(client: httpx2.Client, **fields: Any) -> list[dict[str, Any]]:
    return events_of(client, COMPLETIONS, **fields)


def ids(text: str) -> list[int]:
    return TEXT.tokenizer.encode(text).ids


def asked(server: Served, client: httpx2.Client, **fields: Any) -> list[Request]:
    """What the engine was asked for by a good request."""
    submitted = cast(FakeEngine, server.engine).submitted
    before = len(submitted)
    ask(client, **fields)
    return submitted[before:]


# The answer.


def test_an_answer_has_openais_shape_and_its_preference(client: httpx2.Client) -> None:
    answer = ask(client, max_tokens=8, ignore_eos=True, preference={"helpful": 3, "concise": 1})
    assert answer["object"] == "text_completion"
    assert answer["id"].startswith("cmpl-")
    assert answer["model"] == NAME
    assert answer["preference"] == {"helpful": 0.75, "harmless": 0.0, "concise": 0.25}
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "text", "logprobs", "finish_reason"}
    assert (choice["index"], choice["logprobs"], choice["finish_reason"]) == (0, None, "length")
    assert choice["text"]
    assert answer["usage"] == {
        "prompt_tokens": 7,
        "completion_tokens": 8,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_the_text_is_what_the_tokens_say(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.script = ids(" With a stone. \U0001f600 毨")
    answer = ask(own_client, max_tokens=100)
    assert contents(answer) == [" With a stone. \U0001f600 毨"]
    assert answer["choices"][0]["finish_reason"] == "stop"


STREAMS: list[dict[str, Any]] = [
    {},
    {"n": 3},
    {"prompt": [QUESTION, OTHER, QUESTION], "n": 2, "max_tokens": 60},
    {"prompt": [ids(QUESTION), ids(OTHER)]},
    {"prompt": ids(QUESTION), "echo": True},
    {"prompt": [QUESTION, OTHER], "n": 2, "echo": True},
    {"stop": ["e", "th"], "n": 4, "max_tokens": 100},
    {"temperature": 0, "preference": [0, 0, 1]},
    {"model": f"{NAME}:base"},
    {"logprobs": 2, "n": 2, "max_tokens": 60},
    {"logprobs": 0, "prompt": [QUESTION, OTHER]},
    {"logprobs": 2, "prompt": [QUESTION, "\U0001f600"], "n": 2, "echo": True},
    {"logprobs": 1, "prompt": [[5], ids(QUESTION)], "echo": True, "max_tokens": 0},
]


@pytest.mark.parametrize("fields", STREAMS)
def test_a_streams_chunks_are_the_whole_answer(client: httpx2.Client, fields: dict[str, Any]) -> None:
    answer = ask(client, **fields)
    chunks = events(client, **fields)
    assert streamed(chunks) == dict(enumerate(contents(answer)))
    for choice in answer["choices"]:
        parts = [part for chunk in chunks for part in chunk["choices"] if part["index"] == choice["index"]]
        assert [part["finish_reason"] for part in parts[:-1]] == [None] * (len(parts) - 1)
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
        assert all((part["logprobs"] is None) == (choice["logprobs"] is None) for part in parts)
        for name, entries in (choice["logprobs"] or {}).items():
            assert [entry for part in parts for entry in part["logprobs"][name]] == entries


def test_every_chunk_carries_id_model_and_preference(client: httpx2.Client) -> None:
    chunks = events(client, preference=[1, 1, 0], n=2, echo=True, stream_options={"include_usage": True})
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]}
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert {chunk["model"] for chunk in chunks} == {NAME}
    assert all(chunk["preference"] == {"helpful": 0.5, "harmless": 0.5, "concise": 0.0} for chunk in chunks)


def test_usage_counts_each_prompt_once_and_comes_last(client: httpx2.Client) -> None:
    fields: dict[str, Any] = {"prompt": [QUESTION, OTHER], "n": 2, "ignore_eos": True}
    usage = ask(client, **fields)["usage"]
    prompt_tokens = len(ids(QUESTION)) + len(ids(OTHER))
    assert usage == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 4 * 12,
        "total_tokens": prompt_tokens + 4 * 12,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    chunks = events(client, **fields, stream_options={"include_usage": True})
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], usage)
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert not any("usage" in chunk for chunk in events(client, **fields))


# Prompts.


def test_choices_of_the_first_prompt_come_first_and_are_those_of_the_prompt_alone(client: httpx2.Client) -> None:
    answer = ask(client, prompt=[QUESTION, OTHER], n=3)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert contents(answer) == [*contents(ask(client, n=3)), *contents(ask(client, prompt=OTHER, n=3))]
    assert len(set(contents(answer))) == 6


def test_a_seed_repeats_all_answers_and_without_one_equal_prompts_differ(client: httpx2.Client) -> None:
    fields: dict[str, Any] = {"prompt": [QUESTION, QUESTION], "n": 2}
    first = contents(ask(client, **fields, seed=7))
    assert contents(ask(client, **fields, seed=7)) == first
    assert first[:2] == first[2:]
    assert len(set(contents(ask(client, **fields, seed=None)))) == 4


@pytest.mark.parametrize("prompt", [QUESTION, [QUESTION], ids(QUESTION), [ids(QUESTION)]])
def test_a_text_and_its_token_ids_are_one_prompt(server: Served, client: httpx2.Client, prompt: Any) -> None:
    (submitted,) = asked(server, client, prompt=prompt)
    assert list(submitted.prompt_ids) == ids(QUESTION)
    assert contents(ask(client, prompt=prompt, echo=True)) == contents(ask(client, echo=True))


def test_prompts_are_raw_and_may_name_special_tokens(server: Served, client: httpx2.Client) -> None:
    (submitted,) = asked(server, client, prompt="<|user|>hi<|end|>")
    assert submitted.prompt_ids == (3, *ids("hi"), 1)


def test_as_many_prompts_as_fit_are_served(server: Served, client: httpx2.Client) -> None:
    assert len(asked(server, client, prompt=[[token] for token in range(5, 133)], max_tokens=1)) == 128
    assert len(asked(server, client, prompt=["a"] * 8, n=16, max_tokens=1)) == 128


def test_a_long_prompt_is_encoded_beside_other_requests(client: httpx2.Client) -> None:
    error = error_of(client.post(COMPLETIONS, json=body(COMPLETIONS, prompt="knife " * 100_000)))
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")


@pytest.mark.parametrize("prompt", [QUESTION, ids(QUESTION), [QUESTION, OTHER]])
def test_an_echo_is_the_prompt_before_the_same_answer(client: httpx2.Client, prompt: Any) -> None:
    prompts = prompt if isinstance(prompt[0], str) and isinstance(prompt, list) else [QUESTION]
    plain = contents(ask(client, prompt=prompt, n=2))
    echoed = contents(ask(client, prompt=prompt, n=2, echo=True))
    starts = [each for each in prompts for _ in range(2)]
    assert echoed == [start + text for start, text in zip(starts, plain, strict=True)]


def test_an_echo_of_token_ids_shows_special_tokens(client: httpx2.Client) -> None:
    (text,) = contents(ask(client, prompt=[3, *ids("hi"), 1], echo=True))
    assert text.startswith("<|user|>hi<|end|>")


def test_a_stop_string_in_the_prompt_ends_nothing(own_client: httpx2.Client, engine: FakeEngine) -> None:
    engine.script = ids(" and a knife")
    assert contents(ask(own_client, prompt="a knife", stop="knife", echo=True)) == ["a knife and a "]


def test_an_answers_first_space_is_part_of_it(engine: FakeEngine, tmp_path: Path) -> None:
    """Decoded alone, a SentencePiece tokenizer's text loses it."""
    tokenizer = sentencepiece_tokenizer()
    the, knife = (tokenizer.get_vocab()[word] for word in ("\u2581the", "\u2581knife"))
    engine.script = [knife]

    async def make_engine() -> FakeEngine:
        return engine

    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with serving(make_engine, text=text_workers(tmp_path)) as served, httpx2.Client(base_url=served.url) as client:
        assert contents(ask(client, prompt=[the], max_tokens=1)) == [" knife"]
        assert contents(ask(client, prompt=[the], max_tokens=1, echo=True)) == ["the knife"]


# What the engine is asked for.


def test_all_sampling_fields_reach_the_engine(server: Served, client: httpx2.Client) -> None:
    fields: dict[str, Any] = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_tokens": 2, "ignore_eos": True}
    fields |= {"min_p": 0.1, "frequency_penalty": -0.5, "presence_penalty": 2, "repetition_penalty": 1.1}
    bias = {"7": -100, "5": 2.5, "6": 0}
    (submitted,) = asked(
        server, client, **fields, max_tokens=9, seed=-5, logprobs=5, stop_token_ids=[9, 8], logit_bias=bias
    )
    params = submitted.params
    expected = type(params)(
        max_tokens=9,
        seed=-5,
        choice=0,
        logprobs=5,
        stop_token_ids=(9, 8),
        logit_bias=((7, -100.0), (5, 2.5)),
        **fields,
    )
    assert params == expected


def test_absent_and_null_fields_are_openais_defaults(server: Served, client: httpx2.Client) -> None:
    names = ("max_tokens", "temperature", "top_p", "n", "stop", "logprobs", "echo", "suffix", "best_of", "stream")
    for fields in ({"max_tokens": None}, dict.fromkeys(names)):
        (submitted,) = asked(server, client, **fields)
        assert submitted.preference == SPACE.default
        assert submitted.params == type(submitted.params)(max_tokens=16, seed=1)


def test_the_default_length_is_less_where_the_context_leaves_less(server: Served, client: httpx2.Client) -> None:
    submitted = asked(server, client, prompt=[[5] * 500, [5] * 490], max_tokens=None)
    assert [each.params.max_tokens for each in submitted] == [12, 16]


def test_choices_share_the_seed_and_count_up_for_each_prompt(server: Served, client: httpx2.Client) -> None:
    submitted = asked(server, client, prompt=[QUESTION, OTHER], n=2)
    assert [(each.params.seed, each.params.choice) for each in submitted] == [(1, 0), (1, 1)] * 2


@pytest.mark.parametrize(
    ("fields", "used"),
    [
        ({"model": f"{NAME}:brief"}, (0, 0, 1)),
        ({"model": f"{NAME}:brief", "preference": {"helpful": 5}}, (1, 0, 0)),
        ({"model": f"{NAME}:base"}, None),
    ],
)
def test_all_prompts_get_the_requests_preference_or_its_model_ids(
    server: Served, client: httpx2.Client, fields: dict[str, Any], used: tuple[float, ...] | None
) -> None:
    assert [each.preference for each in asked(server, client, **fields, prompt=["a", "b"])] == [used] * 2
    assert ask(client, **fields)["preference"] == (SPACE.as_dict(used) if used else None)


NOTHING: list[dict[str, Any]] = [
    {"user": "me"},
    {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "min_p": 0, "repetition_penalty": 1},
    {"best_of": 1},
    {"best_of": 1, "n": 1},
    {"suffix": ""},
    {"echo": False, "stream": False, "ignore_eos": False, "min_tokens": 0, "stop": [], "stop_token_ids": []},
]


@pytest.mark.parametrize("fields", NOTHING)
def test_fields_that_ask_for_nothing_change_nothing(client: httpx2.Client, fields: dict[str, Any]) -> None:
    assert contents(ask(client, **fields)) == contents(ask(client))
    assert contents(ask(client, best_of=2, n=2)) == contents(ask(client, n=2))


def test_a_prompt_that_just_fits_is_served(client: httpx2.Client) -> None:
    ask(client, prompt=[5] * 500)
    ask(client, prompt=[5] * 511, max_tokens=None)
    error = error_of(client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=[5] * 501)))
    assert (error["param"], error["code"]) == ("max_tokens", "context_length_exceeded")
