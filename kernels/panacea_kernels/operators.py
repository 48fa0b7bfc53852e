"""The public operators: each has the signature of its definition in `reference` and takes the path that suits."""

import torch

from panacea_kernels import reference
from panacea_kernels.backend import choose_backend
from panacea_kernels.layout import PagedLayout


def steered_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    table: torch.Tensor,
    slots: torch.Tensor,
    bias: torch.Tensor | None = None,
    sections: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """y = x weight^T + bias + ((x a^T) * table[slots]) b^T: see `reference.steered_linear`.

    Raises `BackendError` if a forced path cannot take these inputs.
    """
    backend = choose_backend(x)
    if backend == "torch":
        return reference.steered_linear(x, weight, a, b, table, slots, bias, sections)
    from panacea_kernels.triton_kernels import linear

    if backend == "triton":
        backend = linear.choose_path(x, b, sections)
    if backend == "triton_fused":
        return linear.fused(x, weight, a, b, table, slots, bias, sections)
    return linear.expand(x, weight, a, b, table, slots, bias, sections)


def store(
    k: torch.Tensor, v: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, layout: PagedLayout
) -> None:
    """Writes a step's keys and values into the cache: see `reference.store`."""
    if choose_backend(k) == "torch":
        return reference.store(k, v, k_cache, v_cache, layout)
    from panacea_kernels.triton_kernels import decoder

    return decoder.store(k, v, k_cache, v_cache, layout)


def paged_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    layout: PagedLayout,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """Causal attention over the paged cache: see `reference.paged_attention`."""
    if choose_backend(q) == "torch":
        return reference.paged_attention(q, k_cache, v_cache, layout, scaling, sliding_window, softcap)
    from panacea_kernels.triton_kernels import attention

    return attention.paged_attention(q, k_cache, v_cache, layout, scaling, sliding_window, softcap)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(normed, stream) of a residual stream with `x` added: see `reference.add_rms_norm`."""
    if choose_backend(x) == "torch":
        return reference.add_rms_norm(x, residual, weight, eps)
    from panacea_kernels.triton_kernels import decoder

    return decoder.add_rms_norm(x, residual, weight, eps)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up: see `reference.silu_mul`."""
    if choose_backend(gate_up) == "torch":
        return reference.silu_mul(gate_up)
    from panacea_kernels.triton_kernels import decoder

    return decoder.silu_mul(gate_up)


def rotate_and_store(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    layout: PagedLayout,
    q_norm: torch.Tensor | None = None,
    k_norm: torch.Tensor | None = None,
    eps: float = 0.0,
) -> torch.Tensor:
    """Rotates queries and keys, stores keys and values, returns the queries: see `reference.rotate_and_store`."""
    if choose_backend(qkv) == "torch":
        return reference.rotate_and_store(qkv, cos, sin, k_cache, v_cache, layout, q_norm, k_norm, eps)
    from panacea_kernels.triton_kernels import decoder

    return decoder.rotate_and_store(qkv, cos, sin, k_cache, v_cache, layout, q_norm, k_norm, eps)


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """One token per row: see `reference.draw`."""
    if choose_backend(logits) == "torch":
        return reference.draw(logits, temperature, top_k, top_p, keys)
    from panacea_kernels.triton_kernels import sampling

    return sampling.draw(logits, temperature, top_k, top_p, keys)
