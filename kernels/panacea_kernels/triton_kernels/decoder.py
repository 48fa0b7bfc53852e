"""The operators between a decoder layer's projections, one launch each."""

# Triton's functions have no types.
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import torch
import triton
import triton.language as tl

from panacea_kernels.backend import launch
from panacea_kernels.layout import PagedLayout

# Columns of one row per program of `silu_mul`: each load is 16 bytes a thread with four warps and bfloat16.
SILU_COLUMNS = 1024


@triton.jit
def _add_rms_norm_kernel(
    x,
    residual,
    weight,
    normed,
    stream,
    size,
    eps,
    stride_x,
    stride_residual,
    BLOCK: tl.constexpr,
):
    """One row per program. As in transformers' layers, the stream is rounded to the dtype before it is normalised, and
    the normalised row is rounded before it is multiplied by the weight."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    ok = column < size
    dtype = normed.dtype.element_ty
    values = tl.load(x + row * stride_x + column, mask=ok, other=0.0).to(tl.float32)
    if residual is not None:
        values += tl.load(residual + row * stride_residual + column, mask=ok, other=0.0).to(tl.float32)
        values = values.to(dtype)
        tl.store(stream + row * size + column, values, mask=ok)
        values = values.to(tl.float32)
    mean_square = tl.sum(values * values) / size
    values = (values * tl.rsqrt(mean_square + eps)).to(dtype).to(tl.float32)
    scale = tl.load(weight + column, mask=ok, other=0.0).to(tl.float32)
    tl.store(normed + row * size + column, (values * scale).to(dtype), mask=ok)


@triton.jit
def _silu_mul_kernel(gate_up, out, size, stride_gate_up, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    ok = column < size
    dtype = out.dtype.element_ty
    gate = tl.load(gate_up + row * stride_gate_up + column, mask=ok, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride_gate_up + size + column, mask=ok, other=0.0).to(tl.float32)
    activated = (gate / (1 + tl.exp(-gate))).to(dtype).to(tl.float32)  # rounded as by torch's silu
    tl.store(out + row * size + column, (activated * up).to(dtype), mask=ok)


@triton.jit
def _finite(values):
    """Replaces values that are not finite by zero (NaN < inf is false)."""
    return tl.where(tl.abs(values.to(tl.float32)) < float("inf"), values, 0.0).to(values.dtype)


@triton.jit
def _cache_place(positions, slots, block_tables, stride_tables, block_size, row):
    """(block * block_size + offset of a row's key and value in the cache, the row's position)."""
    position = tl.load(positions + row)
    slot = tl.load(slots + row).to(tl.int64)
    block = tl.load(block_tables + slot * stride_tables + position // block_size).to(tl.int64)
    return block * block_size + position % block_size, position


@triton.jit
def _store_kernel(
    k,
    v,
    k_cache,
    v_cache,
    positions,
    slots,
    block_tables,
    stride_tables,
    block_size,
    kv_heads,
    stride_k,
    stride_k_head,
    stride_v,
    stride_v_head,
    K_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """One row and one head per program."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    place, _ = _cache_place(positions, slots, block_tables, stride_tables, block_size, row)
    line = place * kv_heads + head
    column = tl.arange(0, BLOCK_K)
    keys = tl.load(k + row * stride_k + head * stride_k_head + column, mask=column < K_DIM, other=0.0)
    tl.store(k_cache + line * K_DIM + column, _finite(keys), mask=column < K_DIM)
    column = tl.arange(0, BLOCK_V)
    values = tl.load(v + row * stride_v + head * stride_v_head + column, mask=column < V_DIM, other=0.0)
    tl.store(v_cache + line * V_DIM + column, _finite(values), mask=column < V_DIM)


@triton.jit
def _half_norm(first, second, weight, eps, column, ok, HALF: tl.constexpr):
    """`rms_norm` of a head given as two halves, rounded as in `reference.rms_norm`."""
    dtype = first.dtype
    x, y = first.to(tl.float32), second.to(tl.float32)
    scale = tl.rsqrt((tl.sum(x * x) + tl.sum(y * y)) / (2 * HALF) + eps)
    x, y = (x * scale).to(dtype).to(tl.float32), (y * scale).to(dtype).to(tl.float32)
    x *= tl.load(weight + column, mask=ok, other=0.0).to(tl.float32)
    y *= tl.load(weight + HALF + column, mask=ok, other=0.0).to(tl.float32)
    return x.to(dtype), y.to(dtype)


@triton.jit
def _rotate_and_store_kernel(
    qkv,
    cos,
    sin,
    q_norm,
    k_norm,
    q,
    k_cache,
    v_cache,
    positions,
    slots,
    block_tables,
    stride_qkv,
    stride_tables,
    block_size,
    eps,
    heads,
    kv_heads,
    HALF: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row and one head per program. The head's index selects q, k or v."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    place, position = _cache_place(positions, slots, block_tables, stride_tables, block_size, row)
    column = tl.arange(0, BLOCK)
    ok = column < HALF
    source = qkv + row * stride_qkv + head * 2 * HALF + column
    first = tl.load(source, mask=ok, other=0.0)
    second = tl.load(source + HALF, mask=ok, other=0.0)
    if head >= heads + kv_heads:
        target = v_cache + (place * kv_heads + head - heads - kv_heads) * 2 * HALF + column
        tl.store(target, _finite(first), mask=ok)
        tl.store(target + HALF, _finite(second), mask=ok)
    else:
        angle = position.to(tl.int64) * 2 * HALF + column
        cos_first = tl.load(cos + angle, mask=ok, other=0.0).to(tl.float32)
        cos_second = tl.load(cos + angle + HALF, mask=ok, other=0.0).to(tl.float32)
        sin_first = tl.load(sin + angle, mask=ok, other=0.0).to(tl.float32)
        sin_second = tl.load(sin + angle + HALF, mask=ok, other=0.0).to(tl.float32)
        if q_norm is not None:
            norm = q_norm if head < heads else k_norm
            first, second = _half_norm(first, second, norm, eps, column, ok, HALF)
        x, y = first.to(tl.float32), second.to(tl.float32)
        rotated_first = (x * cos_first - y * sin_first).to(first.dtype)
        rotated_second = (y * cos_second + x * sin_second).to(first.dtype)
        if head < heads:
            target = q + (row * heads + head) * 2 * HALF + column
            tl.store(target, rotated_first, mask=ok)
            tl.store(target + HALF, rotated_second, mask=ok)
        else:
            target = k_cache + (place * kv_heads + head - heads) * 2 * HALF + column
            tl.store(target, _finite(rotated_first), mask=ok)
            tl.store(target + HALF, _finite(rotated_second), mask=ok)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `reference.add_rms_norm`. A row has at most 64k values."""
    rows, size = x.shape
    normed = x.new_empty(rows, size)
    stream = x if residual is None else x.new_empty(rows, size)
    block = triton.next_power_of_2(size)
    launch(
        _add_rms_norm_kernel,
        (rows,),
        x,
        residual,
        weight,
        normed,
        stream,
        size,
        eps,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        BLOCK=block,
        num_warps=min(16, max(1, block // 512)),
    )
    return normed, stream


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """See `reference.silu_mul`."""
    rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, size)
    grid = (rows, -(-size // SILU_COLUMNS))
    launch(_silu_mul_kernel, grid, gate_up, out, size, gate_up.stride(0), BLOCK=SILU_COLUMNS, num_warps=4)
    return out


def store(k: torch.Tensor, v: torch.Tensor, k_cache: torch.Tensor, v_cache: torch.Tensor, layout: PagedLayout) -> None:
    """See `reference.store`. The last dimension of k and v must be contiguous."""
    rows, kv_heads, k_dim = k.shape
    v_dim = v.shape[2]
    launch(
        _store_kernel,
        (rows, kv_heads),
        k,
        v,
        k_cache,
        v_cache,
        layout.positions,
        layout.slots,
        layout.block_tables,
        layout.block_tables.stride(0),
        layout.block_size,
        kv_heads,
        *k.stride()[:2],
        *v.stride()[:2],
        K_DIM=k_dim,
        V_DIM=v_dim,
        BLOCK_K=triton.next_power_of_2(k_dim),
        BLOCK_V=triton.next_power_of_2(v_dim),
        num_warps=1,
    )


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
    """See `reference.rotate_and_store`."""
    rows = qkv.shape[0]
    kv_heads, dim = k_cache.shape[2:]
    heads = qkv.shape[1] // dim - 2 * kv_heads
    q = qkv.new_empty(rows, heads, dim)
    launch(
        _rotate_and_store_kernel,
        (rows, heads + 2 * kv_heads),
        qkv,
        cos,
        sin,
        q_norm,
        k_norm,
        q,
        k_cache,
        v_cache,
        layout.positions,
        layout.slots,
        layout.block_tables,
        qkv.stride(0),
        layout.block_tables.stride(0),
        layout.block_size,
        eps,
        heads,
        kv_heads,
        HALF=dim // 2,
        BLOCK=triton.next_power_of_2(dim // 2),
        num_warps=1,
    )
    return q
