"""The operators as Triton kernels. Importing this imports triton: only `operators` does, when a kernel is due."""

import os

# Multiply-adds are fused, as in cuBLAS. Triton 3.9 warns where this is left to its default, which is about to change.
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
