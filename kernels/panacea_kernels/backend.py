"""Which path an operator takes, and a record of the kernels that were launched."""

import functools
import importlib.util
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch

Backend = Literal["torch", "triton", "triton_fused", "triton_expand"]
"""torch: the reference. triton: the kernels, whichever suits. triton_fused and triton_expand: that path of
`steered_linear`; for every other operator the same as triton."""

MAX_RANK = 256
"""The largest rank that Triton's kernels are built and checked for; beyond it the reference runs."""

Launch = Callable[[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]
"""Takes (kernel, grid, arguments, constants and launch options)."""


class BackendError(RuntimeError):
    """A path was forced that cannot run here, or an input that no path takes."""


_forced: ContextVar[Backend | None] = ContextVar("panacea_forced_backend", default=None)
_invariant: ContextVar[bool] = ContextVar("panacea_batch_invariant", default=False)
_launch: ContextVar[Launch | None] = ContextVar("panacea_launch", default=None)


@contextmanager
def use_backend(backend: Backend) -> Generator[None]:
    """Forces a path for every operator called inside. An operator that cannot take it raises `BackendError`."""
    if backend not in ("torch", "triton", "triton_fused", "triton_expand"):
        raise BackendError(f"there is no backend {backend!r}")
    token = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(token)


def choose_backend(x: torch.Tensor) -> Backend:
    """The path for an operator whose input is `x`: the forced one, else Triton on CUDA and torch elsewhere.

    Raises `BackendError` if Triton is forced and cannot run on x's device, or if CUDA tensors come without Triton.
    """
    forced = _forced.get()
    if forced == "torch" or (forced is None and x.device.type != "cuda"):
        return "torch"
    if not _has_triton():
        raise BackendError("Triton is not installed (pip install 'triton>=3.6'; Linux only)")
    if x.device.type == "cpu" and not interpreting():
        raise BackendError(
            "Triton runs on CPU tensors only in its interpreter: set TRITON_INTERPRET=1 before the start"
        )
    if x.device.type not in ("cpu", "cuda", "meta"):
        raise BackendError(f"the kernels do not run on {x.device.type}")
    return forced or "triton"


@contextmanager
def batch_invariant() -> Generator[None]:
    """Inside, a row's result does not depend, to the last bit, on which other rows are computed with it.

    Slower: tiles no longer follow the number of rows, and on a CPU every row is computed by itself.
    """
    token = _invariant.set(True)
    try:
        yield
    finally:
        _invariant.reset(token)


def batch_invariant_now() -> bool:
    """Whether `batch_invariant` is in force."""
    return _invariant.get()


def interpreting() -> bool:
    """Whether Triton's kernels are interpreted on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launches a Triton kernel; the only place of this package that does. No launch for an empty grid."""
    if 0 in grid:
        return
    handle = _launch.get()
    if handle is None:
        kernel[grid](*args, **options)
    else:
        handle(kernel, grid, args, options)


@contextmanager
def intercept_launches(handle: Launch) -> Generator[None]:
    """Every launch inside calls `handle` and nothing else."""
    token = _launch.set(handle)
    try:
        yield
    finally:
        _launch.reset(token)


@contextmanager
def record_launches() -> Generator[list[str]]:
    """A list that the names of the kernels launched inside are appended to."""
    names: list[str] = []

    def note(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        names.append(kernel.__name__)
        kernel[grid](*args, **options)

    with intercept_launches(note):
        yield names
