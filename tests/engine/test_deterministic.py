"""Batch invariance: the same log probabilities to the last bit, whoever shares the batch."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.sampling_params import SamplingParams
from panacea.errors import CheckpointError
from panacea.preference import Preference
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE, golden

EVERYTHING = [*golden("panacea"), *golden("base")]
CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32")
LAST = SamplingParams(max_tokens=8, temperature=0, logprobs=5, ignore_eos=True)


@cache
def completions(*, deterministic: bool, among: int) -> Completion:
    """One request's answer, with so many others beside it from its first step to its last."""
    engine = Engine.load(replace(CONFIG, max_batch=256, deterministic=deterministic))
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (among,), generator=generator).tolist()
    others = [torch.randint(3, 100, (length,), generator=generator).tolist() for length in lengths]
    weights = torch.rand(among, 3, generator=generator)
    preferences: list[Preference | None] = [tuple(row) for row in (weights / weights.sum(1, keepdim=True)).tolist()]
    prompts, own = [*others, EVERYTHING[0].prompt_ids], [*preferences, EVERYTHING[0].preference]
    answer = engine.generate(requests(prompts, own, LAST))[-1]
    assert engine.stats.max_step_requests >= min(among + 1, 256)
    return answer


@pytest.mark.slow
def test_log_probabilities_are_the_same_bits_alone_and_among_255_others() -> None:
    assert completions(deterministic=True, among=0) == completions(deterministic=True, among=255)


def test_they_are_the_same_bits_however_the_prompt_is_cut_into_chunks() -> None:
    prompt = EVERYTHING[0].prompt_ids * 3
    answers: list[Completion] = []
    steps: list[int] = []
    for max_step_tokens in (512, 5, 7):
        engine = Engine.load(replace(CONFIG, max_batch=1, max_step_tokens=max_step_tokens, deterministic=True))
        answers += engine.generate([Request(prompt, EVERYTHING[0].preference, LAST)])
        steps.append(engine.stats.steps)
    assert steps[0] == LAST.max_tokens
    assert steps[1] > steps[2] > steps[0]
    assert answers[0] == answers[1] == answers[2]


def test_they_are_the_same_bits_from_a_cold_cache_and_from_a_warm_one() -> None:
    """Warm, the prompt's last tokens alone are computed, as rows of another step and in other company."""
    prompt = EVERYTHING[0].prompt_ids * 4
    preference = EVERYTHING[0].preference
    without = Engine.load(replace(CONFIG, deterministic=True, prefix_cache=False))
    (cold,) = without.generate([Request(prompt, preference, LAST)])
    engine = Engine.load(replace(CONFIG, deterministic=True))
    assert engine.generate([Request(prompt, preference, LAST)]) == [cold]
    # What the first answer left: blocks that decode steps wrote, where this prompt would have been prefilled.
    longer = [*prompt, *cold.token_ids, *prompt]
    (expected,) = without.generate([Request(longer, preference, LAST)])
    for others in (0, 20):
        crowd = [[*entry.prompt_ids, *prompt] for entry in EVERYTHING[:others]]
        own = [entry.preference for entry in EVERYTHING[:others]]
        for sought, known in ((prompt, cold), (longer, expected)):
            warm = engine.generate(requests([*crowd, sought], [*own, preference], LAST))[-1]
            assert warm.cached_tokens >= 32
            assert warm == known


def test_the_default_mode_is_not_invariant() -> None:
    """The control: were it, the tests above would prove nothing."""
    alone, among = completions(deterministic=False, among=0), completions(deterministic=False, among=255)
    assert alone.token_ids == among.token_ids
    assert alone.logprobs == pytest.approx(among.logprobs, abs=1e-4)
    assert alone.logprobs != among.logprobs


def test_invariance_changes_no_answer() -> None:
    engine = Engine.load(replace(CONFIG, deterministic=True))
    params = SamplingParams(max_tokens=24, temperature=0)
    answers = engine.generate(requests([e.prompt_ids for e in EVERYTHING], [e.preference for e in EVERYTHING], params))
    assert [answer.token_ids for answer in answers] == [entry.greedy_ids for entry in EVERYTHING]


def test_a_family_that_runs_by_transformers_own_layers_is_refused(tmp_path: Path) -> None:
    config = GemmaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=32,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    with pytest.raises(CheckpointError, match="deterministic supports only Llama"):
        Engine.load(EngineConfig(model=tmp_path, deterministic=True))
