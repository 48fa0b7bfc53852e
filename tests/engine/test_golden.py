"""The engine against the golden files: float64, merged weights, code that shares nothing with this project."""

from collections import abc
from dataclasses import replace

import pytest
import torch

from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.scheduler import Work
from panacea.engine.sequence import Sequence
from panacea.model.loader import load_model
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE, Golden, golden

GREEDY = SamplingParams(max_tokens=24, temperature=0)
CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, dtype="float32")
EVERYTHING = [*golden("panacea"), *golden("base")]


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner(load_model(CONFIG), CONFIG)


def logits_of(runner: Runner, entries: abc.Sequence[Golden]) -> torch.Tensor:
    work: list[Work] = []
    for index, entry in enumerate(entries):
        sequence = Sequence(str(index), Request(entry.prompt_ids, entry.preference, GREEDY))
        sequence.slot, sequence.admissions = index + 1, 1
        sequence.blocks = list(range(4 * index, 4 * index + 4))
        work.append(Work(sequence, 0, len(entry.prompt_ids)))
    return runner.forward(work).cpu()


def test_logits_of_all_preferences_and_the_base_in_one_batch(runner: Runner) -> None:
    assert len(EVERYTHING) == 21
    expected = torch.tensor([entry.next_token_logits for entry in EVERYTHING])
    torch.testing.assert_close(logits_of(runner, EVERYTHING), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("index", range(len(EVERYTHING)))
def test_logits_alone(runner: Runner, index: int) -> None:
    expected = torch.tensor([EVERYTHING[index].next_token_logits])
    torch.testing.assert_close(logits_of(runner, EVERYTHING[index : index + 1]), expected, rtol=0, atol=1e-4)


def test_greedy_ids_in_one_batch_and_alone_and_that_they_shared_steps() -> None:
    engine = Engine.load(CONFIG)
    together = engine.generate(requests([e.prompt_ids for e in EVERYTHING], [e.preference for e in EVERYTHING], GREEDY))
    assert [completion.token_ids for completion in together] == [e.greedy_ids for e in EVERYTHING]
    assert engine.stats.max_step_requests == len(EVERYTHING)
    assert engine.stats.max_step_preferences == 7
    for entry in EVERYTHING:
        (alone,) = engine.generate([Request(entry.prompt_ids, entry.preference, GREEDY)])
        assert alone.token_ids == entry.greedy_ids
    engine.check_integrity()


def test_the_preference_matters() -> None:
    """The control: had the engine ignored preferences, the tests above could not pass."""
    answers = {tuple(e.greedy_ids) for e in golden("panacea") if e.prompt_ids == EVERYTHING[0].prompt_ids}
    assert len(answers) == 6


@pytest.mark.parametrize(("chunk", "blocks"), [(7, 64), (512, 9)])
def test_chunked_prefill_and_preemption_change_no_token(chunk: int, blocks: int) -> None:
    config = replace(CONFIG, max_batch=min(7, chunk), max_step_tokens=chunk, num_blocks=blocks, block_size=4)
    engine = Engine.load(config)
    completions = engine.generate(
        requests([e.prompt_ids for e in EVERYTHING], [e.preference for e in EVERYTHING], GREEDY)
    )
    assert [completion.token_ids for completion in completions] == [e.greedy_ids for e in EVERYTHING]
    assert (engine.stats.preemptions > 0) == (blocks == 9)
    engine.check_integrity()
    assert engine.stats.free_blocks == blocks


def test_a_slot_is_reused_under_another_preference_after_a_cancel() -> None:
    first, second = golden("panacea")[0], golden("panacea")[-1]
    engine = Engine.load(replace(CONFIG, max_batch=1, max_step_tokens=64))
    engine.add("cancelled", Request(first.prompt_ids, first.preference, GREEDY))
    for _ in range(3):
        engine.step()
    assert engine.stats.free_slots == 0
    engine.abort("cancelled")
    assert engine.stats.free_slots == 1
    (completion,) = engine.generate([Request(second.prompt_ids, second.preference, GREEDY)])
    assert completion.token_ids == second.greedy_ids
