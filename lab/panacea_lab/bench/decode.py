"""`panacea bench decode`: what a decode step costs, without adapter and steered.

    base              this engine without an adapter: the library's GEMMs, the same kernels otherwise, the same graphs
    base_fused_gemm   the same with our fused GEMM, its low-rank path left out
    rank N, different every request with a preference of its own
    rank N, one       all requests with one preference

All variants share one set of weights and one KV cache, and are measured in turn. `graph` is the replay of a step's CUDA
graph by the device's clock; `step` is a whole step of the engine by the host's: scheduling, launching, sampling and
reading tokens back. Percentages are over the faster of the two bases, and mean little without the bandwidth limit
beside them (the bytes that a step must read, at the rate of a large copy): a slow base makes steering look free.

Beside them transformers' own layers on the same steps, eager and compiled: see `panacea_lab.bench.transformers_steps`.
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import panacea_kernels as pk
from panacea.config import Device, DType, EngineConfig
from panacea.engine.engine import Engine
from panacea.engine.graphs import padded_sizes
from panacea.engine.kv_cache import KVCache
from panacea.engine.runner import Runner
from panacea.errors import ConfigError
from panacea_kernels import Backend
from panacea_lab.bench.decode_steps import (
    KeepingRecorder,
    adapter_bytes,
    decoding_engine,
    fill,
    one_cache,
    token_bytes,
    weight_bytes,
)
from panacea_lab.bench.measurement import (
    BenchError,
    Budget,
    Samples,
    check_sizes,
    choose_device,
    choose_dtype,
    copy_rate,
    device_us,
    machine,
    machine_line,
    table,
)
from panacea_lab.bench.random_model import free_memory, load_variants, preferences, read_config
from panacea_lab.bench.transformers_steps import measure_transformers

BATCHES = (1, 8, 32, 128, 256)
RANKS = (11, 64)
STEPS = 8
"""Engine steps and graph replays of one round, after a step that is not measured."""
SPARE_BYTES = 4 << 30
"""GPU memory left for activations and graphs when batches are chosen."""


@dataclass(frozen=True)
class Variant:
    """One way to answer the same requests. `rank` None is no adapter."""

    rank: int | None
    different: bool = True
    backend: Backend | None = None

    @property
    def name(self) -> str:
        if self.rank is None:
            return "base" if self.backend is None else "base_fused_gemm"
        return f"rank {self.rank}, {'different' if self.different else 'one'}"


@dataclass(frozen=True)
class DecodeBench:
    """What to measure. Raises `ConfigError` when built from values that mean nothing."""

    model: str = "llama-3.1-8b"
    batches: tuple[int, ...] = BATCHES
    context: int = 1024
    ranks: tuple[int, ...] = RANKS
    device: Device = "auto"
    dtype: DType = "auto"
    rounds: int = 12
    compiler: str | None = "inductor"
    """torch.compile's backend for the competitor; None leaves that row out."""
    compiled_batches: tuple[int, ...] | None = None
    """Where the compiled competitor is measured; None is at all batches. Compiling takes a minute or so for each."""
    seconds: float | None = None
    """What does not begin within this time is left out, and the result says so."""

    def __post_init__(self) -> None:
        check_sizes(batches=self.batches, context=self.context, ranks=self.ranks, rounds=self.rounds)
        longest: int = read_config(self.model).get_text_config().max_position_embeddings
        if self.context + self.steps + 2 > longest:
            raise ConfigError(f"context must leave room for {self.steps + 2} tokens more in {longest} positions")

    @property
    def steps(self) -> int:
        """Tokens that each request generates."""
        return (self.rounds + 1) * (STEPS + 1)

    def variants(self, device: torch.device) -> list[Variant]:
        """The bases first; one preference beside different ones for the first rank alone."""
        bases = [Variant(None)]
        if device.type == "cuda":
            bases.append(Variant(None, backend="triton_fused"))
        first = self.ranks[0]
        return [*bases, Variant(first), Variant(first, different=False), *(Variant(rank) for rank in self.ranks[1:])]

    def run(self) -> dict[str, Any]:
        """Measures; medians with all that they depend on."""
        budget = Budget(self.seconds)
        device = choose_device(self.device)
        dtype = choose_dtype(self.dtype, device)
        rate = copy_rate(device)
        try:
            rows, cache, config, left_out = self._own_engine(device, dtype, rate, budget)
        except torch.OutOfMemoryError:
            raise ConfigError(f"{self.model} does not fit the GPU's memory in this dtype") from None
        free_memory(device)
        batches = sorted({row["batch"] for row in rows})
        competitors = measure_transformers(
            read_config(self.model),
            dtype,
            cache,
            config,
            batches,
            self.context + self.steps // 2,
            self.rounds,
            self.compiler,
            self.compiled_batches,
            budget,
        )
        return {
            "bench": "decode",
            "machine": machine(device),
            "model": self.model,
            "dtype": str(dtype).removeprefix("torch."),
            "batches": list(self.batches),
            "context": self.context,
            "tokens_generated": self.steps,
            "rounds": self.rounds,
            "copy_bytes_per_s": round(rate),
            "rows": rows,
            "competitors": competitors,
            "left_out": left_out,
        }

    def _own_engine(
        self, device: torch.device, dtype: torch.dtype, rate: float, budget: Budget
    ) -> tuple[list[dict[str, Any]], KVCache, EngineConfig, list[str]]:
        variants = self.variants(device)
        ranks = list(dict.fromkeys(variant.rank for variant in variants))
        # Blocks for the longest context, and the width of the tables for the model's own, as in a server.
        blocks = -(-(self.context + self.steps + 2) // EngineConfig.block_size)
        most = max(self.batches)
        loading = EngineConfig(model=Path("random"), max_batch=most, max_step_tokens=max(512, most), num_blocks=blocks)
        models = dict(zip(ranks, load_variants(read_config(self.model), device, dtype, ranks, loading), strict=True))
        free_memory(device)
        batches, left_out = self._affordable(models[None].network.config, blocks, device, dtype)
        config = EngineConfig(
            model=Path("random"),
            max_batch=batches[-1],
            max_step_tokens=max(512, batches[-1]),
            num_blocks=blocks * batches[-1],
        )
        cache: KVCache | None = None
        runners: dict[tuple[int | None, Backend | None], tuple[Runner, KeepingRecorder]] = {}
        for variant in variants:
            if (variant.rank, variant.backend) in runners:
                continue
            recorder = KeepingRecorder(config.max_batch, device)
            with one_cache(cache), pk.use_backend(variant.backend) if variant.backend else nullcontext():
                runner = Runner(models[variant.rank], config, recorder)
            if cache is None:
                cache = runner.cache
                fill(cache)
            runners[variant.rank, variant.backend] = runner, recorder
        assert cache is not None
        rows: list[dict[str, Any]] = []
        for batch in tqdm(batches, desc="bench decode", unit="batch", leave=False):
            if budget.spent:
                left_out.append(f"batch {batch}: no time left")
                continue
            timings = self._measure(batch, variants, runners, config, device)
            for variant, (graph, step) in timings.items():
                model = models[variant.rank]
                kv_bytes = batch * (self.context + self.steps // 2) * token_bytes(cache)
                needed = weight_bytes(model) + adapter_bytes(model) + kv_bytes
                rows.append(_row(batch, variant, graph, step, needed, needed / rate * 1e6))
        _compare(rows)
        return rows, cache, config, left_out

    def _affordable(
        self, config: Any, blocks: int, device: torch.device, dtype: torch.dtype
    ) -> tuple[list[int], list[str]]:
        """The batches whose KV cache fits the memory, and why the others were left out."""
        batches = sorted(set(self.batches))
        if device.type != "cuda":
            return batches, []
        head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        one = blocks * EngineConfig.block_size * config.num_key_value_heads * head_dim * 2 * dtype.itemsize
        free, _ = torch.cuda.mem_get_info(device)
        fits = [batch for batch in batches if batch * one * config.num_hidden_layers <= free - SPARE_BYTES]
        if not fits:
            raise ConfigError(f"no batch of {self.batches} fits the GPU's memory beside the weights")
        return fits, [f"batch {batch}: its KV cache does not fit the memory" for batch in batches if batch not in fits]

    def _measure(
        self,
        batch: int,
        variants: Sequence[Variant],
        runners: Mapping[tuple[int | None, Backend | None], tuple[Runner, KeepingRecorder]],
        config: EngineConfig,
        device: torch.device,
    ) -> dict[Variant, tuple[Samples, Samples]]:
        """Graph replays and engine steps of all variants in turn, microseconds each."""
        engines: dict[Variant, Engine] = {}
        graphs: dict[Variant, list[float]] = {variant: [] for variant in variants}
        steps: dict[Variant, list[float]] = {variant: [] for variant in variants}
        for variant in variants:
            runner, _ = runners[variant.rank, variant.backend]
            rank = variant.rank
            wanted = [None] * batch if rank is None else preferences(batch, rank, different=variant.different)
            engines[variant] = decoding_engine(runner, config, wanted, self.context, self.steps)
        order = list(variants)
        size = min(size for size in padded_sizes(config.max_batch) if size >= batch)
        for turn in range(self.rounds + 1):
            for variant in order:
                _, recorder = runners[variant.rank, variant.backend]
                step = _engine_step_us(engines[variant], device)
                graph = device_us(recorder.replays[size], device, STEPS)
                if turn:  # the first turn warms up
                    steps[variant].append(step)
                    graphs[variant].append(graph)
            order.reverse()
        for variant in variants:
            logits = runners[variant.rank, variant.backend][1].results[size][:batch]
            if not bool(torch.isfinite(logits).all()):
                raise BenchError(f"{variant.name}, batch {batch}: a step's logits are not finite")
        return {variant: (Samples.of(graphs[variant]), Samples.of(steps[variant])) for variant in variants}


def _engine_step_us(engine: Engine, device: torch.device) -> float:
    """Microseconds of a whole step by the host's clock, the mean of `STEPS` in a row."""
    engine.step()  # variants of one adapter share its slots: this writes what admission would have written
    _wait(device)
    start = time.perf_counter()
    for _ in range(STEPS):
        engine.step()
    _wait(device)
    return (time.perf_counter() - start) / STEPS * 1e6


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _row(
    batch: int, variant: Variant, graph: Samples, step: Samples, needed_bytes: int, limit_us: float
) -> dict[str, Any]:
    return {
        "batch": batch,
        "variant": variant.name,
        "rank": variant.rank,
        "graph_us": graph.rounded(1),
        "step_us": step.rounded(1),
        "bytes": needed_bytes,
        "limit_us": round(limit_us, 1),
        "graph_share": round(limit_us / graph.median, 3),
        "step_share": round(limit_us / step.median, 3),
        "tokens_per_s": round(batch / step.median * 1e6, 1),
    }


def _compare(rows: list[dict[str, Any]]) -> None:
    """Adds to every row what it takes over the faster base of its batch."""
    for row in rows:
        bases = [other for other in rows if other["batch"] == row["batch"] and other["rank"] is None]
        for clock in ("graph", "step"):
            base: float = min(other[f"{clock}_us"]["median"] for other in bases)
            own: float = row[f"{clock}_us"]["median"]
            row[f"{clock}_over_base_us"] = round(own - base, 1)
            row[f"{clock}_over_base_percent"] = round((own / base - 1) * 100, 2)


def lines(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table, for people."""
    header = ["batch", "variant", "graph ms", "spread", "over base", "of limit", "step ms", "over base", "of limit"]
    rows = [
        [
            str(row["batch"]),
            row["variant"],
            f"{row['graph_us']['median'] / 1e3:.3f}",
            f"{row['graph_us']['low'] / 1e3:.3f}-{row['graph_us']['high'] / 1e3:.3f}",
            f"{row['graph_over_base_us']:+.0f} us ({row['graph_over_base_percent']:+.1f}%)",
            f"{row['graph_share']:.0%}",
            f"{row['step_us']['median'] / 1e3:.3f}",
            f"{row['step_over_base_us']:+.0f} us ({row['step_over_base_percent']:+.1f}%)",
            f"{row['step_share']:.0%}",
        ]
        for row in result["rows"]
    ]
    return header, rows


def competitor_lines(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table of transformers' own layers, beside this engine's base."""
    base = {row["batch"]: row["graph_us"]["median"] for row in result["rows"] if row["variant"] == "base"}
    header = ["batch", "transformers' layers", "ms", "this engine's base ms", "times as long", "remark"]
    rows: list[list[str]] = []
    for row in result["competitors"]:
        own = base[row["batch"]]
        if row["us"] is None:
            rows.append([str(row["batch"]), row["name"], "-", f"{own / 1e3:.3f}", "-", row["remark"]])
        else:
            us: float = row["us"]["median"]
            times = f"{us / own:.2f}"
            rows.append(
                [str(row["batch"]), row["name"], f"{us / 1e3:.3f}", f"{own / 1e3:.3f}", times, row["remark"] or ""]
            )
    return header, rows


def report(result: dict[str, Any]) -> str:
    """Tables for people."""
    parts = [
        f"bench decode: {result['model']} shapes, {result['dtype']}, context {result['context']}, "
        f"{machine_line(result['machine'])}",
        f"limit: bytes read by a step / copy rate ({result['copy_bytes_per_s'] / 1e9:.0f} GB/s); over base: over the "
        f"faster of the two; spread: tenth to ninetieth percentile of {result['rounds']} rounds",
        "",
        table(*lines(result)),
        "",
        table(*competitor_lines(result)),
    ]
    return "\n".join([*parts, *(f"left out: {reason}" for reason in result["left_out"])])
