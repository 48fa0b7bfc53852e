"""The operators between a decoder layer's projections, in plain torch."""

import torch
import torch.nn.functional as F

from panacea_kernels.layout import PagedLayout
from panacea_kernels.reference.attention import store


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """weight * (x / sqrt(mean(x^2) + eps)) over the last dimension, normalised in float32.

    As in transformers' Llama, the normalised values are rounded to x's dtype before they are multiplied by the weight.
    Shapes: x (..., size), weight (size,), one floating dtype. Source: Zhang and Sennrich, arXiv 1910.07467.
    """
    if x.dtype == torch.float32:
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    return weight * F.rms_norm(x.float(), (x.shape[-1],), None, eps).to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds `x` to the residual stream and normalises the sum with `rms_norm`. Returns (normed, stream).

    Shapes: x and residual (rows, size), weight (size,), one floating dtype. Without `residual` the stream is x itself.
    """
    stream = x if residual is None else residual + x
    return rms_norm(stream, weight, eps), stream


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, where gate_up (rows, 2 * size) holds gate and up side by side. Returns (rows, size)."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


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
    """Rotates queries and keys by their positions (RoPE), stores keys and values, and returns the queries.

    Shapes and dtypes (one floating dtype for all but the layout):
        qkv (rows, (heads + 2 * kv_heads) * dim): queries, keys and values of each row, side by side
        cos, sin (positions, dim): the output of transformers' rotary embedding for each position. The two halves of a
        head form pairs: (x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)
        k_cache, v_cache (blocks, block_size, kv_heads, dim); see `store`
        q_norm, k_norm (dim,): weights of an `rms_norm` applied to every head before the rotation (Qwen3)
    Returns q (rows, heads, dim).
    Source: Su et al., arXiv 2104.09864, in the half-split form of GPT-NeoX.
    """
    kv_heads, dim = k_cache.shape[2:]
    heads = qkv.shape[1] // dim - 2 * kv_heads
    q, k, v = torch.split(qkv.view(qkv.shape[0], -1, dim), [heads, kv_heads, kv_heads], dim=1)
    if q_norm is not None and k_norm is not None:
        q, k = rms_norm(q, q_norm, eps), rms_norm(k, k_norm, eps)
    row_cos, row_sin = (values.index_select(0, layout.positions).unsqueeze(1) for values in (cos, sin))
    store(_rotate(k, row_cos, row_sin), v, k_cache, v_cache, layout)
    return _rotate(q, row_cos, row_sin)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
