"""The whole engine on the kernels, on a GPU or in Triton's interpreter, against the golden files."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

import panacea_kernels as pk
from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.outputs import Completion
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.scheduler import Work
from panacea.engine.sequence import Sequence
from panacea.model.loader import load_model
from tests.engine.asking import requests
from tests.full_products import FULL_PRODUCTS
from tests.golden_files import ADAPTER, BASE, golden

EVERYTHING = [*golden("panacea"), *golden("base")]
# Steps of eight rows at once, so that prompts are cut, and the float32 that the golden answers are in.
CONFIG = EngineConfig(
    model=BASE, adapter=ADAPTER, dtype="float32", max_batch=8, max_step_tokens=24, num_blocks=64, block_size=4
)


@pytest.fixture(autouse=True)
def on_the_kernels() -> Iterator[None]:
    with pk.use_backend("triton"):
        yield


@pytest.mark.slow
def test_logits_of_all_preferences_and_the_base_in_one_step() -> None:
    config = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32", num_blocks=256)
    runner = Runner(load_model(config), config)
    entries = EVERYTHING if FULL_PRODUCTS else [e for e in EVERYTHING if e.prompt_ids == EVERYTHING[0].prompt_ids]
    work: list[Work] = []
    for index, entry in enumerate(entries):
        sequence = Sequence(str(index), Request(entry.prompt_ids, entry.preference, SamplingParams(max_tokens=1)))
        sequence.slot, sequence.admissions = index + 1, 1
        sequence.blocks = list(range(4 * index, 4 * index + 4))
        work.append(Work(sequence, 0, len(entry.prompt_ids)))
    with pk.record_launches() as launches:
        logits = runner.forward(work)
    expected = torch.tensor([entry.next_token_logits for entry in entries])
    torch.testing.assert_close(logits.cpu(), expected, rtol=0, atol=1e-4)
    assert {"_attention_kernel", "_rotate_and_store_kernel"} < set(launches)


@pytest.mark.slow
def test_greedy_answers_of_a_mixed_batch_in_chunks() -> None:
    engine = Engine.load(CONFIG)
    entries = [entry for entry in EVERYTHING if entry.prompt_ids == EVERYTHING[0].prompt_ids]
    params = SamplingParams(max_tokens=4, temperature=0)
    answers = engine.generate(requests([e.prompt_ids for e in entries], [e.preference for e in entries], params))
    assert [answer.token_ids for answer in answers] == [entry.greedy_ids[:4] for entry in entries]
    assert engine.stats.max_step_preferences == 7


@pytest.mark.slow
def test_warming_up_runs_every_kernel_and_leaves_no_trace() -> None:
    config = replace(CONFIG, num_blocks=6)
    runner = Runner(load_model(config), config)
    before = [keys[:-1].clone() for keys, _ in runner.cache.layers]
    with pk.record_launches() as launches:
        runner.warm_up(20)
    assert launches.count("_rotate_and_store_kernel") == 2 * len(runner.cache.layers), "16 and 20 rows"
    assert launches.count("_threshold_kernel") == 2 * 2, "as usual, and of adjusted logits"
    assert {"_attention_kernel", "_fused_kernel", "_expand_kernel"} < set(launches)
    for (keys, _), old in zip(runner.cache.layers, before, strict=True):
        assert torch.equal(keys[:-1], old)


OTHERS = 8 if FULL_PRODUCTS else 3
"""Prompts beside the one that is compared: with them, a step has rows for other tiles and splits than without."""


def answer(*, deterministic: bool, others: int) -> Completion:
    config = EngineConfig(
        model=BASE, adapter=ADAPTER, dtype="float32", max_batch=64, max_step_tokens=64, deterministic=deterministic
    )
    prompts = [entry.prompt_ids for entry in (EVERYTHING * 3)[1 : others + 1]]
    preferences = [entry.preference for entry in (EVERYTHING * 3)[1 : others + 1]]
    params = SamplingParams(max_tokens=2, temperature=0, logprobs=5, ignore_eos=True)
    completions = Engine.load(config).generate(
        requests([*prompts, EVERYTHING[0].prompt_ids], [*preferences, EVERYTHING[0].preference], params)
    )
    return completions[-1]


@pytest.mark.slow
def test_batch_invariance_holds_to_the_last_bit() -> None:
    assert answer(deterministic=True, others=0) == answer(deterministic=True, others=OTHERS)


@pytest.mark.slow
def test_the_default_mode_is_not_invariant() -> None:
    """The control: tiles and splits follow the number of rows."""
    assert answer(deterministic=False, others=0).logprobs != answer(deterministic=False, others=OTHERS).logprobs


@pytest.mark.slow
def test_a_cached_prefix_gives_the_same_bits_in_deterministic_mode() -> None:
    prompt = [*EVERYTHING[0].prompt_ids, *EVERYTHING[0].greedy_ids[:4]]
    engine = Engine.load(replace(CONFIG, deterministic=True))
    params = SamplingParams(max_tokens=3, temperature=0, logprobs=5)
    cold, warm = (engine.generate([Request(prompt, EVERYTHING[0].preference, params)])[0] for _ in range(2))
    assert cold.token_ids == EVERYTHING[0].greedy_ids[4:7]
    assert (cold.cached_tokens, warm.cached_tokens) == (0, 12)
    assert warm == cold
