"""Attention over the paged cache: one kernel for decode and prefill, and one that merges splits."""

# Triton's functions have no types.
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from panacea_kernels.backend import launch
from panacea_kernels.chip import REFERENCE_CHIP, Chip, chip_of
from panacea_kernels.layout import TILE_QUERIES, PagedLayout

MOST_SPLITS = 32
"""With more splits of one context than this, merging costs more than the splits gain (by reasoning, not measured on a
GPU yet)."""

# The GPU computes powers of two. The change of base is folded into the factor of the scores, so it costs nothing.
LOG2_E = 1.4426950408889634


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
    factor,
    cap,
    window,
    kv_heads,
    stride_q,
    stride_q_head,
    stride_tables,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,
    K_DIM: tl.constexpr,
    V_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    QUERIES: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    TILE: tl.constexpr,
    SPLITS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One program: up to QUERIES consecutive queries of one sequence, HEADS of the GROUP heads that share keys, and one
    split of the keys.

    The queries and their heads are the rows of one product: row m is query m // HEADS and head m % HEADS. A tile of
    queries takes PIECES programs. Keys are read in tiles of TILE that start at multiples of TILE. A tile of keys that
    is masked for a query leaves the query's sums unchanged, so a query's result does not depend on the other queries of
    its program. If SPLITS > 1, every program writes an unnormalised part for `_merge_kernel`. Scores are logarithms to
    the base 2: q k factor, or cap tanh(q k factor).
    """
    number = tl.program_id(0)
    head_parts: tl.constexpr = (GROUP + HEADS - 1) // HEADS
    kv_head = tl.program_id(1) // head_parts
    split = tl.program_id(2)
    if tiles is None:  # decode: one query per program
        first = number
        count = 1
    else:
        before = number % PIECES * QUERIES
        first = tl.load(tiles + number // PIECES * 2) + before
        count = tl.minimum(tl.load(tiles + number // PIECES * 2 + 1) - before, QUERIES)
        if count <= 0:
            return
    slot = tl.load(slots + first).to(tl.int64)
    oldest = tl.load(positions + first)

    line = tl.arange(0, BLOCK_M)
    query = line // HEADS
    own = oldest + query  # the position of each row's token
    member = tl.program_id(1) % head_parts * HEADS + line % HEADS
    line_ok = (query < count) & (member < GROUP)
    row = (first + query).to(tl.int64)
    head = kv_head * GROUP + member
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
    end = oldest + count
    if SPLITS > 1:  # each split takes whole tiles
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
        block = tl.load(table + token // BLOCK_SIZE, mask=token_ok, other=0).to(tl.int64)
        place = (block * BLOCK_SIZE + token % BLOCK_SIZE) * kv_heads + kv_head
        keys = tl.load(
            k_cache + place[None, :] * K_DIM + k_column[:, None],
            mask=token_ok[None, :] & (k_column[:, None] < K_DIM),
            other=0.0,
        )
        scores = tl.dot(queries, keys, input_precision=PRECISION) * factor
        if cap is not None:
            # tanh from exp of a number <= 0, which cannot overflow
            power = tl.exp(-2 * tl.abs(scores))
            tanh = (1 - power) / (1 + power)
            scores = cap * tl.where(scores < 0, -tanh, tanh)
        # Tokens beyond `end` are also beyond each row's own position. Rows beyond the last query are not stored.
        seen = token[None, :] <= own[:, None]
        if window is not None:
            seen &= token[None, :] > own[:, None] - window
        scores = tl.where(seen, scores, float("-inf"))
        new_most = tl.maximum(most, tl.max(scores, axis=1))
        base = tl.where(new_most == float("-inf"), 0.0, new_most)  # all masked so far, and -inf - -inf is NaN
        weights = tl.exp2(scores - base[:, None])
        shrink = tl.exp2(most - base)
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
    ok = line_ok[:, None] & (v_column[None, :] < V_DIM)
    if SPLITS > 1:
        part = target * SPLITS + split
        tl.store(partial_max + part, most, mask=line_ok)
        tl.store(partial_sum + part, total, mask=line_ok)
        tl.store(partial + part[:, None] * V_DIM + v_column[None, :], acc, mask=ok)
    else:
        result = acc / tl.where(total == 0, 1.0, total)[:, None]
        tl.store(out + target[:, None] * V_DIM + v_column[None, :], result.to(out.dtype.element_ty), mask=ok)


@triton.jit
def _merge_kernel(
    partial, partial_max, partial_sum, out, V_DIM: tl.constexpr, BLOCK_V: tl.constexpr, SPLITS: tl.constexpr
):
    """Adds the parts of one row and head in the order of the splits. A split whose keys are all masked has weight 0."""
    target = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS)
    column = tl.arange(0, BLOCK_V)
    part = target * SPLITS + split
    most = tl.load(partial_max + part)
    largest = tl.max(most)
    weight = tl.exp2(most - tl.where(largest == float("-inf"), 0.0, largest))  # a fully masked row, as above
    total = tl.sum(tl.load(partial_sum + part) * weight)
    values = tl.load(partial + part[:, None] * V_DIM + column[None, :], mask=column[None, :] < V_DIM, other=0.0)
    result = tl.sum(values * weight[:, None], axis=0) / tl.where(total == 0, 1.0, total)
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
    """See `reference.paged_attention`. The caches must be contiguous, and so must the last dimension of q."""
    rows, heads, _ = q.shape
    _, _, kv_heads, v_dim = v_cache.shape
    out = q.new_empty(rows, heads, v_dim)
    if layout.decode_rows:
        splits = decode_splits(q.device, layout, kv_heads, sliding_window)
        _attend(q, k_cache, v_cache, layout, scaling, sliding_window, softcap, out, tiles=None, splits=splits)
    if layout.tiles.shape[0]:
        _attend(q, k_cache, v_cache, layout, scaling, sliding_window, softcap, out, tiles=layout.tiles, splits=1)
    return out


def decode_splits(device: torch.device, layout: PagedLayout, kv_heads: int, sliding_window: int | None) -> int:
    """Number of programs that share the context of one decode row: a power of two that fills the chip twice.

    It does not depend on the sequences' lengths, because only the device knows them when a CUDA graph is replayed. Each
    split has at least 64 tokens of the longest context that the block tables can hold, or of the window.
    """
    programs = layout.decode_rows * kv_heads
    longest = layout.block_tables.shape[1] * layout.block_size
    if sliding_window is not None:
        longest = min(longest, sliding_window)
    splits = 1
    while splits < MOST_SPLITS and programs * splits < 2 * chip_of(device).multiprocessors and longest >= 128 * splits:
        splits *= 2
    return splits


@dataclass(frozen=True)
class AttentionTiles:
    """The tile sizes of one program, and its compile options."""

    queries: int
    heads: int
    """Heads that share keys and are computed together: the whole group, unless it is very large."""
    lines: int
    """Rows of the product: queries times heads, padded to a size that tensor cores support."""
    keys: int
    """Keys per tile."""
    num_warps: int
    num_stages: int


def attention_tiles(chip: Chip, most_queries: int, group: int, dim: int, itemsize: int) -> AttentionTiles:
    """The tiles for up to `most_queries` queries of `group` heads that share keys. `dim` is a power of two.

    Chosen by reasoning and from the reports of Triton 3.6 and 3.9's compilers, not measured on a GPU yet. The tiles are
    as large as the registers allow. float32 does not use tensor cores and spills sooner. 64 lines get four warps where
    four suffice: a warp of Hopper's matrix product takes 16 lines, so eight warps would do the same work twice. With
    five stages the keys of one tile are loaded while another is computed. With three or four stages there is only one
    buffer, because the blocks are looked up first.
    """
    most_lines = max(16, min(32, 32 * 128 // dim) if itemsize == 4 else min(128, 128 * 128 // dim))
    if dim > 256:
        most_lines = 16
    heads = triton.cdiv(group, triton.cdiv(group, most_lines))
    queries = 1
    while queries < most_queries and 2 * queries * heads <= most_lines:
        queries *= 2
    lines = max(16, triton.next_power_of_2(queries * heads))
    if itemsize == 4:
        keys, warps, buffers = 16, 8 if lines * dim >= 16 * 128 else 4, 2
    else:
        keys = 32 if dim <= 256 else 16
        warps = 8 if lines >= 128 or lines * dim >= 64 * 256 or dim > 256 else 4
        buffers = 3 if lines >= 64 else 2  # Hopper's asynchronous products keep one more in use
    # Limited to the reference chip of the ahead-of-time check, so that the check compiles what runs. 4 KiB are spare.
    shared_bytes = min(chip.shared_bytes, REFERENCE_CHIP.shared_bytes) - 4096
    needed = (2 * buffers * keys + lines) * dim * itemsize
    return AttentionTiles(queries, heads, lines, keys, warps, 5 if needed <= shared_bytes else 3)


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
    most_queries = 1 if tiles is None else TILE_QUERIES
    programs = layout.decode_rows if tiles is None else tiles.shape[0]
    block_k, block_v = (max(16, triton.next_power_of_2(dim)) for dim in (k_dim, v_dim))
    chosen = attention_tiles(chip_of(q.device), most_queries, group, max(block_k, block_v), q.element_size())
    pieces = most_queries // chosen.queries
    partial = partial_max = partial_sum = None
    if splits > 1:
        partial = q.new_empty(programs, heads, splits, v_dim, dtype=torch.float32)
        partial_max = q.new_empty(programs, heads, splits, dtype=torch.float32)
        partial_sum = q.new_empty(programs, heads, splits, dtype=torch.float32)
    launch(
        _attention_kernel,
        (programs * pieces, kv_heads * triton.cdiv(group, chosen.heads), splits),
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
        scaling * LOG2_E if softcap is None else scaling / softcap,
        None if softcap is None else softcap * LOG2_E,
        sliding_window,
        kv_heads,
        *q.stride()[:2],
        layout.block_tables.stride(0),
        BLOCK_SIZE=layout.block_size,
        GROUP=group,
        K_DIM=k_dim,
        V_DIM=v_dim,
        HEADS=chosen.heads,
        QUERIES=chosen.queries,
        PIECES=pieces,
        BLOCK_M=chosen.lines,
        BLOCK_K=block_k,
        BLOCK_V=block_v,
        TILE=chosen.keys,
        SPLITS=splits,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        num_warps=chosen.num_warps,
        num_stages=chosen.num_stages,
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
