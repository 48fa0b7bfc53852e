"""Bans, biases, penalties and min-p: against transformers' processors, and formulas written out in float64."""

import math
from collections import Counter, abc
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, MinPLogitsWarper, RepetitionPenaltyLogitsProcessor

from panacea.config import EngineConfig
from panacea.engine.adjustments import Adjustments
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.sampling_row import SamplingRow
from panacea.engine.sequence import Sequence
from panacea.errors import RequestError
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE, golden

PLAIN = SamplingParams(max_tokens=1)
SIZE = 50


def held(slot: int, params: SamplingParams, prompt: abc.Sequence[int], answer: abc.Sequence[int] = ()) -> Sequence:
    """A sequence that runs in this slot."""
    return Sequence(str(slot), Request(list(prompt), None, params), output_ids=list(answer), slot=slot)


def apply(logits: torch.Tensor, sequences: abc.Sequence[Sequence], banned: abc.Sequence[int] = ()) -> torch.Tensor:
    adjustments = Adjustments(9, logits.shape[1], logits.device)
    rows: list[SamplingRow] = []
    for sequence in sequences:
        adjustments.admit(sequence)
        rows.append(SamplingRow(sequence.request.params, len(sequence.output_ids), tuple(banned), sequence.slot or 0))
    return adjustments.apply(logits, rows)


def random_logits(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, SIZE, generator=torch.Generator().manual_seed(seed)) * 4


@pytest.mark.parametrize("strength", [0.01, 0.5, 1.3, 100.0])
def test_a_repetition_penalty_is_transformers(strength: float) -> None:
    logits = random_logits(1)
    prompt, answer = [3, 7, 7, 20], [5, 7, 5]
    adjusted = apply(logits, [held(1, replace(PLAIN, repetition_penalty=strength), prompt, answer)])
    oracle: Any = RepetitionPenaltyLogitsProcessor(penalty=strength)
    expected = oracle(torch.tensor([prompt + answer]), logits.double().clone())
    torch.testing.assert_close(adjusted.double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("min_p", [1e-6, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_min_p_is_transformers_behind_the_temperature(min_p: float, temperature: float) -> None:
    logits = random_logits(3)
    requests = [held(slot, replace(PLAIN, min_p=min_p, temperature=temperature), [1]) for slot in (1, 2, 3)]
    oracle: Any = MinPLogitsWarper(min_p=min_p)
    expected = oracle(torch.tensor([[0]] * 3), logits.double() / temperature)
    assert torch.equal(apply(logits, requests) == -torch.inf, expected == -torch.inf)


@pytest.mark.parametrize(("frequency", "presence"), [(0.7, 0.0), (0.0, 1.1), (-2.0, 2.0), (2.0, -0.3)])
def test_frequency_and_presence_count_in_the_answer_alone(frequency: float, presence: float) -> None:
    logits = random_logits(1)
    answer = [5, 7, 5, 5]
    params = replace(PLAIN, frequency_penalty=frequency, presence_penalty=presence)
    (adjusted,) = apply(logits, [held(1, params, [9, 9, 5], answer)]).tolist()
    times = Counter(answer)
    for token, logit in enumerate(logits[0].tolist()):
        expected = logit - frequency * times[token] - presence * (times[token] > 0)
        assert adjusted[token] == pytest.approx(expected, abs=1e-5)


def test_everything_at_once_in_the_documented_order() -> None:
    logits = random_logits(1) / 4
    prompt, answer, banned = [1, 2, 3], [3, 4, 4], (11, 12)
    params = replace(
        PLAIN,
        temperature=0.8,
        min_p=0.02,
        frequency_penalty=0.5,
        presence_penalty=-0.25,
        repetition_penalty=1.5,
        logit_bias=((4, 3.0), (2, -6.5), (11, 100.0), (30, 2.0)),
    )
    (adjusted,) = apply(logits, [held(1, params, prompt, answer)], banned).tolist()
    expected = [-math.inf if token in banned else logit for token, logit in enumerate(logits[0].tolist())]
    for token, bias in params.logit_bias:
        expected[token] += bias
    for token in {*prompt, *answer}:
        expected[token] = expected[token] / 1.5 if expected[token] > 0 else expected[token] * 1.5
    for token, times in Counter(answer).items():
        expected[token] -= 0.5 * times - 0.25
    weights = [math.exp(logit / 0.8) for logit in expected]
    expected = [e if w >= 0.02 * max(weights) else -math.inf for e, w in zip(expected, weights, strict=True)]
    assert adjusted == pytest.approx(expected, abs=1e-5)
    assert 5 < sum(value > -math.inf for value in adjusted) < SIZE - 2


def test_rows_of_all_kinds_share_a_batch_and_change_no_other() -> None:
    kinds: list[dict[str, Any]] = [
        {},
        {"min_p": 0.3},
        {"logit_bias": ((3, 5.0), (8, -100.0))},
        {"repetition_penalty": 2.0},
        {},
        {"presence_penalty": 1.0, "logit_bias": ((3, -5.0),)},
        {"frequency_penalty": -1.0, "min_p": 0.01},
    ]
    logits = random_logits(len(kinds))
    before = logits.clone()
    requests = [held(8 - i, replace(PLAIN, **kind), [i, 3], [8, 8, i]) for i, kind in enumerate(kinds)]
    together = apply(logits, requests)
    for line, request in enumerate(requests):
        assert torch.equal(together[line], apply(logits[line : line + 1], [request])[0])
    assert torch.equal(together[0], logits[0])
    assert torch.equal(logits, before), "log probabilities are taken from these"


def test_without_adjustments_the_logits_are_not_even_copied() -> None:
    logits = random_logits(2).bfloat16()
    assert apply(logits, [held(1, PLAIN, [1]), held(2, replace(PLAIN, top_k=3, top_p=0.5), [1])]) is logits


def test_the_device_counts_what_it_samples_and_a_new_request_begins_anew() -> None:
    adjustments = Adjustments(3, SIZE, torch.device("cpu"))
    params = replace(PLAIN, frequency_penalty=1.0)
    first, second = held(1, params, [4]), held(2, params, [4], [6])
    rows = [SamplingRow(params, 0, (), 1), SamplingRow(PLAIN, 0, (), 0), SamplingRow(params, 1, (), 2)]
    adjustments.admit(first)
    adjustments.admit(second)
    for _ in range(3):
        adjustments.note(torch.tensor([6, 7, 6]), rows)
    zeros = torch.zeros(3, SIZE)
    assert (-adjustments.apply(zeros, rows)[:, 4:8]).tolist() == [[0, 0, 3, 0], [0, 0, 0, 0], [0, 0, 4, 0]]
    adjustments.admit(held(1, params, [5]))
    assert not adjustments.apply(zeros, rows[:1]).any()


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"min_p": 1.1}, "min_p"),
        ({"min_p": math.nan}, "min_p"),
        ({"frequency_penalty": 2.1}, "frequency_penalty"),
        ({"presence_penalty": -2.1}, "presence_penalty"),
        ({"presence_penalty": math.nan}, "presence_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": math.inf}, "repetition_penalty"),
        ({"logit_bias": ((1, 101.0),)}, "logit_bias"),
        ({"logit_bias": ((1, math.nan),)}, "logit_bias"),
        ({"logit_bias": ((1, 1.0), (1, 2.0))}, "logit_bias"),
        ({"logit_bias": tuple((token, 1.0) for token in range(1025))}, "logit_bias"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(values: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        replace(PLAIN, **values)
    assert raised.value.param == param


# The engine.


@cache
def loaded() -> Engine:
    return Engine.load(EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32", device="cpu", max_batch=8))


@cache
def oracle_model() -> Any:
    return AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float64)


def written_out(prompt: list[int], params: SamplingParams) -> list[int]:
    """Greedy answer of the base, token by token, by the formulas in float64; only as far as the choice is clear."""
    answer: list[int] = []
    while len(answer) < params.max_tokens:
        logits = oracle_model()(torch.tensor([prompt + answer])).logits[0, -1]
        for token, bias in params.logit_bias:
            logits[token] += bias
        for token in {*prompt, *answer}:
            logits[token] *= 1 / params.repetition_penalty if logits[token] > 0 else params.repetition_penalty
        for token, times in Counter(answer).items():
            logits[token] -= params.frequency_penalty * times + params.presence_penalty
        best, second = logits.topk(2).values.tolist()
        if best - second < 1e-4:
            break
        answer.append(int(logits.argmax()))
        if answer[-1] in loaded().info.eos_token_ids and not params.ignore_eos:
            break
    return answer


GREEDY = SamplingParams(max_tokens=20, temperature=0, ignore_eos=True)
ASKED = [
    GREEDY,
    replace(GREEDY, repetition_penalty=1.4),
    replace(GREEDY, frequency_penalty=0.6, presence_penalty=0.4),
    replace(GREEDY, logit_bias=((77, 6.0), (78, 6.0)), frequency_penalty=2.0),
    replace(GREEDY, repetition_penalty=0.8, presence_penalty=-1.0),
    replace(GREEDY, min_p=0.2, logit_bias=((90, -100.0),)),
]


@pytest.mark.slow
def test_greedy_answers_follow_the_formulas_for_every_request_of_a_batch() -> None:
    prompts = [entry.prompt_ids for entry in golden("base")]
    asked = [(prompt, params) for prompt in prompts for params in ASKED]
    answers = loaded().generate(
        requests([prompt for prompt, _ in asked], [None] * len(asked), [params for _, params in asked])
    )
    compared = 0
    for (prompt, params), answer in zip(asked, answers, strict=True):
        expected = written_out(prompt, params)
        assert answer.token_ids[: len(expected)] == expected
        compared += len(expected)
    assert compared > 0.9 * len(asked) * GREEDY.max_tokens
    assert len({tuple(answer.token_ids) for answer in answers}) > 2 * len(prompts)


def test_a_repetition_penalty_answers_as_transformers_generate() -> None:
    prompt = golden("base")[0].prompt_ids
    tokens = oracle_model().generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=20, min_new_tokens=20, repetition_penalty=1.4
    )
    params = replace(GREEDY, repetition_penalty=1.4, ignore_eos=False, min_tokens=20)
    (answer,) = loaded().generate([Request(prompt, None, params)])
    assert answer.token_ids == tokens[0, len(prompt) :].tolist()


def test_preempted_requests_count_the_tokens_that_they_had() -> None:
    """With room for about two of six requests, so that most lose their slot and their counts half-way."""
    prompts = [golden("base")[i % 3].prompt_ids for i in range(6)]
    params = [replace(each, seed=i, temperature=1, max_tokens=40) for i, each in enumerate(ASKED)]
    blocks = 2 * -(-(max(map(len, prompts)) + 40) // 4)
    tight = Engine.load(
        EngineConfig(
            model=BASE, dtype="float32", device="cpu", max_batch=8, block_size=4, num_blocks=blocks, max_step_tokens=8
        )
    )
    expected = [loaded().generate([Request(p, None, own)])[0] for p, own in zip(prompts, params, strict=True)]
    assert tight.generate(requests(prompts, [None] * 6, params)) == expected
    assert tight.stats.preemptions > 0


def test_log_probabilities_stay_the_models_own() -> None:
    prompt = golden("base")[0].prompt_ids
    params = replace(GREEDY, logprobs=3, max_tokens=1)
    biased = replace(params, logit_bias=((77, 100.0),), repetition_penalty=2.0)
    plain, shifted = loaded().generate(requests([prompt, prompt], [None, None], [params, biased]))
    assert shifted.token_ids == [77]
    assert shifted.top_logprobs == plain.top_logprobs
    assert shifted.logprobs[0] < plain.logprobs[0]


def test_a_bias_on_a_token_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RequestError) as raised:
        loaded().generate([Request([5], None, replace(GREEDY, logit_bias=((100_000, 1.0),)))])
    assert raised.value.param == "logit_bias"
