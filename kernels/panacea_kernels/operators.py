"""The public operators. Each has the signature of its definition in `reference` and dispatches to a backend."""

import torch
import torch.nn.functional as F

from panacea_kernels import reference
from panacea_kernels.backend import MAX_RANK, batch_invariant_now, choose_backend
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

    Ranks above `MAX_RANK` run the reference. Raises `BackendError` if the forced path does not support these inputs.
    """
    backend = choose_backend(x)
    if backend == "triton" and b.shape[1] > MAX_RANK:
        backend = "torch"
    if backend == "torch":
        if not batch_invariant_now():
            return reference.steered_linear(x, weight, a, b, table, slots, bias, sections)
        rows = zip(torch.split(x, 1), torch.split(slots, 1), strict=True)
        each = [reference.steered_linear(row, weight, a, b, table, slot, bias, sections) for row, slot in rows]
        return torch.cat(each) if each else x.new_empty(0, weight.shape[0])
    from panacea_kernels.triton_kernels import linear as kernels

    if backend == "triton":
        backend = kernels.choose_path(x, b)
    path = kernels.fused if backend == "triton_fused" else kernels.expand
    return path(x, weight, a, b, table, slots, bias, sections)


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x weight^T + bias. Runs torch's own layer, except inside `batch_invariant` or with triton_fused forced."""
    backend = choose_backend(x)
    if batch_invariant_now() and backend == "torch":
        each = [F.linear(row, weight, bias) for row in torch.split(x, 1)]
        return torch.cat(each) if each else x.new_empty(0, weight.shape[0])
    if batch_invariant_now() or backend == "triton_fused":
        from panacea_kernels.triton_kernels import linear as kernels

        return kernels.linear(x, weight, bias)
    return F.linear(x, weight, bias)


def store(k: torch.Tensor, v: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, layout: PagedLayout) -> None:
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
        if batch_invariant_now():
            layout = layout.row_by_row()
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
