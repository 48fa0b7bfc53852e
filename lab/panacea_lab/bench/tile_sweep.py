"""`panacea bench kernels --sweep`: the fused kernel cut up in many ways, to set its heuristics by measurements."""

import itertools
import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from tqdm import tqdm

import panacea_kernels as pk
from panacea.errors import first_line
from panacea_kernels.chip import Chip, chip_of
from panacea_kernels.triton_kernels import linear_tiles
from panacea_kernels.triton_kernels.linear_tiles import FusedTiles
from panacea_lab.bench.compile_ahead import empty_inputs, in_parallel, warm_up
from panacea_lab.bench.measurement import (
    BenchError,
    Budget,
    Recording,
    choose_device,
    choose_dtype,
    interleaved_us,
    machine,
    machine_line,
    table,
)
from panacea_lab.bench.projection_kernels import KernelsBench, sets_beyond_l2
from panacea_lab.bench.projections import (
    Group,
    Inputs,
    check,
    expected_results,
    groups_of,
    random_inputs,
    random_weights,
)
from panacea_lab.bench.random_model import free_memory, read_config

MOST_TILES = 40
"""Number of choices for each size, drawn at random if the grid has more. The heuristic's is always among them."""


@dataclass(frozen=True)
class KernelsSweep:
    """What to sweep: sizes, device and time as in `KernelsBench`."""

    sizes: KernelsBench
    most_tiles: int = MOST_TILES

    def run(self) -> dict[str, Any]:
        """The best choices for every group of projections, number of rows and rank."""
        sizes, budget = self.sizes, Budget(self.sizes.seconds)
        device = choose_device(sizes.device)
        dtype = choose_dtype(sizes.dtype, device)
        torch.manual_seed(0)
        chip = chip_of(device)
        cases = [
            (group, rows, rank, candidates(group, rows, rank, dtype.itemsize, chip, self.most_tiles))
            for group in groups_of(read_config(sizes.model))
            for rank in sizes.ranks
            for rows in sizes.rows
        ]
        if device.type == "cuda":
            in_parallel("compiling tiles", partial(_compile, dtype=dtype), cases)
        cells: list[dict[str, Any]] = []
        left_out = 0
        for group, rows, rank, choices in tqdm(cases, desc="bench kernels --sweep", leave=False):
            if budget.spent:
                left_out += 1
                continue
            weights = random_weights(group, sets_beyond_l2(group, dtype, device), dtype, device)
            cells.append(_measure(random_inputs(group, weights, rows, rank), group, choices, sizes.rounds))
            del weights
            free_memory(device)
        return {
            "bench": "kernels sweep",
            "machine": machine(device),
            "model": sizes.model,
            "dtype": str(dtype).removeprefix("torch."),
            "tiles": [field.name for field in fields(FusedTiles)],
            "cells": cells,
            "left_out": left_out,
        }


def candidates(group: Group, rows: int, rank: int, itemsize: int, chip: Chip, most: int) -> list[FusedTiles]:
    """The heuristic's choice, and others that fit the chip's shared memory and a thread's registers."""
    heuristic = linear_tiles.fused_tiles(rows, group.in_features, group.sections, rank, itemsize, chip, invariant=False)
    all_rows = min(128, max(16, 1 << (rows - 1).bit_length()))
    grid = itertools.product(
        sorted({all_rows, max(16, all_rows // 2)}), (32, 64, 128), (64, 128, 256), (1, 2, 4, 8), (4, 8), (2, 3, 4, 5)
    )
    others: list[FusedTiles] = []
    for block_rows, block_out, block_in, splits, warps, stages in grid:
        tiles = FusedTiles(block_rows, block_out, block_in, max(16, heuristic.block_rank), splits, warps, stages)
        registers = block_rows * (block_out + tiles.block_rank) / (warps * 32)
        programs = sum(-(-size // block_out) for size in group.sections) * -(-rows // block_rows)
        fits = (
            tiles.stage_bytes(itemsize) * stages <= chip.shared_bytes - 4096
            and registers <= 128
            # Split tiles are counted, and there is a counter for each multiprocessor.
            and (splits == 1 or (group.in_features >= 2 * block_in * splits and programs <= chip.multiprocessors))
        )
        if fits and tiles != heuristic:
            others.append(tiles)
    drawn = random.Random(0).sample(others, min(most - 1, len(others)))
    return [heuristic, *drawn]


@contextmanager
def forced_tiles(tiles: FusedTiles) -> Generator[None]:
    """The fused kernel is cut up like this inside, whatever the sizes."""

    def choose(*_args: object) -> FusedTiles:
        return tiles

    with patch.object(linear_tiles, "fused_tiles", choose), pk.use_backend("triton_fused"):
        yield


def _run(tiles: FusedTiles, inputs: Inputs) -> torch.Tensor:
    with forced_tiles(tiles):
        return pk.steered_linear(*inputs.arguments)


def _compile(case: tuple[Group, int, int, list[FusedTiles]], dtype: torch.dtype) -> None:
    group, rows, rank, choices = case
    inputs = empty_inputs(group, rows, rank, dtype)
    with pk.intercept_launches(warm_up):
        for tiles in choices:
            try:
                _run(tiles, inputs)
            except Exception:  # noqa: S112 - the measuring process meets the same and reports it
                continue


def _measure(sets: list[Inputs], group: Group, choices: list[FusedTiles], rounds: int) -> dict[str, Any]:
    device = sets[0].x.device
    rows, rank = sets[0].x.shape[0], sets[0].b.shape[1]
    expected = expected_results(sets[0])["fused"]
    recordings: dict[str, Recording] = {}
    failed: list[dict[str, Any]] = []
    for index, tiles in enumerate(choices):
        path = partial(_run, tiles)
        try:
            check("fused", path, sets[0], expected)
            recordings[str(index)] = Recording([partial(path, inputs) for inputs in sets], device)
        except BenchError as error:
            failed.append({"tiles": astuple(tiles), "why": f"WRONG: {error}"})
        except Exception as error:  # does not compile, or does not fit: whatever the compiler says belongs here
            failed.append({"tiles": astuple(tiles), "why": f"{type(error).__name__}: {first_line(error)}"})
    samples = interleaved_us(recordings, device, rounds)
    ranked = sorted(samples, key=lambda name: samples[name].median)
    return {
        "group": group.name,
        "rows": rows,
        "rank": rank,
        "heuristic": {"tiles": astuple(choices[0]), "us": samples["0"].rounded() if "0" in samples else None},
        "best": [{"tiles": astuple(choices[int(name)]), "us": samples[name].rounded()} for name in ranked[:5]],
        "tried": len(choices),
        "failed": failed,
    }


def report(result: dict[str, Any]) -> str:
    """A table for people: what the heuristic chose, and the best that was found."""
    header = ["group", "rows", "rank", "heuristic us", "best us", "gain", f"best ({', '.join(result['tiles'])})"]
    rows: list[list[str]] = []
    for cell in result["cells"]:
        chosen, best = cell["heuristic"]["us"], cell["best"][0] if cell["best"] else None
        rows.append(
            [
                cell["group"],
                str(cell["rows"]),
                str(cell["rank"]),
                f"{chosen['median']:.1f}" if chosen else "failed",
                f"{best['us']['median']:.1f}" if best else "-",
                f"{chosen['median'] / best['us']['median'] - 1:.1%}" if chosen and best else "-",
                " ".join(str(number) for number in best["tiles"]) if best else "-",
            ]
        )
    failed = sum(len(cell["failed"]) for cell in result["cells"])
    wrong = sum(why["why"].startswith("WRONG") for cell in result["cells"] for why in cell["failed"])
    return "\n".join(
        [
            f"bench kernels --sweep: {result['model']} shapes, {result['dtype']}, {machine_line(result['machine'])}",
            "",
            table(header, rows),
            "",
            f"{failed} choices failed, {wrong} of them with wrong results; "
            f"{result['left_out']} sizes left out for want of time",
        ]
    )
