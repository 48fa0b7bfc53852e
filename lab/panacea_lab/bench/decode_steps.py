"""Steps of an engine whose requests have a long context already: what `bench decode` measures."""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch

from panacea.config import EngineConfig
from panacea.engine import runner as runner_module
from panacea.engine.engine import Engine
from panacea.engine.graphs import CudaGraphRecorder, Recorder, padded_sizes
from panacea.engine.kv_cache import KVCache
from panacea.engine.outputs import EngineInfo
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampler import Sampled
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.scheduler import Scheduler, Work
from panacea.engine.step_runner import RunningStep, StepRunner
from panacea.model.loader import LoadedModel
from panacea.model.steered_linear import SteeredLinear
from panacea.preference import Preference
from panacea_lab.bench.measurement import BenchCall


class KeepingRecorder:
    """Records decode steps as the engine does on this device, and keeps replays and logits, by number of rows."""

    def __init__(self, max_batch: int, device: torch.device, record: Recorder | None = None) -> None:
        """`record` None is CUDA graphs on CUDA, and `call_again` elsewhere."""
        self.replays: dict[int, BenchCall] = {}
        self.results: dict[int, torch.Tensor] = {}
        self._sizes = iter(reversed(padded_sizes(max_batch)))  # the order in which the engine records
        self._record = record or (CudaGraphRecorder() if device.type == "cuda" else call_again)

    def __call__(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, BenchCall]:
        result, replay = self._record(function)
        size = next(self._sizes)
        self.replays[size], self.results[size] = replay, result
        return result, replay


def call_again(function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, BenchCall]:
    """Stands in for a graph where there is none: computes anew."""
    result = function()

    @torch.inference_mode()
    def again() -> None:
        result.copy_(function())

    return result, again


@contextmanager
def one_cache(cache: KVCache | None) -> Generator[None]:
    """Runners made inside use `cache`, if there is one: several of their own would not fit beside each other."""
    if cache is None:
        yield
        return
    with patch.object(runner_module, "KVCache", lambda *_args: cache):
        yield


def fill(cache: KVCache) -> None:
    """Random keys and values, as a prefill would leave them: products of zeros can be faster than others."""
    for keys, values in cache.layers:
        keys.normal_()
        values.normal_()


class _MadeUp:
    """A step that did not happen."""

    def __init__(self, count: int) -> None:
        self._count = count

    def result(self) -> list[Sampled]:
        return [Sampled(1, None, ())] * self._count


class PrefillSkipped:
    """A runner that runs decode steps alone. What a prefill would compute, the cache is taken to hold."""

    def __init__(self, runner: Runner) -> None:
        self.steps_ahead = runner.steps_ahead
        self._runner = runner

    def launch(self, work: Sequence[Work]) -> RunningStep:
        if any(item.count > 1 for item in work):
            return _MadeUp(sum(item.samples for item in work))
        return self._runner.launch(work)

    def is_usable_after(self, fault: BaseException) -> bool:
        return self._runner.is_usable_after(fault)


def decoding_engine(
    runner: Runner, config: EngineConfig, preferences: Sequence[Preference | None], context: int, steps: int
) -> Engine:
    """An engine that will run `steps` decode steps, a request of `context` tokens for each of `preferences`."""
    batch, model = len(preferences), runner.model
    # All prompts in one step, so that all requests are equally long ever after.
    engine = engine_over(PrefillSkipped(runner), runner, config, batch, step_tokens=batch * context)
    params = SamplingParams(max_tokens=steps + 2, temperature=0, ignore_eos=True)
    generator = torch.Generator().manual_seed(0)
    for index, preference in enumerate(preferences):
        prompt: list[int] = torch.randint(0, model.vocab_size, (context,), generator=generator).tolist()
        engine.add(str(index), Request(prompt, preference, params))
    engine.step()
    return engine


def engine_over(steps: StepRunner, runner: Runner, config: EngineConfig, batch: int, step_tokens: int) -> Engine:
    """An engine that runs its steps by `steps`, over the model and the cache of `runner`."""
    model = runner.model
    info = EngineInfo(
        context_length=model.context_length,
        vocab_size=model.vocab_size,
        eos_token_ids=model.eos_token_ids,
        block_size=config.block_size,
        num_blocks=runner.num_blocks,
        max_batch=batch,
        device=str(model.device),
        dtype=str(model.dtype).removeprefix("torch."),
        parameters=model.parameters,
    )
    scheduler = Scheduler(runner.num_blocks, config.block_size, batch, step_tokens, model.context_length)
    dimensions = len(model.adapter.config.space.dimensions) if model.adapter else None
    return Engine(steps, scheduler, info, dimensions)


def weight_bytes(model: LoadedModel) -> int:
    """Bytes of weights that every step must read: all except an embedding table, which is read in part."""
    network: Any = model.network
    total: int = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    embedding: torch.Tensor = network.get_input_embeddings().weight
    tied: bool = embedding.data_ptr() == network.get_output_embeddings().weight.data_ptr()
    return total if tied else total - embedding.numel() * embedding.element_size()


def adapter_bytes(model: LoadedModel) -> int:
    """Bytes of the adapter, which every step reads too."""
    return sum(
        part.numel() * part.element_size()
        for module in model.network.modules()
        if isinstance(module, SteeredLinear) and module.adapted
        for part in (module.a, module.b)
    )


def token_bytes(cache: KVCache) -> int:
    """Bytes of one token's keys and values in all layers."""
    return sum(part[0, 0].numel() * part.element_size() for layer in cache.layers for part in layer)
