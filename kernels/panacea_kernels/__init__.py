"""Panacea's operators: linear layers steered row by row, and the other operators of a decoder layer."""

from panacea_kernels.backend import (
    MAX_RANK,
    Backend,
    BackendError,
    batch_invariant,
    batch_invariant_now,
    intercept_launches,
    interpreting,
    launch,
    record_launches,
    use_backend,
)
from panacea_kernels.layout import TILE_QUERIES, PagedLayout, QueryChunk, Span
from panacea_kernels.operators import (
    add_rms_norm,
    draw,
    linear,
    paged_attention,
    rotate_and_store,
    silu_mul,
    steered_linear,
    store,
)

__all__ = [
    "MAX_RANK",
    "TILE_QUERIES",
    "Backend",
    "BackendError",
    "PagedLayout",
    "QueryChunk",
    "Span",
    "add_rms_norm",
    "batch_invariant",
    "batch_invariant_now",
    "draw",
    "intercept_launches",
    "interpreting",
    "launch",
    "linear",
    "paged_attention",
    "record_launches",
    "rotate_and_store",
    "silu_mul",
    "steered_linear",
    "store",
    "use_backend",
]
