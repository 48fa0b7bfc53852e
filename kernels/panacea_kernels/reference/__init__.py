"""The definition of every operator in plain torch. The kernels are tested against it, and a CPU runs it."""

from panacea_kernels.reference.attention import paged_attention, store
from panacea_kernels.reference.decoder import add_rms_norm, rms_norm, rotate_and_store, silu_mul
from panacea_kernels.reference.linear import steered_linear
from panacea_kernels.reference.sampling import draw

__all__ = [
    "add_rms_norm",
    "draw",
    "paged_attention",
    "rms_norm",
    "rotate_and_store",
    "silu_mul",
    "steered_linear",
    "store",
]
