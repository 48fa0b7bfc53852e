"""Fixtures for all tests. Nothing here needs a network."""

import os

# The tests' models are tiny; more threads only get into each other's way. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

# Without a GPU the kernels run in Triton's interpreter, where a test asks for them. Before triton is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
