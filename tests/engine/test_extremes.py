"""Requests at the ends of every range: each gets an answer or an error of its own, and no neighbour notices."""

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import TokenOutput
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import RequestError
from tests.golden_files import ADAPTER, BASE
from tests.model.test_heads import FAMILIES

SCHEMAS = (
    '{"type":"string","maxLength":5}',
    "{}",
    '{"enum":[1]}',
    '{"type":"array","items":{"type":"integer"}}',
    '{"type":"object","properties":{"a":{"type":"null"}},"required":["a"],"additionalProperties":false}',
)
NO_TOKEN_MAY_COME = "allows no further token"


def load(family: str, folder: Path) -> Engine:
    options: dict[str, Any] = {"dtype": "float32", "device": "cpu", "max_batch": 8, "max_step_tokens": 32}
    options |= {"block_size": 4, "num_blocks": 200}
    if family == "golden":
        return Engine.load(EngineConfig(model=BASE, adapter=ADAPTER, **options))
    torch.manual_seed(7)
    model: Any = AutoModelForCausalLM.from_config(FAMILIES[family])  # type: ignore[no-untyped-call]
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    return Engine.load(EngineConfig(model=folder, **options))


def extreme(random: Random, engine: Engine, room: int, *, schemas: bool) -> dict[str, Any]:
    """Fields of `SamplingParams` for a request whose context has `room` left. All are within their ranges."""
    vocabulary = engine.info.vocab_size
    every, biased = tuple(range(vocabulary)), range(min(vocabulary, 1024))
    max_tokens = min(room, random.choice([0, 1, 2, 12, room if room < 40 else 3]))
    return {
        "max_tokens": max_tokens,
        "temperature": random.choice([0.0, 1.0, 2.0, 1e-8, 1e-30, 1e-45, 5e-324, 1e30, 3.4e38, 1.7e308]),
        "top_p": random.choice([1.0, 0.5, 1e-8, 1e-30, 5e-324, 0.9999999999]),
        "top_k": random.choice([0, 1, 3, vocabulary, vocabulary + 5, 2**31, 2**63, 10**30]),
        "min_p": random.choice([0.0, 0.5, 1.0, 1e-45, 5e-324]),
        "frequency_penalty": random.choice([0.0, 2.0, -2.0]),
        "presence_penalty": random.choice([0.0, 2.0, -2.0]),
        "repetition_penalty": random.choice([1.0, 0.01, 100.0]),
        "logit_bias": random.choice(
            [
                (),
                tuple((token, -100.0) for token in biased),
                tuple((token, 100.0) for token in biased),
                tuple((token, random.uniform(-100, 100)) for token in biased),
            ]
        ),
        "seed": random.choice([0, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)]),
        "choice": random.choice([0, 15, 2**63, 10**20]),
        "min_tokens": random.randint(0, max_tokens),
        "stop_token_ids": random.choice([(), (random.randrange(vocabulary),), every, every * 2]),
        "ignore_eos": random.random() < 0.5,
        "logprobs": random.choice([None, 0, 20]),
        "prompt_logprobs": random.choice([0, 20] if max_tokens == 0 else [None, 0, 20]),
        "json_schema": random.choice(SCHEMAS) if schemas and random.random() < 0.3 else None,
    }


def run(engine: Engine, requests: dict[str, Request]) -> tuple[dict[str, list[TokenOutput]], dict[str, str]]:
    outputs: dict[str, list[TokenOutput]] = {}
    errors: dict[str, str] = {}
    for request_id, request in requests.items():
        try:
            engine.add(request_id, request)
        except RequestError as error:
            errors[request_id] = str(error)
        else:
            outputs[request_id] = []
    while engine.has_work:
        for token in engine.step():
            outputs[token.request_id].append(token)
        errors |= {failure.request_id: failure.message for failure in engine.take_failures()}
        engine.check_integrity()
    return outputs, errors


@pytest.mark.parametrize("family", ["golden", "gpt2", "gemma2_caps_its_logits"])
def test_extreme_requests_are_answered_or_refused_and_neighbours_are_the_same(family: str, tmp_path: Path) -> None:
    engine, random = load(family, tmp_path), Random(5)
    context, vocabulary = engine.info.context_length, engine.info.vocab_size
    greedy = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    drawn = SamplingParams(max_tokens=8, seed=9, ignore_eos=True, frequency_penalty=1.0)
    neighbours = {
        f"neighbour {size}": Request([random.randrange(3, vocabulary) for _ in range(size)], None, params)
        for size, params in ((3, greedy), (15, greedy), (4, drawn))
    }
    expected, _ = run(engine, neighbours)
    ends: Counter[str] = Counter()
    for _ in range(10):
        extremes: dict[str, Request] = {}
        for index in range(5):
            size = random.choice([1, 2, 30, context - 1, context])
            fields = extreme(random, engine, context - size, schemas=family == "golden")
            prompt = [random.randrange(vocabulary) for _ in range(size)]
            preference = random.choice([None, (1.0, 0.0, 0.0), (5e-324, 1.0, 0.0)]) if family == "golden" else None
            extremes[str(index)] = Request(prompt, preference, SamplingParams(**fields))
        outputs, errors = run(engine, neighbours | extremes)
        for name, tokens in expected.items():
            assert [token.token_id for token in outputs[name]] == [token.token_id for token in tokens]
        for name, request in extremes.items():
            if name in errors:
                assert NO_TOKEN_MAY_COME in errors[name]
                assert request.params.min_tokens
                ends["refused"] += 1
                continue
            *others, last = outputs[name]
            assert last.finish_reason
            assert not any(token.finish_reason for token in others)
            assert all(token.token_id < vocabulary for token in outputs[name])
            ends[last.finish_reason] += 1
    assert set(ends) == {"stop", "length", "refused"}, "the cases are too much alike: this proves little"
    assert (engine.stats.free_slots, engine.stats.free_blocks) == (8, 200)


@pytest.mark.parametrize("temperature", [1e-45, 3.4e38, 1.7e308])
def test_a_temperature_beyond_float32_draws_no_forbidden_token(temperature: float) -> None:
    engine = load("golden", Path())
    allowed = 77
    forbidden = tuple(token for token in range(engine.info.vocab_size) if token != allowed)
    params = SamplingParams(
        max_tokens=1, min_tokens=1, temperature=temperature, stop_token_ids=forbidden, seed=1, ignore_eos=True
    )
    (answer,) = engine.generate([Request([5, 6], None, params)])
    assert answer.token_ids == [allowed]


def test_where_no_token_is_allowed_the_error_names_the_field() -> None:
    engine = load("golden", Path())
    every = tuple(range(engine.info.vocab_size))
    params = SamplingParams(max_tokens=2, min_tokens=1, stop_token_ids=every)
    with pytest.raises(
        RequestError, match="allows no further token: min_tokens and stop_token_ids exclude all"
    ) as caught:
        engine.generate([Request([5, 6], None, params)])
    assert caught.value.param == "stop_token_ids"
    schema = SamplingParams(max_tokens=2, min_tokens=1, stop_token_ids=every, json_schema='{"enum":[1]}')
    with pytest.raises(RequestError, match="allows no further token") as caught:
        engine.generate([Request([5, 6], None, schema)])
    assert caught.value.param == "response_format"
