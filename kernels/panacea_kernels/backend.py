"""Selects the path of an operator, and launches, intercepts and records kernels."""

import functools
import importlib.util
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import torch

Backend = Literal["torch", "triton", "triton_fused", "triton_expand"]
"""torch: the reference. triton: the kernels, chosen by the inputs. triton_fused and triton_expand: one path of
`steered_linear`; every other operator treats them as triton."""

MAX_RANK = 256
"""The largest rank that the Triton kernels are compiled and tested for. Larger ranks run the reference."""

LaunchHandler = Callable[[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]
"""Called with (kernel, grid, arguments, constants and launch options)."""


class BackendError(RuntimeError):
    """The forced path cannot run here, or no path supports the input."""


_forced: ContextVar[Backend | None] = ContextVar("panacea_forced_backend", default=None)
_invariant: ContextVar[bool] = ContextVar("panacea_batch_invariant", default=False)
_handler: ContextVar[LaunchHandler | None] = ContextVar("panacea_launch_handler", default=None)


@contextmanager
def use_backend(backend: Backend) -> Generator[None]:
    """Forces a path for every operator called inside. An operator that cannot take it raises `BackendError`."""
    backends = ("torch", "triton", "triton_fused", "triton_expand")
    if backend not in backends:
        raise BackendError(f"unknown backend {backend!r}; use one of {', '.join(backends)}")
    token = _forced.set(backend)
    try:
        yield
    finally:
        _forced.reset(token)


def choose_backend(x: torch.Tensor) -> Backend:
    """The path for an operator whose input is `x`: the forced one, else Triton on CUDA and torch elsewhere.

    Raises `BackendError` if Triton is forced and cannot run on x's device, or if x is on CUDA and Triton is missing.
    """
    forced = _forced.get()
    if forced == "torch" or (forced is None and x.device.type != "cuda"):
        return "torch"
    if not _has_triton():
        raise BackendError("Triton is not installed: pip install 'triton>=3.6' (Linux only)")
    if x.device.type == "cpu" and not interpreting():
        raise BackendError(
            "Triton runs on CPU tensors only in its interpreter: set TRITON_INTERPRET=1 before the process starts"
        )
    if x.device.type not in ("cpu", "cuda", "meta"):
        raise BackendError(f"the Triton kernels do not run on {x.device.type}: use cuda, or the backend 'torch'")
    return forced or "triton"


@contextmanager
def batch_invariant() -> Generator[None]:
    """Inside, a row's result is bitwise independent of the other rows of its batch.

    This is slower: tiles do not adapt to the number of rows, and a CPU computes each row separately.
    """
    token = _invariant.set(True)
    try:
        yield
    finally:
        _invariant.reset(token)


def batch_invariant_now() -> bool:
    """Whether the caller is inside `batch_invariant`."""
    return _invariant.get()


def interpreting() -> bool:
    """Whether the Triton kernels are interpreted on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Launches a Triton kernel. All launches of this package go through here. An empty grid launches nothing."""
    if 0 in grid:
        return
    handler = _handler.get()
    if handler is None:
        kernel[grid](*args, **options)
    else:
        handler(kernel, grid, args, options)


@contextmanager
def intercept_launches(handler: LaunchHandler) -> Generator[None]:
    """Inside, every launch calls `handler` instead of the kernel."""
    token = _handler.set(handler)
    try:
        yield
    finally:
        _handler.reset(token)


@contextmanager
def record_launches() -> Generator[list[str]]:
    """Yields a list. The name of each kernel launched inside is appended to it."""
    names: list[str] = []

    def note(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        names.append(kernel.__name__)
        kernel[grid](*args, **options)

    with intercept_launches(note):
        yield names
