"""The check of a conversion: the source's logits in transformers against the result's in the engine that serves it.

The two sides share only the base model. The source's change of a layer is implemented once more, by its own formula, as
a hook on the layer's output.
"""

import math
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from panacea.config import Device, DType, EngineConfig
from panacea.engine.request import Request
from panacea.engine.runner import Runner
from panacea.engine.sampling_params import SamplingParams
from panacea.engine.scheduler import Work
from panacea.engine.sequence import Sequence
from panacea.errors import CheckpointError
from panacea.model.loader import choose_device, choose_dtype, load_model
from panacea.preference import Preference
from panacea_train.convert.base_model import load_base

Change = Callable[[torch.Tensor, Preference], torch.Tensor]
"""The change that a checkpoint adds to a linear layer's output: (input (..., in), preference) -> (..., out) float32."""

PROMPTS = 3
TOKENS = 12
"""Number of random tokens in each prompt."""

TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest allowed difference, as a share of the largest logit: both sides round, with sums in another order. Measured
on the golden models, whose random weights amplify every error: 3e-6, 7e-3 and 6e-2. Real errors are larger: leaving out
one module of 21 makes 0.24 or more there."""


@dataclass(frozen=True)
class Computing:
    """The device and dtype that logits are computed with."""

    device: Device = "auto"
    dtype: DType = "float32"

    def engine_config(self, base: Path, adapter: Path, requests: int) -> EngineConfig:
        """An engine that is just large enough for one step with all `requests`."""
        return EngineConfig(
            model=base,
            adapter=adapter,
            device=self.device,
            dtype=self.dtype,
            max_batch=requests,
            max_step_tokens=requests * TOKENS,
            block_size=TOKENS,
            num_blocks=requests,
        )


@dataclass(frozen=True)
class Logits:
    """(cases, vocabulary) float32 on the CPU, and the dtype they were computed in."""

    values: torch.Tensor
    dtype: torch.dtype


@dataclass(frozen=True)
class Agreement:
    """How well two sides agree."""

    preferences: int
    difference: float
    """The largest absolute difference of any two logits."""
    largest: float
    """The largest logit's size."""
    effect: float
    """The largest change of a logit by the adapter, to compare the difference with."""

    def __str__(self) -> str:
        return (
            f"Checked at {self.preferences} preference{'s' * (self.preferences > 1)}: the largest difference of logits "
            f"before and after is {self.difference:.1e} (logits reach {self.largest:.3g}; the adapter moves them by up "
            f"to {self.effect:.2g})"
        )


def preferences_to_check(dimensions: int) -> list[Preference]:
    """Three points: one dimension alone, equal weights, and different weights. One point for a single dimension."""
    if dimensions < 2:
        return [(1.0,) * dimensions]
    ascending = range(1, dimensions + 1)
    return [
        (1.0, *(0.0,) * (dimensions - 1)),
        (1 / dimensions,) * dimensions,
        tuple(weight / sum(ascending) for weight in ascending),
    ]


def random_prompts(vocab_size: int) -> list[list[int]]:
    """Prompts that are the same for every model with this vocabulary size."""
    drawn = torch.randint(vocab_size, (PROMPTS, TOKENS), generator=torch.Generator().manual_seed(0))
    prompts: list[list[int]] = drawn.tolist()
    return prompts


@torch.inference_mode()
def source_logits(
    base: Path, changes: Mapping[str, Change], preferences: abc.Sequence[Preference], computing: Computing
) -> Logits:
    """Next-token logits in transformers of every preference and prompt; `changes` by module.

    Raises `CheckpointError` if `base` cannot be loaded or lacks a module.
    """
    config = EngineConfig(model=base, device=computing.device, dtype=computing.dtype)
    device = choose_device(config)
    network = load_base(base, choose_dtype(config, None, device), device)
    running: Preference = ()

    def hooked(change: Change) -> Callable[..., torch.Tensor]:
        def add(_module: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            return output + change(inputs[0].float(), running).to(output.dtype)

        return add

    for name, change in changes.items():
        network.get_submodule(name).register_forward_hook(hooked(change))
    ids = torch.tensor(random_prompts(network.config.get_text_config(decoder=True).vocab_size), device=device)
    rows: list[torch.Tensor] = []
    for running in preferences:  # noqa: B007 (the hooks read it)
        rows.append(network(ids, use_cache=False).logits[:, -1].float().cpu())
    return Logits(torch.cat(rows), network.dtype)


@torch.inference_mode()
def served_logits(
    base: Path, adapter: Path, preferences: abc.Sequence[Preference | None], computing: Computing
) -> Logits:
    """The same logits in the engine, all in one step. None is the bare base. Raises what loading a model raises."""
    requests = len(preferences) * PROMPTS
    config = computing.engine_config(base, adapter, requests)
    model = load_model(config)
    runner = Runner(model, config)
    work: list[Work] = []
    for preference in preferences:
        for prompt in random_prompts(model.vocab_size):
            index = len(work)
            sequence = Sequence(str(index), Request(prompt, preference, SamplingParams(max_tokens=1)))
            sequence.slot, sequence.admissions, sequence.blocks = index + 1, 1, [index]
            work.append(Work(sequence, 0, TOKENS))
    return Logits(runner.forward(work).float().cpu(), model.dtype)


def check(
    base: Path,
    changes: Mapping[str, Change],
    adapter: Path,
    dimensions: int,
    computing: Computing,
    stage: Callable[[str], None],
) -> Agreement:
    """Checks the adapter in `adapter`, made from a source that adds `changes`, at `preferences_to_check`.

    `stage` is called with the name of each of two stages. Raises `CheckpointError` as `compare` does.
    """
    preferences = preferences_to_check(dimensions)
    stage("logits before")
    before = source_logits(base, changes, preferences, computing)
    stage("logits after")
    after = served_logits(base, adapter, [None, *preferences], computing)
    bare, steered = after.values[:PROMPTS], after.values[PROMPTS:]
    return compare(before, Logits(steered, after.dtype), bare, len(preferences))


def compare(before: Logits, after: Logits, bare: torch.Tensor, preferences: int) -> Agreement:
    """Compares `before` and `after`; `bare`: the base's logits, (prompts, vocabulary).

    Raises `CheckpointError` when they differ by more than `TOLERANCE`, or are not finite.
    """
    difference = (before.values - after.values).abs().max().item()
    largest = before.values.abs().max().item()
    effect = (after.values - bare.repeat(preferences, 1)).abs().max().item()
    tolerance = max(TOLERANCE[before.dtype], TOLERANCE[after.dtype])
    if not (math.isfinite(difference) and difference <= tolerance * largest):
        raise CheckpointError(
            f"the conversion is wrong and nothing was written: logits before and after differ by {difference:.3g} "
            f"(logits reach {largest:.3g}; allowed is a share of {tolerance:g})"
        )
    return Agreement(preferences, difference, largest, effect)
