"""Log probabilities of prompts: transformers in float64, over chunks, beside others, with preemption, a step ahead."""

from collections import abc
from dataclasses import replace
from functools import cache
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM

from panacea.config import EngineConfig
from panacea.engine.adjustments import Adjustments
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.prompt_scores import PromptScores, ScoringStep, WantedRows
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampler import choose
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.sampling_row import SamplingRow
from panacea.engine.sequence import Sequence
from panacea.errors import RequestError
from panacea.model.adapter import Adapter
from panacea.preference import Preference
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE

SCORE = SamplingParams(max_tokens=0, prompt_logprobs=3)
CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32", device="cpu", max_batch=6, max_step_tokens=16)
PROMPTS = [
    torch.randint(5, 354, (size,), generator=torch.Generator().manual_seed(size)).tolist() for size in (2, 9, 40)
]
PREFERENCES: list[Preference | None] = [None, (0.7, 0.2, 0.1), (0.0, 0.0, 1.0)]


@cache
def engine() -> Engine:
    return Engine.load(CONFIG)


@cache
def expected(prompt: tuple[int, ...], preference: Preference | None) -> torch.Tensor:
    """(tokens, vocabulary) log probabilities in float64, the adapter merged into the weights."""
    model: Any = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float64)
    if preference is not None:
        adapter = Adapter.read(ADAPTER)
        weights = torch.tensor(adapter.config.column_weights(preference)).double()
        for name, (a, b, e) in adapter.modules.items():
            scaled = b.double() * (e.double() * weights * adapter.config.scaling)
            model.get_parameter(f"{name}.weight").data += scaled @ a.double()
    with torch.inference_mode():
        return model(torch.tensor([prompt])).logits[0].log_softmax(dim=-1)  # type: ignore[no-any-return]


def assert_scored(prompt: abc.Sequence[int], preference: Preference | None, answer: Completion, count: int = 3) -> None:
    right = expected(tuple(prompt), preference)
    scores = answer.prompt_logprobs
    assert scores is not None
    assert len(scores) == len(prompt) - 1
    for place, (token, score) in enumerate(zip(prompt[1:], scores, strict=True)):
        assert score.logprob == pytest.approx(float(right[place, token]), abs=1e-4)
        assert len(score.top_logprobs) == count
        for (top, logprob), best in zip(score.top_logprobs, right[place].topk(count).values.tolist(), strict=True):
            assert logprob == pytest.approx(best, abs=1e-4)
            assert float(right[place, top]) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("preference", PREFERENCES)
def test_scores_are_transformers_over_chunks_of_the_prompt(preference: Preference | None) -> None:
    for prompt in PROMPTS:
        (answer,) = engine().generate([Request(prompt, preference, SCORE)])
        assert (answer.token_ids, answer.finish_reason, answer.logprobs) == ([], "length", [])
        assert_scored(prompt, preference, answer)


def test_scoring_shares_steps_with_other_requests_and_changes_none() -> None:
    greedy = SamplingParams(max_tokens=10, temperature=0)
    asked: list[tuple[list[int], Preference | None, SamplingParams]] = [
        (PROMPTS[2], PREFERENCES[1], SCORE),
        (PROMPTS[1], PREFERENCES[2], greedy),
        (PROMPTS[2], PREFERENCES[2], replace(SCORE, max_tokens=5, prompt_logprobs=0, logprobs=2)),
        (PROMPTS[1], None, replace(SCORE, prompt_logprobs=20)),
        (PROMPTS[0], None, greedy),
        ([7], None, SCORE),
    ]
    prompts, preferences, params = map(list, zip(*asked, strict=True))
    answers = engine().generate(requests(prompts, preferences, params))
    for (prompt, preference, own), answer in zip(asked, answers, strict=True):
        (alone,) = engine().generate([Request(prompt, preference, own)])
        assert answer.token_ids == alone.token_ids
        if own.prompt_logprobs is None:
            assert answer.prompt_logprobs is None
        else:
            assert_scored(prompt, preference, answer, own.prompt_logprobs)
    assert answers[5].prompt_logprobs == ()
    assert len(answers[2].logprobs) == len(answers[2].token_ids)


def test_preempted_prompts_are_scored_once() -> None:
    """Too few blocks for all: scoring requests lose theirs half-way through their prompts, or behind them."""
    tight = Engine.load(replace(CONFIG, block_size=4, num_blocks=16, max_batch=6, max_step_tokens=12))
    params = [replace(SCORE, max_tokens=4 + 3 * i, temperature=0, ignore_eos=True) for i in range(6)]
    prompts = [PROMPTS[2][i:] if i % 2 else PROMPTS[1] for i in range(6)]
    answers = tight.generate(requests(prompts, [None] * 6, params))
    assert tight.stats.preemptions > 0
    for prompt, answer in zip(prompts, answers, strict=True):
        assert_scored(prompt, None, answer)
    tight.check_integrity()


def test_a_prompt_as_long_as_the_context_can_be_scored_and_no_longer_one() -> None:
    small = Engine.load(replace(CONFIG, max_context=20))
    prompt = PROMPTS[2][:20]
    (answer,) = small.generate([Request(prompt, None, SCORE)])
    assert_scored(prompt, None, answer)
    with pytest.raises(RequestError):
        small.generate([Request(PROMPTS[2][:21], None, SCORE)])
    with pytest.raises(RequestError):
        small.generate([Request(prompt, None, replace(SCORE, max_tokens=1))])


def test_end_tokens_in_and_behind_a_prompt_end_nothing() -> None:
    end = engine().info.eos_token_ids[0]
    prompt = [5, end, 6, end]
    (answer,) = engine().generate([Request(prompt, None, replace(SCORE, stop_token_ids=tuple(range(354))))])
    assert answer.finish_reason == "length"
    assert_scored(prompt, None, answer)


def test_no_more_rows_of_logits_are_held_than_may_be_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = cast(Runner, engine()._runner).model  # pyright: ignore[reportPrivateUsage]
    sizes: list[int] = []
    original = model.decoder.logits

    def watched(states: torch.Tensor) -> torch.Tensor:
        sizes.append(len(states))
        return original(states)

    monkeypatch.setattr(model.decoder, "logits", watched)
    engine().generate([Request(PROMPTS[2], None, SCORE)])
    assert sum(sizes) >= len(PROMPTS[2])
    assert max(sizes) <= CONFIG.max_batch


def test_a_request_says_whether_a_cache_may_serve_its_prompt() -> None:
    scoring = Sequence("a", Request([5, 6, 7], None, SCORE))
    assert scoring.needs_prompt_logits
    assert not replace(scoring, scored=2).needs_prompt_logits
    plain = Request([5, 6, 7], None, SamplingParams(max_tokens=1, logprobs=1))
    assert not Sequence("b", plain).needs_prompt_logits
    assert not Sequence("c", Request([5], None, SCORE)).needs_prompt_logits


def test_a_cached_prefix_is_no_short_cut_to_scores_but_scoring_fills_the_cache() -> None:
    fresh = Engine.load(replace(CONFIG, block_size=4))
    plain = SamplingParams(max_tokens=2, temperature=0)
    fresh.generate([Request(PROMPTS[2], None, plain)])
    for _ in range(2):
        (answer,) = fresh.generate([Request(PROMPTS[2], None, SCORE)])
        assert answer.cached_tokens == 0
        assert_scored(PROMPTS[2], None, answer)
    other = PROMPTS[2][::-1]
    fresh.generate([Request(other, None, SCORE)])
    (answer,) = fresh.generate([Request(other, None, plain)])
    assert answer.cached_tokens == 36


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_prompt_with_a_score_that_is_no_number_is_broken(broken: float) -> None:
    logits = torch.zeros(2, 354)
    for rows, finite in ((logits, True), (logits.index_fill(0, torch.tensor([1]), broken), False)):
        scores, sequence = PromptScores(), Sequence("one", Request([5, 6, 7], None, SCORE))
        scores.add([WantedRows(sequence, 0, range(2), [6, 7])], [rows], logits.device)
        choice = choose(logits[:1], [SamplingRow(SCORE, 0, ())], Adjustments(1, 354, logits.device))
        (sampled,) = ScoringStep(choice, {0: scores.take(sequence)}).result()
        assert sampled.finite == finite


def test_aborted_prompts_leave_nothing_behind() -> None:
    engine().add("x", Request(PROMPTS[2], None, SCORE))
    engine().step()
    engine().abort("x")
    engine().generate(requests([[5]] * 6, [None] * 6, SamplingParams(max_tokens=1)))  # its slot is somebody else's now
    assert not cast(Runner, engine()._runner)._scores._scored  # pyright: ignore[reportPrivateUsage]


def test_nothing_to_generate_needs_something_to_score() -> None:
    bad: list[dict[str, Any]] = [
        {"max_tokens": 0},
        {"max_tokens": -1, "prompt_logprobs": 1},
        {"max_tokens": 1, "prompt_logprobs": 21},
    ]
    for values in bad:
        with pytest.raises(RequestError):
            SamplingParams(**values)
