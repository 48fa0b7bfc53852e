"""`panacea bench kernels`: microseconds of one layer's steered projections, and of a launch that does nothing.

    cublas       the base alone, by the library's GEMM; percentages are over this
    fused_base   the base alone, by our fused kernel without its low-rank path
    fused        base and adapter in one launch: our kernel for decode
    expand       base GEMM, GEMM with A, one launch that scales, expands and adds: our kernel for prefill
    default      what the engine takes: the one of the two that suits
    torch        the reference in plain torch
    generic      base GEMM, shrink, expand: what servers of many adapters launch

Every row has a preference of its own. Each path is first compared with float32, and one that is wrong ends the bench.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

import panacea_kernels as pk
from panacea.config import Device, DType
from panacea_lab.bench.compile_ahead import compile_ahead
from panacea_lab.bench.measurement import (
    Budget,
    Recording,
    check_sizes,
    choose_device,
    choose_dtype,
    copy_rate,
    empty_node_us,
    interleaved_us,
    l2_bytes,
    machine,
    machine_line,
    table,
)
from panacea_lab.bench.projections import (
    BASES,
    STEERED,
    Group,
    check,
    expected_results,
    groups_of,
    paths,
    random_inputs,
    random_weights,
)
from panacea_lab.bench.random_model import free_memory, read_config

ROWS = (1, 8, 32, 64, 128, 256)
RANKS = (3, 11, 16, 64)
CALLS = 16
"""Fewest calls in one recording: the launch of the graph itself is spread over them."""


@dataclass(frozen=True)
class KernelsBench:
    """What to measure. Raises `ConfigError` when built from values that mean nothing."""

    model: str = "llama-3.1-8b"
    rows: tuple[int, ...] = ROWS
    ranks: tuple[int, ...] = RANKS
    device: Device = "auto"
    dtype: DType = "auto"
    rounds: int = 20
    seconds: float | None = None
    """What does not begin within this time is left out, and the result says so."""

    def __post_init__(self) -> None:
        check_sizes(rows=self.rows, ranks=self.ranks, rounds=self.rounds)
        read_config(self.model)

    def run(self) -> dict[str, Any]:
        """Measures; medians with all that they depend on. Raises `BenchError` if a path computes something else."""
        budget = Budget(self.seconds)
        device = choose_device(self.device)
        dtype = choose_dtype(self.dtype, device)
        torch.manual_seed(0)
        groups = groups_of(read_config(self.model))
        if device.type == "cuda":
            # Ranks first: a budget that is spent early leaves out the ranks that matter least, not the shapes.
            compile_ahead(
                [(group, rows, rank) for rank in self._ranks for group in groups for rows in self.rows], dtype
            )
        rate = copy_rate(device)
        cells: list[dict[str, Any]] = []
        left_out: list[str] = []
        with tqdm(total=len(groups) * len(self.rows) * len(self.ranks), desc="bench kernels", leave=False) as bar:
            for rank in self._ranks:
                for group in groups:
                    weights = random_weights(group, sets_beyond_l2(group, dtype, device), dtype, device)
                    for rows in self.rows:
                        if budget.spent:
                            left_out.append(f"{group.name}, {rows} rows, rank {rank}")
                        else:
                            cells.append(_measure(group, weights, rows, rank, self.rounds, rate))
                        bar.update()
                    del weights
                    free_memory(device)
        return {
            "bench": "kernels",
            "machine": machine(device),
            "model": self.model,
            "dtype": str(dtype).removeprefix("torch."),
            "rows": list(self.rows),
            "ranks": list(self.ranks),
            "rounds": self.rounds,
            "copy_bytes_per_s": round(rate),
            "empty_node_us": round(empty_node_us(device), 3),
            "cells": cells,
            "layer": _layer(cells, len(groups)),
            "left_out": left_out,
        }

    @property
    def _ranks(self) -> list[int]:
        """The rank of the paper's adapters first: it is measured whatever the budget."""
        return sorted(self.ranks, key=lambda rank: (rank != 11, rank))


def sets_beyond_l2(group: Group, dtype: torch.dtype, device: torch.device) -> int:
    """The number of weights to read in turn so that none is still in L2 when it is read again."""
    if device.type != "cuda":
        return 2
    return max(2, -(-4 * l2_bytes(device) // group.weight_bytes(dtype)))


def _measure(
    group: Group, weights: list[torch.Tensor], rows: int, rank: int, rounds: int, rate: float
) -> dict[str, Any]:
    device, dtype = weights[0].device, weights[0].dtype
    sets = random_inputs(group, weights, rows, rank)
    expected = expected_results(sets[0])
    errors: dict[str, float] = {}
    skipped: dict[str, str] = {}
    recordings: dict[str, Recording] = {}
    for name, path in paths().items():
        try:
            errors[name] = check(name, path, sets[0], expected[name])
        except pk.BackendError as error:  # no Triton here, or a rank that this path does not take
            skipped[name] = str(error)
            continue
        turns = -(-CALLS // len(sets)) if device.type == "cuda" else 1
        recordings[name] = Recording([lambda i=i, path=path: path(i) for i in sets] * turns, device)
    samples = interleaved_us(recordings, device, rounds)
    base, weight_bytes = samples["cublas"].median, group.weight_bytes(dtype)
    return {
        "group": group.name,
        "in_features": group.in_features,
        "sections": list(group.sections),
        "rows": rows,
        "rank": rank,
        "sets": len(sets),
        "us": {name: each.rounded() for name, each in samples.items()},
        "over_cublas_us": {name: round(each.median - base, 2) for name, each in samples.items()},
        "over_cublas_percent": {name: round((each.median / base - 1) * 100, 2) for name, each in samples.items()},
        "bandwidth_share": {name: round(weight_bytes / each.median / rate * 1e6, 3) for name, each in samples.items()},
        "error": {name: float(f"{error:.3g}") for name, error in errors.items()},
        "skipped": skipped,
    }


def _layer(cells: list[dict[str, Any]], groups: int) -> list[dict[str, Any]]:
    """The sums over a layer's projections, where all of them were measured."""
    by_size: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for cell in cells:
        by_size.setdefault((cell["rank"], cell["rows"]), []).append(cell)
    return [
        {
            "rows": rows,
            "rank": rank,
            "us": {
                name: round(sum(cell["us"][name]["median"] for cell in each), 2)
                for name in (*BASES, *STEERED)
                if all(name in cell["us"] for cell in each)
            },
            "worst_error": max(error for cell in each for error in cell["error"].values()),
        }
        for (rank, rows), each in sorted(by_size.items())
        if len(each) == groups
    ]


def lines(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table of a whole layer, for people."""
    header = ["rows", "rank", "cublas us", *(f"{name} +us" for name in (*BASES[1:], *STEERED)), "error"]
    rows: list[list[str]] = []
    for line in result["layer"]:
        us: dict[str, float] = line["us"]
        rows.append(
            [str(line["rows"]), str(line["rank"]), f"{us['cublas']:.1f}"]
            + [_over(us.get(name), us["cublas"]) for name in (*BASES[1:], *STEERED)]
            + [f"{line['worst_error']:.1g}"]
        )
    return header, rows


def group_lines(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table of each group by itself."""
    header = [
        "group",
        "rows",
        "rank",
        "cublas us",
        "of limit",
        *(f"{n} +us" for n in (*BASES[1:], *STEERED)),
        "of limit",
    ]
    rows: list[list[str]] = []
    for cell in result["cells"]:
        us = {name: each["median"] for name, each in cell["us"].items()}
        share: dict[str, float] = cell["bandwidth_share"]
        rows.append(
            [cell["group"], str(cell["rows"]), str(cell["rank"]), f"{us['cublas']:.1f}", f"{share['cublas']:.0%}"]
            + [_over(us.get(name), us["cublas"]) for name in (*BASES[1:], *STEERED)]
            + [f"{share['default']:.0%}" if "default" in share else "-"]
        )
    return header, rows


def _over(us: float | None, base: float) -> str:
    return "-" if us is None else f"{us - base:+.1f} ({(us / base - 1) * 100:+.1f}%)"


def report(result: dict[str, Any]) -> str:
    """Tables for people."""
    parts = [
        f"bench kernels: {result['model']} shapes, {result['dtype']}, {machine_line(result['machine'])}",
        f"copy rate {result['copy_bytes_per_s'] / 1e9:.0f} GB/s; {result['empty_node_us']:.2f} us per empty graph node",
        "",
        table(*group_lines(result)),
        "",
        "a layer's projections together (the second \"of limit\" above is default's)",
        table(*lines(result)),
    ]
    reasons = {f"{name}: {why}" for cell in result["cells"] for name, why in cell["skipped"].items()}
    parts += [f"not measured: {reason}" for reason in sorted(reasons)]
    parts += [f"left out for want of time: {len(result['left_out'])} cells"] if result["left_out"] else []
    return "\n".join(parts)
