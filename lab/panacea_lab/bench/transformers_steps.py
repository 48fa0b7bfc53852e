"""transformers' own layers on the steps of `bench decode`: bare base, projections not fused, the engine's attention.

eager           as the library runs
CUDA graph      the same, recorded: without the cost of launching
torch.compile   compiled whole, with attention as one opaque operator, and recorded
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as once
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedConfig

from panacea.config import EngineConfig
from panacea.engine.kv_cache import CachedAttention, KVCache
from panacea.errors import first_line
from panacea.model.attention_interface import STEP_ATTENTION
from panacea_kernels import PagedLayout
from panacea_lab.bench.measurement import BenchCall, Budget, Recording, Samples, device_us
from panacea_lab.bench.random_model import make_network

REMARK_LENGTH = 160
STEPS = 4
"""Steps of one measurement."""
COMPILE_S = 90.0
"""Compiling is not begun with less time than this."""

_running: dict[str, CachedAttention] = {}
"""The step that the opaque operator belongs to: a compiled graph can hand it tensors and numbers, and no object."""


@dataclass(frozen=True)
class OpaqueAttention:
    """A step's attention (a `StepAttention`) as one operator that the compiler does not look into."""

    layers: Sequence[tuple[torch.Tensor, torch.Tensor]]
    layout: PagedLayout

    def attend(
        self,
        layer: int,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scaling: float,
        sliding_window: int | None,
        softcap: float | None,
    ) -> torch.Tensor:
        attended: torch.Tensor = torch.ops.panacea_bench.attend(q, k, v, layer, scaling)
        return attended


@once
def _register_operator() -> None:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scaling: float) -> torch.Tensor:
        return _running["step"].attend(layer, q, k, v, scaling, None, None)

    def shape(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layer: int, scaling: float) -> torch.Tensor:
        return torch.empty_like(q, memory_format=torch.contiguous_format)

    torch.library.custom_op("panacea_bench::attend", attend, mutates_args=()).register_fake(shape)


def measure_transformers(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    cache: KVCache,
    engine_config: EngineConfig,
    batches: Sequence[int],
    context: int,
    rounds: int,
    compiler: str | None,
    compiled_batches: Sequence[int] | None,
    budget: Budget,
) -> list[dict[str, Any]]:
    """A row for each way and batch: microseconds of a step, or why there are none.

    `cache` is the one that this engine was measured with, `context` the tokens that every request has.
    """
    device = cache.layers[0][0].device
    try:
        network = make_network(config, device, dtype)
    except torch.OutOfMemoryError:
        return [_row(batch, "eager", None, "does not fit the memory") for batch in batches]
    rows: list[dict[str, Any]] = []
    steps = {batch: _Step(network, cache, engine_config, batch, context) for batch in batches}
    with torch.inference_mode():
        for batch in tqdm(batches, desc="transformers' layers", unit="batch", leave=False):
            rows.append(_measure(batch, "eager", steps[batch].plain, device, rounds, budget, graph=False))
            if device.type == "cuda":
                rows.append(_measure(batch, "CUDA graph", steps[batch].plain, device, rounds, budget, graph=True))
        for batch in batches if compiler else ():
            if compiled_batches is not None and batch not in compiled_batches:
                rows.append(_row(batch, "torch.compile", None, "not asked for"))
            else:
                rows.append(_compiled(network, compiler or "", batch, steps[batch], device, rounds, budget))
    return sorted(rows, key=lambda row: row["batch"])


class _Step:
    """A decode step of `batch` requests, each with `context` tokens in the cache."""

    def __init__(self, network: Any, cache: KVCache, config: EngineConfig, batch: int, context: int) -> None:
        device = cache.layers[0][0].device
        assert config.num_blocks is not None
        own = config.num_blocks // config.max_batch
        # As wide as the engine's tables: the kernels see the same limits.
        longest: int = network.config.get_text_config().max_position_embeddings
        width = min(config.num_blocks, -(-longest // config.block_size))
        tables = torch.full((batch + 1, width), cache.scratch_block, dtype=torch.int32, device=device)
        tables[1:, :own] = torch.arange(batch * own, dtype=torch.int32, device=device).view(batch, own)
        positions = torch.full((batch,), context, dtype=torch.int32, device=device)
        slots = torch.arange(1, batch + 1, dtype=torch.int32, device=device)
        self._layout = PagedLayout.of_decode(positions, slots, tables, config.block_size)
        self._tokens = torch.randint(0, network.config.vocab_size, (batch,), device=device)
        self._cache = cache.step(self._layout)
        self._network = network

    def plain(self) -> torch.Tensor:
        return self._forward(self._cache)

    def opaque(self) -> torch.Tensor:
        _running["step"] = self._cache
        return self._forward(OpaqueAttention(self._cache.layers, self._layout))

    def _forward(self, cache: Any) -> torch.Tensor:
        """Logits (batch, vocabulary) by transformers' own forward, which is what `torch.compile` compiles."""
        positions = self._layout.positions[None].long()
        output = self._network(
            input_ids=self._tokens[None], position_ids=positions, use_cache=False, **{STEP_ATTENTION: cache}
        )
        logits: torch.Tensor = output.logits[0]
        return logits


def _measure(
    batch: int, name: str, step: BenchCall, device: torch.device, rounds: int, budget: Budget, *, graph: bool
) -> dict[str, Any]:
    if budget.spent:
        return _row(batch, name, None, "no time left")
    try:
        run: BenchCall = Recording([step], device).replay if graph else step
        step()
        values = [device_us(run, device, STEPS) for _ in range(rounds)]
    except Exception as error:  # the competitor's own failure is reported in its row
        return _row(batch, name, None, _reason(error))
    return _row(batch, name, Samples.of(values), "")


def _compiled(
    network: Any, compiler: str, batch: int, step: _Step, device: torch.device, rounds: int, budget: Budget
) -> dict[str, Any]:
    """Compiled in one graph if that can be done, else with breaks; recorded as a CUDA graph on CUDA."""
    name, broke = "torch.compile", ""
    if budget.left_s < COMPILE_S:
        return _row(batch, name, None, "no time left for compiling")
    _register_operator()
    start = time.perf_counter()
    torch.compiler.reset()  # or the second batch size would be compiled for any size, which is slower
    for fullgraph in (True, False):
        try:
            nn.Module.compile(network, backend=compiler, fullgraph=fullgraph, dynamic=False)
            step.opaque()
        except Exception as error:  # the compiler's failure is reported in its row
            torch.compiler.reset()
            if not fullgraph:
                return _row(batch, name, None, broke)
            broke = f"fullgraph fails: {_reason(error)}"
            continue
        break
    seconds = time.perf_counter() - start
    row = _measure(batch, name, step.opaque, device, rounds, budget, graph=True)
    said = f"{broke or 'one graph'}, {seconds:.0f} s to compile"
    return row | {"remark": f"{row['remark']}; {said}" if row["remark"] else said}


def _row(batch: int, name: str, us: Samples | None, remark: str) -> dict[str, Any]:
    return {"batch": batch, "name": name, "us": us.rounded(1) if us else None, "remark": remark}


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"[:REMARK_LENGTH]
