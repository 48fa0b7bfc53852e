"""Log probabilities of prompts and answers, in the shapes of both routes."""

from collections import Counter
from typing import Any

import httpx2
import pytest

from panacea.api.generation.completion_response import text_logprobs
from panacea.text import TokenLogprob
from panacea.text.answer import Alternative
from tests.api.chatting import CHAT, COMPLETIONS, QUESTION, body, error_of
from tests.api.chatting import ask as ask_path
from tests.api.chatting import events as events_of
from tests.api.fake_engine import FakeEngine
from tests.api.serving import Served
from tests.api.test_completions import OTHER, ask, asked, ids


def test_logprobs_have_tokens_offsets_and_the_chosen_one_among_the_top(
    own_client: httpx2.Client, engine: FakeEngine
) -> None:
    engine.script = ids("a \U0001f600 b")
    (choice,) = ask(own_client, logprobs=1)["choices"]
    logprobs = choice["logprobs"]
    emoji = [f"bytes:\\x{byte:02x}" for byte in "\U0001f600".encode()]
    assert logprobs["tokens"] == ["a", " ", *emoji, " ", "b", "<|end|>"]
    assert logprobs["text_offset"] == [0, 1, 2, 2, 2, 2, 3, 4, 5]
    assert logprobs["token_logprobs"] == [-0.25 * position for position in range(1, 10)]
    assert [next(iter(top)) for top in logprobs["top_logprobs"]] == logprobs["tokens"]
    assert logprobs["top_logprobs"][0] == {"a": -0.25}


def test_a_chosen_token_counts_before_others_that_are_written_alike() -> None:
    top = (Alternative(b"b", -0.1), Alternative(b"a", -0.5), Alternative(b"b", -3.0))
    shown = text_logprobs([TokenLogprob(Alternative(b"a", float("-inf")), top, 0)])
    assert shown.top_logprobs == [{"a": -9999.0, "b": -0.1}]
    assert shown.token_logprobs == [-9999.0]


@pytest.mark.parametrize("count", [0, 3, 5])
def test_there_are_as_many_alternatives_as_were_asked_for(
    server: Served, client: httpx2.Client, own_client: httpx2.Client, engine: FakeEngine, count: int
) -> None:
    assert [submitted.params.logprobs for submitted in asked(server, client, logprobs=count)] == [count]
    engine.script = [50] * 5
    (choice,) = ask(own_client, logprobs=count, max_tokens=5)["choices"]
    assert [len(top) for top in choice["logprobs"]["top_logprobs"]] == [max(count, 1)] * 5


def scored(client: httpx2.Client, **fields: Any) -> list[dict[str, Any]]:
    """Choices of a request that wants its prompt scored."""
    choices: list[dict[str, Any]] = ask(client, **{"echo": True, "logprobs": 1, "max_tokens": 0} | fields)["choices"]
    return choices


def test_a_scored_prompt_has_tokens_scores_and_offsets_and_nothing_else(client: httpx2.Client) -> None:
    answer = ask(client, prompt="a \U0001f600 b", echo=True, logprobs=1, max_tokens=0)
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("a \U0001f600 b", "length")
    usage = {name: answer["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert usage == {"prompt_tokens": 8, "completion_tokens": 0, "total_tokens": 8}
    emoji = [f"bytes:\\x{byte:02x}" for byte in "\U0001f600".encode()]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["a", " ", *emoji, " ", "b"]
    assert logprobs["text_offset"] == [0, 1, 2, 2, 2, 2, 3, 4]
    assert logprobs["token_logprobs"] == [None, *(-0.5 * position for position in range(1, 8))]
    assert logprobs["top_logprobs"][0] is None
    assert all(
        tokens >= {token}
        for token, tokens in zip(logprobs["tokens"][1:], map(set, logprobs["top_logprobs"][1:]), strict=True)
    )


def test_an_answer_goes_on_where_its_scored_prompt_ends(client: httpx2.Client) -> None:
    fields: dict[str, Any] = {"prompt": [QUESTION, OTHER], "n": 2, "logprobs": 2}
    plain = ask(client, **fields)["choices"]
    alone = scored(client, **fields)
    for whole, answer, prompt in zip(scored(client, **fields, max_tokens=12), plain, alone, strict=True):
        assert whole["text"] == prompt["text"] + answer["text"]
        assert whole["finish_reason"] == answer["finish_reason"]
        for name, entries in whole["logprobs"].items():
            shift = len(prompt["text"]) if name == "text_offset" else None
            rest = answer["logprobs"][name]
            assert entries == [*prompt["logprobs"][name], *(rest if shift is None else [shift + each for each in rest])]


def test_a_prompt_that_fills_the_context_can_be_scored(client: httpx2.Client) -> None:
    (choice,) = scored(client, prompt=[5] * 512)
    assert len(choice["logprobs"]["tokens"]) == 512
    error = error_of(
        client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=[5] * 513, echo=True, logprobs=0, max_tokens=0))
    )
    assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")


def test_a_prompt_of_one_token_has_nothing_to_score(client: httpx2.Client) -> None:
    (choice,) = scored(client, prompt=[50])
    assert choice["logprobs"] == {
        "tokens": [choice["text"]],
        "token_logprobs": [None],
        "top_logprobs": [None],
        "text_offset": [0],
    }


def test_a_scored_prompt_may_hold_special_tokens(client: httpx2.Client) -> None:
    for prompt in ("<|user|>hi<|end|>", [3, *ids("hi"), 1]):
        (choice,) = scored(client, prompt=prompt)
        assert choice["text"] == "<|user|>hi<|end|>"
        assert choice["logprobs"]["tokens"][0] == "<|user|>"
        assert choice["logprobs"]["text_offset"][:2] == [0, 8]
        assert choice["logprobs"]["text_offset"][-1] == 10


def test_offsets_count_from_each_answers_own_beginning(client: httpx2.Client) -> None:
    for choice in ask(client, prompt=[QUESTION, OTHER], n=2, logprobs=0, max_tokens=60)["choices"]:
        logprobs = choice["logprobs"]
        assert logprobs["text_offset"][0] == 0
        for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
            at_the_end = token == "<|end|>" and offset == len(choice["text"])
            assert at_the_end or token.startswith("bytes:") or token in choice["text"][max(0, offset - 2) :]


def test_an_end_token_has_an_entry_so_that_slices_of_the_prompt_are_whole(
    own_client: httpx2.Client, engine: FakeEngine
) -> None:
    """lm-eval asks for one token more than it scores, and drops the last entry."""
    engine.script = []
    (choice,) = scored(own_client, prompt=[50, 51, 52, 53], max_tokens=1)
    assert choice["finish_reason"] == "stop"
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"] == [None, -0.5, -1.0, -1.5, -0.25]
    assert logprobs["token_logprobs"][2:-1] == [-1.0, -1.5], "as lm-eval slices it for a context of two tokens"
    assert (logprobs["tokens"][-1], logprobs["text_offset"][-1]) == ("<|end|>", len(choice["text"]))


def entries(choice: dict[str, Any]) -> int:
    logprobs = choice["logprobs"]
    return len(logprobs["content"] if "content" in logprobs else logprobs["tokens"])


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"logprobs": True, "top_logprobs": 1}),
        (CHAT, {"logprobs": True, "stop": ["e", "th"]}),
        (CHAT, {"logprobs": True, "stop": ["a"], "min_tokens": 5}),
        (COMPLETIONS, {"logprobs": 1}),
        (COMPLETIONS, {"logprobs": 0, "echo": True, "stop": ["e"]}),
        (COMPLETIONS, {"logprobs": 2, "echo": True, "stop_token_ids": list(range(5, 100))}),
        (COMPLETIONS, {"logprobs": 2, "echo": True, "max_tokens": 1}),
        (COMPLETIONS, {"logprobs": 2, "echo": True, "max_tokens": 0}),
    ],
)
def test_there_is_an_entry_for_each_token_of_prompt_and_answer(
    client: httpx2.Client, path: str, fields: dict[str, Any]
) -> None:
    ends: Counter[str] = Counter()
    for seed in range(12):
        asked_for: dict[str, Any] = {"max_tokens": 40, "seed": seed} | fields
        answer = ask_path(client, path, **asked_for)
        usage = answer["usage"]
        expected = usage["completion_tokens"] + (usage["prompt_tokens"] if fields.get("echo") else 0)
        assert entries(answer["choices"][0]) == expected
        chunks = events_of(client, path, **asked_for)
        assert sum(entries(part) for chunk in chunks for part in chunk["choices"] if part["logprobs"]) == expected
        ends[answer["choices"][0]["finish_reason"]] += 1
    assert ends["stop"] or fields.get("max_tokens", 2) < 2, "no answer ended by itself: this proves nothing"
