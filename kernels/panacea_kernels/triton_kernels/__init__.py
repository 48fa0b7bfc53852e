"""The operators as Triton kernels. These modules import triton, so `operators` imports them on the first use."""

import os

# Multiply-adds are fused, as in cuBLAS. Triton 3.9 warns if this is unset, because its default will change.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
