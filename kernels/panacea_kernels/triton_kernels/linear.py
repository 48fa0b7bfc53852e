"""The steered linear layer: one fused launch for W0 and the low-rank path, or two GEMMs and one expand launch."""

# Triton's functions have no types.
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import functools

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from panacea_kernels.backend import MAX_RANK, Backend, BackendError, batch_invariant_now, launch
from panacea_kernels.chip import chip_of
from panacea_kernels.triton_kernels import linear_tiles

# The largest number of rows and rank for the fused kernel when no path is forced. Chosen by reasoning, not measured on
# a GPU yet: beyond them the tensor cores' work on A, done once per tile of the output, is no longer hidden behind the
# loads of W0. `panacea bench kernels` measures both paths.
FUSED_MAX_ROWS = 256
FUSED_MAX_ROWS_FLOAT32 = 16
"""float32 does not use tensor cores and has tiles of 16 rows. More rows would read W0 more than once."""
FUSED_MAX_RANK = 64


@triton.jit
def _output_tile(program, SECTIONS: tl.constexpr, BLOCK_OUT: tl.constexpr):
    """(section, first column, end of the section) of a program's tile. A tile never spans two sections."""
    section = 0
    first = 0
    end = 0
    tiles_before = 0
    columns_before = 0
    for index in tl.static_range(len(SECTIONS)):
        tile = program - tiles_before
        inside = (tile >= 0) & (tile * BLOCK_OUT < SECTIONS[index])
        section = tl.where(inside, index, section)
        first = tl.where(inside, columns_before + tile * BLOCK_OUT, first)
        end = tl.where(inside, columns_before + SECTIONS[index], end)
        tiles_before += (SECTIONS[index] + BLOCK_OUT - 1) // BLOCK_OUT
        columns_before += SECTIONS[index]
    return section, first, end


@triton.jit(do_not_specialize=["rows"])  # one compilation for every number of rows
def _fused_kernel(
    x,
    weight,
    a,
    b,
    table,
    slots,
    bias,
    y,
    partial,
    arrivals,
    rows,
    in_features,
    split_features,
    out_features,
    stride_x,
    stride_weight_out,
    stride_weight_in,
    stride_a_rank,
    stride_a_in,
    stride_b_out,
    stride_b_rank,
    stride_table,
    SECTIONS: tl.constexpr,
    RANK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile (BLOCK_ROWS, BLOCK_OUT) of y, or one split of its inner dimension.

    RANK 0 omits the low-rank path. Each split of a tile writes its part to memory. An atomic counter tells the last
    program to finish, which adds all parts in the order of the splits. So the result does not depend on which program
    is last, and no atomic operation touches the result.
    """
    section, first, end = _output_tile(tl.program_id(0), SECTIONS, BLOCK_OUT)
    row_tile = tl.program_id(1)
    split = tl.program_id(2)
    row = row_tile * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = first + tl.arange(0, BLOCK_OUT)
    inner = tl.arange(0, BLOCK_IN)
    rank = tl.arange(0, BLOCK_RANK)
    row_ok = row < rows
    column_ok = column < end
    rank_ok = rank < RANK

    x_tile = x + row.to(tl.int64)[:, None] * stride_x
    weight_tile = weight + column.to(tl.int64)[None, :] * stride_weight_out
    acc = tl.zeros((BLOCK_ROWS, BLOCK_OUT), dtype=tl.float32)
    h = tl.zeros((BLOCK_ROWS, BLOCK_RANK), dtype=tl.float32)
    split_end = tl.minimum((split + 1) * split_features, in_features)
    for start in range(split * split_features, split_end, BLOCK_IN):
        k = start + inner
        k_ok = k < split_end
        x_part = tl.load(x_tile + k[None, :], mask=row_ok[:, None] & k_ok[None, :], other=0.0)
        # The whole grid reads W0 once, so it is evicted first. Every program reads x and A.
        weight_part = tl.load(
            weight_tile + k[:, None] * stride_weight_in,
            mask=column_ok[None, :] & k_ok[:, None],
            other=0.0,
            eviction_policy="evict_first",
        )
        acc = tl.dot(x_part, weight_part, acc, input_precision=PRECISION)
        if RANK > 0:
            a_part = tl.load(
                a + (section * RANK + rank)[None, :] * stride_a_rank + k[:, None] * stride_a_in,
                mask=rank_ok[None, :] & k_ok[:, None],
                other=0.0,
            )
            h = tl.dot(x_part, a_part, h, input_precision=PRECISION)
    if RANK > 0:
        slot = tl.load(slots + row, mask=row_ok, other=0)
        w = tl.load(
            table + slot.to(tl.int64)[:, None] * stride_table + rank[None, :],
            mask=row_ok[:, None] & rank_ok[None, :],
            other=0.0,
        )
        b_part = tl.load(
            b + column.to(tl.int64)[None, :] * stride_b_out + rank[:, None] * stride_b_rank,
            mask=column_ok[None, :] & rank_ok[:, None],
            other=0.0,
        )
        acc = tl.dot((h * w).to(b_part.dtype), b_part, acc, input_precision=PRECISION)

    where = row.to(tl.int64)[:, None] * out_features + column[None, :]
    ok = row_ok[:, None] & column_ok[None, :]
    if SPLITS > 1:
        size = rows.to(tl.int64) * out_features
        tl.store(partial + split * size + where, acc, mask=ok)
        tl.debug_barrier()  # the stores of all threads happen before the one thread's count
        arrival = arrivals + row_tile * tl.num_programs(0) + tl.program_id(0)
        if tl.atomic_add(arrival, 1, sem="acq_rel") == SPLITS - 1:
            acc = tl.zeros((BLOCK_ROWS, BLOCK_OUT), dtype=tl.float32)
            for part in tl.static_range(SPLITS):
                acc += tl.load(partial + part * size + where, mask=ok, other=0.0, cache_modifier=".cg")
            if bias is not None:
                acc += tl.load(bias + column, mask=column_ok, other=0.0)[None, :].to(tl.float32)
            tl.store(y + where, acc.to(y.dtype.element_ty), mask=ok)
            tl.store(arrival, 0)  # the next launch expects zero
    else:
        if bias is not None:
            acc += tl.load(bias + column, mask=column_ok, other=0.0)[None, :].to(tl.float32)
        tl.store(y + where, acc.to(y.dtype.element_ty), mask=ok)


@triton.jit(do_not_specialize=["rows"])
def _expand_kernel(
    y,
    h,
    b,
    table,
    slots,
    rows,
    out_features,
    stride_h,
    stride_b_out,
    stride_b_rank,
    stride_table,
    SECTIONS: tl.constexpr,
    RANK: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y += (h * table[slots]) b^T in place. A program computes one tile (BLOCK_ROWS, BLOCK_OUT)."""
    section, first, end = _output_tile(tl.program_id(0), SECTIONS, BLOCK_OUT)
    row = tl.program_id(1) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = first + tl.arange(0, BLOCK_OUT)
    row_ok = row < rows
    column_ok = column < end
    where = row.to(tl.int64)[:, None] * out_features + column[None, :]
    ok = row_ok[:, None] & column_ok[None, :]
    acc = tl.load(y + where, mask=ok, other=0.0).to(tl.float32)
    slot = tl.load(slots + row, mask=row_ok, other=0).to(tl.int64)
    for start in range(0, RANK, BLOCK_RANK):
        rank = start + tl.arange(0, BLOCK_RANK)
        rank_ok = rank < RANK
        both = row_ok[:, None] & rank_ok[None, :]
        h_part = tl.load(
            h + row.to(tl.int64)[:, None] * stride_h + section * RANK + rank[None, :], mask=both, other=0.0
        ).to(tl.float32)
        w = tl.load(table + slot[:, None] * stride_table + rank[None, :], mask=both, other=0.0)
        b_part = tl.load(
            b + column.to(tl.int64)[None, :] * stride_b_out + rank[:, None] * stride_b_rank,
            mask=column_ok[None, :] & rank_ok[:, None],
            other=0.0,
        )
        acc = tl.dot((h_part * w).to(b_part.dtype), b_part, acc, input_precision=PRECISION)
    tl.store(y + where, acc.to(y.dtype.element_ty), mask=ok)


def choose_path(x: torch.Tensor, b: torch.Tensor) -> Backend:
    """The path for these inputs when none is forced."""
    most_rows = FUSED_MAX_ROWS_FLOAT32 if x.dtype == torch.float32 else FUSED_MAX_ROWS
    small = x.shape[0] <= most_rows and b.shape[1] <= FUSED_MAX_RANK
    return "triton_fused" if small or batch_invariant_now() else "triton_expand"


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x weight^T + bias in one launch of the fused kernel, without the low-rank path. x (n, in) -> (n, out)."""
    return _fused(x, weight, None, None, None, None, bias, (weight.shape[0],))


def fused(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    table: torch.Tensor,
    slots: torch.Tensor,
    bias: torch.Tensor | None = None,
    sections: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """`reference.steered_linear` in one launch. Raises `BackendError` for ranks above `MAX_RANK`."""
    if b.shape[1] > MAX_RANK:
        raise BackendError(
            f"rank {b.shape[1]} is too large: the fused kernel supports ranks up to {MAX_RANK}; use the backend 'torch'"
        )
    return _fused(x, weight, a, b, table, slots, bias, sections or (weight.shape[0],))


def _fused(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor | None,
    b: torch.Tensor | None,
    table: torch.Tensor | None,
    slots: torch.Tensor | None,
    bias: torch.Tensor | None,
    sections: tuple[int, ...],
) -> torch.Tensor:
    _check(x)
    rows, in_features = x.shape
    out_features = weight.shape[0]
    rank = 0 if b is None else b.shape[1]
    invariant = batch_invariant_now()
    chip = chip_of(x.device)
    tiles = linear_tiles.fused_tiles(rows, in_features, sections, rank, x.element_size(), chip, invariant)
    y = x.new_empty(rows, out_features)
    grid = (sum(-(-size // tiles.block_out) for size in sections), -(-rows // tiles.block_rows), tiles.splits)
    partial = arrivals = None
    if tiles.splits > 1:
        partial = x.new_empty(tiles.splits, rows, out_features, dtype=torch.float32)
        arrivals = _arrivals(x.device)
        if grid[0] * grid[1] > arrivals.numel():
            raise BackendError(f"{grid[0] * grid[1]} split tiles exceed the {arrivals.numel()} counters of this device")
    launch(
        _fused_kernel,
        grid,
        x,
        weight,
        a,
        b,
        table,
        slots,
        bias,
        y,
        partial,
        arrivals,
        rows,
        in_features,
        # A multiple of the tile, so that only the last split has a partial tile.
        -(-in_features // (tiles.splits * tiles.block_in)) * tiles.block_in,
        out_features,
        x.stride(0),
        weight.stride(0),
        weight.stride(1),
        *((0, 0) if a is None else a.stride()),
        *((0, 0) if b is None else b.stride()),
        0 if table is None else table.stride(0),
        SECTIONS=sections,
        RANK=rank,
        BLOCK_ROWS=tiles.block_rows,
        BLOCK_OUT=tiles.block_out,
        BLOCK_IN=tiles.block_in,
        BLOCK_RANK=tiles.block_rank,
        SPLITS=tiles.splits,
        PRECISION=_precision(x.dtype),
        num_warps=tiles.num_warps,
        num_stages=tiles.num_stages,
    )
    return y


def expand(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    table: torch.Tensor,
    slots: torch.Tensor,
    bias: torch.Tensor | None = None,
    sections: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """`reference.steered_linear` as two GEMMs and one launch that scales, expands and adds."""
    _check(x)
    sections = sections or (weight.shape[0],)
    y = F.linear(x, weight, bias)
    h = F.linear(x, a)
    rows, rank = x.shape[0], b.shape[1]
    # Larger tiles spill for float32, which does not use tensor cores.
    block_rows, block_out = (16 if rows <= 16 else 64, 128) if x.element_size() == 2 else (16, 64)
    launch(
        _expand_kernel,
        (sum(-(-size // block_out) for size in sections), -(-rows // block_rows)),
        y,
        h,
        b,
        table,
        slots,
        rows,
        weight.shape[0],
        h.stride(0),
        *b.stride(),
        table.stride(0),
        SECTIONS=sections,
        RANK=rank,
        BLOCK_ROWS=block_rows,
        BLOCK_OUT=block_out,
        BLOCK_RANK=min(64, max(16, triton.next_power_of_2(rank))),
        PRECISION=_precision(x.dtype),
        num_warps=4,
        num_stages=1,
    )
    return y


def _check(x: torch.Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise BackendError(f"the kernels support float32, float16 and bfloat16, not {x.dtype}")
    if x.stride(1) != 1 and x.shape[1] > 1:
        raise BackendError("the kernels need x with contiguous rows: call x.contiguous() first")


def _precision(dtype: torch.dtype) -> str:
    return "ieee" if dtype == torch.float32 else "tf32"  # 16-bit inputs are exact in either


@functools.cache
def _arrivals(device: torch.device) -> torch.Tensor:
    """Counters for the tiles of a split launch. They are zero before and after every launch.

    A device has one buffer that is never freed, so that CUDA graphs can refer to it. Tiles are split only if there are
    fewer of them than multiprocessors. Concurrent launches on several streams would share the buffer; the engine uses
    one stream.
    """
    return torch.zeros(chip_of(device).multiprocessors, dtype=torch.int32, device=device)
