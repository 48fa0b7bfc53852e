"""Compiles what `bench kernels` will launch, on all cores at once; Triton's cache on disk hands it to the bench.

One kernel takes seconds, and a bench of all shapes and ranks launches some hundred of them.
"""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from tqdm import tqdm

import panacea_kernels as pk
from panacea_lab.bench.projections import Group, Inputs, paths

KernelCase = tuple[Group, int, int]
"""A group of projections, rows, and rank."""


WORTHWHILE = 16
"""Fewer cases than this compile faster than processes start."""


def compile_ahead(cases: Sequence[KernelCase], dtype: torch.dtype) -> None:
    """Compiles the launches of all paths. If that fails, the bench compiles them one by one."""
    in_parallel("compiling kernels", partial(_compile, dtype=dtype), cases)


def in_parallel(title: str, work: Callable[[Any], None], cases: Sequence[Any]) -> None:
    """Calls `work` for each of `cases` in processes of their own, about one for each core."""
    workers = min(len(os.sched_getaffinity(0)), 12, len(cases))
    if workers < 2 or len(cases) < WORTHWHILE:
        return
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in tqdm(pool.map(work, cases), total=len(cases), desc=title, leave=False):
                pass
    except Exception as error:  # a worker that died, a GPU that lets only one process in
        print(f"{title} in parallel failed ({type(error).__name__}: {error}); going on without", file=sys.stderr)


def _compile(case: KernelCase, dtype: torch.dtype) -> None:
    inputs = empty_inputs(*case, dtype)
    with pk.intercept_launches(warm_up):
        for path in paths().values():
            try:
                path(inputs)
            except Exception:  # noqa: S112 - the measuring process meets the same and reports it
                continue


def empty_inputs(group: Group, rows: int, rank: int, dtype: torch.dtype) -> Inputs:
    """Memory of the right shapes on the GPU, whatever it holds."""

    def empty(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="cuda")

    return Inputs(
        x=empty(rows, group.in_features),
        weight=empty(group.out_features, group.in_features),
        a=empty(len(group.sections) * rank, group.in_features),
        b=empty(group.out_features, rank),
        table=empty(rows + 1, rank, dtype=torch.float32),
        slots=torch.zeros(rows, dtype=torch.int32, device="cuda"),
        sections=group.sections if len(group.sections) > 1 else None,
    )


def warm_up(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> None:
    """Compiles a launch instead of making it."""
    kernel.warmup(*args, grid=grid, **options)
