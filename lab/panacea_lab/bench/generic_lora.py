"""The competitor of `steered_linear`: a base GEMM, then shrink and expand as servers of many LoRA adapters launch them.

    y = x weight^T                      the library's GEMM
    h = x a^T                           shrink: all sections at once, the inner dimension split over programs
    y += (h * table[slots]) b^T         expand: adds up the splits, scales, adds to y

Plain, and kinder than what it stands for: A and B are shared by all rows instead of gathered for each, and the splits
are added where h is read, so that no launch is needed to zero h and nothing is added atomically.
"""

# Triton's functions have no types, and its constants are upper case, as the field writes them.
# ruff: noqa: N803
# mypy: disable-error-code="untyped-decorator, no-untyped-def"
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false, reportUnknownMemberType=false
# pyright: reportGeneralTypeIssues=false, reportArgumentType=false

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from panacea_kernels import launch

SHRINK_SPLITS = 8
"""Programs that share the inner dimension of one row tile: without, a decode step's shrink would be one program."""


@triton.jit(do_not_specialize=["rows"])
def _shrink_kernel(
    x,
    a,
    h,
    rows,
    in_features,
    columns,
    split_features,
    stride_x,
    stride_a,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """h[split] = x a^T over one split of the inner dimension; h (splits, rows, columns) float32."""
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    column = tl.program_id(1) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    split = tl.program_id(2)
    inner = tl.arange(0, BLOCK_IN)
    row_ok = row < rows
    column_ok = column < columns
    acc = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
    end = tl.minimum((split + 1) * split_features, in_features)
    for start in range(split * split_features, end, BLOCK_IN):
        k = start + inner
        k_ok = k < end
        x_part = tl.load(x + row[:, None] * stride_x + k[None, :], mask=row_ok[:, None] & k_ok[None, :], other=0.0)
        a_part = tl.load(
            a + column[None, :] * stride_a + k[:, None], mask=column_ok[None, :] & k_ok[:, None], other=0.0
        )
        acc = tl.dot(x_part, a_part, acc, input_precision=PRECISION)
    where = (split * rows + row[:, None]) * columns + column[None, :]
    tl.store(h + where, acc, mask=row_ok[:, None] & column_ok[None, :])


@triton.jit(do_not_specialize=["rows"])
def _expand_kernel(
    y,
    h,
    b,
    table,
    slots,
    rows,
    out_features,
    columns,
    stride_table,
    SECTIONS: tl.constexpr,
    RANK: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
    BLOCK_RANK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """y += (h * table[slots]) b^T for one section, with its own columns of h. The largest section sets the grid."""
    section = tl.program_id(2)
    first_column = 0
    end_column = 0
    columns_before = 0
    for index in tl.static_range(len(SECTIONS)):
        first_column = tl.where(section == index, columns_before, first_column)
        end_column = tl.where(section == index, columns_before + SECTIONS[index], end_column)
        columns_before += SECTIONS[index]
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    out = first_column + tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    rank = tl.arange(0, BLOCK_RANK)
    row_ok = row < rows
    out_ok = out < end_column
    rank_ok = rank < RANK
    both = row_ok[:, None] & rank_ok[None, :]
    scaled = tl.zeros((BLOCK_ROWS, BLOCK_RANK), dtype=tl.float32)
    for split in range(SPLITS):  # not unrolled: the loads of all splits at once would spill
        where = (split * rows + row[:, None]) * columns + section * RANK + rank[None, :]
        scaled += tl.load(h + where, mask=both, other=0.0)
    slot = tl.load(slots + row, mask=row_ok, other=0)
    scaled *= tl.load(table + slot[:, None] * stride_table + rank[None, :], mask=both, other=0.0)
    b_part = tl.load(b + out[None, :] * RANK + rank[:, None], mask=out_ok[None, :] & rank_ok[:, None], other=0.0)
    where = row[:, None] * out_features + out[None, :]
    ok = row_ok[:, None] & out_ok[None, :]
    acc = tl.load(y + where, mask=ok, other=0.0).to(tl.float32)
    acc = tl.dot(scaled.to(b_part.dtype), b_part, acc, input_precision=PRECISION)
    tl.store(y + where, acc.to(y.dtype.element_ty), mask=ok)


def generic_lora(
    x: torch.Tensor,
    weight: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    table: torch.Tensor,
    slots: torch.Tensor,
    bias: torch.Tensor | None = None,
    sections: tuple[int, ...] | None = None,
) -> torch.Tensor:
    """Signature and numbers of `panacea_kernels.steered_linear`, for contiguous inputs."""
    y = F.linear(x, weight, bias)
    rows, in_features = x.shape
    rank, columns = b.shape[1], a.shape[0]
    sizes = sections or (weight.shape[0],)
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    block_rows = 16 if rows <= 16 else 32
    block_in = 128
    row_tiles = -(-rows // block_rows)
    splits = max(1, min(SHRINK_SPLITS, in_features // block_in))
    h = x.new_empty(splits, rows, columns, dtype=torch.float32)
    block_columns = min(64, max(16, triton.next_power_of_2(columns)))
    launch(
        _shrink_kernel,
        (row_tiles, -(-columns // block_columns), splits),
        x,
        a,
        h,
        rows,
        in_features,
        columns,
        -(-in_features // (splits * block_in)) * block_in,
        x.stride(0),
        a.stride(0),
        BLOCK_ROWS=block_rows,
        BLOCK_IN=block_in,
        BLOCK_COLUMNS=block_columns,
        PRECISION=precision,
        num_warps=4,
        num_stages=3,
    )
    launch(
        _expand_kernel,
        (row_tiles, -(-max(sizes) // 128), len(sizes)),
        y,
        h,
        b,
        table,
        slots,
        rows,
        weight.shape[0],
        columns,
        table.stride(0),
        SECTIONS=sizes,
        RANK=rank,
        SPLITS=splits,
        BLOCK_ROWS=block_rows,
        BLOCK_OUT=128,
        BLOCK_RANK=max(16, triton.next_power_of_2(rank)),
        PRECISION=precision,
        num_warps=4,
        num_stages=1,
    )
    return y
