"""The operators of Panacea: linear layers steered row by row, and attention over a paged KV cache."""

from panacea_kernels.attention import PagedLayout, Span, paged_attention
from panacea_kernels.reference import steered_linear

__all__ = ["PagedLayout", "Span", "paged_attention", "steered_linear"]
