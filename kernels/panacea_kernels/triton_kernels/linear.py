"""The steered linear layer: one launch that multiplies with W0 and A side by side, or an addition after a GEMM."""

# Triton's functions have no types.
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from panacea_kernels.backend import MAX_RANK, Backend, BackendError, batch_invariant_now, launch
from panacea_kernels.chip import Chip, chip_of

# The largest rank and number of rows that take the fused kernel when nothing is forced. By reasoning, not measured
# on a GPU yet: beyond them the tensor cores' work on A, done once per tile of the output, is no longer hidden behind
# the reading of W0. `panacea bench kernels` measures both paths.
FUSED_MAX_ROWS = 256
FUSED_MAX_ROWS_FLOAT32 = 16
"""float32 is multiplied without tensor cores, in tiles of 16 rows: more rows would read W0 more than once."""
FUSED_MAX_RANK = 64


@triton.jit
def _output_tile(program, SECTIONS: tl.constexpr, BLOCK_OUT: tl.constexpr):
    """(section, first column, end of the section) of a program: no tile lies in two sections."""
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
    """A tile (BLOCK_ROWS, BLOCK_OUT) of y, or of the part that one split of the inner dimension adds to it.

    RANK 0 leaves the low-rank path out. Programs of one tile that differ in their split alone hand their part to the
    one that arrives last, which adds all parts in the order of the splits, whoever it is: an atomic counter says who
    is last, none touches a number of the result.
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
        # W0 is read once by the whole grid and leaves the caches first; x and A are read by every program.
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
        tl.debug_barrier()  # all threads' stores come before the one thread's count
        arrival = arrivals + row_tile * tl.num_programs(0) + tl.program_id(0)
        if tl.atomic_add(arrival, 1, sem="acq_rel") == SPLITS - 1:
            acc = tl.zeros((BLOCK_ROWS, BLOCK_OUT), dtype=tl.float32)
            for part in tl.static_range(SPLITS):
                acc += tl.load(partial + part * size + where, mask=ok, other=0.0, cache_modifier=".cg")
            if bias is not None:
                acc += tl.load(bias + column, mask=column_ok, other=0.0)[None, :].to(tl.float32)
            tl.store(y + where, acc.to(y.dtype.element_ty), mask=ok)
            tl.store(arrival, 0)  # as the next launch expects it
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
    """y += (h * table[slots]) b^T in place, a tile (BLOCK_ROWS, BLOCK_OUT) a program."""
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


@dataclass(frozen=True)
class FusedTiles:
    """How the fused kernel is cut up."""

    block_rows: int
    block_out: int
    block_in: int
    block_rank: int
    splits: int
    num_warps: int
    num_stages: int

    def stage_bytes(self, itemsize: int) -> int:
        """Shared memory of one stage of the pipeline: a tile each of x, W0 and A."""
        return (self.block_rows + self.block_out + self.block_rank) * self.block_in * itemsize


@functools.lru_cache(maxsize=4096)
def fused_tiles(
    rows: int, in_features: int, sections: tuple[int, ...], rank: int, itemsize: int, chip: Chip, invariant: bool
) -> FusedTiles:
    """Chosen by reasoning and the compiler's reports; not measured on a GPU yet.

    Decode is bound by reading W0, so a tile takes all rows; x and A are read anew for every tile of the output, from
    L2, so that tile is as broad as leaves enough programs to fill the chip, and the inner dimension is split where
    they are too few. With `invariant` nothing depends on the number of rows: each row's sums are then formed in the
    same order whoever shares its batch.
    """
    block_rank = 0 if not rank else max(16, triton.next_power_of_2(rank))
    # Larger tiles spill: h of rank 256 beside more rows, and float32, which is multiplied without tensor cores.
    most_rows = 16 if block_rank > 64 or itemsize == 4 else 128
    block_rows = min(64 if invariant else max(16, triton.next_power_of_2(rows)), most_rows)
    broad = block_rows == 128 if block_rank <= 16 else block_rank == 64 and block_rows <= 32
    block_out = 128 if broad and itemsize == 2 else 64
    block_in = (64 if block_rows == 128 or block_rank > 64 else 128) * 2 // itemsize
    accumulators = block_rows * (block_out + block_rank)
    tiles = FusedTiles(
        block_rows=block_rows,
        block_out=block_out,
        block_in=block_in,
        block_rank=max(block_rank, 16),
        splits=1,
        num_warps=8 if accumulators >= 64 * 96 else 4,
        num_stages=4,
    )
    stages = max(1, min(4, (chip.shared_bytes - 4096) // tiles.stage_bytes(itemsize)))
    programs = sum(-(-size // block_out) for size in sections) * -(-rows // block_rows)
    splits = 1
    while not invariant and programs * splits < chip.multiprocessors and in_features // splits >= 8 * block_in:
        splits *= 2
    return FusedTiles(**{**vars(tiles), "num_stages": stages, "splits": splits})


def choose_path(x: torch.Tensor, b: torch.Tensor) -> Backend:
    """The kernel for these inputs when none is forced."""
    most_rows = FUSED_MAX_ROWS_FLOAT32 if x.dtype == torch.float32 else FUSED_MAX_ROWS
    small = x.shape[0] <= most_rows and b.shape[1] <= FUSED_MAX_RANK
    return "triton_fused" if small or batch_invariant_now() else "triton_expand"


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x weight^T + bias in one launch of the fused kernel, without a low-rank path. x (n, in) -> (n, out)."""
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
    """All of `reference.steered_linear` in one launch. Raises `BackendError` for ranks above `MAX_RANK`."""
    if b.shape[1] > MAX_RANK:
        raise BackendError(f"the fused kernel takes ranks up to {MAX_RANK}, not {b.shape[1]}")
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
    tiles = fused_tiles(rows, in_features, sections, rank, x.element_size(), chip_of(x.device), invariant)
    y = x.new_empty(rows, out_features)
    grid = (sum(-(-size // tiles.block_out) for size in sections), -(-rows // tiles.block_rows), tiles.splits)
    partial = arrivals = None
    if tiles.splits > 1:
        partial = x.new_empty(tiles.splits, rows, out_features, dtype=torch.float32)
        arrivals = _arrivals(x.device)
        if grid[0] * grid[1] > arrivals.numel():
            raise BackendError(f"{grid[0] * grid[1]} split tiles, but counters for {arrivals.numel()} only")
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
        # Whole tiles, so that no split but the last has a ragged end.
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
    """All of `reference.steered_linear` as two GEMMs and one launch that scales, expands and adds."""
    _check(x)
    sections = sections or (weight.shape[0],)
    y = F.linear(x, weight, bias)
    h = F.linear(x, a)
    rows, rank = x.shape[0], b.shape[1]
    # Larger tiles of float32, which is multiplied without tensor cores, spill.
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
        raise BackendError(f"the kernels take float32, float16 and bfloat16, not {x.dtype}")
    if x.stride(1) != 1 and x.shape[1] > 1:
        raise BackendError("the kernels need x with contiguous rows")


def _precision(dtype: torch.dtype) -> str:
    return "ieee" if dtype == torch.float32 else "tf32"  # 16-bit inputs are exact in either


@functools.cache
def _arrivals(device: torch.device) -> torch.Tensor:
    """Counters for the tiles of a split launch, all zero: every launch leaves them as it found them.

    One buffer per device for good, so that CUDA graphs may hold it. Tiles are split only where they are fewer than the
    chip has multiprocessors. Launches that run at the same time on several streams would share it: the engine uses one.
    """
    return torch.zeros(chip_of(device).multiprocessors, dtype=torch.int32, device=device)
