"""Samples the next token of each row in three launches, which do not depend on the rows' sampling parameters."""

# Triton's functions have no types.
# mypy: disable-error-code="untyped-decorator, no-untyped-def, no-untyped-call"
# pyright: reportUntypedFunctionDecorator=false, reportMissingParameterType=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false

import torch
import triton
import triton.language as tl

from panacea_kernels.backend import launch

# Chosen by reasoning and from the compiler's reports, not measured on a GPU yet. A vocabulary of 128k takes 63 programs
# a row, so a single row uses half of an H200.
SCORE_TOKENS = 2048
# One program scans a whole row to find its threshold, so it is as large as fits. 2048 tokens against 8 pivots are 32
# sums a thread (82 to 88 of 128 registers). Twice the warps, or twice the tokens, spill.
THRESHOLD_TOKENS = 2048
THRESHOLD_WARPS = 16
PIVOTS = 8
# The number of low bits of a float32 that are zero for every value of these dtypes. The search skips them.
ZERO_BITS = {torch.bfloat16: 16, torch.float16: 13}


@triton.jit
def _order(values, ZERO_BITS: tl.constexpr):
    """int32 keys that sort and compare as these float32 do. Both zeros map to 0, and NaN lies beyond infinity."""
    bits = values.to(tl.int32, bitcast=True)
    magnitude = (bits & 0x7FFFFFFF) >> ZERO_BITS
    return tl.where(bits < 0, -magnitude, magnitude)


@triton.jit
def _search(
    row,
    size,
    floor,
    ceiling,
    target,
    largest,
    temperature,
    MASS: tl.constexpr,
    ZERO_BITS: tl.constexpr,
    PIVOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The largest `_order` key in [floor, ceiling] with at least `target` tokens at or above it.

    With MASS, the unnormalised probability of these tokens must reach `target` instead of their number. `floor` is
    assumed to reach it. Each pass over the row tests several pivots and reduces the interval to a ninth: at most 6
    passes for bfloat16, 11 for float32.
    """
    low = floor.to(tl.int64)  # the interval is up to 2^32 wide
    high = ceiling.to(tl.int64) + 1
    pivot_number = tl.arange(0, PIVOTS)
    while high - low > 1:
        pivots = low + (high - low) * (pivot_number + 1) // (PIVOTS + 1)
        least = pivots.to(tl.int32)[:, None]
        sums = tl.zeros((PIVOTS, BLOCK), dtype=tl.float32)  # a thread holds all pivots of its tokens
        for start in range(0, size, BLOCK):
            token = start + tl.arange(0, BLOCK)
            values = tl.load(row + token, mask=token < size, other=float("-inf")).to(tl.float32)
            if MASS:
                share = tl.exp((values - largest) / temperature)
            else:
                share = tl.full((BLOCK,), 1.0, tl.float32)
            share = tl.where(token < size, share, 0.0)
            sums += tl.where(_order(values, ZERO_BITS)[None, :] >= least, share[None, :], 0.0)
        reached = tl.sum(sums, axis=1) >= target
        low = tl.maximum(low, tl.max(tl.where(reached, pivots, low)))
        high = tl.minimum(high, tl.min(tl.where(reached, high, pivots)))
    return low.to(tl.int32)


# One compilation for any alignment: the rows' parameters may be the second row of a tensor.
@triton.jit(do_not_specialize_on_alignment=["temperatures", "top_ks", "top_ps"])
def _threshold_kernel(
    logits,
    temperatures,
    top_ks,
    top_ps,
    thresholds,
    size,
    stride,
    ZERO_BITS: tl.constexpr,
    PIVOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The smallest logit that a row keeps. It is -inf, without reading the row, if the row has no cut."""
    line = tl.program_id(0)
    row = logits + line.to(tl.int64) * stride
    temperature = tl.load(temperatures + line)
    top_k = tl.load(top_ks + line)
    top_p = tl.load(top_ps + line)
    threshold = tl.full((), float("-inf"), tl.float32)
    if (temperature > 0) & ((top_k > 0) | (top_p < 1)):
        largest = tl.full((BLOCK,), float("-inf"), tl.float32)
        for start in range(0, size, BLOCK):
            token = start + tl.arange(0, BLOCK)
            values = tl.load(row + token, mask=token < size, other=float("-inf")).to(tl.float32)
            largest = tl.maximum(largest, values)
        most = tl.max(largest)
        # The threshold cannot exceed the largest logit, so the most likely token stays even if top_p is 0. It may be:
        # 1e-50 is 0 in float32.
        ceiling = _order(most, ZERO_BITS)
        lowest = tl.full((), -(0x7FFFFFFF >> ZERO_BITS), tl.int32)
        low = lowest
        if (top_k > 0) & (top_k < size):
            low = _search(row, size, low, ceiling, top_k.to(tl.float32), 0.0, 1.0, False, ZERO_BITS, PIVOTS, BLOCK)
        if top_p < 1:
            total = tl.zeros((BLOCK,), dtype=tl.float32)
            for start in range(0, size, BLOCK):
                token = start + tl.arange(0, BLOCK)
                values = tl.load(row + token, mask=token < size, other=float("-inf")).to(tl.float32)
                kept = (token < size) & (_order(values, ZERO_BITS) >= low)
                total += tl.where(kept, tl.exp((values - most) / temperature), 0.0)
            target = top_p * tl.sum(total)
            low = _search(row, size, low, ceiling, target, most, temperature, True, ZERO_BITS, PIVOTS, BLOCK)
        bits = tl.abs(low) << ZERO_BITS
        bits = tl.where(low < 0, bits | -0x80000000, bits)
        found = bits.to(tl.float32, bitcast=True)
        threshold = tl.where(low > lowest, found, threshold)
    tl.store(thresholds + line, threshold)


@triton.jit
def _gumbel_noise(key, token):
    """See `reference.sampling.gumbel_noise`."""
    state = key.to(tl.uint64) + (token + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB
    state = state ^ (state >> 31)
    v = ((state ^ 0xFFFFFFFFFFFFFFFF) >> 11).to(tl.float32) + 0.5
    v = tl.minimum(v * 1.1102230246251565e-16, 0.99999994)
    series = v * (1 + v * (0.5 + v * (1 / 3 + v * 0.25)))  # -log1p(-v) for small v; Triton has no log1p
    exponential = tl.where(v < 0.01, series, -tl.log(1 - v))
    return -tl.log(exponential)


@triton.jit
def _best(scores, token):
    """(the best score, the lowest token id with that score)."""
    best = tl.max(scores)
    return best, tl.min(tl.where(scores == best, token, 0x7FFFFFFF))


@triton.jit(do_not_specialize_on_alignment=["temperatures", "keys"])
def _score_kernel(
    logits,
    temperatures,
    keys,
    thresholds,
    best_scores,
    best_tokens,
    size,
    stride,
    BLOCK: tl.constexpr,
):
    """The best score and token of one part of a row: BLOCK tokens."""
    line = tl.program_id(0)
    part = tl.program_id(1)
    token = part * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(logits + line.to(tl.int64) * stride + token, mask=token < size, other=float("-inf"))
    values = values.to(tl.float32)
    temperature = tl.load(temperatures + line)
    scores = values + temperature * _gumbel_noise(tl.load(keys + line), token.to(tl.int64))
    # Every comparison with NaN is false, so a NaN is never chosen.
    kept = (values >= tl.load(thresholds + line)) & (values > float("-inf")) & (scores <= float("inf"))
    best, best_token = _best(tl.where(kept, scores, float("-inf")), token)
    place = line * tl.num_programs(1) + part
    tl.store(best_scores + place, best)
    tl.store(best_tokens + place, best_token)


@triton.jit
def _pick_kernel(best_scores, best_tokens, chosen, parts, BLOCK: tl.constexpr):
    """The best token over the parts of a row."""
    line = tl.program_id(0)
    part = tl.arange(0, BLOCK)
    scores = tl.load(best_scores + line * parts + part, mask=part < parts, other=float("-inf"))
    tokens = tl.load(best_tokens + line * parts + part, mask=part < parts, other=0x7FFFFFFF)
    _, token = _best(scores, tokens)
    tl.store(chosen + line, token.to(tl.int64))


def draw(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, keys: torch.Tensor
) -> torch.Tensor:
    """See `reference.draw`. The last dimension of logits must be contiguous."""
    rows, size = logits.shape
    parts = -(-size // SCORE_TOKENS)
    thresholds = logits.new_empty(rows, dtype=torch.float32)
    best_scores = logits.new_empty(rows, parts, dtype=torch.float32)
    best_tokens = logits.new_empty(rows, parts, dtype=torch.int32)
    chosen = logits.new_empty(rows, dtype=torch.int64)
    launch(
        _threshold_kernel,
        (rows,),
        logits,
        temperature,
        top_k,
        top_p,
        thresholds,
        size,
        logits.stride(0),
        ZERO_BITS=ZERO_BITS.get(logits.dtype, 0),
        PIVOTS=PIVOTS,
        BLOCK=THRESHOLD_TOKENS,
        num_warps=THRESHOLD_WARPS,
    )
    launch(
        _score_kernel,
        (rows, parts),
        logits,
        temperature,
        keys,
        thresholds,
        best_scores,
        best_tokens,
        size,
        logits.stride(0),
        BLOCK=SCORE_TOKENS,
        num_warps=8,
    )
    launch(
        _pick_kernel,
        (rows,),
        best_scores,
        best_tokens,
        chosen,
        parts,
        BLOCK=triton.next_power_of_2(parts),
        num_warps=1,
    )
    return chosen
