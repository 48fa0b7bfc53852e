"""Answers that follow a JSON schema, in the batch and in the pipeline; `jsonschema` says whether they do."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import jsonschema
import pytest
import torch

from panacea.config import EngineConfig
from panacea.engine import grammar, grammar_check
from panacea.engine.adjustments import Adjustments
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.sampling_row import SamplingRow
from panacea.errors import RequestError
from panacea.model.loader import load_model
from tests.api.serving import TEXT
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE, golden
from tests.schemas import SCHEMAS, TOO_MUCH_LATER

CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32", device="cpu", max_batch=32, num_blocks=512)
ENTRIES = [*golden("panacea"), *golden("base")]
EOS = 1
PLAIN = SamplingParams(max_tokens=20, temperature=1.0)


def follow(schema: object, **params: Any) -> SamplingParams:
    fields: dict[str, Any] = {"max_tokens": 150, "json_schema": json.dumps(schema)} | params
    return SamplingParams(**fields)


@cache
def runner() -> Runner:
    return Runner(load_model(CONFIG), CONFIG)


def make_engine(steps_ahead: int = 0) -> Engine:
    """Engines over one runner, each with tables and a cache as the last one left them."""
    engine = Engine.over(runner().model, CONFIG)
    shared = runner()
    shared.steps_ahead = steps_ahead
    engine._runner = shared  # pyright: ignore[reportPrivateUsage]
    return engine


def ask(engine: Engine, params: Sequence[SamplingParams]) -> list[Completion]:
    """One answer for each of `params`, under the golden preferences in turn."""
    entries = [ENTRIES[index % len(ENTRIES)] for index in range(len(params))]
    answers = engine.generate(
        requests([each.prompt_ids for each in entries], [each.preference for each in entries], params)
    )
    engine.check_integrity()
    return answers


def text_of(answer: Completion) -> str:
    return TEXT.tokenizer.decode([token for token in answer.token_ids if token != EOS], skip_special_tokens=False)


@cache
def answers_to_all() -> dict[str, list[Completion]]:
    """At random seeds and temperatures, all schemas in one batch."""
    names = [name for name in SCHEMAS for _ in range(8)]
    params = [
        follow(SCHEMAS[name], seed=seed, temperature=(0.0, 0.5, 1.0, 1.8)[seed % 4]) for seed, name in enumerate(names)
    ]
    answers: dict[str, list[Completion]] = {}
    for name, answer in zip(names, ask(make_engine(), params), strict=True):
        answers.setdefault(name, []).append(answer)
    return answers


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_that_ends_is_json_that_follows_its_schema(name: str) -> None:
    ended = [answer for answer in answers_to_all()[name] if answer.finish_reason == "stop"]
    for answer in ended:
        jsonschema.validate(
            json.loads(text_of(answer)), SCHEMAS[name], format_checker=jsonschema.FormatChecker(["date"])
        )
    assert len(ended) >= 4, "those that max_tokens cut say nothing"
    cut = [answer for answer in answers_to_all()[name] if answer.finish_reason == "length"]
    assert all(len(answer.token_ids) == 150 for answer in cut)


def test_answers_differ_by_seed_and_by_preference() -> None:
    assert len({text_of(answer) for answer in answers_to_all()["person"]}) > 5
    greedy = [follow(SCHEMAS["person"], temperature=0)] * len(ENTRIES)
    assert len({text_of(answer) for answer in ask(make_engine(), greedy)}) > 3


def mixed() -> list[SamplingParams]:
    """Every second request follows a schema."""
    names = list(SCHEMAS)
    return [
        follow(SCHEMAS[names[seed % len(names)]], seed=seed, logprobs=2)
        if seed % 2
        else replace(PLAIN, seed=seed, logprobs=2, frequency_penalty=seed % 3 / 2)
        for seed in range(24)
    ]


def test_neighbours_have_the_same_tokens_as_without() -> None:
    params = mixed()
    beside = ask(make_engine(), params)
    without = ask(make_engine(), [replace(each, json_schema=None, max_tokens=20) for each in params])
    same = [one.token_ids == other.token_ids for one, other in zip(beside, without, strict=True)]
    assert all(same[::2])
    assert not all(same[1::2])


def test_a_step_ahead_the_answers_are_the_same_and_neighbours_wait_for_nobody() -> None:
    params = mixed()
    plain, ahead = (ask(make_engine(steps), params) for steps in (0, 1))
    assert [answer.token_ids for answer in plain] == [answer.token_ids for answer in ahead]
    assert [answer.finish_reason for answer in plain] == [answer.finish_reason for answer in ahead]
    # One request without a schema takes as many steps as alone; one with a schema is in every second of them.
    engine = make_engine(1)
    engine.add("plain", Request(ENTRIES[0].prompt_ids, None, replace(PLAIN, ignore_eos=True)))
    engine.add(
        "follows", Request(ENTRIES[0].prompt_ids, None, follow({"type": "string", "minLength": 40}, max_tokens=40))
    )
    tokens: dict[str, int] = {"plain": 0, "follows": 0}
    while tokens["plain"] < PLAIN.max_tokens:
        for output in engine.step():
            tokens[output.request_id] += 1
    assert engine.stats.steps <= PLAIN.max_tokens + 1
    assert 0.3 * PLAIN.max_tokens < tokens["follows"] < 0.7 * PLAIN.max_tokens


def test_preempted_answers_go_on_where_they_were() -> None:
    params = [follow(SCHEMAS["person"], seed=seed, max_tokens=60) for seed in range(6)]
    tight = Engine.load(replace(CONFIG, block_size=4, num_blocks=40, max_step_tokens=32, prefix_cache=False))
    assert [a.token_ids for a in ask(tight, params)] == [a.token_ids for a in ask(make_engine(), params)]
    assert tight.stats.preemptions > 0


def test_biases_and_penalties_choose_among_what_the_schema_allows() -> None:
    comma, digits = (TEXT.tokenizer.get_vocab()[char] for char in ",7")
    params = [
        follow({"type": "integer", "minimum": 0, "maximum": 10**6}, temperature=0, logit_bias=((digits, 100.0),)),
        follow({"type": "integer"}, temperature=0, logit_bias=((comma, 100.0), (digits, 50.0)), presence_penalty=2.0),
        follow(SCHEMAS["numbers"], seed=3, frequency_penalty=2.0, repetition_penalty=1.5, min_p=0.1, top_k=3),
    ]
    first, second, third = ask(make_engine(), params)
    assert set(text_of(first)) == {"7"}
    assert text_of(second).isdigit()
    assert third.finish_reason == "length" or isinstance(json.loads(text_of(third)), list)


def test_where_nothing_more_may_come_the_answer_ends_with_its_own_last_token() -> None:
    schema = {"enum": ["yes"]}
    for more in ({}, {"ignore_eos": True}, {"min_tokens": 100}, {"max_tokens": 5}):
        engine = make_engine()
        engine.add("0", Request(ENTRIES[0].prompt_ids, None, follow(schema, **{"temperature": 0, **more})))
        outputs = [output for _ in range(60) for output in engine.step()]
        assert TEXT.decode([output.token_id for output in outputs]) in ('"yes"', '"yes"'[: len(outputs)])
        if outputs[-1].finish_reason == "stop":
            assert outputs[-1].completes
            assert not any(output.completes for output in outputs[:-1])
        else:
            assert (outputs[-1].finish_reason, len(outputs)) == ("length", 5)
        assert not engine.has_work


def test_a_number_may_end_or_go_on_and_its_end_is_no_text() -> None:
    engine = make_engine()
    engine.add(
        "0",
        Request(ENTRIES[0].prompt_ids, None, follow({"type": "integer"}, temperature=0, logit_bias=((EOS, 100.0),))),
    )
    outputs = [output for _ in range(20) for output in engine.step()]
    assert (outputs[-1].token_id, outputs[-1].finish_reason, outputs[-1].completes) == (EOS, "stop", False)


def test_the_models_own_log_probabilities_are_reported() -> None:
    params = follow(SCHEMAS["person"], temperature=0, logprobs=3)
    (answer,) = ask(make_engine(), [params])
    assert any(top[0][0] != token for token, top in zip(answer.token_ids, answer.top_logprobs, strict=True))
    prompt = [*ENTRIES[0].prompt_ids, *answer.token_ids]
    scored = SamplingParams(max_tokens=0, prompt_logprobs=0)
    (again,) = make_engine().generate([Request(prompt, ENTRIES[0].preference, scored)])
    assert again.prompt_logprobs is not None
    expected = [score.logprob for score in again.prompt_logprobs[-len(answer.logprobs) :]]
    assert answer.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_schema_that_becomes_too_much_work_fails_its_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "STEP_LEXER_FUEL", 20_000)
    engine = make_engine()
    params = replace(PLAIN, seed=5)
    (alone,) = make_engine().generate([Request(ENTRIES[0].prompt_ids, None, params)])
    engine.add("hostile", Request(ENTRIES[0].prompt_ids, None, follow(TOO_MUCH_LATER)))
    engine.add("good", Request(ENTRIES[0].prompt_ids, None, params))
    tokens = [output.token_id for _ in range(200) for output in engine.step() if output.request_id == "good"]
    assert tokens == alone.token_ids
    (failure,) = engine.take_failures()
    assert (failure.request_id, failure.param) == ("hostile", "response_format")
    assert not engine.has_work
    engine.check_integrity()
    with pytest.raises(RequestError, match="too much work"):
        ask(engine, [follow(TOO_MUCH_LATER)])


@pytest.mark.parametrize("schema", [{"type": "nothing"}, {"not": {}}, {"$ref": "#"}, {"enum": []}, {"pattern": "("}])
def test_a_schema_that_cannot_be_followed_is_refused(schema: object) -> None:
    engine = make_engine()
    with pytest.raises(RequestError, match="cannot be followed") as raised:
        ask(engine, [PLAIN, follow(schema), PLAIN])
    assert raised.value.param == "response_format"
    assert not engine.has_work
    engine.check_integrity()


def test_a_request_may_end_while_its_schema_is_compiled() -> None:
    engine = make_engine()
    engine.add("0", Request(ENTRIES[0].prompt_ids, None, follow({"enum": [f"value {index}" for index in range(3000)]})))
    assert engine.stats.waiting == 1
    engine.abort("0")
    assert not engine.has_work
    with pytest.raises(RequestError, match="at most 65536 characters"):
        follow({"const": "x" * 70_000})


def test_without_llguidance_the_engine_runs_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    engine = Engine.over(runner().model, CONFIG)
    assert len(ask(engine, [PLAIN])) == 1
    with pytest.raises(RequestError, match="llguidance is not installed") as raised:
        ask(engine, [follow({"type": "object"})])
    assert raised.value.param == "response_format"


@pytest.mark.parametrize("size", [1, 8, 31, 64, 97])
def test_a_mask_is_read_bit_by_bit_and_row_by_row(size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    allowed = torch.rand(5, size, generator=generator) < 0.5
    allowed[:, 0] = True
    logits = torch.randn(6, size, generator=generator)
    rows = [SamplingRow(PLAIN, 0, ())]
    for line in allowed.tolist():
        number = sum(int(bit) << index for index, bit in enumerate(line))
        rows.append(SamplingRow(PLAIN, 0, (), allowed=number.to_bytes(-(-size // 32) * 4, "little")))
    adjusted = Adjustments(2, size, logits.device).apply(logits, rows)
    assert torch.equal(adjusted[0], logits[0])
    assert torch.equal(adjusted[1:], logits[1:].masked_fill(~allowed, -torch.inf))


def test_an_answer_that_is_too_long_for_the_context_is_refused_before_its_schema_is_compiled() -> None:
    engine = make_engine()
    with pytest.raises(RequestError, match="context"):
        engine.add("0", Request(ENTRIES[0].prompt_ids, None, follow({"type": "object"}, max_tokens=10_000)))
    assert not engine.has_work


def test_answers_are_compact_unless_the_schema_asks_for_whitespace() -> None:
    engine = make_engine()
    spaced = SCHEMAS["person"] | {"x-guidance": {"whitespace_flexible": True}}
    params = [
        follow(schema, seed=seed, temperature=1.5) for seed in range(16) for schema in (SCHEMAS["person"], spaced)
    ]
    texts = [text_of(answer) for answer in ask(engine, params) if answer.finish_reason == "stop"]
    compact = [text == json.dumps(json.loads(text), separators=(",", ":"), ensure_ascii=False) for text in texts]
    assert 0 < sum(compact) < len(texts)
    texts = [text_of(answer) for answer in ask(engine, params[::2])]
    assert not [text for text in texts if ", " in text or ": " in text or "\n" in text]


@pytest.mark.parametrize(
    "number",
    [
        str(2**53 + 1),
        str(-(2**53) - 1),
        str(2**63 - 1),
        str(10**4000),
        "1e16",
        "1e400",
        "0.30000000000000004",
        "1e-300",
    ],
)
@pytest.mark.parametrize("schema", ['{"const":%s}', '{"enum":[[{"a":%s}]]}', '{"type":"integer","minimum":%s}'])
def test_numbers_that_cannot_be_enforced_exactly_are_refused(schema: str, number: str) -> None:
    error = grammar_check.error_of(schema % number)
    assert error is not None
    assert "numbers in a JSON schema must be between -2^53 and 2^53" in error


@pytest.mark.parametrize("number", [2**53, -(2**53), 2**53 - 1, 10**15, 0, -7, 0.1, 1.5e-7, 123456.789012345, -2.5])
def test_other_numbers_are_exact(number: float) -> None:
    tokenizer = grammar_check.byte_tokenizer()
    assert tokenizer is not None
    matcher = grammar.compile_schema(tokenizer, json.dumps({"const": number}))
    written = b""
    while not matcher.is_stopped():
        (allowed,) = [byte for byte in range(256) if matcher.compute_bitmask()[byte // 8] >> byte % 8 & 1]
        written += bytes([allowed])
        matcher.consume_token(allowed)
    assert json.loads(written) == number


def test_where_other_fields_exclude_what_the_schema_allows_the_error_says_so() -> None:
    quotes = tuple(token for text, token in TEXT.tokenizer.get_vocab().items() if text.startswith('"'))
    with pytest.raises(RequestError, match="allows no further token") as raised:
        ask(make_engine(), [follow({"enum": ["yes"]}, min_tokens=50, stop_token_ids=quotes)])
    assert raised.value.param == "response_format"
    assert "work" not in str(raised.value)
