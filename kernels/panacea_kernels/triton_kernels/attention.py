"""Attention over the paged cache: one kernel for single tokens and pieces of prompts, and one that merges splits."""

# Triton's functions have no types.
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import torch
import triton
import triton.language as tl

from panacea_kernels.backend import launch
from panacea_kernels.chip import chip_of
from panacea_kernels.layout import TILE_QUERIES, PagedLayout

MOST_SPLITS = 32
"""More parts of one context than this cost more to merge than they gain (by reasoning, not measured on a GPU yet)."""


@triton.jit
def _attention_kernel(
    q,
    k_cache,
    v_cache,
    out,
    partial,
    partial_max,
    partial_sum,
    positions,
    slots,
    block_tables,
    tiles,
    scaling,
    softcap,
    window,
    block_size,
    kv_heads,
    stride_q,
    stride_q_head,
    stride_tables,
    GROUP: tl.constexpr,
    K_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    TILE: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of consecutive queries of one sequence, one head of its keys, one split of its context.

    The tile's queries and the GROUP of their heads that share these keys are the rows of one product: row m is query
    m // GROUP and head m % GROUP. Keys are walked in tiles of TILE that begin at multiples of TILE, so that a query's
    numbers do not depend on which others share its tile: of a tile of keys that it sees nothing of, they stay as they
    are. With SPLITS every program leaves an unnormalised part for `_merge_kernel`.
    """
    number = tl.program_id(0)
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    if tiles is None:  # single tokens: one tile each
        first = number
        count = 1
    else:
        first = tl.load(tiles + 2 * number)
        count = tl.load(tiles + 2 * number + 1)
    slot = tl.load(slots + first).to(tl.int64)
    oldest = tl.load(positions + first)
    newest = oldest + count - 1

    line = tl.arange(0, BLOCK_M)
    query = line // GROUP
    line_ok = query < count
    own = oldest + query  # the position of each row's token
    row = (first + query).to(tl.int64)
    head = kv_head * GROUP + line % GROUP
    k_column = tl.arange(0, BLOCK_K)
    v_column = tl.arange(0, BLOCK_V)
    queries = tl.load(
        q + row[:, None] * stride_q + head[:, None] * stride_q_head + k_column[None, :],
        mask=line_ok[:, None] & (k_column[None, :] < K_DIM),
        other=0.0,
    )

    start = 0
    if window is not None:
        start = tl.maximum(oldest - window + 1, 0) // TILE * TILE
    end = newest + 1
    if SPLITS > 1:  # whole tiles for every split
        length = tl.cdiv(tl.cdiv(end - start, TILE), SPLITS) * TILE
        start += split * length
        end = tl.minimum(end, start + length)

    most = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), dtype=tl.float32)
    acc = tl.zeros((BLOCK_M, BLOCK_V), dtype=tl.float32)
    table = block_tables + slot * stride_tables
    for tile in range(start, end, TILE):
        token = tile + tl.arange(0, TILE)
        token_ok = token < end
        block = tl.load(table + token // block_size, mask=token_ok, other=0).to(tl.int64)
        place = (block * block_size + token % block_size) * kv_heads + kv_head
        keys = tl.load(
            k_cache + place[None, :] * K_DIM + k_column[:, None],
            mask=token_ok[None, :] & (k_column[:, None] < K_DIM),
            other=0.0,
        )
        scores = tl.dot(queries, keys, input_precision=PRECISION) * scaling
        if softcap is not None:
            # tanh by the exponential of a number that is not positive: nothing overflows
            fraction = scores / softcap
            power = tl.exp(-2 * tl.abs(fraction))
            tanh = (1 - power) / (1 + power)
            scores = softcap * tl.where(fraction < 0, -tanh, tanh)
        seen = line_ok[:, None] & token_ok[None, :] & (token[None, :] <= own[:, None])
        if window is not None:
            seen &= token[None, :] > own[:, None] - window
        scores = tl.where(seen, scores, float("-inf"))
        new_most = tl.maximum(most, tl.max(scores, axis=1))
        base = tl.where(new_most == float("-inf"), 0.0, new_most)  # nothing seen yet: -inf - -inf is no number
        weights = tl.exp(scores - base[:, None])
        shrink = tl.exp(most - base)
        total = total * shrink + tl.sum(weights, axis=1)
        values = tl.load(
            v_cache + place[:, None] * V_DIM + v_column[None, :],
            mask=token_ok[:, None] & (v_column[None, :] < V_DIM),
            other=0.0,
        )
        acc = tl.dot(weights.to(values.dtype), values, acc * shrink[:, None], input_precision=PRECISION)
        most = new_most

    heads = kv_heads * GROUP
    target = row * heads + head
    if SPLITS > 1:
        part = target * SPLITS + split
        tl.store(partial_max + part, most, mask=line_ok)
        tl.store(partial_sum + part, total, mask=line_ok)
        ok = line_ok[:, None] & (v_column[None, :] < V_DIM)
        tl.store(partial + part[:, None] * V_DIM + v_column[None, :], acc, mask=ok)
    else:
        total = tl.where(line_ok, total, 1.0)
        ok = line_ok[:, None] & (v_column[None, :] < V_DIM)
        result = (acc / total[:, None]).to(out.dtype.element_ty)
        tl.store(out + target[:, None] * V_DIM + v_column[None, :], result, mask=ok)


@triton.jit
def _merge_kernel(
    partial, partial_max, partial_sum, out, V_DIM: tl.constexpr, BLOCK_V: tl.constexpr, SPLITS: tl.constexpr
):
    """The parts of one row and head, added in the order of the splits. A split that saw nothing weighs nothing."""
    target = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS)
    column = tl.arange(0, BLOCK_V)
    part = target * SPLITS + split
    most = tl.load(partial_max + part)
    weight = tl.exp(most - tl.max(most))
    total = tl.sum(tl.load(partial_sum + part) * weight)
    values = tl.load(partial + part[:, None] * V_DIM + column[None, :], mask=column[None, :] < V_DIM, other=0.0)
    result = tl.sum(values * weight[:, None], axis=0) / total
    tl.store(out + target * V_DIM + column, result.to(out.dtype.element_ty), mask=column < V_DIM)


def paged_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    layout: PagedLayout,
    scaling: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """See `reference.paged_attention`. The last dimension of q is contiguous, and so are the caches."""
    rows, heads, _ = q.shape
    _, _, kv_heads, v_dim = v_cache.shape
    out = q.new_empty(rows, heads, v_dim)
    if layout.decode_rows:
        splits = decode_splits(q.device, layout, kv_heads)
        _attend(q, k_cache, v_cache, layout, scaling, sliding_window, softcap, out, tiles=None, splits=splits)
    if layout.tiles.shape[0]:
        _attend(q, k_cache, v_cache, layout, scaling, sliding_window, softcap, out, tiles=layout.tiles, splits=1)
    return out


def decode_splits(device: torch.device, layout: PagedLayout, kv_heads: int) -> int:
    """How many programs share the context of one single token: a power of two that fills the chip twice over.

    Known without a look at the sequences, whose lengths only the device knows while a CUDA graph is replayed. Not more
    than there are 64 tokens in the longest context that the tables can hold.
    """
    programs = layout.decode_rows * kv_heads
    longest = layout.block_tables.shape[1] * layout.block_size
    splits = 1
    while splits < MOST_SPLITS and programs * splits < 2 * chip_of(device).multiprocessors and longest >= 128 * splits:
        splits *= 2
    return splits


def _attend(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    layout: PagedLayout,
    scaling: float,
    sliding_window: int | None,
    softcap: float | None,
    out: torch.Tensor,
    *,
    tiles: torch.Tensor | None,
    splits: int,
) -> None:
    _, heads, k_dim = q.shape
    _, _, kv_heads, v_dim = v_cache.shape
    group = heads // kv_heads
    queries = 1 if tiles is None else TILE_QUERIES
    programs = layout.decode_rows if tiles is None else tiles.shape[0]
    block_m = max(16, triton.next_power_of_2(queries * group))
    block_k, block_v = (max(16, triton.next_power_of_2(dim)) for dim in (k_dim, v_dim))
    tile, warps, stages = _tile(block_m, max(block_k, block_v), q.element_size())
    partial = partial_max = partial_sum = None
    if splits > 1:
        partial = q.new_empty(programs, heads, splits, v_dim, dtype=torch.float32)
        partial_max = q.new_empty(programs, heads, splits, dtype=torch.float32)
        partial_sum = q.new_empty(programs, heads, splits, dtype=torch.float32)
    launch(
        _attention_kernel,
        (programs, kv_heads, splits),
        q,
        k_cache,
        v_cache,
        out,
        partial,
        partial_max,
        partial_sum,
        layout.positions,
        layout.slots,
        layout.block_tables,
        tiles,
        scaling,
        softcap,
        sliding_window,
        layout.block_size,
        kv_heads,
        *q.stride()[:2],
        layout.block_tables.stride(0),
        GROUP=group,
        K_DIM=k_dim,
        V_DIM=v_dim,
        BLOCK_M=block_m,
        BLOCK_K=block_k,
        BLOCK_V=block_v,
        TILE=tile,
        SPLITS=splits,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        num_warps=warps,
        num_stages=stages,
    )
    if splits > 1:
        launch(
            _merge_kernel,
            (programs * heads,),
            partial,
            partial_max,
            partial_sum,
            out,
            V_DIM=v_dim,
            BLOCK_V=block_v,
            SPLITS=splits,
            num_warps=2,
        )


def _tile(block_m: int, dim: int, itemsize: int) -> tuple[int, int, int]:
    """(keys at a time, warps, stages of the pipeline): within shared memory and registers by the compiler's reports.

    Not measured on a GPU yet.
    """
    if itemsize == 4:  # multiplied without tensor cores: larger tiles spill
        return 16 if dim > 64 else 32, 8 if block_m > 32 or dim > 64 else 4, 2
    return 32 if dim > 128 else 64, 8 if block_m * dim >= 64 * 128 else 4, 3
