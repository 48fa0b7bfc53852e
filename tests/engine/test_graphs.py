"""Recorded decode steps, and the engine that runs a step ahead: the same tokens as without.

On a GPU these are CUDA graphs. Elsewhere a stand-in records torch's operators with the very tensors they were called
with and repeats them: what a step would read from the host is baked in there as it is in a CUDA graph.
"""

from collections import abc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import panacea_kernels as pk
from panacea.config import EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.graphs import CudaGraphRecorder, Recorder, padded_sizes
from panacea.engine.outputs import Completion, EngineInfo
from panacea.engine.prefix_keys import ModelIdentity
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.scheduler import Scheduler, Work
from panacea.engine.sequence import Sequence
from panacea.model.loader import load_model
from tests.engine.asking import requests
from tests.golden_files import ADAPTER, BASE, golden

CUDA = torch.cuda.is_available()
# The golden answers are float32's.
CONFIG = EngineConfig(model=BASE, adapter=ADAPTER, max_batch=21, dtype="float32", num_blocks=256)
EVERYTHING = [*golden("panacea"), *golden("base")]
GREEDY = SamplingParams(max_tokens=24, temperature=0)
NO_PENALTY: dict[str, Any] = {
    "min_p": 0,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": (),
}


class _Recording(TorchDispatchMode):
    """Torch's operators and the kernels' launches, with the tensors that they were called with."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Callable[[], object]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        results = tree_flatten(made)[0]

        def again() -> None:
            for result, value in zip(results, tree_flatten(func(*args, **(kwargs or {})))[0], strict=True):
                if isinstance(result, torch.Tensor) and result.data_ptr() != value.data_ptr():
                    result.copy_(value)

        self.calls.append(again)
        return made

    def launch(self, kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        kept = len(self.calls)
        kernel[grid](*args, **options)
        del self.calls[kept:]  # the interpreter computes by torch's operators; a GPU would not
        self.calls.append(lambda: kernel[grid](*args, **options))

    def replay(self) -> None:
        with torch.inference_mode():
            for call in self.calls:
                call()


def record_operators(function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], object]]:
    """The stand-in for `CudaGraphRecorder`."""
    with _Recording() as recording, pk.intercept_launches(recording.launch):
        result = function()
    return result, recording.replay


class Tally:
    """A recorder that counts."""

    def __init__(self) -> None:
        self._recorder: Recorder = CudaGraphRecorder() if CUDA else record_operators
        self.recorded = 0
        self.replayed = 0

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], object]]:
        result, replay = self._recorder(function)
        self.recorded += 1

        def counted() -> None:
            self.replayed += 1
            replay()

        return result, counted


def info_of(config: EngineConfig) -> EngineInfo:
    """What an engine of this config says of itself. Loaded on the CPU, without recordings."""
    return Engine.load(replace(config, device="cpu")).info


def make_engine(runner: Runner, steps_ahead: int, *, cached: bool = False) -> Engine:
    runner.steps_ahead = steps_ahead
    identity = ModelIdentity(b"base", b"adapter") if cached else None
    scheduler = Scheduler(runner.num_blocks, 16, 21, 512, runner.model.context_length, identity)
    return Engine(runner, scheduler, info_of(CONFIG), dimensions=3)


@pytest.fixture(scope="module")
def tally() -> Tally:
    return Tally()


@pytest.fixture(scope="module")
def runner(tally: Tally) -> Runner:
    return Runner(load_model(CONFIG), CONFIG, tally)


@pytest.mark.parametrize("steps_ahead", [0, 1])
def test_recorded_steps_read_and_continue_cached_blocks(runner: Runner, tally: Tally, steps_ahead: int) -> None:
    """Of the prompts only the last tokens are left: some are single ones, which a recorded step computes."""
    engine = make_engine(runner, steps_ahead, cached=True)
    prompts = [[*entry.prompt_ids, *entry.greedy_ids[: 17 - len(entry.prompt_ids)]] for entry in EVERYTHING]
    preferences = [entry.preference for entry in EVERYTHING]
    expected = [entry.greedy_ids[17 - len(entry.prompt_ids) :] for entry in EVERYTHING]
    for warm in (False, True):
        replayed, steps = tally.replayed, engine.stats.steps
        answers = engine.generate(
            requests(prompts, preferences, [replace(GREEDY, max_tokens=len(ids)) for ids in expected])
        )
        assert [answer.token_ids for answer in answers] == expected
        assert {answer.cached_tokens for answer in answers} == {16 * warm}
        assert engine.stats.steps - steps - (tally.replayed - replayed) == (not warm), "steps that were not recorded"
    engine.check_integrity()


@pytest.mark.slow
@pytest.mark.parametrize("steps_ahead", [0, 1])
def test_all_golden_answers_by_recorded_steps(runner: Runner, tally: Tally, steps_ahead: int) -> None:
    replayed = tally.replayed
    engine = make_engine(runner, steps_ahead)
    prompts, preferences = [entry.prompt_ids for entry in EVERYTHING], [entry.preference for entry in EVERYTHING]
    together = engine.generate(requests(prompts, preferences, GREEDY))
    assert [completion.token_ids for completion in together] == [entry.greedy_ids for entry in EVERYTHING]
    assert engine.stats.max_step_preferences == 7
    assert tally.replayed - replayed == GREEDY.max_tokens - 1, "every step but the prompts'"
    for entry in EVERYTHING[::5]:
        (alone,) = engine.generate([Request(entry.prompt_ids, entry.preference, GREEDY)])
        assert alone.token_ids == entry.greedy_ids
    engine.check_integrity()


def test_a_replay_reads_preferences_that_were_written_after_the_recording(runner: Runner, tally: Tally) -> None:
    """One slot and one recorded graph, six preferences in turn: each answers as the golden files say."""
    recorded, replayed = tally.recorded, tally.replayed
    assert recorded == len(padded_sizes(21))
    first = golden("panacea")[0].prompt_ids
    same_prompt = [entry for entry in golden("panacea") if entry.prompt_ids == first]
    assert len({entry.preference for entry in same_prompt}) == 6
    for index, entry in enumerate(same_prompt):
        sequence = Sequence(str(index), Request(entry.prompt_ids, entry.preference, GREEDY))
        sequence.slot, sequence.admissions, sequence.blocks = 1, 1, [3, 7, 5, 11]
        runner.forward([Work(sequence, 0, len(entry.prompt_ids) - 1)])
        logits = runner.forward([Work(sequence, len(entry.prompt_ids) - 1, 1)])
        expected = torch.tensor([entry.next_token_logits])
        torch.testing.assert_close(logits.cpu(), expected, rtol=0, atol=1e-4)
    assert (tally.recorded, tally.replayed) == (recorded, replayed + 6)


def test_rows_that_pad_a_batch_touch_nobodys_blocks(runner: Runner) -> None:
    before = [keys[:-1].clone() for keys, _ in runner.cache.layers]
    entry = golden("panacea")[0]
    sequences: list[Sequence] = []
    for slot in range(1, 4):  # three rows are padded to four
        sequence = Sequence(str(slot), Request(entry.prompt_ids, entry.preference, GREEDY))
        sequence.slot, sequence.admissions, sequence.blocks = slot, 1, [slot]
        sequences.append(sequence)
    logits = runner.forward([Work(sequence, len(entry.prompt_ids) - 1, 1) for sequence in sequences])
    assert logits.shape[0] == 3
    for (keys, _), old in zip(runner.cache.layers, before, strict=True):
        changed = (keys[:-1] != old).flatten(1).any(dim=1).nonzero()[:, 0].tolist()
        assert changed == [1, 2, 3]


def assert_same(plain: abc.Sequence[Completion], ahead: abc.Sequence[Completion]) -> None:
    """The same tokens and reasons, and logprobs up to rounding.

    An engine that runs ahead keeps an answer's row for one more step. So a product may have one row more, and on some
    processors its last bit then differs.
    """
    for one, other in zip(plain, ahead, strict=True):
        assert replace(one, logprobs=[], top_logprobs=[]) == replace(other, logprobs=[], top_logprobs=[])
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        for tops, other_tops in zip(one.top_logprobs, other.top_logprobs, strict=True):
            assert [token for token, _ in tops] == [token for token, _ in other_tops]
            assert [value for _, value in tops] == pytest.approx([value for _, value in other_tops], abs=1e-4)


def test_sampled_answers_are_the_same_a_step_ahead(runner: Runner) -> None:
    """Seeds, stop tokens and answers that end at different steps."""
    params = [
        SamplingParams(max_tokens=6 + index, temperature=1, seed=index, top_k=index % 3 * 5, logprobs=2)
        for index in range(len(EVERYTHING))
    ]
    prompts, preferences = [entry.prompt_ids for entry in EVERYTHING], [entry.preference for entry in EVERYTHING]
    plain, ahead = (make_engine(runner, steps).generate(requests(prompts, preferences, params)) for steps in (0, 1))
    assert_same(plain, ahead)
    stops = [SamplingParams(max_tokens=20, temperature=0, stop_token_ids=(c.token_ids[3],)) for c in plain]
    plain, ahead = (make_engine(runner, steps).generate(requests(prompts, preferences, stops)) for steps in (0, 1))
    assert_same(plain, ahead)


def test_penalised_answers_are_the_same_a_step_ahead(runner: Runner) -> None:
    """The device counts tokens that the host does not know yet; greedy and sampled, beside requests without."""
    kinds: list[dict[str, Any]] = [
        {"frequency_penalty": 1.5},
        {"repetition_penalty": 1.7, "presence_penalty": 0.5},
        {},
        {"min_p": 0.1, "logit_bias": ((60, 4.0), (61, 4.0)), "frequency_penalty": 2.0},
    ]
    params = [
        SamplingParams(max_tokens=8 + index, temperature=index % 2, seed=index, logprobs=1, **kinds[index % 4])
        for index in range(len(EVERYTHING))
    ]
    prompts, preferences = [entry.prompt_ids for entry in EVERYTHING], [entry.preference for entry in EVERYTHING]
    plain, ahead = (make_engine(runner, steps).generate(requests(prompts, preferences, params)) for steps in (0, 1))
    assert_same(plain, ahead)
    without = make_engine(runner, 1).generate(
        requests(prompts, preferences, [replace(p, **NO_PENALTY) for p in params])
    )
    pairs = enumerate(zip(ahead, without, strict=True))
    changed = [index for index, (with_, without_) in pairs if with_.token_ids != without_.token_ids]
    assert len(changed) > len(params) // 2
    assert not any(index % 4 == 2 for index in changed)


@pytest.mark.slow
def test_recorded_steps_of_the_kernels_a_step_ahead() -> None:
    """Everything that a GPU's step is made of, at once."""
    config = EngineConfig(
        model=BASE, adapter=ADAPTER, dtype="float32", max_batch=2, num_blocks=24, block_size=4, max_step_tokens=32
    )
    tally, info = Tally(), info_of(config)
    entries = [EVERYTHING[1], EVERYTHING[-1]]
    with pk.use_backend("triton"), pk.record_launches() as launches:
        runner = Runner(load_model(config), config, tally)
        runner.steps_ahead = 1
        engine = Engine(runner, Scheduler(24, 4, 2, 32, runner.model.context_length), info, dimensions=3)
        params = [SamplingParams(max_tokens=5, temperature=0), SamplingParams(max_tokens=4, temperature=0)]
        answers = engine.generate(requests([e.prompt_ids for e in entries], [e.preference for e in entries], params))
    assert [answer.token_ids for answer in answers] == [entries[0].greedy_ids[:5], entries[1].greedy_ids[:4]]
    assert tally.replayed == 4
    assert "_pick_kernel" in launches


def test_padded_sizes_waste_little_and_end_at_the_largest_batch() -> None:
    assert padded_sizes(1) == [1]
    assert padded_sizes(3) == [1, 2, 3]
    assert padded_sizes(64) == [1, 2, 4, 8, 16, 24, 32, 48, 64]
    assert padded_sizes(256)[-3:] == [224, 240, 256]
